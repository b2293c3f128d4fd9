package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"surprisal/internal/score"
)

func planOf(t testing.TB, path string, opt PlanOptions) score.FilePlan {
	t.Helper()
	p, err := Plan(context.Background(), inputOf(t, path), opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkPlan holds a plan against what the manifest demands of it.
func checkPlan(t testing.TB, p score.FilePlan) {
	t.Helper()
	m := testManifest("/out", textOptions())
	m.Files = []score.FilePlan{p}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	rows := int64(0)
	for _, j := range m.Jobs() {
		rows += j.Rows()
	}
	if rows != p.Rows {
		t.Fatalf("jobs have %d rows of %d", rows, p.Rows)
	}
}

func TestPlan(t *testing.T) {
	for _, path := range fixtures(t, "enc-*") {
		p := planOf(t, path, PlanOptions{Options: textOptions(), JobTokens: 500})
		checkPlan(t, p)
		if p.Error != "" || p.Rows != fixtureRows || p.RowGroups != 3 || len(p.Cuts) < 2 || p.Tokens < 500 {
			t.Fatalf("%s: %+v", path, p)
		}
	}
	one := planOf(t, fixtures(t, "required")[0], PlanOptions{Options: textOptions()})
	if checkPlan(t, one); !slices.Equal(one.Cuts, []int64{0}) {
		t.Fatalf("one job: %+v", one)
	}
	each := planOf(t, fixtures(t, "required")[0], PlanOptions{Options: textOptions(), JobTokens: 1})
	if checkPlan(t, each); len(each.Cuts) != fixtureRows {
		t.Fatalf("a job a row: %d cuts", len(each.Cuts))
	}
	capped := planOf(t, fixtures(t, "required")[0], PlanOptions{Options: textOptions(), MaxRows: 60})
	if checkPlan(t, capped); !slices.Equal(capped.Cuts, []int64{0, 60, 120, 180, 240}) {
		t.Fatalf("rows capped: %v", capped.Cuts)
	}
	empty := planOf(t, fixtures(t, "empty")[0], PlanOptions{Options: textOptions()})
	if checkPlan(t, empty); empty.Error != "" || empty.Rows != 0 || len(empty.Cuts) != 0 {
		t.Fatalf("no rows: %+v", empty)
	}
	ids := planOf(t, fixtures(t, "ids-v2")[0], PlanOptions{Options: idsOptions("ids32"), JobTokens: 100})
	if checkPlan(t, ids); ids.Error != "" || ids.Tokens < 550 || ids.Tokens > 750 { // nulls and empty lists count one each
		t.Fatalf("ids: %+v", ids)
	}
}

func TestPlanByTokenCount(t *testing.T) {
	path := fixtures(t, "counted")[0]
	count := func(i int64) int64 { return 7 * (i % 13) }
	opt := PlanOptions{Options: textOptions(), JobTokens: 300}
	p := planOf(t, path, opt)
	checkPlan(t, p)
	total := int64(0)
	for k, first := range p.Cuts {
		last := p.Rows - 1
		if k+1 < len(p.Cuts) {
			last = p.Cuts[k+1] - 1
		}
		sum := int64(0)
		for i := first; i <= last; i++ {
			sum += count(i)
		}
		if total += sum; sum > 300 || (last < p.Rows-1 && sum+count(last+1) <= 300) {
			t.Fatalf("job %d, rows %d to %d: %d tokens", k, first, last, sum)
		}
	}
	if p.Tokens != total {
		t.Fatalf("%d tokens, want %d", p.Tokens, total)
	}
	opt.SkipTokenCount = true
	if q := planOf(t, path, opt); q.Tokens == total {
		t.Fatal("the column was read")
	}
}

func TestPlanRefuses(t *testing.T) {
	good, err := os.ReadFile(fixtures(t, "enc-plain-zstd-v1")[0])
	if err != nil {
		t.Fatal(err)
	}
	write := func(t *testing.T, b []byte) string {
		path := filepath.Join(t.TempDir(), "x.parquet")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	column := func(name string) score.Options {
		o := textOptions()
		o.TextColumn = name
		return o
	}
	keep := func(names ...string) score.Options {
		o := textOptions()
		o.Keep = names
		return o
	}
	tail := func(end string, n uint32) []byte {
		b := binary.LittleEndian.AppendUint32(slices.Clone(good[:len(good)-8]), n)
		return append(b, end...)
	}
	for name, tc := range map[string]struct {
		path string
		o    score.Options
		want string
	}{
		"empty file":    {write(t, nil), textOptions(), "the file is empty"},
		"tiny file":     {write(t, []byte("PAR1")), textOptions(), "too few"},
		"truncated":     {write(t, good[:len(good)-100]), textOptions(), "truncated"},
		"text":          {write(t, []byte("id,text\n1,hello world\n")), textOptions(), "not a parquet file"},
		"encrypted":     {write(t, tail("PARE", 10)), textOptions(), "encrypted"},
		"long footer":   {write(t, tail("PAR1", 1<<31)), textOptions(), "footer claims"},
		"short footer":  {write(t, tail("PAR1", 3)), textOptions(), "footer"},
		"zeros":         {write(t, append(slices.Clone(good[:len(good)-308]), append(make([]byte, 300), tail("PAR1", 300)[len(good)-8:]...)...)), textOptions(), ""},
		"no column":     {fixtures(t, "kinds")[0], column("body"), `no column "body"; the file has "id" string`},
		"nested":        {fixtures(t, "kinds")[0], column("meta.nothing"), "no field \"nothing\" in column \"meta\""},
		"a struct":      {fixtures(t, "kinds")[0], column("meta"), "is of type struct<text: string"},
		"a number":      {fixtures(t, "kinds")[0], column("i64"), "is of type int64"},
		"a decimal":     {fixtures(t, "kinds")[0], column("dec38"), "must be a string"},
		"ids of text":   {fixtures(t, "kinds")[0], idsOptions("text"), "must be a list of int32 or int64"},
		"ids of lists":  {fixtures(t, "kinds")[0], idsOptions("deep"), "must be a list of int32 or int64"},
		"keep missing":  {fixtures(t, "kinds")[0], keep("id", "url"), `no column "url"`},
		"keep nested":   {fixtures(t, "kinds")[0], keep("meta.n"), "nested"},
		"not there":     {write(t, good), textOptions(), "no such file"},
		"not a regular": {t.TempDir(), textOptions(), "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			in := inputOf(t, tc.path)
			if name == "not there" {
				os.Remove(tc.path)
			}
			p, err := Plan(context.Background(), in, PlanOptions{Options: tc.o})
			if err != nil {
				t.Fatal(err)
			}
			if p.Error == "" || !strings.Contains(p.Error, tc.want) || strings.Contains(p.Error, "\n") || p.Rows != 0 || p.Cuts != nil {
				t.Fatalf("%+v, want %q", p, tc.want)
			}
			t.Log(p.Error)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Plan(ctx, inputOf(t, fixtures(t, "required")[0]), PlanOptions{Options: textOptions()}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
