package residency

import (
	"slices"
	"strings"
	"testing"
)

func TestNamedZones(t *testing.T) {
	if got := NamedZones(); !slices.Equal(got, []string{"ADEQUATE", "DACH", "EEA", "EU"}) {
		t.Errorf("named zones: got %v", got)
	}
	eu, _ := NamedZone("EU")
	eea, _ := NamedZone("EEA")
	dach, _ := NamedZone("DACH")
	if len(eu) != 27 || len(eea) != 30 || len(Countries()) != 250 {
		t.Errorf("EU has %d members, EEA %d, the world %d", len(eu), len(eea), len(Countries()))
	}
	for _, c := range []struct {
		country       Country
		eu, eea, dach bool
	}{
		{"DE", true, true, true},
		{"AT", true, true, true},
		{"PL", true, true, false},
		{"HR", true, true, false},
		{"GR", true, true, false},
		{"NO", false, true, false},
		{"IS", false, true, false},
		{"LI", false, true, false},
		{"CH", false, false, true}, // in neither
		{"GB", false, false, false},
		{"US", false, false, false},
		{"RU", false, false, false},
		{"TR", false, false, false},
		{"XK", false, false, false},
		{"GL", false, false, false},
		{"SJ", false, false, false},
	} {
		if !c.country.Known() {
			t.Errorf("%s is unknown", c.country)
		}
		if slices.Contains(eu, c.country) != c.eu || slices.Contains(eea, c.country) != c.eea || slices.Contains(dach, c.country) != c.dach {
			t.Errorf("%s: want EU %v, EEA %v, DACH %v", c.country, c.eu, c.eea, c.dach)
		}
	}
	for _, name := range []string{"", "eu", "EFTA", "DE"} {
		if members, ok := NamedZone(name); ok || members != nil {
			t.Errorf("zone %q: got %v", name, members)
		}
	}
	eu[0] = "US"
	if again, _ := NamedZone("EU"); again[0] != "AT" {
		t.Error("a caller changed the EU")
	}
}

func TestParseCountry(t *testing.T) {
	for _, c := range []struct {
		text, want, err string
	}{
		{"DE", "DE", ""}, {"de", "DE", ""}, {"NO", "NO", ""}, {"no", "NO", ""}, {"xk", "XK", ""},
		{"", "", `country ""`}, {"D", "", "ISO 3166-1"}, {"DEU", "", "ISO 3166-1"}, {"XX", "", `country "XX"`}, {"ZZ", "", "ISO 3166-1"},
		{"EU", "", "zone of several countries"}, {"eea", "", "zone of several countries"}, {"UK", "", `the United Kingdom is "GB"`},
		{"SU", "", "ISO 3166-1"}, {"DE ", "", "ISO 3166-1"}, {"ＤＥ", "", "ISO 3166-1"}, {"ı", "", "ISO 3166-1"}, {"false", "", "ISO 3166-1"},
	} {
		got, err := ParseCountry(c.text)
		if string(got) != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %q, %v", c.text, got, err)
		}
	}
}

func TestParseAtlas(t *testing.T) {
	for text, want := range map[string]string{
		`{`: "read zone data",
		`{"countries": ["DE"], "zones": {"Z": ["FR"]}}`: `zone "Z": no such country: "FR"`,
	} {
		if _, err := parseAtlas([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestParseNodeName(t *testing.T) {
	for text, ok := range map[string]bool{
		"fra": true, "fra-1": true, "1": true, strings.Repeat("n", 63): true,
		"": false, "-fra": false, "fra-": false, "Fra": false, "fra.1": false, "fra/1": false, "für": false, "fra\n": false, strings.Repeat("n", 64): false,
	} {
		if _, err := ParseNodeName(text); (err == nil) != ok {
			t.Errorf("%q: got %v", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Node)
		want   string
	}{
		{func(*Node) {}, ""},
		{func(n *Node) { n.Name = "Fra" }, `node name "Fra"`},
		{func(n *Node) { n.Operator = "" }, `operator "": want a name`},
		{func(n *Node) { n.Parent = " x" }, `parent " x"`},
		{func(n *Node) { n.Parent = "x\u202e" }, "printable"},
		{func(n *Node) { n.Operator = strings.Repeat("x", 65) }, "at most 64 bytes"},
		{func(n *Node) { n.Country = "de" }, `country "de"`},
		{func(n *Node) { n.OperatorCountry = "" }, `operator country ""`},
		{func(n *Node) { n.ParentCountry = "EU" }, `parent country "EU"`},
		{func(n *Node) { n.Roles = nil }, "no role"},
		{func(n *Node) { n.Roles = []Role{"root"} }, `role "root"`},
		{func(n *Node) { n.Roles = []Role{RoleEdge, RoleEdge} }, "stated twice"},
	} {
		n := node("fra", "DE", RoleOrigin)
		c.change(&n)
		err := n.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}
