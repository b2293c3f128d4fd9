package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/storetest"
)

// TestBucketCluster submits a corpus of JSON lines in a bucket to a cluster, which
// writes its scores into the bucket; commands look at it by run and by OUT.
func TestBucketCluster(t *testing.T) {
	s := storetest.S3(t)
	dir := t.TempDir()
	server := startQueue(t)
	var plain, packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	for i, row := range manyTexts(40) {
		line, err := json.Marshal(map[string]any{"id": i, "meta": map[string]any{"text": (*row.Text)[i%20:]}})
		must(t, err)
		plain.Write(append(line, '\n'))
		if i%3 == 0 {
			_, err = z.Write(append(line, '\n'))
			must(t, err)
		}
	}
	must(t, z.Close())
	in := filepath.Join(dir, "in")
	must(t, os.Mkdir(in, 0o777))
	for name, b := range map[string][]byte{"a.jsonl": plain.Bytes(), "b.jsonl.gz": packed.Bytes()} {
		must(t, os.WriteFile(filepath.Join(in, name), b, 0o666))
		s.Put(t, "corpus/"+name, b)
	}
	flags := []string{"--model", demoModel, "--job-tokens", "2000", "--text-column", "meta.text"}
	calm := filepath.Join(dir, "calm")
	dispatcher(t, append(append([]string{"run", "--out", calm}, flags...), in)...).want(t, 0)

	out := storetest.URL("scores")
	submit := append(append([]string{"submit", "--out", out}, flags...), storetest.URL("corpus"))
	run := strings.TrimSpace(dispatcher(t, submit...).want(t, 0).stdout)
	says(t, dispatcher(t, "status", run).want(t, 0).stdout, run, "running")
	worker, wr := start(t, nil, "worker", "--log-format", "json")
	sum := parseSummary(t, dispatcher(t, "wait", "--json", run).want(t, 0))
	if !sum.Complete || sum.Documents != 54 || sum.FailedRows != 0 {
		t.Errorf("wait: %+v", sum)
	}
	comesToSay(t, []string{"status", run}, run, "complete", "54 of 54")
	var list []struct{ ID, State string }
	fromJSON(t, dispatcher(t, "list", "--json").want(t, 0), &list)
	if len(list) != 1 || list[0].State != "complete" {
		t.Errorf("list: %+v", list)
	}
	// Submitted again, there is nothing to do.
	if again := strings.TrimSpace(dispatcher(t, submit...).want(t, 0).stdout); again != run {
		t.Errorf("submitted again: run %s, was %s", again, run)
	}
	dispatcher(t, "verify", out).want(t, 0)
	must(t, worker.Process.Signal(os.Interrupt))
	wait(t, worker, wr).want(t, 0)
	for _, secret := range []string{storetest.SecretKey, server.Token()} {
		if strings.Contains(wr.stderr, secret) {
			t.Error("a secret is in the worker's log")
		}
	}
	sameScores(t, scores(t, calm), scores(t, out))
	if s.Get(t, "scores/"+score.SuccessName) == nil || s.Uploads(t) != 0 {
		t.Errorf("in the bucket: %v", s.Keys(t, "scores/"))
	}
}
