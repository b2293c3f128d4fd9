package metrics

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var docsRow = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| ([a-zA-Z_, ]*)\\| .+ \\|$")

// TestDocs holds docs/metrics.md to the code, in both directions; GPU metrics are
// held to it by their own package.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, row := range docsRow.FindAllStringSubmatch(string(text), -1) {
		if told[row[1]] != "" {
			t.Errorf("%s is in docs/metrics.md twice", row[1])
		}
		if !strings.HasPrefix(row[1], "surprisal_gpu_") && row[1] != "surprisal_nvml_up" {
			told[row[1]] = row[2] + " " + strings.TrimSpace(row[3])
		}
	}
	made := map[string]string{}
	w := NewWorker("v")
	w.Live(nil, nil)
	w.Connected(nil)
	d := NewDispatcher("v")
	d.Connected(nil)
	for _, def := range slices.Concat(w.Definitions(), d.Definitions()) {
		made[def.Name] = def.Kind + " " + strings.Join(def.Labels, ", ")
		for _, label := range def.Labels {
			if slices.Contains([]string{"job", "file", "worker", "document"}, label) {
				t.Errorf("%s has a label %s, which has no bound", def.Name, label)
			}
		}
	}
	for name, want := range made {
		if told[name] != want {
			t.Errorf("%s is a %s; docs/metrics.md says %q", name, want, told[name])
		}
	}
	for name := range told {
		if made[name] == "" {
			t.Errorf("docs/metrics.md tells of %s, which no program has", name)
		}
	}
	if len(made) < 30 {
		t.Errorf("only %d metrics", len(made))
	}
}
