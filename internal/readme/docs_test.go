package readme

import (
	"go/ast"
	"go/parser"
	"go/token"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are what is read by people who did not write it.
func pages(t *testing.T) []string {
	t.Helper()
	list := []string{"README.md", "CONTRIBUTING.md", "web/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			list = append(list, strings.TrimPrefix(f, root+"/"))
		}
	}
	return list
}

// docs/operating.md, from top to bottom: files are written as they are shown,
// commands are run.
func TestOperating(t *testing.T) {
	dir := workplace(t)
	for _, b := range blocksOf(t, "docs/operating.md") {
		switch b.lang {
		case "yaml":
			if b.name == "" {
				t.Errorf("%s: an example of YAML has no name, so nothing reads it", b)
			}
			if err := os.WriteFile(filepath.Join(dir, b.name), []byte(b.text), 0o600); err != nil {
				t.Fatal(err)
			}
		case "console":
			transcribe(t, dir, b, strings.NewReplacer())
		}
	}
}

// Other pages show no YAML and no transcripts that nothing runs.
func TestNoExampleIsLeftOut(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range blocksOf(t, page) {
			switch {
			case page == "README.md" && b.lang == "console", page == "docs/operating.md", page == "docs/residency.md" && b.lang == "console":
			case b.lang == "yaml" || b.lang == "console":
				t.Errorf("%s: no test runs this example", b)
			}
		}
	}
}

// declared lists the functions and methods of a package as "Func" and "Type.Method".
func declared(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				names[receiver(fn)+fn.Name.Name] = true
			}
		}
	}
	return names
}

// receiver is "Type." for a method of Type.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}

// missing returns the functions of a list "package  function  words" that do
// not exist.
func missing(t *testing.T, list string) (names []string) {
	t.Helper()
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) < 3 || !declared(t, f[0])[f[1]] {
			names = append(names, strings.TrimSpace(line))
		}
	}
	return names
}

func TestArchitectureNamesFunctionsThatExist(t *testing.T) {
	found := 0
	for _, b := range blocksOf(t, "docs/architecture.md") {
		if b.name != "functions" {
			continue
		}
		found++
		for _, m := range missing(t, b.text) {
			t.Errorf("%s: no such function: %s", b, m)
		}
	}
	if found == 0 {
		t.Error("docs/architecture.md lists no functions")
	}
	if m := missing(t, "relay Track.Offer queues\nrelay Track.Vanish is gone\n"); len(m) != 1 {
		t.Errorf("of two functions, one of which does not exist, %q are missing", m)
	}
}

// codeName is such a name in running text: `UpTrack.Ingest`, `room.Room.serve`.
var codeName = regexp.MustCompile("`(?:[a-z]+\\.)?([A-Za-z]+\\.[A-Za-z]+)`")

func TestArchitectureTextNamesWhatExists(t *testing.T) {
	known := map[string]bool{}
	for _, dir := range []string{"node", "node/room", "node/room/reliable", "node/transport", "node/turn", "node/turn/alloc", "node/rtc",
		"node/rtc/jsep", "node/drainage", "node/sfu", "node/sfu/bwe", "node/sfu/allocate", "node/sfu/speakers", "node/sfu/quality", "node/whip", "node/record", "node/front", "node/signal",
		"relay", "residency", "residency/evidence", "residency/vault", "router", "router/geo", "control", "control/membership"} {
		for name := range declared(t, dir) {
			known[name] = true
			known[dir[strings.LastIndex(dir, "/")+1:]+"."+name] = true
		}
	}
	types := []string{"Room.locals", "homeState.nodes", "sfu.UpTrack", "relay.Fabric", "relay.Link", "membership.Snapshot", "sfu.DownTrack", "Room.selection", "Room.data",
		"residency.Bundle", "residency.Gate", "transport.Door", "front.Datagrams", "rooms.db", "admin.sock"} // fields, types and files
	for _, m := range codeName.FindAllStringSubmatch(read(t, "docs/architecture.md"), -1) {
		if !known[m[1]] && !slices.Contains(types, m[1]) {
			t.Errorf("docs/architecture.md: there is no %s", m[1])
		}
	}
}

func TestOperatingListsEveryMetric(t *testing.T) {
	name := regexp.MustCompile(`domicile_[a-z0-9_]+`)
	_, table, _ := strings.Cut(read(t, "docs/operating.md"), "<!-- test: metrics -->")
	table, _, _ = strings.Cut(table, "\n\n")
	shown := names(name, table)
	files, err := filepath.Glob("../../node/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared string
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			declared += read(t, "node/"+filepath.Base(f))
		}
	}
	if real := names(name, declared); !slices.Equal(shown, real) {
		t.Errorf("docs/operating.md lists the metrics %q, node/*.go have %q", shown, real)
	}
}

func names(pattern *regexp.Regexp, text string) []string {
	list := pattern.FindAllString(text, -1)
	slices.Sort(list)
	return slices.Compact(list)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	unslug  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// anchors are the fragments by which a page's headings are reached.
func anchors(text string) []string {
	var list []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		s := unslug.ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(s, " ", "-"))
	}
	return list
}

// deadLink says what is wrong with a link of a page, "" if nothing is.
func deadLink(t *testing.T, page, target string) string {
	t.Helper()
	if strings.Contains(target, "://") {
		return "it leads to another host"
	}
	path, fragment, _ := strings.Cut(target, "#")
	to := page
	if path != "" {
		to = filepath.Join(filepath.Dir(page), path)
	}
	info, err := os.Stat(filepath.Join(root, to))
	if err != nil {
		return "there is no such file"
	}
	if fragment != "" && (info.IsDir() || !slices.Contains(anchors(read(t, to)), fragment)) {
		return "there is no such heading"
	}
	return ""
}

func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if why := deadLink(t, page, m[1]); why != "" {
				t.Errorf("%s: link %q: %s", page, m[1], why)
			}
		}
	}
	for _, bad := range []string{"nowhere.md", "docs/operating.md#nothing", "#nothing", "https://example.org/"} {
		if deadLink(t, "README.md", bad) == "" {
			t.Errorf("link %q is taken for a good one", bad)
		}
	}
}

// maxPicture keeps a clone small, in bytes.
const maxPicture = 400_000

func TestPicture(t *testing.T) {
	const path = "docs/images/meeting.png"
	if !strings.Contains(read(t, "README.md"), "("+path+")") {
		t.Error("the README does not show " + path)
	}
	f, err := os.Open(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > maxPicture {
		t.Errorf("%s: %d bytes, at most %d: %v", path, info.Size(), maxPicture, err)
	}
	if c, err := png.DecodeConfig(f); err != nil || c.Width < 640 {
		t.Errorf("%s: %d pixels wide: %v", path, c.Width, err)
	}
	if plan := planned(t, "screenshot"); !strings.Contains(plan, "scripts/screenshot") || !strings.Contains(read(t, "scripts/screenshot"), path) {
		t.Errorf("make screenshot does not renew %s", path)
	}
}

// A decision has a date, stands in the list, and says its three things.
func TestDecisions(t *testing.T) {
	dated := regexp.MustCompile(`^\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md$`)
	list := read(t, "docs/decisions/README.md")
	for _, page := range pages(t) {
		name, ok := strings.CutPrefix(page, "docs/decisions/")
		if !ok || name == "README.md" {
			continue
		}
		text := read(t, page)
		title, _, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
		if !dated.MatchString(name) || !strings.Contains(list, "| "+name[:10]+" | ["+title+"]("+name+") |") {
			t.Errorf("%s: want a date in its name, and its title in docs/decisions/README.md", page)
		}
		for _, part := range []string{"**Context.**", "**Decision.**", "**Consequences.**"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %s", page, part)
			}
		}
	}
}
