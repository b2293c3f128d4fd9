package internal

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
