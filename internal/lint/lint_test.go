package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pkg is what the go command says of a package.
type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	GoFiles    []string
	CgoFiles   []string
}

func (p pkg) name() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// root is the directory of go.mod.
func root(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,GoFiles,CgoFiles", "./...")
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		if len(p.GoFiles)+len(p.CgoFiles) > 0 {
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		t.Fatal("go list found no package")
	}
	return all
}

// matches reports whether a package fits a pattern such as "node" or "node/...".
func matches(pattern, name string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return name == base || below && strings.HasPrefix(name, base+"/")
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

// ruleFor finds the most precise rule of a package.
func ruleFor(name string) (rule, bool) {
	var best rule
	found := false
	for _, r := range imports {
		if matches(r.pkg, name) && (!found || len(r.pkg) > len(best.pkg) || r.pkg == name) {
			best, found = r, true
			if r.pkg == name {
				break
			}
		}
	}
	return best, found
}

// badImports lists what is wrong with the imports of a package.
func badImports(p pkg) []string {
	var bad []string
	name := p.name()
	r, known := ruleFor(name)
	if !known {
		return []string{fmt.Sprintf("%s: no rule says what it may import; add one to rules_test.go", name)}
	}
	for _, path := range p.Imports {
		ours, isOurs := strings.CutPrefix(path, module+"/")
		if isOurs && !matchesAny(r.may, ours) {
			bad = append(bad, fmt.Sprintf("%s imports %s, may import %q: %s", name, ours, r.may, r.cause))
		}
		if what, ok := impureImports[path]; ok && slices.Contains(pure, name) {
			bad = append(bad, fmt.Sprintf("%s imports %s: a pure core does without %s", name, path, what))
		}
		for _, h := range homes {
			if strings.HasPrefix(path, h.prefix) && !matchesAny(h.pkgs, name) {
				bad = append(bad, fmt.Sprintf("%s imports %s, which belongs to %q: %s", name, path, h.pkgs, h.cause))
			}
		}
	}
	return bad
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range packages(t) {
		for _, b := range badImports(p) {
			t.Error(b)
		}
	}
}

func TestImportsRunOneWayControl(t *testing.T) {
	tests := []struct {
		pkg, path string
		bad       bool
	}{
		{"relay", module + "/relay/wire", false},
		{"relay", module + "/node", true},
		{"relay", module + "/control", true},
		{"residency", module + "/router", true},
		{"residency/identity", module + "/residency", false},
		{"residency/identity", module + "/router", true},
		{"router", module + "/control/membership", true},
		{"node/sfu", module + "/residency", true},
		{"node/rtc", module + "/node/room", true},
		{"node/front", module + "/node/turn", true},
		{"node", module + "/configs", true},
		{"control", module + "/node/signal", true},
		{"web", module + "/node", true},
		{"relay", module + "/relay/relaytest", true},
		{"relay/brandnew", module + "/relay", true}, // has no rule yet
		{"residency", "net", true},
		{"residency", "net/netip", false},
		{"relay", "net", false},
		{"node/sfu", "log/slog", true},
		{"node/rtc", "github.com/livekit/protocol/livekit", true},
		{"node/signal", "github.com/livekit/protocol/livekit", false},
		{"node", "github.com/pion/turn/v5", true},
	}
	for _, tt := range tests {
		got := badImports(pkg{ImportPath: module + "/" + tt.pkg, Imports: []string{tt.path}})
		if (len(got) > 0) != tt.bad {
			t.Errorf("%s importing %s: %q, want refused %v", tt.pkg, tt.path, got, tt.bad)
		}
	}
}

// The table itself may not run in circles.
func TestRulesHaveNoCycle(t *testing.T) {
	const visiting, done = 1, 2
	state := map[string]int{}
	names := []string{}
	for _, r := range imports {
		names = append(names, strings.TrimSuffix(r.pkg, "/..."))
	}
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		switch state[name] {
		case visiting:
			t.Fatalf("the rules allow a circle: %s", strings.Join(append(path, name), " → "))
		case done:
			return
		}
		state[name] = visiting
		r, _ := ruleFor(name)
		for _, to := range names {
			if to != name && matchesAny(r.may, to) {
				visit(to, append(path, name))
			}
		}
		state[name] = done
	}
	for _, n := range names {
		visit(n, nil)
	}
}

// impurities lists where a file of a pure core reads the clock or starts a
// goroutine.
func impurities(fset *token.FileSet, f *ast.File) []string {
	clock := ""
	for _, spec := range f.Imports {
		if spec.Path.Value != `"time"` {
			continue
		}
		clock = "time"
		if spec.Name != nil {
			clock = spec.Name.Name
		}
	}
	var bad []string
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			bad = append(bad, fmt.Sprintf("%s: starts a goroutine", fset.Position(n.Pos())))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == clock && clockCalls[n.Sel.Name] {
				bad = append(bad, fmt.Sprintf("%s: uses time.%s", fset.Position(n.Pos()), n.Sel.Name))
			}
		}
		return true
	})
	return bad
}

func TestPureCoresReadNoClock(t *testing.T) {
	for _, p := range packages(t) {
		if !slices.Contains(pure, p.name()) {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range impurities(fset, f) {
				t.Errorf("%s; package %s is pure: its callers pass `now` and own the goroutines", b, p.name())
			}
		}
	}
}

// TestCoresStartNoGoroutine holds the packages that make test does not race to what
// it says of them.
func TestCoresStartNoGoroutine(t *testing.T) {
	rules, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(rules), "\ncores = ")
	list, _, _ = strings.Cut(list, "\nraced = ")
	cores := strings.Fields(strings.ReplaceAll(list, "\\\n", " "))
	if len(cores) < 10 {
		t.Fatalf("the cores of the Makefile: %q", cores)
	}
	for _, p := range packages(t) {
		if !slices.Contains(cores, "./"+p.name()) {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if g, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s: package %s starts a goroutine: have make test run it under the race detector", fset.Position(g.Pos()), p.name())
				}
				return true
			})
		}
	}
}

func TestPureCoresReadNoClockControl(t *testing.T) {
	const src = `package p
import clock "time"
func f() { go f(); _ = clock.Now(); _ = clock.Second; var t clock.Time; _ = t }
var later = clock.AfterFunc
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	if bad := impurities(fset, f); len(bad) != 3 {
		t.Errorf("found %q, want the goroutine, Now and AfterFunc", bad)
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	for _, p := range packages(t) {
		var comments []string
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if f.Doc != nil {
				comments = append(comments, f.Doc.Text())
			}
		}
		switch {
		case len(comments) == 0:
			t.Errorf("%s: no package comment; say what it decides or carries, and what it refuses to do", p.name())
		case len(comments) > 1:
			t.Errorf("%s: %d package comments; keep one", p.name(), len(comments))
		case len(strings.Fields(comments[0])) < 8:
			t.Errorf("%s: the package comment %q says too little", p.name(), comments[0])
		}
	}
}

func TestFilesHoldOneIdea(t *testing.T) {
	for _, p := range packages(t) {
		for _, file := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte("\n")); n > maxLines && !generated.Match(b) {
				t.Errorf("%s/%s: %d lines, more than %d; it holds two ideas, give the second a file", p.name(), file, n, maxLines)
			}
		}
	}
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// private are strings that belong to somebody's machine or network and break
// the build on another. They are put together here so as not to find themselves.
var private = regexp.MustCompile(strings.Join([]string{
	`registry\.` + `npmjs\.org`, `proxy\.` + `golang\.org`, `sum\.` + `golang\.org`, `files\.` + `pythonhosted\.org`,
	`"resolved": *"` + `https?:`,
	`/wo` + `rk/(main|shared)`, `/ro` + `ot/(go|\.)`, `/ho` + `me/[a-z]+/`, `/Us` + `ers/[A-Za-z]+/`,
}, "|"))

func TestNothingOfOneMachineIsCommitted(t *testing.T) {
	dir := root(t)
	for _, name := range committed(t, dir) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(b[:min(len(b), 8000)], 0) >= 0 {
			continue // not text
		}
		for i, line := range bytes.Split(b, []byte("\n")) {
			if m := private.Find(line); m != nil {
				t.Errorf("%s:%d: %q is true of one machine or network only", name, i+1, m)
			}
		}
	}
}

func TestNothingOfOneMachineControl(t *testing.T) {
	for line, want := range map[string]bool{
		`"resolved": "` + `https://example.org/x.tgz"`: true,
		"cd /ho" + "me/ada/src":                        true,
		"https://registry." + "npmjs.org/vite":         true,
		"see https://example.org/works":                false,
		"/var/lib/domicile":                            false,
	} {
		if got := private.MatchString(line); got != want {
			t.Errorf("%q: found %v, want %v", line, got, want)
		}
	}
}

// committed lists the files that git has, or would take.
func committed(t *testing.T, dir string) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return slices.DeleteFunc(strings.Split(string(out), "\x00"), func(s string) bool { return s == "" })
}

// Each parser of bytes from the network has a fuzz target; each target has a
// corpus, so that plain go test already runs the cases that once hurt.
func TestFuzzTargetsHaveACorpus(t *testing.T) {
	dir := root(t)
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	found := 0
	for _, name := range committed(t, dir) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllSubmatch(b, -1) {
			found++
			corpus := filepath.Join(filepath.Dir(name), "testdata", "fuzz", string(m[1]))
			if files, _ := os.ReadDir(filepath.Join(dir, corpus)); len(files) == 0 {
				t.Errorf("%s: %s has no corpus in %s", name, m[1], strconv.Quote(corpus))
			}
		}
	}
	if found == 0 {
		t.Error("no fuzz target in the whole repository")
	}
}
