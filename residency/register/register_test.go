package register

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func all(z residency.Zone) map[residency.Class]residency.Zone {
	m := map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		m[c] = z
	}
	return m
}

// bundle has a policy of the EEA whose live data may pass edges outside, one of
// everywhere with a basis for the US, and one for a tenant in Poland.
func bundle() *residency.Bundle {
	eea, _ := residency.NamedZone("EEA")
	clauses := residency.TransferBasis{Kind: residency.BasisClauses, Countries: []residency.Country{"US"},
		From: noon.AddDate(-1, 0, 0), Until: noon.AddDate(1, 0, 0), Reference: "contract 17 <b>"}
	ended := residency.TransferBasis{Kind: residency.BasisAdequacy, Countries: []residency.Country{"US"},
		From: noon.AddDate(-10, 0, 0), Until: noon.AddDate(-6, 0, 0), Reference: "Privacy Shield"}
	return &residency.Bundle{Epoch: 7, Issued: noon.AddDate(0, -1, 0), Default: "eea", Policies: map[string]*residency.Policy{
		"eea": {Name: "eea", Title: "In the EEA", Zones: all(residency.Zone{Name: "EEA", Countries: eea}), EdgeOutside: true,
			Recording: residency.RecordingRule{Allowed: true, Notice: true}},
		"world":  {Name: "world", Zones: all(residency.Zone{Name: "any", Anywhere: true}), TransferRequired: true, Transfers: []residency.TransferBasis{ended, clauses}},
		"polish": {Name: "polish", Zones: all(residency.Zone{Name: "PL", Countries: []residency.Country{"PL"}})},
	}, Nodes: []residency.Registered{{Name: "fra", Country: "DE"}, {Name: "waw", Country: "PL", Tenants: []string{"bank"}}, {Name: "nyc", Country: "US"},
		{Name: "old", Country: "DE"}, {Name: "far", Country: "DE"}, {Name: "gone", Country: "FR"}},
		Tenants: []residency.Tenant{{Name: "bank", Policy: "polish", Controller: "=Bank S.A."}, {Name: "shop", Policy: "eea"}},
		Revoked: []string{"0a"}}
}

func entry(name residency.NodeName, country residency.Country, serial string, roles ...residency.Role) Entry {
	return Entry{Node: residency.Node{Name: name, Country: country, Operator: "Example GmbH", OperatorCountry: "DE", Parent: "Example Inc.", ParentCountry: "US",
		Roles: roles, NotBefore: noon.AddDate(0, 0, -1), NotAfter: noon.AddDate(0, 3, 0), Serial: serial}}
}

func example() Register {
	hostile := entry("waw", "PL", "02", residency.RoleOrigin)
	hostile.Node.Operator, hostile.Node.Parent, hostile.Node.ParentCountry = `=HYPERLINK("http://evil","click")`, `=HYPERLINK("http://evil","click")`, "DE"
	far := entry("far", "DE", "05", residency.RoleEdge)
	far.Contradiction = "it answered DE within 1.0 ms"
	return Make(residency.NewGate(bundle()), []Entry{entry("nyc", "US", "03", residency.RoleEdge), hostile,
		entry("fra", "DE", "01", residency.RoleOrigin, residency.RoleEdge), entry("old", "DE", "0A", residency.RoleEdge), far,
		entry("ring", "DE", "09", residency.RoleEdge)}, noon)
}

// TestText compares the whole register with what a reader was shown and agreed
// to; REWRITE=1 writes the files anew.
func TestText(t *testing.T) {
	for _, lang := range Languages() {
		var b bytes.Buffer
		if err := example().Text(&b, lang); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "register."+string(lang)+".txt")
		if os.Getenv("REWRITE") != "" {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s is another:\n%s", path, b.String())
		}
	}
}

func find(t *testing.T, r Register, name residency.NodeName) Node {
	t.Helper()
	for _, p := range r.Processors {
		for _, n := range p.Nodes {
			if n.Name == name {
				return n
			}
		}
	}
	t.Fatalf("node %s is not in the register", name)
	return Node{}
}

// What the register says of a node is what the gate would say.
func TestRegisterSaysWhatTheGateSays(t *testing.T) {
	r, gate := example(), residency.NewGate(bundle())
	for _, want := range []struct {
		node residency.NodeName
		rule string
		uses []string
	}{
		{"fra", "", []string{"eea", "world"}},
		{"nyc", "", []string{"eea", "world"}},
		{"waw", "", []string{"polish"}}, // of the bank alone
		{"old", residency.RuleRevoked, nil},
		{"far", residency.RuleQuarantine, nil},
		{"ring", residency.RuleRegister, nil},
	} {
		n := find(t, r, want.node)
		var uses []string
		for _, u := range n.Uses {
			uses = append(uses, u.Policy)
		}
		if n.RefusedRule != want.rule || !slices.Equal(uses, want.uses) {
			t.Errorf("%s: refused %q, used for %v; want %q, %v", want.node, n.RefusedRule, uses, want.rule, want.uses)
		}
	}
	nyc := find(t, r, "nyc")
	if u := nyc.Uses[0]; len(u.Stores)+len(u.Handles) > 0 || !slices.Equal(u.Outside, []residency.Class{"media", "signalling", "chat"}) {
		t.Errorf("nyc under eea: %+v", u)
	}
	if u := nyc.Uses[1]; len(u.Transfers) != 1 || u.Transfers[0].Kind != residency.BasisClauses {
		t.Errorf("nyc under world has the grounds %+v", u.Transfers)
	}
	for _, c := range find(t, r, "fra").Uses[0].Stores {
		v := gate.Decide(residency.Request{Policy: "eea", Class: c, Store: true, Peer: entry("fra", "DE", "01", residency.RoleOrigin, residency.RoleEdge).Node, PeerEpoch: 7, Now: noon})
		if !v.Allow {
			t.Errorf("fra stores %s by the register, not by the gate", c)
		}
	}
	if len(r.Missing) != 1 || r.Missing[0].Name != "gone" {
		t.Errorf("missing: %v", r.Missing)
	}
}

// A spreadsheet must not take an operator's name for a formula (A18).
func TestCSV(t *testing.T) {
	var b bytes.Buffer
	if err := example().CSV(&b, German); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) < 8 || !slices.Equal(rows[0], columns) {
		t.Fatalf("%d rows, the first is %q", len(rows), rows[0])
	}
	hostile := false
	for _, row := range rows[1:] {
		for _, cell := range row {
			if cell != "" && strings.ContainsAny(cell[:1], "=+-@\t\r") {
				t.Errorf("a formula: %q", cell)
			}
		}
		hostile = hostile || strings.HasPrefix(row[0], "'=HYPERLINK")
	}
	if !hostile {
		t.Error("the hostile operator is not there")
	}
	for in, want := range map[string]string{"=1": "'=1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\t=1": "'\t=1", "  =1": "'  =1", "＝1": "'＝1",
		"|x": "'|x", "Example GmbH": "Example GmbH", "": "", "1-2": "1-2"} {
		if got := plain(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestHTML(t *testing.T) {
	for _, lang := range Languages() {
		var b bytes.Buffer
		if err := example().HTML(&b, lang); err != nil {
			t.Fatal(err)
		}
		page := b.String()
		for _, want := range []string{`<html lang="` + string(lang) + `">`, "Example GmbH", "nyc", in(lang).place("US"), "contract 17 &lt;b&gt;", in(lang).say("refused")} {
			if !strings.Contains(page, want) {
				t.Errorf("%s: no %q", lang, want)
			}
		}
		if m := regexp.MustCompile(`(?i)(src|href)=|<script|url\(`).FindString(page); m != "" {
			t.Errorf("%s: the page needs something else: %q", lang, m)
		}
		if strings.Contains(page, "<no value>") || strings.Contains(page, "ZgotmplZ") {
			t.Errorf("%s: a hole in the page", lang)
		}
	}
}

// It reads as it was written: programs take it from the running node.
func TestJSON(t *testing.T) {
	want := example()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Register
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var x, y bytes.Buffer
	_ = want.Text(&x, English)
	_ = got.Text(&y, English)
	if x.String() != y.String() {
		t.Errorf("after JSON it is another:\n%s", y.String())
	}
}

// Whatever can be said is said in both languages.
func TestWords(t *testing.T) {
	for _, c := range residency.Classes() {
		for _, lang := range Languages() {
			if in(lang).class(c) == string(c) {
				t.Errorf("%s: no word for class %s", lang, c)
			}
		}
	}
	for _, key := range slices.Concat(residency.TransferKinds(), []string{"origin", "edge"}, everything[:2], everything[3:]) {
		if _, ok := texts[key]; !ok {
			t.Errorf("no words for %q", key)
		}
	}
	if got := Make(residency.NewGate(nil), nil, noon); len(got.Processors) != 0 {
		t.Errorf("without policies: %+v", got)
	}
}
