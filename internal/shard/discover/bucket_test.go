package discover

import (
	"strings"
	"testing"

	"surprisal/internal/testkit/storetest"
)

func TestBucketDiscover(t *testing.T) {
	s := storetest.S3(t)
	for _, key := range []string{
		"fw/a/000.parquet", "fw/a/001.parquet", "fw/b/000.parquet", "fw/b/x.txt", "fw/_tmp/h.parquet",
		"fw/b/.hidden.parquet",
		"out/fw/rows.parquet", "fwx/no.parquet", "sub/fw/a/000.parquet", "bad/../x.parquet", "bad/a//y.parquet",
	} {
		if !strings.Contains(key, "..") && !strings.Contains(key, "//") {
			s.Put(t, key, []byte("x"))
		}
	}
	u := storetest.URL
	for name, tc := range map[string]struct {
		args []string
		want string
		err  string
	}{
		"file":        {[]string{u("fw/a/000.parquet")}, "000.parquet", ""},
		"folder":      {[]string{u("fw")}, "a/000.parquet a/001.parquet b/000.parquet", ""},
		"slash":       {[]string{u("fw/")}, "a/000.parquet a/001.parquet b/000.parquet", ""},
		"glob":        {[]string{u("fw/**/*.parquet")}, "a/000.parquet a/001.parquet b/000.parquet", ""},
		"question":    {[]string{u("fw/a/00?.parquet")}, "000.parquet 001.parquet", ""},
		"braces":      {[]string{u("fw/{a,b}/000.parquet")}, "a/000.parquet b/000.parquet", ""},
		"folder glob": {[]string{u("fw/[b-c]")}, "b/000.parquet", ""},
		"bucket":      {[]string{"s3://" + storetest.Bucket}, "fw/a/000.parquet fw/a/001.parquet fw/b/000.parquet fwx/no.parquet sub/fw/a/000.parquet", ""},
		"clash":       {[]string{u("fw/a"), u("fw/b")}, "001.parquet a/000.parquet b/000.parquet", ""},
		"twice":       {[]string{u("fw/a"), u("fw/a/*")}, "000.parquet 001.parquet", ""},
		"text file":   {[]string{u("fw/b/x.txt")}, "x.txt", ""},
		"nothing":     {[]string{u("nothing")}, "", "no such file or folder"},
		"no match":    {[]string{u("fw/*.parquet")}, "", "matches no parquet file"},
		"no parquet":  {[]string{u("fw/_tmp2"), u("fw")}, "", "no such file or folder"},
		"no bucket":   {[]string{"s3://nobucket/x"}, "", "bucket nobucket not found"},
		"scheme":      {[]string{"ftp://h/x"}, "", "are supported"},
	} {
		t.Run(name, func(t *testing.T) {
			inputs, problems, err := Inputs(t.Context(), tc.args, u("out"))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v, %v", inputs, err)
				}
				return
			}
			var rels []string
			for _, in := range inputs {
				rels = append(rels, in.Rel)
				if in.Version == "" || !strings.HasPrefix(in.Path, "s3://") {
					t.Errorf("%+v", in)
				}
			}
			if got := strings.Join(rels, " "); err != nil || len(problems) > 0 || got != tc.want {
				t.Fatalf("%s, want %s (%v, %v)", got, tc.want, problems, err)
			}
		})
	}
}
