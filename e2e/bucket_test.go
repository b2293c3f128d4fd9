package e2e

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"surprisal/internal/score"
	"surprisal/internal/testkit/storetest"
)

// TestBucketRunGoesOn scores a corpus from a bucket into a bucket, while one
// request in twenty fails in some way and the whole of `dispatcher run` is killed
// over and over: the scores are those of local folders.
func TestBucketRunGoesOn(t *testing.T) {
	s := storetest.S3(t)
	in := filepath.Join(demoCorpus, "001_00000.parquet")
	flags := []string{"--model", demoModel, "--job-tokens", "4000", "--workers", "2", "--threads", "1"}
	calm := filepath.Join(t.TempDir(), "calm")
	dispatcher(t, append(append([]string{"run"}, flags...), "--out", calm, filepath.Dir(in)+"/001*.parquet")...).want(t,
		0)
	want := scores(t, calm)

	body, err := os.ReadFile(in)
	if err != nil {
		t.Fatal(err)
	}
	s.Put(t, "fw/001_00000.parquet", body)
	s.Put(t, "fw/notes.txt", []byte("not parquet"))
	p := storetest.NewProxy(t, s.URL)
	rng := rand.New(rand.NewPCG(3, 3))
	faults := []storetest.Fault{storetest.Busy, storetest.Reset, storetest.Short, storetest.Lost, storetest.Throttle}
	p.Fail(func(int, *http.Request) storetest.Fault {
		if rng.IntN(20) == 0 {
			return faults[rng.IntN(len(faults))]
		}
		return storetest.None
	})
	storetest.Setenv(t, map[string]string{"AWS_ENDPOINT_URL": p.URL})
	out := storetest.URL("scores/run")
	args := append(append([]string{"run"}, flags...), "--out", out, storetest.URL("fw/**/*.parquet"))
	committed := func() (n int) {
		for _, k := range s.Keys(t, "scores/run/") {
			if strings.Contains(k, "/rows-") {
				n++
			}
		}
		return n
	}
	kills := 4
	if testing.Short() {
		kills = 2
	}
	for range kills {
		cmd, r := start(t, nil, "dispatcher", args...)
		n := committed()
		waitFor(t, "one more committed, or the end", func() bool { return committed() > n || !alive(cmd.Process.Pid) })
		if err := cmd.Process.Kill(); err != nil {
			t.Log(err) // it was faster
		}
		wait(t, cmd, r)
	}
	had := committed()
	sum := parseSummary(t, dispatcher(t, append(args, "--json")...).want(t, 0))
	t.Logf("%d of %d files were there after %d kills; %d of %d tokens were scored in the last run", had, committed(),
		kills, sum.ScoredTokens, sum.Tokens)
	if !sum.Complete || had == 0 {
		t.Errorf("%+v", sum)
	}
	sameScores(t, want, scores(t, out))
	if n := s.Uploads(t); n != 0 {
		t.Errorf("%d unfinished uploads", n)
	}
	for _, k := range s.Keys(t, "scores/") {
		if strings.Contains(k, ".tmp") || strings.HasSuffix(k, ".lock") {
			t.Errorf("left behind: %s", k)
		}
	}
	manifest := string(s.Get(t, "scores/run/"+score.ManifestName))
	if strings.Contains(manifest, storetest.SecretKey) || strings.Contains(manifest, storetest.AccessKey) {
		t.Error("the manifest holds a credential")
	}
	// Once more: nothing to do.
	if again := parseSummary(t, dispatcher(t, append(args, "--json")...).want(t, 0)); again.ScoredTokens != 0 ||
		!again.Complete {
		t.Errorf("again: %+v", again)
	}
	// What comes after scoring reads inputs and scores where they lie, and writes
	// there, killed or not, what it writes to a folder.
	filter := func(from, to string) []string {
		return []string{"filter", from, "--where", "perplexity < p60", "--by", "dump", "--with-scores", "--to", to}
	}
	kept := func(dir string) []byte {
		dispatcher(t, filter(dir, dir+"-kept")...).want(t, 0)
		b, err := os.ReadFile(filepath.Join(dir+"-kept", "001_00000.parquet"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	to := storetest.URL("kept/here")
	for i := range 5 {
		cmd, r := start(t, nil, "dispatcher", filter(out, to)...)
		time.Sleep(time.Duration(30+40*i) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Log(err) // it was faster
		}
		wait(t, cmd, r)
	}
	dispatcher(t, filter(out, to)...).want(t, 0)
	folders, bucket := kept(calm), s.Get(t, "kept/here/001_00000.parquet")
	pages := func(b []byte) []byte { // the footer names the run
		return b[:len(b)-8-int(binary.LittleEndian.Uint32(b[len(b)-8:]))]
	}
	if len(bucket) < 12 || !bytes.Equal(pages(folders), pages(bucket)) {
		t.Errorf("filtered in the bucket: %d bytes, in folders %d, not the same", len(bucket), len(folders))
	}
	local := filepath.Join(t.TempDir(), "local")
	dispatcher(t, filter(out, local)...).want(t, 0)
	if b, err := os.ReadFile(filepath.Join(local, "001_00000.parquet")); err != nil || !bytes.Equal(b, bucket) {
		t.Errorf("the same scores filtered into a folder: %d bytes, into the bucket %d, not the same (%v)", len(b),
			len(bucket), err)
	}
	if keys := s.Keys(t, "kept/"); len(keys) != 3 || s.Uploads(t) != 0 {
		t.Errorf("in the bucket: %v, %d unfinished uploads", keys, s.Uploads(t))
	}
	dispatcher(t, "report", out, "--no-tokens").want(t, 0)
	if page := s.Get(t, "scores/run/report.html"); !bytes.Contains(page, []byte("<html")) {
		t.Errorf("a report of %d bytes in the bucket", len(page))
	}
	// A changed input is refused, in one line.
	s.Put(t, "fw/001_00000.parquet", append(body[:len(body):len(body)], 0))
	r := dispatcher(t, args...).want(t, 2)
	says(t, r.stderr, "has changed since run")
	oneErrorLine(t, r)
}

func oneErrorLine(t *testing.T, r *result) {
	t.Helper()
	if n := strings.Count(r.stderr, "error:"); n != 1 || strings.Contains(r.stderr, "goroutine") ||
		strings.Count(strings.TrimSpace(r.stderr), "\n") > 0 {
		t.Errorf("not one line:\n%s", r.stderr)
	}
}

// TestBucketMistakes: one line each that names what to do, and exit code 2, or
// the file's own failure and exit code 1.
func TestBucketMistakes(t *testing.T) {
	s := storetest.S3(t)
	body, err := os.ReadFile(filepath.Join(demoCorpus, "001_00000.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	s.Put(t, "in/a.parquet", body)
	s.Put(t, "torn/a.parquet", body[:1000])
	in, out := storetest.URL("in"), storetest.URL("out")
	for name, tc := range map[string]struct {
		args []string
		env  map[string]string
		code int
		says string
	}{
		"wrong bucket": {[]string{"--out", out, "s3://nobucket/in"}, nil, 2, "bucket nobucket not found: check the name"},
		"wrong out":    {[]string{"--out", "s3://nobucket/out", in}, nil, 2, "bucket nobucket not found: check the name"},
		"no file":      {[]string{"--out", out, storetest.URL("nothing.parquet")}, nil, 2, "check the name"},
		"no credentials": {[]string{"--out", out, in}, map[string]string{"AWS_ACCESS_KEY_ID": "",
			"AWS_SECRET_ACCESS_KEY": ""}, 2, "set AWS_ACCESS_KEY_ID"},
		"denied": {[]string{"--out", out, in}, map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong"}, 2,
			"access denied"},
		"read only": {[]string{"--out", "https://127.0.0.1/out", in}, nil, 2, "not possible with a https URL"},
		"secret":    {[]string{"--out", out, "https://h/a.parquet?X-Amz-Signature=5ec7e7"}, nil, 2, "signed URLs are refused"},
		"column":    {[]string{"--out", storetest.URL("out-column"), "--text-column", "nope", in}, nil, 1, "nope"},
		"torn":      {[]string{"--out", storetest.URL("out-torn"), storetest.URL("torn")}, nil, 1, "truncated"},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Setenv(t, tc.env)
			r := dispatcher(t, append([]string{"run", "--model", demoModel}, tc.args...)...).want(t, tc.code)
			says(t, r.stderr+r.stdout, tc.says)
			if tc.code == 2 {
				oneErrorLine(t, r)
			}
			if strings.Contains(r.stderr+r.stdout, "5ec7e7") {
				t.Error("a secret is told")
			}
		})
	}
}

// TestHubRun scores a data set of the hub with a model of the hub, by workers
// that a queue feeds.
func TestHubRun(t *testing.T) {
	h := storetest.NewHub(t, nil)
	h.LinkUses = 3
	model := map[string][]byte{"README.md": []byte("a model")}
	entries, err := os.ReadDir(demoModel)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(demoModel, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		model["checkpoints/checkpoint-10B/"+e.Name()] = b
	}
	h.Commit("models", "org/private-model", model)
	b, err := os.ReadFile(filepath.Join(demoCorpus, "001_00000.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	h.Commit("datasets", "org/fineweb", map[string][]byte{"data/CC-1/001_00000.parquet": b, "data/README.md": nil})

	out := filepath.Join(t.TempDir(), "out")
	args := []string{"run", "--model", "hf://org/private-model/checkpoints/checkpoint-10B", "--out", out, "hf://datasets/org/fineweb/data/CC-1"}
	r := dispatcher(t, args...).want(t, 2)
	says(t, r.stderr, "set HF_TOKEN")
	oneErrorLine(t, r)
	storetest.Setenv(t, map[string]string{"HF_TOKEN": h.Token})
	dispatcher(t, args...).want(t, 0)
	sameScores(t, demoScores(t, "001_00000.parquet"), scores(t, out))
	// A commit that leaves the file as it is changes nothing.
	h.Commit("datasets", "org/fineweb", map[string][]byte{"data/CC-1/001_00000.parquet": b,
		"data/README.md": []byte("new")})
	if sum := parseSummary(t, dispatcher(t, append(args, "--json")...).want(t, 0)); sum.ScoredTokens != 0 ||
		!sum.Complete {
		t.Errorf("after another commit: %+v", sum)
	}
	manifest, err := os.ReadFile(filepath.Join(out, score.ManifestName))
	if err != nil || strings.Contains(string(manifest), h.Token) || !strings.Contains(string(manifest), "hf://datasets/org/fineweb@") {
		t.Errorf("manifest (%v): %s", err, manifest)
	}
}
