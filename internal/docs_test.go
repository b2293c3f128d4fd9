package internal

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```[^\n]*$")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	// What GitHub leaves out of a heading to make its anchor.
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	makeCommand = regexp.MustCompile(`(?m)(?:^|[;&|(] ?)(?:[A-Z_]+=\S+ )*make ([a-z][a-z-]*)`)
)

// markdown gives the text of every Markdown file of the project, by path from the root.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("git", "-C", "..", "ls-files", "-co", "--exclude-standard", "*.md").Output()
	if err != nil {
		t.Skipf("SKIPPED: the documents are found through git: %v", err)
	}
	texts := map[string]string{}
	for _, name := range strings.Fields(string(out)) {
		text, err := os.ReadFile(filepath.Join("..", name))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		} else if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

// anchors gives the anchors of a document's headings.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(notInAnchor.ReplaceAllString(m[1], ""))
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

// TestLinksInDocs checks that every relative link names a file that exists, and every
// anchor a heading.
func TestLinksInDocs(t *testing.T) {
	texts := markdown(t)
	for name, text := range texts {
		prose := code.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: link to %s: file not found", name, m[1])
			} else if anchor != "" && !anchors(texts[target])[anchor] {
				t.Errorf("%s: link to %s: no such heading", name, m[1])
			}
		}
	}
}

// TestMakeTargetsInDocs checks that every `make TARGET` in the documents is a target.
func TestMakeTargetsInDocs(t *testing.T) {
	targets := map[string]bool{}
	for _, name := range []string{"../Makefile", "../cuda.mk"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range makeTarget.FindAllStringSubmatch(string(text), -1) {
			targets[m[1]] = true
		}
	}
	for name, text := range markdown(t) {
		for _, piece := range append(fence.FindAllString(text, -1), code.FindAllString(text, -1)...) {
			for _, m := range makeCommand.FindAllStringSubmatch(strings.Trim(piece, "`"), -1) {
				if !targets[m[1]] {
					t.Errorf("%s: make %s: no such target", name, m[1])
				}
			}
		}
	}
}

var (
	goCommand = regexp.MustCompile(`go (test|run) ([^|;&` + "`" + `#]*(?:'[^']*'[^|;&` + "`" + `#]*)*)`)
	named     = regexp.MustCompile("`((?:internal|cmd|docs|bench|deploy|e2e|examples|testdata)/[^`\\s]*)`")
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w*)\(`)
)

// testsBelow gives the names of the tests in a folder, and below it if deep is set.
func testsBelow(t *testing.T, dir string, deep bool) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != dir && !deep {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(p, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(p)
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return names
}

// alternatives splits a pattern at the bars outside its parentheses.
func alternatives(pattern string) []string {
	var list []string
	depth, from := 0, 0
	for i, r := range pattern {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case '|':
			if depth == 0 {
				list, from = append(list, pattern[from:i]), i+1
			}
		}
	}
	return append(list, pattern[from:])
}

// TestCommandsInDocs checks that each `go test` and `go run` in the documents names a
// package that exists, and tests that it has.
func TestCommandsInDocs(t *testing.T) {
	for name, text := range markdown(t) {
		for _, m := range goCommand.FindAllStringSubmatch(text, -1) {
			var tests []string
			words := strings.Fields(strings.ReplaceAll(m[2], "'", ""))
			for _, w := range words {
				if dir, deep := strings.CutSuffix(w, "/..."); strings.HasPrefix(w, "./") {
					if st, err := os.Stat(filepath.Join("..", dir)); err != nil || !st.IsDir() {
						t.Errorf("%s: go %s %s: no such package", name, m[1], w)
						continue
					}
					tests = append(tests, testsBelow(t, filepath.Join("..", dir), deep)...)
				}
			}
			for i, w := range words {
				if m[1] != "test" || i+1 == len(words) || w != "-run" && w != "-bench" && w != "-fuzz" ||
					words[i+1] == "." || words[i+1] == "^$" {
					continue
				}
				for _, pattern := range alternatives(words[i+1]) {
					if p, err := regexp.Compile(pattern); err != nil || !slices.ContainsFunc(tests, p.MatchString) {
						t.Errorf("%s: go test %s: no test matches %q", name, strings.Join(words, " "), pattern)
					}
				}
			}
		}
	}
}

// TestFilesInDocs checks that the files and folders that the documents name exist. Decisions
// and the changelog may name what was there at their time.
func TestFilesInDocs(t *testing.T) {
	for name, text := range markdown(t) {
		if strings.HasPrefix(name, "docs/adr/") || name == "CHANGELOG.md" {
			continue
		}
		for _, m := range named.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.ContainsAny(m[1], "<{*…") || strings.HasPrefix(m[1], "examples/demo/out") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
				t.Errorf("%s: %s: file not found", name, m[1])
			}
		}
	}
}

// TestMapInArchitecture checks that the map in ARCHITECTURE.md names every folder of
// internal, and none that does not exist.
func TestMapInArchitecture(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for line := range strings.Lines(fence.FindString(string(text))) {
		first, _, ok := strings.Cut(strings.TrimRight(line, "\n"), "   ")
		if strings.HasPrefix(line, "  ") { // below the package above it
			first, _, ok = strings.Cut(strings.TrimSpace(line), "   ")
			first = "internal/" + first
		}
		if !ok || strings.HasPrefix(line, "       ") {
			continue
		}
		parent := ""
		for name := range strings.SplitSeq(first, ", ") {
			if dir, _, nested := strings.Cut(name, "/"); nested {
				parent = dir + "/"
			} else if parent == "internal/" {
				name = parent + name
			}
			if _, err := os.Stat(filepath.Join("..", name)); err != nil {
				t.Errorf("ARCHITECTURE.md: %s: no such folder", name)
			}
			named[name] = true
		}
	}
	folders, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.IsDir() && !named["internal/"+f.Name()] {
			t.Errorf("ARCHITECTURE.md: internal/%s is not in the map", f.Name())
		}
	}
}
