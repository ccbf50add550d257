package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// permitted are the ways on which a room's data leaves a node, comes in, or lands on a
// disk. Each takes the gate's decision as an argument: without it the call does not
// compile. Method of a type: "Type.Method"; docs/residency.md has the same list.
var permitted = map[string][]string{
	"relay":           {"Link.Send", "Link.Request", "Link.OpenTrack", "Link.Bind", "Link.Rebind", "Track.Renew"},
	"control/store":   {"Store.PutRoom"},
	"residency/vault": {"Vault.Create", "Recording.Renew"},
	"node/prepared":   {"Writer.admit"},
	"node/room":       {"Link.Send", "Link.OpenTrack", "Link.Bind", "Link.Rebind", "OutTrack.Renew", "Deps.Save"},
	"node": {"Node.ask", "Node.saveRecord", "Node.keepPseudonym", "Node.exportChat", "Node.sendExport", "records.save", "lineLog.append", "lineLog.create", "Node.exportTable",
		"roomKeys.ensure", "roomKeys.put"},
}

// takesPermit reports whether a function wants a permit.
func takesPermit(f *ast.FuncType) bool {
	return slices.ContainsFunc(f.Params.List, func(p *ast.Field) bool { return types.ExprString(p.Type) == "residency.Permit" })
}

// signatures finds the functions, methods and function fields of a file, by name.
func signatures(f *ast.File, found map[string]*ast.FuncType) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = strings.TrimPrefix(types.ExprString(d.Recv.List[0].Type), "*") + "." + name
			}
			found[name] = d.Type
		case *ast.GenDecl:
			for _, s := range d.Specs {
				t, ok := s.(*ast.TypeSpec)
				if !ok {
					continue
				}
				var fields *ast.FieldList
				switch x := t.Type.(type) {
				case *ast.InterfaceType:
					fields = x.Methods
				case *ast.StructType:
					fields = x.Fields
				default:
					continue
				}
				for _, field := range fields.List {
					if fn, ok := field.Type.(*ast.FuncType); ok && len(field.Names) == 1 {
						found[t.Name.Name+"."+field.Names[0].Name] = fn
					}
				}
			}
		}
	}
}

// TestPermitsAreNotLost holds the list against the code.
func TestPermitsAreNotLost(t *testing.T) {
	top := root(t)
	for dir, names := range permitted {
		files, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]*ast.FuncType{}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			signatures(f, found)
		}
		for _, name := range names {
			switch f := found[name]; {
			case f == nil:
				t.Errorf("%s: %s is gone: what has taken its place wants a permit and a line here", dir, name)
			case !takesPermit(f):
				t.Errorf("%s: %s takes no residency.Permit: a room's data could leave or be kept without the gate", dir, name)
			}
		}
	}
}

func TestPermitsAreNotLostControl(t *testing.T) {
	const src = `package p
type A struct{ Save func(residency.Permit, int) error; Load func(int) }
type B interface{ Send(p residency.Permit); Recv(int) }
func (a *A) Put(ctx context.Context, p residency.Permit) {}
func (a *A) Get(p Permit) {}
func Keep(x, y residency.Permit) {}
`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*ast.FuncType{}
	signatures(f, found)
	for name, want := range map[string]bool{"A.Save": true, "A.Load": false, "B.Send": true, "B.Recv": false, "A.Put": true, "A.Get": false, "Keep": true} {
		if f := found[name]; f == nil || takesPermit(f) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}
