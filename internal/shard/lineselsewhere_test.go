package shard

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/shard/discover"
	"surprisal/internal/testkit/shardtest"
	"surprisal/internal/testkit/storetest"
)

// TestLinesElsewhere plans and reads JSON lines over ranges of a bucket, while one
// answer in twenty is bad, and of the hub: cuts and rows are those of local files.
func TestLinesElsewhere(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&b, "{\"id\": \"d%d\", \"meta\": {\"text\": %q}}\n", i,
			strings.Repeat(fmt.Sprintf("%d words \u00e9 ", i*7919%1000), i%60))
	}
	o := linesOptions()
	o.TextColumn = "meta.text"
	check := func(t *testing.T, local, url string) {
		t.Helper()
		inputs, problems, err := discover.Inputs(t.Context(), []string{url}, "")
		if err != nil || len(problems) > 0 || len(inputs) != 1 {
			t.Fatal(inputs, problems, err)
		}
		want, wantJobs := linesJobs(t, local, o, 20_000)
		plan, err := Plan(t.Context(), inputs[0], PlanOptions{Options: o, JobTokens: 20_000})
		if err != nil || plan.Error != "" || !reflect.DeepEqual(plan.Cuts, want.Cuts) ||
			!reflect.DeepEqual(plan.Offsets, want.Offsets) || plan.Rows != 2000 {
			t.Fatalf("%+v, local %+v (%v)", plan, want, err)
		}
		m := shardtest.Manifest(t.TempDir(), o)
		m.Files = []score.FilePlan{plan}
		jobs := m.Jobs()
		if len(jobs) != len(wantJobs) || len(plan.Offsets) > 0 && len(jobs) < 5 {
			t.Fatalf("%d jobs, local %d", len(jobs), len(wantJobs))
		}
		for i, j := range jobs {
			if got, want := readAll(t, j), readAll(t, wantJobs[i]); !reflect.DeepEqual(got, want) {
				t.Fatalf("job %d: %d rows differ from the local %d", i, len(got), len(want))
			}
		}
	}
	names := []string{"a.jsonl", "a.jsonl.gz", "a.jsonl.zst"}
	t.Run("s3", func(t *testing.T) {
		s := storetest.S3(t)
		p := storetest.NewProxy(t, s.URL)
		p.Fail(shardtest.OneInTwenty())
		for _, name := range names {
			local := writeLines(t, name, b.String())
			s.Put(t, "lines/"+name, shardtest.Read(t, local))
			check(t, local, storetest.URL("lines/"+name+"?endpoint="+p.URL))
		}
	})
	t.Run("hub", func(t *testing.T) {
		h := storetest.NewHub(t, nil)
		files := map[string][]byte{}
		local := map[string]string{}
		for _, name := range names {
			local[name] = writeLines(t, name, b.String())
			files["data/"+filepath.Base(name)] = shardtest.Read(t, local[name])
		}
		h.Commit("datasets", "org/lines", files)
		for _, name := range names {
			check(t, local[name], "hf://datasets/org/lines/data/"+name)
		}
	})
}
