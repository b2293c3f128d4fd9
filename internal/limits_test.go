package internal

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The house's limits: past them a package is two subjects, a line is hard to read.
const (
	maxFiles    = 26
	maxLines    = 4_600  // of a package
	maxExported = 45     // top-level names of a package
	maxProduct  = 46_000 // lines of all that is shipped
	maxColumns  = 120    // with tabs of 4
)

// unshipped is what no program is made of.
var unshipped = []string{"internal/testkit", "internal/tools", "internal/jobs/simnats", "bench", "e2e"}

// subject is a package as the limits see it.
type subject struct{ files, lines, exported int }

// TestLimits counts without tests, but for the width of lines. `make limits` runs it;
// what it names is what is left to do.
func TestLimits(t *testing.T) {
	if os.Getenv("SURPRISAL_LIMITS") != "1" {
		t.Skip("make limits runs it")
	}
	packages, product := map[string]*subject{}, 0
	fset := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && name != ".." && (strings.HasPrefix(name, ".") || name == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel("..", path)
		wide(t, name, source)
		if strings.HasSuffix(path, "_test.go") {
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(name))
		if packages[folder] == nil {
			packages[folder] = &subject{}
		}
		p, lines := packages[folder], bytes.Count(source, []byte("\n"))
		p.files++
		p.lines += lines
		shipped := true
		for _, u := range unshipped {
			shipped = shipped && !within(folder, u)
		}
		if shipped {
			product += lines
		}
		f, err := parser.ParseFile(fset, path, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p.exported += exported(f)
		contexts(t, fset, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range packages {
		if p.files > maxFiles || p.lines > maxLines || p.exported > maxExported {
			t.Errorf("%s has %d files, %d lines and %d exported names; at most %d, %d and %d", name, p.files, p.lines,
				p.exported, maxFiles, maxLines, maxExported)
		}
	}
	if product > maxProduct {
		t.Errorf("the product has %d lines, at most %d", product, maxProduct)
	}
	t.Logf("the product has %d lines", product)
}

// wide reports lines that are too long; what go:embed, build tags and links hold can't
// be cut.
func wide(t *testing.T, name string, source []byte) {
	n := 0
	for line := range bytes.Lines(source) {
		n++
		columns := 0
		for _, r := range strings.TrimSuffix(string(line), "\n") {
			columns++
			if r == '\t' {
				columns += 3
			}
		}
		if columns > maxColumns && !bytes.Contains(line, []byte("://")) && !bytes.HasPrefix(line, []byte("//go:")) {
			t.Errorf("%s:%d: %d columns", name, n, columns)
		}
	}
}

// exported counts a file's top-level names; methods are not among them.
func exported(f *ast.File) (n int) {
	count := func(id *ast.Ident) {
		if id.IsExported() {
			n++
		}
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				count(d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					count(s.Name)
				case *ast.ValueSpec:
					for _, id := range s.Names {
						count(id)
					}
				}
			}
		}
	}
	return n
}

// contexts reports fields of structs that hold a context without a comment that says why.
func contexts(t *testing.T, fset *token.FileSet, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.StructType)
		if !ok {
			return true
		}
		for _, field := range s.Fields.List {
			x, ok := field.Type.(*ast.SelectorExpr)
			if !ok || x.Sel.Name != "Context" || field.Doc != nil || field.Comment != nil {
				continue
			}
			if id, ok := x.X.(*ast.Ident); ok && id.Name == "context" {
				t.Errorf("%s: a context in a struct, and no comment says why", fset.Position(field.Pos()))
			}
		}
		return true
	})
}
