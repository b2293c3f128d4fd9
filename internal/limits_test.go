package internal

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
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

// TestLimits counts without tests, but for the width of lines.
func TestLimits(t *testing.T) {
	packages := map[string]*subject{}
	fset := token.NewFileSet()
	sources(t, func(name string, source []byte) {
		wide(t, name, source)
		if strings.HasSuffix(name, "_test.go") {
			return
		}
		f, err := parser.ParseFile(fset, name, source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		folder := path.Dir(name)
		if packages[folder] == nil {
			packages[folder] = &subject{}
		}
		p := packages[folder]
		p.files++
		p.lines += bytes.Count(source, []byte("\n"))
		p.exported += exported(f)
		contexts(t, fset, f)
	})
	for name, p := range packages {
		if p.files > maxFiles || p.lines > maxLines || p.exported > maxExported {
			t.Errorf("%s has %d files, %d lines and %d exported names; at most %d, %d and %d", name, p.files, p.lines,
				p.exported, maxFiles, maxLines, maxExported)
		}
	}
}

// TestSizeOfProduct is not met yet, and so no test of every day: `make limits` runs it.
func TestSizeOfProduct(t *testing.T) {
	if os.Getenv("SURPRISAL_LIMITS") != "1" {
		t.Skip("make limits runs it")
	}
	product := 0
	sources(t, func(name string, source []byte) {
		shipped := !strings.HasSuffix(name, "_test.go")
		for _, u := range unshipped {
			shipped = shipped && !within(path.Dir(name), u)
		}
		if shipped {
			product += bytes.Count(source, []byte("\n"))
		}
	})
	if product > maxProduct {
		t.Errorf("the product has %d lines, at most %d", product, maxProduct)
	}
	t.Logf("the product has %d lines", product)
}

// sources calls do with each Go file of the repository.
func sources(t *testing.T, do func(name string, source []byte)) {
	t.Helper()
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
		name, err := filepath.Rel("..", path)
		if err == nil {
			do(filepath.ToSlash(name), source)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
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
