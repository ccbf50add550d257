package faults

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	all  = flag.Bool("faults.all", false, "plant every fault, also those that only whole meetings and links show")
	only = flag.String("faults.only", "", "plant those alone whose file and name have this in them, or one of these, with commas between")
)

// level is one harness.
type level struct {
	pkg   string
	cases int
	extra bool // only with -faults.all
	links bool // looks for faults of links, which the others do without
}

// levels are the harness, from the quick to the thorough: what a few thousand
// decisions do not show, meetings do.
var levels = []level{{"router", 4000, false, false}, {"node/room", 1500, true, false}, {"relay", 600, true, true}}

// clean is how many cases have to pass without any fault: all of them, where they
// are not the same that CI plays anyway.
func (l level) clean() int {
	if l.extra {
		return l.cases
	}
	return l.cases / 4
}

func inLinks(f fault) bool { return strings.HasPrefix(f.file, "relay/") }

// TestFaultsAreCaught plants one fault after the other.
func TestFaultsAreCaught(t *testing.T) {
	dir := t.TempDir()
	overlay := lay(t, dir)
	left := slices.DeleteFunc(slices.Clone(table), func(f fault) bool {
		return !inDecision(f) && !*all || !slices.ContainsFunc(strings.Split(*only, ","), func(s string) bool { return strings.Contains(f.file+": "+f.name, s) })
	})
	for _, l := range levels {
		if l.extra && !*all {
			break
		}
		if !slices.ContainsFunc(left, func(f fault) bool { return inLinks(f) == l.links }) {
			continue
		}
		harness := filepath.Join(dir, strings.ReplaceAll(l.pkg, "/", "-")+".test")
		build := exec.Command("go", "test", "-c", "-overlay", overlay, "-o", harness, "./"+l.pkg)
		build.Dir = root(t)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the harness of %s with the faults in it: %v\n%s", l.pkg, err, out)
		}
		if out, caught := play(t, harness, "", l.clean()); caught {
			t.Fatalf("%s fails without any fault:\n%s", l.pkg, out)
		}
		left = slices.DeleteFunc(slices.Clone(left), func(f fault) bool {
			if inLinks(f) != l.links {
				return false
			}
			out, caught := play(t, harness, f.name, l.cases)
			if caught {
				t.Logf("%-45s caught by %s: %s", f.name, l.pkg, firstBreach(out))
			}
			return caught
		})
	}
	for _, f := range left {
		t.Errorf("%s: %q is not caught", f.file, f.name)
	}
}

// inDecision reports whether single decisions have to show a fault. The others wait
// for -faults.all.
func inDecision(f fault) bool {
	return !strings.HasPrefix(f.file, "node/") && !inLinks(f)
}

// play runs the harness with a fault planted. Its seed is fixed: a fault that is
// caught today is caught tomorrow.
func play(t *testing.T, harness, name string, cases int) (out string, caught bool) {
	t.Helper()
	cmd := exec.Command(harness, "-test.run", "^TestNoLeak$", "-leak.seed=1", fmt.Sprintf("-leak.cases=%d", cases))
	cmd.Env = append(os.Environ(), "PLANTED="+name)
	cmd.Dir = t.TempDir()
	b, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return string(b), false
	case !strings.Contains(string(b), "replay: go test"):
		t.Fatalf("%s with %q: %v\n%s", filepath.Base(harness), name, err, b)
	}
	return string(b), true
}

// firstBreach is what a failing harness says first.
func firstBreach(out string) string {
	lines := strings.Split(out, "\n")
	for i, l := range lines {
		if strings.Contains(l, ": case ") && i+1 < len(lines) {
			if s := strings.TrimSpace(lines[i+1]); len(s) > 110 {
				return s[:110] + "…"
			}
			return strings.TrimSpace(lines[i+1])
		}
	}
	return ""
}

// TestFaultsFit fails for a fault whose place is gone: then it tests nothing.
func TestFaultsFit(t *testing.T) {
	lay(t, t.TempDir())
	if len(table) < 50 {
		t.Errorf("%d faults", len(table))
	}
	seen := map[string]bool{}
	for _, f := range table {
		if seen[f.name] {
			t.Errorf("%q is there twice", f.name)
		}
		seen[f.name] = true
	}
}

// lay writes the changed sources and returns the file that lays them over the real ones.
func lay(t *testing.T, dir string) string {
	t.Helper()
	top := root(t)
	text := map[string]string{}
	for _, f := range table {
		if text[f.file] == "" {
			b, err := os.ReadFile(filepath.Join(top, f.file))
			if err != nil {
				t.Fatal(err)
			}
			text[f.file] = string(b)
		}
		if n := strings.Count(text[f.file], f.old); n != 1 {
			t.Errorf("fault %q: %q stands %d times in %s: adapt the table", f.name, f.old, n, f.file)
			continue
		}
		text[f.file] = strings.Replace(text[f.file], f.old, strings.ReplaceAll(f.instead, "PLANTED", fmt.Sprintf("planted(%q)", f.name)), 1)
	}
	if t.Failed() {
		t.FailNow()
	}
	replace, packages := map[string]string{}, map[string]bool{}
	put := func(file, content string) {
		at := filepath.Join(dir, strings.ReplaceAll(file, "/", "-"))
		if err := os.WriteFile(at, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(top, file)] = at
	}
	for file, s := range text {
		put(file, s)
		packages[filepath.Dir(file)] = true
	}
	for p := range packages {
		put(p+"/planted_overlay.go", switches(p))
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(at, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return at
}

// switches is what every package with faults gets beside them.
func switches(pkg string) string {
	s := "package " + filepath.Base(pkg) + "\n\nimport \"os\"\n\nvar plantedFault = os.Getenv(\"PLANTED\")\n\nfunc planted(name string) bool { return plantedFault == name }\n"
	if pkg == "node/room" {
		s = strings.Replace(s, "import \"os\"\n", "import (\n\t\"os\"\n\t\"sync\"\n\n\t\"github.com/domicile/domicile/residency\"\n)\n", 1) + `
var firstGates sync.Map

// plantedGate is the gate that a room had first.
func plantedGate(r *Room, stale bool) *residency.Gate {
	if !stale {
		return r.deps.Gate()
	}
	g, _ := firstGates.LoadOrStore(r, r.deps.Gate())
	return g.(*residency.Gate)
}
`
	}
	return s
}

func root(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}
