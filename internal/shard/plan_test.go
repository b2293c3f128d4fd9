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
	"surprisal/internal/testkit/shardtest"
)

func planOf(t testing.TB, path string, opt PlanOptions) score.FilePlan {
	t.Helper()
	p, err := Plan(context.Background(), shardtest.Input(t, path), opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkPlan holds a plan against what the manifest demands of it.
func checkPlan(t testing.TB, p score.FilePlan) {
	t.Helper()
	m := shardtest.Manifest("/out", shardtest.TextOptions())
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
	for _, path := range shardtest.Fixtures(t, "enc-*") {
		p := planOf(t, path, PlanOptions{Options: shardtest.TextOptions(), JobTokens: 500})
		checkPlan(t, p)
		if p.Error != "" || p.Rows != shardtest.Rows || p.RowGroups != 3 || len(p.Cuts) < 2 || p.Tokens < 500 {
			t.Fatalf("%s: %+v", path, p)
		}
	}
	one := planOf(t, shardtest.Fixtures(t, "required")[0], PlanOptions{Options: shardtest.TextOptions()})
	if checkPlan(t, one); !slices.Equal(one.Cuts, []int64{0}) {
		t.Fatalf("one job: %+v", one)
	}
	each := planOf(t, shardtest.Fixtures(t, "required")[0], PlanOptions{Options: shardtest.TextOptions(), JobTokens: 1})
	if checkPlan(t, each); len(each.Cuts) != shardtest.Rows {
		t.Fatalf("a job a row: %d cuts", len(each.Cuts))
	}
	capped := planOf(t, shardtest.Fixtures(t, "required")[0], PlanOptions{Options: shardtest.TextOptions(),
		MaxRows: 60})
	if checkPlan(t, capped); !slices.Equal(capped.Cuts, []int64{0, 60, 120, 180, 240}) {
		t.Fatalf("rows capped: %v", capped.Cuts)
	}
	empty := planOf(t, shardtest.Fixtures(t, "empty")[0], PlanOptions{Options: shardtest.TextOptions()})
	if checkPlan(t, empty); empty.Error != "" || empty.Rows != 0 || len(empty.Cuts) != 0 {
		t.Fatalf("no rows: %+v", empty)
	}
	ids := planOf(t, shardtest.Fixtures(t, "ids-v2")[0], PlanOptions{Options: shardtest.IDsOptions("ids32"),
		JobTokens: 100})
	// nulls and empty lists count one each
	if checkPlan(t, ids); ids.Error != "" || ids.Tokens < 550 || ids.Tokens > 750 {
		t.Fatalf("ids: %+v", ids)
	}
}

func TestPlanByTokenCount(t *testing.T) {
	path := shardtest.Fixtures(t, "counted")[0]
	count := func(i int64) int64 { return 7 * (i % 13) }
	opt := PlanOptions{Options: shardtest.TextOptions(), JobTokens: 300}
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
	good, err := os.ReadFile(shardtest.Fixtures(t, "enc-plain-zstd-v1")[0])
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
		o := shardtest.TextOptions()
		o.TextColumn = name
		return o
	}
	keep := func(names ...string) score.Options {
		o := shardtest.TextOptions()
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
		"empty file":   {write(t, nil), shardtest.TextOptions(), "the file is empty"},
		"tiny file":    {write(t, []byte("PAR1")), shardtest.TextOptions(), "too few"},
		"truncated":    {write(t, good[:len(good)-100]), shardtest.TextOptions(), "truncated"},
		"text":         {write(t, []byte("id,text\n1,hello world\n")), shardtest.TextOptions(), "not a parquet file"},
		"encrypted":    {write(t, tail("PARE", 10)), shardtest.TextOptions(), "encrypted"},
		"long footer":  {write(t, tail("PAR1", 1<<31)), shardtest.TextOptions(), "footer claims"},
		"short footer": {write(t, tail("PAR1", 3)), shardtest.TextOptions(), "footer"},
		"zeros": {write(t, append(slices.Clone(good[:len(good)-308]), append(make([]byte, 300),
			tail("PAR1", 300)[len(good)-8:]...)...)), shardtest.TextOptions(), ""},
		"no column": {shardtest.Fixtures(t, "kinds")[0], column("body"),
			`no column "body"; the file has "id" string`},
		"nested": {shardtest.Fixtures(t, "kinds")[0], column("meta.nothing"),
			"no field \"nothing\" in column \"meta\""},
		"a struct":  {shardtest.Fixtures(t, "kinds")[0], column("meta"), "is of type struct<text: string"},
		"a number":  {shardtest.Fixtures(t, "kinds")[0], column("i64"), "is of type int64"},
		"a decimal": {shardtest.Fixtures(t, "kinds")[0], column("dec38"), "must be a string"},
		"ids of text": {shardtest.Fixtures(t, "kinds")[0], shardtest.IDsOptions("text"),
			"must be a list of int32 or int64"},
		"ids of lists": {shardtest.Fixtures(t, "kinds")[0], shardtest.IDsOptions("deep"),
			"must be a list of int32 or int64"},
		"keep missing":  {shardtest.Fixtures(t, "kinds")[0], keep("id", "url"), `no column "url"`},
		"keep nested":   {shardtest.Fixtures(t, "kinds")[0], keep("meta.n"), "nested"},
		"not there":     {write(t, good), shardtest.TextOptions(), "no such file"},
		"not a regular": {t.TempDir(), shardtest.TextOptions(), "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			in := shardtest.Input(t, tc.path)
			if name == "not there" {
				os.Remove(tc.path)
			}
			p, err := Plan(context.Background(), in, PlanOptions{Options: tc.o})
			if err != nil {
				t.Fatal(err)
			}
			if p.Error == "" || !strings.Contains(p.Error, tc.want) || strings.Contains(p.Error, "\n") || p.Rows != 0 ||
				p.Cuts != nil {
				t.Fatalf("%+v, want %q", p, tc.want)
			}
			t.Log(p.Error)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Plan(ctx, shardtest.Input(t, shardtest.Fixtures(t, "required")[0]),
		PlanOptions{Options: shardtest.TextOptions()}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
