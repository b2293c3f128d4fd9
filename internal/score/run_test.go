package score

import (
	"fmt"
	"slices"
	"testing"
)

func planned(files, cuts int) *Manifest {
	m := &Manifest{Version: FormatVersion, Run: "run", Out: "/out", Options: Options{TextColumn: "text",
		Long:      LongCarry,
		MaxLength: 64, Special: SpecialText, Engine: EngineCPU}}
	for i := range files {
		f := FilePlan{Input: Input{Path: fmt.Sprintf("/in/%d.parquet", i), Rel: fmt.Sprintf("d/%d.parquet", i)},
			Rows: int64(cuts) * 7}
		for c := range cuts {
			f.Cuts = append(f.Cuts, int64(c)*7)
		}
		m.Files = append(m.Files, f)
	}
	m.Files = append(m.Files, FilePlan{Input: Input{Path: "/in/bad.parquet", Rel: "bad.parquet"}, Error: "torn"})
	return m
}

func TestJobs(t *testing.T) {
	m := planned(3, 4)
	jobs := m.Jobs()
	if len(jobs) != 12 || m.JobCount() != 12 || !slices.EqualFunc(jobs, slices.Collect(m.AllJobs()), func(a,
		b Job) bool {
		return a.ID == b.ID && a.Output == b.Output
	}) {
		t.Fatalf("%d jobs, counted %d", len(jobs), m.JobCount())
	}
	for i, j := range jobs {
		if j.Rows() != 7 || j.First != int64(i%4)*7 {
			t.Fatalf("job %d is rows %d to %d", i, j.First, j.Last)
		}
	}
	for range m.AllJobs() {
		break
	}
}

func TestOutputs(t *testing.T) {
	m := planned(3, 4)
	o := m.Outputs()
	for j := range m.AllJobs() {
		if got, ok := o.Job(j.Output); !ok || got.ID != j.ID {
			t.Fatalf("%s: %v, job %s", j.Output, ok, got.ID)
		}
	}
	for _, name := range []string{
		"", "d/0", "d/0/", "rows-000000000000-000000000006.parquet", "d/0/rows-000000000000-000000000007.parquet",
		"d/0/rows-0-6.parquet", "d/0/rows-000000000001-000000000006.parquet",
		"d/3/rows-000000000000-000000000006.parquet",
		"d/0/rows-000000000000-000000000006.parquet.tmp", "bad/rows-000000000000-000000000006.parquet",
		"d//0/rows-000000000000-000000000006.parquet",
		"d/0/rows--00000000000-000000000006.parquet", "d/0/rows-000000000000--00000000006.parquet",
	} {
		if j, ok := o.Job(name); ok {
			t.Errorf("%q is job %s", name, j.ID)
		}
	}
}

func TestKeyOf(t *testing.T) {
	for j := range planned(2, 3).AllJobs() {
		if k, ok := KeyOf(j.ID); !ok || k.String() != j.ID {
			t.Fatalf("%s: %v %s", j.ID, ok, k)
		}
	}
	for _, id := range []string{"", "a", "aaaaaaaaaaaaaaaaaaaaaaaaab", "AAAAAAAAAAAAAAAAAAAAAAAAAA",
		"aaaaaaaaaaaaaaaaaaaaaaaaa!", "aaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		if _, ok := KeyOf(id); ok {
			t.Errorf("%q is a job's id", id)
		}
	}
}
