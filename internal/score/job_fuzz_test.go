package score

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func fuzzManifest() *Manifest {
	m := &Manifest{
		Version: FormatVersion, Run: "run-1", Out: "/out",
		Options: Options{TextColumn: "text", Long: LongCarry, MaxLength: 2048, Special: SpecialText,
			Engine: EngineAuto},
		Model: Model{Dir: "/model", Digest: "sha256:00"},
		Files: []FilePlan{{Input: Input{Path: "/in/a/b.parquet", Rel: "a/b.parquet", Size: 9, Version: "etag"},
			Rows: 25,
			Cuts: []int64{0, 10, 20}}},
	}
	m.ConfigDigest = ConfigDigest(m.Options, m.Model)
	return m
}

// FuzzDecodeJob: a message may be anything. What is taken is a valid job whose
// encoding is taken again as the same; all else is ErrBadJob.
func FuzzDecodeJob(f *testing.F) {
	for _, j := range fuzzManifest().Jobs() {
		b, err := j.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1))
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte(nil))
	f.Add([]byte("\x00\xff"))
	f.Add([]byte(`{"v":1,"unknown":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := DecodeJob(b)
		if err != nil {
			if !errors.Is(err, ErrBadJob) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if !ValidRunID(j.Run) || strings.ContainsAny(j.ID, ".*> \t\r\n") || j.Rows() < 1 {
			t.Fatalf("taken: %+v", j)
		}
		again, err := j.Encode()
		if err != nil {
			// JSON escapes may make it longer than it came.
			if len(b) < MaxJobBytes/6 {
				t.Fatal(err)
			}
			return
		}
		k, err := DecodeJob(again)
		if err != nil || k.ID != j.ID || k.Output != j.Output || k.ConfigDigest != j.ConfigDigest {
			t.Fatalf("%+v became %+v, %v", j, k, err)
		}
	})
}

func TestDecodeJobRefuses(t *testing.T) {
	good, err := fuzzManifest().Jobs()[1].Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeJob(good); err != nil {
		t.Fatal(err)
	}
	if len(good) > 1024 {
		t.Errorf("a job message has %d bytes, more than 1 KB", len(good))
	}
	for name, r := range map[string][2]string{
		"version":       {`"v":1`, `"v":2`},
		"unknown field": {`"v":1`, `"v":1,"x":1`},
		"run":           {`"run":"run-1"`, `"run":"a.>"`},
		"rows":          {`"first":10`, `"first":11`},
		"output":        {`rows-000000000010`, `rows-000000000009`},
		"escape":        {`a/b.parquet`, `../b.parquet`},
		"relative":      {`"path":"/in`, `"path":"in`},
		"options":       {`"max_length":2048`, `"max_length":1024`},
		"model":         {`sha256:00`, `sha256:01`},
	} {
		bad := bytes.ReplaceAll(good, []byte(r[0]), []byte(r[1]))
		if bytes.Equal(bad, good) {
			t.Fatalf("%s: nothing replaced in %s", name, good)
		}
		if _, err := DecodeJob(bad); !errors.Is(err, ErrBadJob) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := DecodeJob(bytes.Repeat([]byte(" "), MaxJobBytes+1)); !errors.Is(err, ErrBadJob) {
		t.Errorf("too long: got %v", err)
	}
}
