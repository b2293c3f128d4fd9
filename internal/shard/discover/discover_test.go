package discover

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes files (and links, "a -> b") in a new folder and goes there.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name, to, link := strings.Cut(f, " -> ")
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if link {
			if err := os.Symlink(to, path); err != nil {
				t.Skip(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	return dir
}

func TestDiscover(t *testing.T) {
	for name, tc := range map[string]struct {
		files    []string
		args     []string
		exclude  string
		want     []string // "rel=path"
		problems int
	}{
		"a file": {files: []string{"d/x.parquet"}, args: []string{"d/x.parquet"},
			want: []string{"x.parquet=d/x.parquet"}},
		"without the suffix": {files: []string{"d/x.pq"}, args: []string{"d/x.pq"}, want: []string{"x.pq=d/x.pq"}},
		"a hidden file": {files: []string{"_x.parquet"}, args: []string{"_x.parquet"},
			want: []string{"_x.parquet=_x.parquet"}},
		"a folder": {
			files: []string{"d/b.parquet", "d/a/a.parquet", "d/_tmp/x.parquet", "d/.h.parquet", "d/_y.parquet",
				"d/read.me"},
			args: []string{"d"}, want: []string{"a/a.parquet=d/a/a.parquet", "b.parquet=d/b.parquet"},
		},
		"OUT inside": {
			files: []string{"d/b.parquet", "d/out/b/rows-0.parquet"}, args: []string{"d"}, exclude: "d/out",
			want: []string{"b.parquet=d/b.parquet"},
		},
		"OUT by a link": {
			files: []string{"d/b.parquet", "real/x.parquet", "d/out -> ../real"}, args: []string{"d"}, exclude: "real",
			want: []string{"b.parquet=d/b.parquet"},
		},
		"a glob": {
			files: []string{"d/1/a.parquet", "d/2/a.parquet", "d/2/b.txt", "d/c.parquet"}, args: []string{"d/*/*"},
			want: []string{"1/a.parquet=d/1/a.parquet", "2/a.parquet=d/2/a.parquet"},
		},
		"a glob of another suffix": {files: []string{"d/a.pq", "d/b.parquet"}, args: []string{"d/*.pq"},
			want: []string{"a.pq=d/a.pq"}},
		"a glob of folders": {files: []string{"d/1/x/a.parquet", "d/2/b.parquet"}, args: []string{"d/[12]"},
			want: []string{"1/x/a.parquet=d/1/x/a.parquet", "2/b.parquet=d/2/b.parquet"}},
		"any depth": {
			files: []string{"d/a.parquet", "d/1/2/a.parquet", "d/1/b.parquet", "d/_t/a.parquet"},
			args:  []string{"d/**/a.parquet"},
			want:  []string{"1/2/a.parquet=d/1/2/a.parquet", "a.parquet=d/a.parquet"},
		},
		"all below": {files: []string{"d/a.parquet", "d/1/2/c.parquet", "d/1/x.txt"},
			args: []string{"d/**"}, want: []string{"1/2/c.parquet=d/1/2/c.parquet", "a.parquet=d/a.parquet"}},
		"braces": {files: []string{"d/a.parquet", "d/b.parquet", "d/c.parquet"},
			args: []string{"d/{a,c}.parquet"}, want: []string{"a.parquet=d/a.parquet", "c.parquet=d/c.parquet"}},
		"brackets in a name": {files: []string{"d[1].parquet"}, args: []string{"d[1].parquet"},
			want: []string{"d[1].parquet=d[1].parquet"}},
		"twice the same": {files: []string{"d/a.parquet"}, args: []string{"d", "d/a.parquet", "d/*.parquet",
			"d"}, want: []string{"a.parquet=d/a.parquet"}},
		"clashing files": {files: []string{"a/x.parquet", "b/x.parquet", "b/y.parquet"},
			args: []string{"b/x.parquet", "a/x.parquet", "b/y.parquet"},
			want: []string{"a/x.parquet=a/x.parquet", "b/x.parquet=b/x.parquet", "y.parquet=b/y.parquet"}},
		"clashing folders": {files: []string{"p/d/x.parquet", "q/d/x.parquet"}, args: []string{"p/d", "q/d"},
			want: []string{"d-2/x.parquet=q/d/x.parquet", "d/x.parquet=p/d/x.parquet"}},
		"clash without suffix": {files: []string{"d/x", "d/x.parquet"}, args: []string{"d/x", "d/x.parquet"},
			want: []string{"d-2/x.parquet=d/x.parquet", "d/x=d/x"}},
		"clash with a prefixed": {files: []string{"a/x.parquet", "b/x.parquet", "c/a/x.parquet"},
			args: []string{"a/x.parquet", "b/x.parquet", "c"},
			want: []string{"a-2/x.parquet=a/x.parquet", "a/x.parquet=c/a/x.parquet", "b/x.parquet=b/x.parquet"}},
		"OUT's own name": {files: []string{"d/_SUCCESS"}, args: []string{"d/_SUCCESS"},
			want: []string{"d/_SUCCESS=d/_SUCCESS"}},
		"links": {files: []string{"blobs/1", "d/a.parquet -> ../blobs/1", "d/up -> ..", "d/sub -> ../e",
			"e/b.parquet"}, args: []string{"d"},
			want: []string{"a.parquet=d/a.parquet", "sub/b.parquet=d/sub/b.parquet",
				"up/e/b.parquet=d/up/e/b.parquet"}},
		"a dangling link": {files: []string{"d/a.parquet", "d/b.parquet -> nowhere"}, args: []string{"d"},
			want: []string{"a.parquet=d/a.parquet"}, problems: 1},
		"a backslash": {files: []string{"d/a.parquet", `d/b\c.parquet`}, args: []string{"d"},
			want: []string{"a.parquet=d/a.parquet"}, problems: 1},
		"not UTF-8": {files: []string{"d/a.parquet", "d/b\xff.parquet"}, args: []string{"d"},
			want: []string{"a.parquet=d/a.parquet"}, problems: 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, tc.files...)
			if tc.exclude != "" {
				tc.exclude = filepath.Join(dir, tc.exclude)
			}
			inputs, problems, err := Inputs(t.Context(), tc.args, tc.exclude)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, in := range inputs {
				rel, _ := filepath.Rel(dir, in.Path)
				got = append(got, in.Rel+"="+rel)
				st, err := os.Stat(in.Path)
				if err != nil || in.Size != st.Size() || in.Version != fmt.Sprintf("%d-%d", st.Size(),
					st.ModTime().UnixNano()) {
					t.Errorf("%+v (%v)", in, err)
				}
			}
			if !slices.Equal(got, tc.want) || len(problems) != tc.problems {
				t.Fatalf("got %q and problems %v, want %q", got, problems, tc.want)
			}
		})
	}
}

func TestDiscoverRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		files []string
		args  []string
		want  string
	}{
		"nothing":            {nil, nil, "no input"},
		"an empty argument":  {nil, []string{""}, "empty"},
		"missing":            {nil, []string{"nowhere.parquet"}, "input nowhere.parquet: no such file"},
		"an empty folder":    {[]string{"d/read.me"}, []string{"d"}, "no .parquet or .jsonl file in this folder"},
		"a glob of nothing":  {[]string{"d/a.txt"}, []string{"d/*.parquet"}, "matches no parquet file"},
		"a glob of text":     {[]string{"d/a.txt"}, []string{"d/*"}, "matches no parquet file"},
		"a bad glob":         {[]string{"d/a.txt"}, []string{"d/[a"}, "not a valid pattern"},
		"an open brace":      {[]string{"d/a.txt"}, []string{"d/{a"}, "brace"},
		"only problems":      {[]string{"d/a.parquet -> nowhere"}, []string{"d"}, "no such file"},
		"below a file":       {[]string{"d"}, []string{"d/x.parquet"}, "can't be read"},
		"one good, one lost": {[]string{"a.parquet"}, []string{"a.parquet", "b.parquet"}, "input b.parquet"},
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, tc.files...)
			_, _, err := Inputs(t.Context(), tc.args, "")
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v, want %q", err, tc.want)
			}
			t.Log(err)
		})
	}
}
