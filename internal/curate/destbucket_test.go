package curate

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/store"
	"surprisal/internal/testkit/fakescores"
	"surprisal/internal/testkit/storetest"
)

// faultyS3 starts a server that is reached through a connection which fails once
// in twenty requests.
func faultyS3(t *testing.T) (*storetest.Server, *storetest.Proxy) {
	t.Helper()
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	rng := rand.New(rand.NewPCG(11, 11)) // the proxy calls one at a time
	faults := []storetest.Fault{storetest.Busy, storetest.Reset, storetest.Short, storetest.Lost}
	p.Fail(func(int, *http.Request) storetest.Fault {
		if rng.IntN(20) == 0 {
			return faults[rng.IntN(len(faults))]
		}
		return storetest.None
	})
	storetest.Setenv(t, map[string]string{"AWS_ENDPOINT_URL": p.URL})
	return s, p
}

// sameAsFolder compares what is below a prefix with a folder; all says that all
// of it must be there. _SUCCESS and _made_by.json name the places.
func sameAsFolder(t *testing.T, s *storetest.Server, prefix, dir string, all bool) {
	t.Helper()
	want := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		a, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want++
		b := s.Get(t, prefix+"/"+filepath.ToSlash(rel))
		if b == nil && all {
			t.Errorf("%s is not there", rel)
		}
		if b != nil && rel != score.SuccessName && !bytes.Equal(a, b) {
			t.Errorf("%s has other bytes than in a folder", rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := s.Keys(t, prefix+"/")
	if all && len(keys) != want || len(keys) > want {
		t.Errorf("%d files in the bucket, %d in the folder: %v", len(keys), want, keys)
	}
	if n := s.Uploads(t); n != 0 {
		t.Errorf("%d unfinished uploads", n)
	}
}

// TestDestInBucket writes each layout into a bucket through a connection that
// fails: the bytes are those of a folder.
func TestDestInBucket(t *testing.T) {
	lines := linesCorpus(t, ".jsonl.gz", fakescores.Options{})
	s, _ := faultyS3(t)
	c := scored(t, demo, fakescores.Options{})
	for name, do := range map[string]func(to string) error{
		"lines": func(to string) error {
			_, err := lines.Filter(t.Context(), FilterOptions{Where: "perplexity < p60", By: []string{"meta.dump"},
				To:         to,
				WithScores: true})
			return err
		},
		"filter": func(to string) error {
			_, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < p60", By: []string{"dump"}, To: to,
				WithScores: true})
			return err
		},
		"column": func(to string) error {
			_, err := c.Bucket(t.Context(), BucketOptions{As: "column", To: to})
			return err
		},
		"folders": func(to string) error {
			_, err := c.Bucket(t.Context(), BucketOptions{As: "folders", To: to})
			return err
		},
		"merged": func(to string) error {
			_, err := c.Export(t.Context(), ExportOptions{As: "merged", To: to})
			return err
		},
		"sidecar": func(to string) error {
			_, err := c.Export(t.Context(), ExportOptions{As: "sidecar", To: to})
			return err
		},
		"dolma": func(to string) error {
			_, err := c.Export(t.Context(), ExportOptions{As: "dolma",
				To: to})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dest")
			if err := do(dir); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second finds all there
				if err := do(storetest.URL("kept/" + name)); err != nil {
					t.Fatal(err)
				}
				sameAsFolder(t, s, "kept/"+name, dir, true)
			}
			// A torn file is replaced.
			for _, key := range s.Keys(t, "kept/"+name+"/") {
				if strings.HasSuffix(key, ".parquet") {
					s.Put(t, key, []byte("torn"))
				}
			}
			if err := do(storetest.URL("kept/" + name)); err != nil {
				t.Fatal(err)
			}
			sameAsFolder(t, s, "kept/"+name, dir, true)
		})
	}
}

// TestKilledInBucket kills filters that write to a bucket at any moment, while
// one request in twenty fails.
func TestKilledInBucket(t *testing.T) {
	s, _ := faultyS3(t)
	c := scored(t, demo, fakescores.Options{})
	want := filepath.Join(t.TempDir(), "whole")
	if _, err := c.Filter(t.Context(), killedOptions(want)); err != nil {
		t.Fatal(err)
	}
	to, killed := storetest.URL("kept"), 0
	for i := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "CURATE_TEST_OUT="+c.Dir, "CURATE_TEST_TO="+to)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(20+15*i)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		if cmd.Wait() != nil {
			killed++
		}
		timer.Stop()
		sameAsFolder(t, s, "kept", want, false)
	}
	t.Logf("%d killed, %d files there", killed, len(s.Keys(t, "kept/")))
	if _, err := c.Filter(t.Context(), killedOptions(to)); err != nil {
		t.Fatal(err)
	}
	sameAsFolder(t, s, "kept", want, true)
}

// TestDestMistakes: what can't be a DEST is one line that says what to do.
func TestDestMistakes(t *testing.T) {
	s := storetest.S3(t)
	s.Put(t, "full/x", []byte("x"))
	s.Put(t, "hidden/.x", []byte("x"))
	for name, body := range demoFiles(t) {
		s.Put(t, "in/fw/"+name, body)
	}
	out := storetest.URL("scores/run")
	if _, err := fakescores.Write(t.Context(), []string{storetest.URL("in/fw")}, out,
		fakescores.Options{JobTokens: 20_000}); err != nil {
		t.Fatal(err)
	}
	c, err := Open(t.Context(), out, false)
	if err != nil {
		t.Fatal(err)
	}
	filter := func(to string) error {
		_, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < 30", To: to})
		return err
	}
	for to, says := range map[string]string{
		storetest.URL("full"):                           "is not empty",
		storetest.URL("scores/run/kept"):                "inside the scores",
		storetest.URL("scores/run/x?region=us-east-1"):  "inside the scores",
		storetest.URL("scores"):                         "holds the scores",
		storetest.URL("in"):                             "holds the input",
		storetest.URL("in/fw"):                          "holds the input",
		"s3://" + storetest.Bucket:                      "holds the scores",
		"s3://nobucket/kept":                            "bucket nobucket not found",
		"https://127.0.0.1/kept":                        "not possible",
		"hf://datasets/a/b/kept":                        "not possible",
		"ftp://h/kept":                                  "are supported",
		storetest.URL("kept?anonymous=true"):            "denied",
		storetest.URL("kept") + "?X-Amz-Signature=5ec7": "signed URLs",
	} {
		if err := filter(to); !isUsage(err) || !strings.Contains(err.Error(), says) ||
			strings.Contains(err.Error(), "5ec7") {
			t.Errorf("%s: %v", to, err)
		} else {
			t.Log(err)
		}
	}
	if err := errors.Join(filter(storetest.URL("hidden")), filter(storetest.URL("in/fw/kept"))); err != nil {
		t.Error(err)
	}
	if _, err := c.Filter(t.Context(), FilterOptions{Where: "perplexity < 31",
		To: storetest.URL("hidden")}); !isUsage(err) || !strings.Contains(err.Error(), "another command") {
		t.Errorf("another filter into the same place: %v", err)
	}
}

func demoFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(demo, "*.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		if files[filepath.Base(p)], err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestElsewhere has inputs, scores and DEST in buckets of other kinds.
func TestElsewhere(t *testing.T) {
	for scheme, start := range map[string]func(testing.TB){"gs": storetest.GS, "az": storetest.AZ} {
		t.Run(scheme, func(t *testing.T) {
			start(t)
			ctx := t.Context()
			root := scheme + "://" + storetest.Bucket
			for name, body := range demoFiles(t) {
				if _, err := store.PutBytes(ctx, root+"/in/"+name, body, store.Condition{}); err != nil {
					t.Fatal(err)
				}
			}
			o := fakescores.Options{JobTokens: 20_000}
			if _, err := fakescores.Write(ctx, []string{root + "/in"}, root+"/out", o); err != nil {
				t.Fatal(err)
			}
			there, err := Open(ctx, root+"/out", false)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "kept")
			if _, err := there.Filter(ctx, killedOptions(dir)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if _, err := there.Filter(ctx, killedOptions(root+"/kept")); err != nil {
					t.Fatal(err)
				}
			}
			n := 0
			for info, err := range store.List(ctx, root+"/kept") {
				if err != nil {
					t.Fatal(err)
				}
				n++
				rel := place.Rel(root+"/kept", info.Name)
				if !strings.HasSuffix(rel, ".parquet") {
					continue
				}
				f, err := store.Open(ctx, info.Name)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, f.Size)
				if _, err := f.Reader(ctx).ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				if want, err := os.ReadFile(filepath.Join(dir, rel)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, in a folder %d, not the same (%v)", rel, len(got), len(want), err)
				}
			}
			if n != 4 {
				t.Errorf("%d files in %s/kept", n, root)
			}
		})
	}
}
