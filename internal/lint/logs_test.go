package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency/registry"
)

// logger fits what loggers are called here.
var logger = regexp.MustCompile(`(?i)(^|\.)(log|slog|logger)$`)

// firstKey is where the attributes of a call to a logger begin.
var firstKey = map[string]int{"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "With": 0,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2}

// TestLogAttributesAreRegistered holds every attribute of every log line against
// the registry (R12): a key that is not in it, or is not written out, fails.
func TestLogAttributesAreRegistered(t *testing.T) {
	known, used := map[string]bool{}, map[string]bool{}
	for _, a := range registry.LogAttributes() {
		known[a.Name] = true
	}
	fset, calls := token.NewFileSet(), 0
	for _, p := range packages(t) {
		if strings.HasPrefix(p.name(), "bench") || strings.HasPrefix(p.name(), "internal") {
			continue // they run beside the product
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				keys, dynamic := logKeys(call)
				at := fset.Position(call.Pos())
				if dynamic {
					t.Errorf("%s/%s:%d: a key of a log line is not written out", p.name(), name, at.Line)
				}
				for _, k := range keys {
					calls++
					if used[k] = true; !known[k] {
						t.Errorf("%s/%s:%d: log attribute %q is not in residency/registry", p.name(), name, at.Line, k)
					}
				}
				return true
			})
		}
	}
	for k := range known {
		if !used[k] {
			t.Errorf("log attribute %q is registered, and nobody logs it", k)
		}
	}
	if calls < 100 {
		t.Errorf("only %d attributes were found: the test looks at the wrong calls", calls)
	}
}

// logKeys are the attributes' keys of a call, if it is one to a logger.
func logKeys(call *ast.CallExpr) (keys []string, dynamic bool) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil, false
	}
	from, isLog := firstKey[sel.Sel.Name]
	if !isLog || !logger.MatchString(name(sel.X)) || call.Ellipsis.IsValid() {
		return nil, false
	}
	for i := from; i < len(call.Args); i += 2 {
		lit, ok := call.Args[i].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return keys, true
		}
		k, err := strconv.Unquote(lit.Value)
		if err != nil {
			return keys, true
		}
		keys = append(keys, k)
	}
	return keys, false
}

// name writes out a chain of selectors, and what it is not made of as nothing.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return fmt.Sprintf("%s.%s", name(e.X), e.Sel.Name)
	}
	return ""
}
