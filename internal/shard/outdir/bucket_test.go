package outdir

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/place"
	"surprisal/internal/score"
	"surprisal/internal/shard"
	"surprisal/internal/testkit/shardtest"
	"surprisal/internal/testkit/storetest"
)

// TestBucketCommit publishes into a bucket: once, the same again, and others' scores.
func TestBucketCommit(t *testing.T) {
	s := storetest.S3(t)
	p := storetest.NewProxy(t, s.URL)
	local := shardtest.Job(t, shardtest.Fixtures(t, "required")[0], t.TempDir(), shardtest.TextOptions(), 0, 99)
	if _, err := writeJob(t, local, nil); err != nil {
		t.Fatal(err)
	}
	want := shardtest.Read(t, filepath.Join(local.Out, local.Output))
	out := "s3://" + storetest.Bucket + "/out?endpoint=" + p.URL
	job := shardtest.Job(t, shardtest.Fixtures(t, "required")[0], out, shardtest.TextOptions(), 0, 99)
	key := "out/" + job.Output
	// The first answer is lost: the file is there, and the attempt finds it.
	p.Fail(func(n int, r *http.Request) storetest.Fault {
		if n == 0 && r.Method == http.MethodPut {
			return storetest.Lost
		}
		return storetest.None
	})
	if c, err := writeJob(t, job, nil); err != nil || !c.Existed {
		t.Fatalf("%+v (%v)", c, err)
	}
	if !bytes.Equal(s.Get(t, key), want) {
		t.Error("a bucket has other bytes than a folder")
	}
	if c, err := writeJob(t, job, nil); err != nil || !c.Existed {
		t.Fatalf("again: %+v (%v)", c, err)
	}
	_, err := writeJob(t, job, func(s *score.Score) { s.SumNLL++ })
	if !errors.Is(err, shard.ErrConflict) || !strings.Contains(err.Error(), "digest") {
		t.Fatalf("other scores: %v", err)
	}
	if !bytes.Equal(s.Get(t, key), want) {
		t.Error("what was there was touched")
	}
	s.Put(t, key, []byte("torn"))
	if c, err := writeJob(t, job, nil); err != nil || c.Existed {
		t.Fatalf("over a torn file: %+v (%v)", c, err)
	}
	if c, err := shard.Inspect(t.Context(), place.Join(out, job.Output)); err != nil || c.Job != job.ID {
		t.Fatalf("%+v (%v)", c, err)
	}
	rows := 0
	if err := shard.ReadScores(t.Context(), place.Join(out, job.Output),
		func(score.Score) error { rows++; return nil }); err != nil || rows != 100 {
		t.Fatalf("%d rows (%v)", rows, err)
	}
	if keys, uploads := s.Keys(t, ""), s.Uploads(t); len(keys) != 1 || uploads != 0 {
		t.Errorf("left behind: %v, %d uploads", keys, uploads)
	}
	m := shardtest.Manifest(out, shardtest.TextOptions())
	if _, err := ReadManifest(t.Context(), out); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	if err := WriteManifest(t.Context(), out, m); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second manifest: %v", err)
	}
	if back, err := ReadManifest(t.Context(), out); err != nil || back.Run != m.Run {
		t.Fatalf("%+v (%v)", back, err)
	}
	n := 0
	if err := InspectAll(t.Context(), out,
		func(_ string, c shard.Committed, err error) error { n++; return err }); err != nil || n != 1 {
		t.Fatalf("%d outputs (%v)", n, err)
	}
}
