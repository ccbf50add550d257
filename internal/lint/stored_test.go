package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency/registry"
)

// product calls see for each source file of the product, tests and tools left out.
func product(t *testing.T, see func(pkg, file string, f *ast.File, fset *token.FileSet)) {
	t.Helper()
	fset := token.NewFileSet()
	for _, p := range packages(t) {
		if strings.HasPrefix(p.name(), "bench") || strings.HasPrefix(p.name(), "internal") || strings.HasSuffix(p.name(), "test") {
			continue
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			see(p.name(), p.name()+"/"+name, f, fset)
		}
	}
}

// TestStoredFieldsAreRegistered holds every field of every document that is written
// against the registry (R12): one that is not in it fails, and so does one that the
// registry makes up.
func TestStoredFieldsAreRegistered(t *testing.T) {
	documents, passing, writing := map[string]registry.Document{}, registry.Passing(), map[string]bool{}
	for _, d := range registry.Documents() {
		documents[d.Package+"."+d.Struct] = d
		writing[d.Package] = d.Package != "node" && d.Package != "node/room" // those have hundreds of forms that pass
	}
	seen := map[string]bool{}
	product(t, func(pkg, _ string, f *ast.File, _ *token.FileSet) {
		for name, s := range structs(f) {
			key := pkg + "." + name
			d, registered := documents[key]
			stored, tagged := fields(s)
			switch {
			case registered:
				seen[key] = true
				want := slices.Sorted(slices.Values(slices.Concat(d.Fields, d.Personal)))
				if got := slices.Sorted(slices.Values(stored)); !slices.Equal(got, want) {
					t.Errorf("%s has the fields\n  %q, the registry has\n  %q", key, got, want)
				}
			case writing[pkg] && tagged && !slices.Contains(passing, key):
				t.Errorf("%s has JSON fields and is not in residency/registry", key)
			}
		}
	})
	for key := range documents {
		if !seen[key] {
			t.Errorf("%s is registered and does not exist", key)
		}
	}
}

// structs are the struct types of a file.
func structs(f *ast.File) map[string]*ast.StructType {
	found := map[string]*ast.StructType{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			if ts, ok := s.(*ast.TypeSpec); ok {
				if st, ok := ts.Type.(*ast.StructType); ok {
					found[ts.Name.Name] = st
				}
			}
		}
	}
	return found
}

// fields are the names under which a struct's fields are written; tagged reports
// whether one has a name in JSON.
func fields(s *ast.StructType) (names []string, tagged bool) {
	for _, f := range s.Fields.List {
		tag := ""
		if f.Tag != nil {
			raw, _ := strconv.Unquote(f.Tag.Value)
			tag, _, _ = strings.Cut(reflect.StructTag(raw).Get("json"), ",")
		}
		for _, n := range f.Names {
			switch {
			case tag == "-" || tag == "" && !n.IsExported():
			case tag == "":
				names = append(names, n.Name)
			default:
				names, tagged = append(names, tag), true
			}
		}
	}
	return names, tagged
}

// creates are the calls by which a file may come to be.
var creates = []string{"os.WriteFile", "os.Create", "os.CreateTemp", "os.OpenFile", "os.Mkdir", "os.MkdirAll", "os.MkdirTemp", "os.Rename", "os.Symlink", "os.Link"}

// TestWritersAreRegistered wants every source file that can create a file to say what
// for.
func TestWritersAreRegistered(t *testing.T) {
	writers, seen := registry.Writers(), map[string]bool{}
	product(t, func(_, file string, f *ast.File, fset *token.FileSet) {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !slices.Contains(creates, name(call.Fun)) {
				return true
			}
			if seen[file] = true; writers[file] == "" {
				t.Errorf("%s:%d creates files, and residency/registry does not say which", file, fset.Position(call.Pos()).Line)
			}
			return true
		})
	})
	for file := range writers {
		if !seen[file] {
			t.Errorf("%s is registered and creates nothing", file)
		}
	}
}

// TestMetricLabelsAreRegistered holds the labels of metrics against the registry.
func TestMetricLabelsAreRegistered(t *testing.T) {
	known, used := map[string]bool{}, map[string]bool{}
	for _, l := range registry.MetricLabels() {
		known[l.Name] = true
	}
	product(t, func(_, file string, f *ast.File, fset *token.FileSet) {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !strings.HasPrefix(name(call.Fun), "prometheus.New") || name(call.Fun) == "prometheus.NewRegistry" {
				return true
			}
			if name(call.Fun) != "prometheus.NewDesc" || len(call.Args) != 4 {
				t.Errorf("%s:%d: %s: make metrics of descriptions, whose labels this test reads", file, fset.Position(call.Pos()).Line, name(call.Fun))
				return true
			}
			for _, l := range labels(t, call.Args[2]) {
				if used[l] = true; !known[l] {
					t.Errorf("%s:%d: label %q is not in residency/registry", file, fset.Position(call.Pos()).Line, l)
				}
			}
			return true
		})
	})
	for l := range known {
		if !used[l] {
			t.Errorf("label %q is registered, and no metric has it", l)
		}
	}
}

// labels are those written out in a metric's description.
func labels(t *testing.T, e ast.Expr) (list []string) {
	lit, ok := e.(*ast.CompositeLit)
	if !ok {
		if name(e) != "nil" {
			t.Errorf("a metric's labels are not written out")
		}
		return nil
	}
	for _, x := range lit.Elts {
		b, ok := x.(*ast.BasicLit)
		if !ok {
			t.Errorf("a metric's label is not written out")
			continue
		}
		s, _ := strconv.Unquote(b.Value)
		list = append(list, s)
	}
	return list
}
