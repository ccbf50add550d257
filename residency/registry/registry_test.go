package registry

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table in docs/data.md anew")

const (
	page = "../../docs/data.md"
	end  = "<!-- end -->\n"
)

// begin is where a table of the page starts.
func begin(what string) string { return "<!-- " + what + ": generated from residency/registry -->\n" }

// TestFieldsAreWhole wants every field to say everything, once.
func TestFieldsAreWhole(t *testing.T) {
	for _, all := range [][]Field{LogAttributes(), MetricLabels()} {
		areWhole(t, all)
	}
	for _, f := range Files() {
		if f.Path == "" || f.Class == "" || f.Retention == "" || f.Holds == "" {
			t.Errorf("%+v", f)
		}
	}
	for _, d := range Documents() {
		if d.Class == "" || d.Retention == "" || d.Holds == "" || len(d.Fields)+len(d.Personal) == 0 {
			t.Errorf("%+v", d)
		}
	}
}

func areWhole(t *testing.T, all []Field) {
	t.Helper()
	if !slices.IsSortedFunc(all, func(a, b Field) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not in order")
	}
	for i, f := range all {
		if f.Name == "" || f.Class == "" || f.Retention == "" || f.Holds == "" || i > 0 && all[i-1].Name == f.Name {
			t.Errorf("%+v", f)
		}
	}
}

// TestPageIsCurrent holds the tables of docs/data.md against the registry.
func TestPageIsCurrent(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := string(b)
	for what, table := range map[string]string{"log attributes": fieldTable("attribute", LogAttributes()), "labels": fieldTable("label", MetricLabels()),
		"files": fileTable(), "documents": documentTable()} {
		head, rest, ok := strings.Cut(want, begin(what))
		_, tail, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no place for the table of %s", page, what)
		}
		want = head + begin(what) + table + end + tail
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(b) {
		t.Errorf("%s is out of date: go test ./residency/registry -update", page)
	}
}

func yes(b bool) string { return map[bool]string{true: "yes", false: "no"}[b] }

func fieldTable(what string, fields []Field) string {
	s := "\n| " + what + " | holds | class | kept | of a person |\n| --- | --- | --- | --- | --- |\n"
	for _, f := range fields {
		s += fmt.Sprintf("| `%s` | %s | `%s` | %s | %s |\n", f.Name, f.Holds, f.Class, f.Retention, yes(f.Personal))
	}
	return s + "\n"
}

func fileTable() string {
	s := "\n| file | holds | class | kept | of a person | sealed |\n| --- | --- | --- | --- | --- | --- |\n"
	for _, f := range Files() {
		s += fmt.Sprintf("| `%s` | %s | `%s` | %s | %s | %s |\n", f.Path, f.Holds, f.Class, f.Retention, yes(f.Personal), yes(f.Sealed))
	}
	return s + "\n"
}

func documentTable() string {
	code := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return "`" + strings.Join(list, "` `") + "`"
	}
	s := "\n| document | holds | class | kept | of a person | of nobody |\n| --- | --- | --- | --- | --- | --- |\n"
	for _, d := range Documents() {
		s += fmt.Sprintf("| %s | %s | `%s` | %s | %s | %s |\n", d.Struct, d.Holds, d.Class, d.Retention, code(d.Personal), code(d.Fields))
	}
	return s + "\n"
}
