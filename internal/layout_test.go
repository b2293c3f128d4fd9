// Package internal holds the module's layout to its rules.
package internal

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "surprisal"

// layers lists who may import whom: a package imports only families of layers
// below its own, and its own family.
var layers = [][]string{
	{"internal/failpoint", "internal/metrics", "internal/place", "internal/quantile", "internal/traces",
		"internal/usage"},
	{"internal/score"},
	{"internal/store"},
	{"internal/jobs", "internal/model", "internal/shard"},
	{"internal/gpu", "internal/monitor"}, // an engine is made of a model's tensors
	{"internal/dispatch", "internal/worker"},
	{"internal/audit", "internal/curate", "internal/serve"},
	{"internal/report"},
	{"internal/cli"},
	{"internal/testkit"}, // what tests share: see testkitUsers
	{"cmd/dispatcher", "cmd/worker", "internal/tools", "bench", "e2e"},
}

// rooms lists which other packages of its family a package may import. Families
// without rows here are free inside.
var rooms = map[string][]string{
	"internal/shard": {"internal/shard/pq", "internal/shard/pq/arrow", "internal/shard/jsonl"},
	"internal/shard/pq": {"internal/shard/pq/arrow", "internal/shard/pq/compact", "internal/shard/pq/compress",
		"internal/shard/pq/decode"},
	"internal/shard/jsonl":    {"internal/shard/pq"},
	"internal/shard/discover": {"internal/shard/jsonl"},
	"internal/shard/outdir":   {"internal/shard", "internal/shard/pq", "internal/shard/jsonl"},
}

// alone lists packages that import nothing of this module but what is below them.
var alone = []string{"internal/shard/pq"}

// testkit is imported by tests and by testkitUsers alone.
const testkit = "internal/testkit"

var testkitUsers = []string{testkit, "internal/tools", "bench", "e2e"}

// owners names the one package family that may import each heavy dependency. The
// end-to-end tests and checkrun use two themselves, so as not to trust the code under test.
var owners = map[string][]string{
	"github.com/nats-io/": {"internal/jobs", "bench/queue", "e2e"},
	"github.com/parquet-go/": {"internal/shard", "internal/testkit/shardtest", "internal/tools/checkrun",
		"internal/tools/gencorpus", "e2e"},
	"github.com/daulet/tokenizers":   {"internal/model/tokenizer"},
	"github.com/nlpodyssey/gopickle": {"internal/model"},
	"gocloud.dev/":                   {"internal/store"},
	"github.com/aws/":                {"internal/store", "internal/testkit/storetest"},
	"cloud.google.com/":              {"internal/store"},
	"github.com/Azure/":              {"internal/store", "internal/testkit/storetest"},
	"gorgonia.org/cu":                {"internal/gpu"},
	"github.com/spf13/":              {"cmd/dispatcher", "cmd/worker", "internal/cli"},
	"github.com/prometheus/":         {"internal/metrics", "internal/gpu/telemetry", "e2e"},
	"github.com/NVIDIA/":             {"internal/gpu/telemetry"},
	"github.com/schollz/":            {"cmd/dispatcher"},
	"golang.org/x/image/":            {"internal/report"},
	"github.com/chromedp/":           {"internal/testkit/browsertest", "internal/report", "e2e"},
	"github.com/charmbracelet/":      {"internal/serve"},
	"go.opentelemetry.io/":           {"internal/traces", "e2e"},
	// They call methods by name, for which the linker keeps all: 14 MB of the dispatcher.
	"html/template": {},
	"text/template": {},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func goList(t *testing.T, env string, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var list []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

// within reports whether package p is dir or below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// layerOf gives the layer and the family of a package of this module.
func layerOf(p string) (layer int, family string) {
	for i, families := range layers {
		for _, f := range families {
			if within(p, path.Join(module, f)) {
				return i, f
			}
		}
	}
	return -1, ""
}

func TestImportArrows(t *testing.T) {
	for _, p := range goList(t, "CGO_ENABLED=1", "./...") {
		if p.ImportPath == path.Join(module, "internal") {
			continue
		}
		layer, family := layerOf(p.ImportPath)
		if layer < 0 {
			t.Errorf("%s is in no layer", p.ImportPath)
			continue
		}
		// Tests may reach sideways; they never reach up.
		for i, imports := range [][]string{p.Imports, p.TestImports, p.XTestImports} {
			for _, im := range imports {
				if !within(im, module) {
					continue
				}
				to, other := layerOf(im)
				if within(im, path.Join(module, testkit)) {
					uses := func(f string) bool { return within(p.ImportPath, path.Join(module, f)) }
					if i == 0 && !slices.ContainsFunc(testkitUsers, uses) {
						t.Errorf("%s imports %s, which is for tests", p.ImportPath, im)
					}
					continue
				}
				if to < layer || other == family || i > 0 && to == layer {
					continue
				}
				t.Errorf("%s imports %s, which is not below it", p.ImportPath, im)
			}
		}
	}
}

// TestRooms holds the arrows inside families.
func TestRooms(t *testing.T) {
	for _, p := range goList(t, "CGO_ENABLED=1", "./...") {
		room := strings.TrimPrefix(p.ImportPath, module+"/")
		_, family := layerOf(p.ImportPath)
		allowed, listed := rooms[room]
		for _, im := range p.Imports {
			if !within(im, module) {
				continue
			}
			to := strings.TrimPrefix(im, module+"/")
			if slices.Contains(alone, room) && !within(to, room) {
				t.Errorf("%s imports %s: it is to import nothing of this module", room, to)
			}
			if _, f := layerOf(im); listed && f == family && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; of its family it may import %v", room, to, allowed)
			}
		}
	}
}

func TestHeavyDependenciesHaveOneImporter(t *testing.T) {
	for _, p := range goList(t, "CGO_ENABLED=1", "./...") {
		for _, im := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			for dep, families := range owners {
				if strings.HasPrefix(im, dep) &&
					!slices.ContainsFunc(families,
						func(f string) bool { return within(p.ImportPath, path.Join(module, f)) }) {
					t.Errorf("%s imports %s, which belongs to %v", p.ImportPath, im, families)
				}
			}
		}
	}
}

// TestDispatcherIsPure: the dispatcher is built without cgo and holds no engine.
func TestDispatcherIsPure(t *testing.T) {
	for _, p := range goList(t, "CGO_ENABLED=0", "-deps", "./cmd/dispatcher") {
		if p.ImportPath == "runtime/cgo" {
			t.Error("the dispatcher needs cgo")
		}
		for _, not := range []string{"internal/gpu", "internal/worker", "internal/model/cpu",
			"internal/model/tokenizer"} {
			if within(p.ImportPath, path.Join(module, not)) {
				t.Errorf("the dispatcher holds %s", p.ImportPath)
			}
		}
	}
}
