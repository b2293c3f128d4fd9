package outdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"surprisal/internal/score"
	"surprisal/internal/testkit/shardtest"
)

func TestManifest(t *testing.T) {
	out := filepath.Join(t.TempDir(), "new", "out")
	if _, err := ReadManifest(t.Context(), out); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	m := shardtest.Manifest(out, shardtest.TextOptions())
	m.Inputs = []string{"testdata"}
	m.Files = []score.FilePlan{planWith(t, shardtest.Fixtures(t, "required")[0], m.Options)}
	if err := WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	back, err := ReadManifest(t.Context(), out)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Fatalf("%+v (%v), want %+v", back, err, m)
	}
	if err := WriteManifest(t.Context(), out, m); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("a second manifest: %v", err)
	}
	for _, body := range []string{"once", "again"} {
		if err := WriteSuccess(t.Context(), out, []byte(body)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(out, score.SuccessName)); err != nil || string(b) != body {
			t.Fatalf("%q (%v)", b, err)
		}
	}
	for range 2 {
		if err := RemoveSuccess(t.Context(), out); err != nil {
			t.Fatal(err)
		}
	}
	if n := names(t, out); len(n) != 2 {
		t.Fatalf("left behind: %v", n)
	}
}

func TestReadManifestRefuses(t *testing.T) {
	for name, tc := range map[string][2]string{
		"empty":         {"", "EOF"},
		"half":          {`{"version": 1, "run": "r`, "unexpected end"},
		"other version": {`{"version": 2, "new_field": 3}`, "another version"},
		"unknown field": {`{"version": 1, "colour": 3}`, "colour"},
		"no options":    {`{"version": 1, "run": "r"}`, "--text-column"},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			if err := os.WriteFile(filepath.Join(out, score.ManifestName), []byte(tc[0]), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadManifest(t.Context(), out); err == nil || !(strings.Contains(err.Error(), tc[1]) ||
				strings.Contains(err.Error(), "unexpected end")) {
				t.Fatal(err)
			}
		})
	}
	out := t.TempDir()
	path := filepath.Join(out, score.ManifestName)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, MaxManifestBytes+1); err != nil { // sparse
		t.Fatal(err)
	}
	if _, err := ReadManifest(t.Context(), out); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Fatal(err)
	}
}

// TestManifestOfAnotherFolder: a manifest that was moved, copied or forged would
// have its reader write elsewhere.
func TestManifestOfAnotherFolder(t *testing.T) {
	dir := t.TempDir()
	out, other := filepath.Join(dir, "out"), filepath.Join(dir, "other")
	m := shardtest.Manifest(out, shardtest.TextOptions())
	if err := WriteManifest(t.Context(), out, m); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(out, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(t.Context(), filepath.Join(dir, "link")); err != nil {
		t.Errorf("by another name: %v", err)
	}
	if err := os.CopyFS(other, os.DirFS(out)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(t.Context(), other); !errors.Is(err, ErrMoved) || !strings.Contains(err.Error(), out) {
		t.Errorf("a copy: %v", err)
	}
	if err := os.RemoveAll(out); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadManifest(t.Context(), other); !errors.Is(err, ErrMoved) {
		t.Errorf("moved: %v", err)
	}
	if _, err := VerifyManifest(t.Context(), other); err != nil {
		t.Errorf("verify a moved one: %v", err)
	}
}
