package place

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"/a/b":                     "/a/b",
		"s3://bucket/a/b":          "s3://bucket/a/b",
		"s3://bucket/a/":           "s3://bucket/a",
		"s3://bucket":              "s3://bucket",
		"S3://bucket/a":            "s3://bucket/a",
		"s3://bucket/a b%20ü":      "s3://bucket/a b%20ü",
		"gs://bucket/x":            "gs://bucket/x",
		"az://container/x":         "az://container/x",
		"https://h.org:8443/a.pq":  "https://h.org:8443/a.pq",
		"hf://datasets/O/N/data/x": "hf://datasets/O/N/data/x",
		"hf://datasets/O/N@v1.0/x": "hf://datasets/O/N@v1.0/x",
		"hf://O/N@main/c/c-10B":    "hf://O/N@main/c/c-10B",
		"hf://models/O/N/c":        "hf://O/N/c",
		"hf://datasets/O/N@refs/convert/parquet/a/0.parquet":                "hf://datasets/O/N@refs/convert/parquet/a/0.parquet",
		"s3://bucket/a?use_path_style=true&endpoint=http://127.0.0.1:9000/": "s3://bucket/a?endpoint=http://127.0.0.1:9000&use_path_style=true",
		"s3://bucket/a?region=eu-west-1":                                    "s3://bucket/a?region=eu-west-1",
	} {
		p, err := Parse(s)
		if err != nil || p.String() != want {
			t.Errorf("%s: %s (%v), want %s", s, p, err, want)
		}
	}
	const secret = "5ec7e7"
	for _, s := range []string{
		"", "a/b", "ftp://h/x", "http://h/x", "file:///etc/passwd", "s3://", "s3:///x", "s3://b", "s3://bucket/a/../b", "s3://bucket//a", "s3://bucket/./a",
		"s3://k:" + secret + "@bucket/a", "https://u:" + secret +
			"@h/a", "https://h/a?X-Amz-Signature=" + secret, "https://h/a#" + secret,
		"s3://bucket/a?X-Amz-Security-Token=" + secret, "s3://bucket/a?endpoint=http://u:" + secret +
			"@h", "s3://bucket/a?endpoint=file:///x",
		"s3://bucket/a?region=eu&region=us", "s3://bucket/a\\b", "s3://bucket/a\nb", "s3://bucket/a\x00b", "gs://bucket/a?x=" + secret, "hf://datasets/O",
		"hf://O/N@../x", "hf://datasets/../N/x", "hf://O/N@a?x=" + secret, "https://h:port/x", "https:///x", "s3://bucket/" + strings.Repeat("a", 5000),
	} {
		if p, err := Parse(s); err == nil {
			t.Errorf("%q: taken as %+v", s, p)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: told in %v", s, err)
		}
	}
}

func TestPlacesOfJobs(t *testing.T) {
	for s, ok := range map[string][3]bool{ // input, output, model
		"/a": {true, true, true}, "s3://bucket/a": {true, true, false}, "gs://bucket/a": {true, true,
			false}, "az://bucket/a": {true, true, false},
		"https://h/a": {true, false, false}, "hf://datasets/O/N/a": {true, false, true}, "hf://O/N/a": {true, false,
			true}, "a": {}, "ftp://h/a": {},
		"s3://bucket": {false, true, false},
	} {
		if got := [3]bool{ValidInput(s) == nil, ValidOut(s) == nil, ValidModelDir(s) == nil}; got != ok {
			t.Errorf("%s: %v, want %v", s, got, ok)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, tc := range []struct {
		place, dir string
		want       bool
	}{
		{"/a/b", "/a", true}, {"/ab", "/a", false}, {"/a/../b", "/a", false}, {"/a", "/a/", true}, {"/x", "/", true},
		{"s3://bucket/a/b", "s3://bucket/a", true}, {"s3://bucket/ab", "s3://bucket/a", false}, {"s3://bucket/a",
			"s3://bucket", true},
		{"s3://bucket/a?endpoint=http://evil", "s3://bucket/a", false}, {"gs://bucket/a", "s3://bucket/a", false},
		{"hf://O/N@abc/x", "hf://O/N", true}, {"hf://O/N@abc/x", "hf://O/N@def", false}, {"hf://O/Nx/x", "hf://O/N", false},
	} {
		p, err := Parse(tc.place)
		d, err2 := Parse(tc.dir)
		if err != nil || err2 != nil || p.Within(d) != tc.want {
			t.Errorf("%s in %s: %v (%v, %v)", tc.place, tc.dir, p.Within(d), err, err2)
		}
	}
}

// FuzzParsePlace: what is taken is written in one way, and names nothing above.
func FuzzParsePlace(f *testing.F) {
	for _, s := range []string{"/a", "s3://bucket/a?region=x", "hf://datasets/O/N@refs/pr/1/x", "https://h/a",
		"gs://bucket/../x", "az://cc/a//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err != nil || p.Scheme == "" {
			return
		}
		again, err := Parse(p.String())
		if err != nil || again != p {
			t.Fatalf("%q is %+v, then %+v (%v)", s, p, again, err)
		}
		for part := range strings.SplitSeq(p.Key, "/") {
			if part == ".." || part == "." || part == "" && p.Key != "" {
				t.Fatalf("%q is %+v", s, p)
			}
		}
		if strings.ContainsAny(p.Host, "@?#") || strings.ContainsAny(p.Key, "?#\x00\n") {
			t.Fatalf("%q is %+v", s, p)
		}
	})
}
