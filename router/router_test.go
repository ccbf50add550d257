package router

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

var (
	noon      = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	frankfurt = Point{Lat: 50.11, Lon: 8.68}
	warsaw    = Point{Lat: 52.23, Lon: 21.01}
	newYork   = Point{Lat: 40.71, Lon: -74.01}
)

// testNode is a node as its certificate would state it.
func testNode(name residency.NodeName, country residency.Country, roles ...residency.Role) residency.Node {
	return residency.Node{Name: name, Country: country, Operator: "Example GmbH", OperatorCountry: "DE",
		Parent: "Example SE", ParentCountry: "FR", Roles: roles, Serial: string(name),
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}
}

// demoMesh is the demo's three nodes, idle and up.
func demoMesh() []Candidate {
	mk := func(n residency.Node, at Point) Candidate {
		return Candidate{Node: n, At: at, URL: "https://" + string(n.Name), Epoch: 1, Up: true}
	}
	return []Candidate{
		mk(testNode("fra", "DE", residency.RoleOrigin, residency.RoleEdge), frankfurt),
		mk(testNode("waw", "PL", residency.RoleEdge), warsaw),
		mk(testNode("nyc", "US", residency.RoleEdge), newYork),
	}
}

// testBundle holds the two profiles of the demo as far as placement looks at them.
func testBundle() *residency.Bundle {
	eea, _ := residency.NamedZone("EEA")
	live := residency.Zone{Name: "EEA", Countries: eea}
	store := residency.Zone{Name: "origin-fr-de-pl", Countries: []residency.Country{"FR", "DE", "PL"}}
	policy := func(name string, store residency.Zone, edgeOutside bool) *residency.Policy {
		p := &residency.Policy{Name: name, EdgeOutside: edgeOutside, Zones: map[residency.Class]residency.Zone{},
			Recording: residency.RecordingRule{Allowed: true}}
		for _, c := range residency.Classes() {
			p.Zones[c] = store
		}
		for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat} {
			p.Zones[c] = live
		}
		return p
	}
	silent := policy("no-recording", live, false)
	silent.Recording.Allowed = false
	return &residency.Bundle{Epoch: 1, Default: "eea-only", Policies: map[string]*residency.Policy{
		"eea-only":              policy("eea-only", live, false),
		"eu-origin-global-edge": policy("eu-origin-global-edge", store, true),
		"no-recording":          silent,
	}}
}

func TestKilometres(t *testing.T) {
	for _, c := range []struct {
		a, b Point
		want float64
	}{
		{frankfurt, frankfurt, 0},
		{frankfurt, warsaw, 893},
		{frankfurt, newYork, 6205},
		{Point{Lat: 90}, Point{Lat: -90}, math.Pi * earthKm},
		{Point{Lat: 1, Lon: 179.9}, Point{Lat: 1, Lon: -179.9}, 22}, // over the date line
		{frankfurt, Point{}, -1},
		{Point{}, Point{}, -1},
		{frankfurt, Point{Lat: 91, Lon: 8}, -1},
		{frankfurt, Point{Lat: math.NaN(), Lon: 8}, -1},
		{frankfurt, Point{Lat: 1, Lon: math.Inf(1)}, -1},
	} {
		if got := c.a.Km(c.b); math.Abs(got-c.want) > 5 {
			t.Errorf("%v to %v: %.0f km, want %.0f", c.a, c.b, got, c.want)
		}
		if c.a.Km(c.b) != c.b.Km(c.a) {
			t.Errorf("%v to %v is not as far as back", c.a, c.b)
		}
	}
}

// Every rule by which the gate can refuse must have words for the attendee and a
// hint for the operator.
func TestEveryRefusalHasAMend(t *testing.T) {
	for _, rule := range []string{residency.RuleNoBundle, residency.RuleBundleStale, residency.RuleNoPolicy, residency.RuleCertificate,
		residency.RuleRevoked, residency.RuleRegister, residency.RuleQuarantine, residency.RuleTenant, residency.RuleEvidence, residency.RuleTransfer, residency.RuleEpoch, residency.RuleNotStored, residency.RuleStoreRole, residency.RuleZone,
		residency.RuleEdgeEmpty, RuleDown, RuleFull} {
		p := nobody(Placement{Ranked: []Ranked{{Node: "fra", Rule: rule}}}, "do it")
		if p.Hint == "" || p.Rule != RuleNobody {
			t.Errorf("rule %q: hint %q, reason %q", rule, p.Hint, p.Reason)
		}
	}
}

// An attendee is outside only if the country is known and lies outside: whatever
// else is said of the attendee, the edge outside stays closed.
func TestUnknownIsNotOutside(t *testing.T) {
	g := residency.NewGate(testBundle())
	for name, a := range map[string]Attendee{
		"nothing":                {},
		"a country, not known":   {Country: "US", At: newYork},
		"known, no country":      {Known: true, At: newYork},
		"a country not on Earth": {Known: true, Country: "ZZ", At: newYork},
	} {
		for _, f := range []Fallback{"", FallbackOrigin, "nonsense"} {
			p := Place(g, Question{Room: Room{Policy: "eu-origin-global-edge"}, Attendee: a, Candidates: demoMesh(), Unknown: f, Now: noon})
			if p.Node() != "fra" {
				t.Errorf("%s, fallback %q: placed on %q: %s", name, f, p.Node(), p.Reason)
			}
		}
	}
}

func TestNoGateNoPlace(t *testing.T) {
	for name, g := range map[string]*residency.Gate{"nil": nil, "empty": residency.NewGate(nil)} {
		p := Place(g, Question{Attendee: Attendee{Known: true, Country: "DE"}, Candidates: demoMesh(), Now: noon})
		if p.Chosen != nil || p.Rule != RuleNobody || p.Hint == "" {
			t.Errorf("%s gate: %v", name, p)
		}
		if h := Home(g, Room{Name: "r"}, demoMesh(), noon); h.Chosen != nil {
			t.Errorf("%s gate: home %v", name, h)
		}
	}
}

// A node twice as large is home to twice as many rooms.
func TestHomesFollowCapacity(t *testing.T) {
	g := residency.NewGate(testBundle())
	mesh := demoMesh()[:1]
	big := mesh[0]
	big.Node.Name, big.Capacity = "big", 200
	mesh[0].Capacity = 100
	mesh = append(mesh, big)
	const rooms = 3000
	var onBig int
	for i := range rooms {
		if Home(g, Room{Name: string(rune('a'+i%26)) + time.Duration(i).String()}, mesh, noon).Node() == "big" {
			onBig++
		}
	}
	if share := float64(onBig) / rooms; math.Abs(share-2.0/3) > 0.03 {
		t.Errorf("big is home to %.1f %% of the rooms, want 66.7 %%", 100*share)
	}
}

func TestRecordingNode(t *testing.T) {
	g := residency.NewGate(testBundle())
	mesh := demoMesh()
	second := mesh[0]
	second.Node.Name = "par"
	second.Node.Country = "FR"
	mesh = append(mesh, second)
	home := Home(g, Room{Name: "standup"}, mesh, noon).Node()
	if p := RecordingNode(g, Room{Name: "standup"}, mesh, noon); p.Node() != home || p.Rule != RuleHome {
		t.Errorf("home %s, recording on %s by %s", home, p.Node(), p.Rule)
	}
	i := slices.IndexFunc(mesh, func(c Candidate) bool { return c.Node.Name == home })
	mesh[i].Load = 0.99
	if p := RecordingNode(g, Room{Name: "standup"}, mesh, noon); p.Node() == home || p.Chosen == nil {
		t.Errorf("home overloaded, yet recording on %q", p.Node())
	}
	mesh[i].Up = false
	if p := RecordingNode(g, Room{Name: "standup"}, mesh, noon); p.Node() == home || p.Chosen == nil {
		t.Errorf("home down, recording on %q", p.Node())
	}
}

// splitBundle has zones that differ where the other policies have them alike.
func splitBundle() *residency.Bundle {
	b := testBundle()
	p := *b.Policies["eea-only"]
	p.Name, p.Zones = "split", maps.Clone(p.Zones)
	p.Zones[residency.ClassMedia] = residency.Zone{Name: "DACH", Countries: []residency.Country{"DE", "AT", "CH"}}
	p.Zones[residency.ClassMetadata] = residency.Zone{Name: "AT", Countries: []residency.Country{"AT"}}
	b.Policies["split"] = &p
	return b
}

// A node that may signal is not a node that may carry media (R4, R5).
func TestMediaZoneNarrowerThanSignalling(t *testing.T) {
	p := Place(residency.NewGate(splitBundle()), Question{Room: Room{Policy: "split"}, Attendee: Attendee{Known: true, Country: "PL", At: warsaw}, Candidates: demoMesh(), Now: noon})
	if p.Node() != "fra" || p.Ranked[1].Node != "waw" || p.Ranked[1].Allowed || !strings.Contains(p.Ranked[1].Reason, "DACH") {
		t.Errorf("placement:\n%s", p)
	}
}

// The home records even where another origin has the higher hash but may not be
// home; and in the order of scores.
func TestHomeRecordsBeforeHigherHashes(t *testing.T) {
	g := residency.NewGate(splitBundle())
	mesh := demoMesh()[:1]
	vie := mesh[0]
	vie.Node.Name, vie.Node.Country = "vie", "AT"
	mesh = append(mesh, vie)
	for i := range 20 {
		room := fmt.Sprint("room ", i)
		if h := Home(g, Room{Name: room, Policy: "split"}, mesh, noon); h.Node() != "vie" {
			t.Fatalf("home:\n%s", h)
		}
		if p := RecordingNode(g, Room{Name: room, Policy: "split"}, mesh, noon); p.Node() != "vie" || p.Rule != RuleHome {
			t.Fatalf("recording:\n%s", p)
		}
		if h := Home(g, Room{Name: room, Policy: "eea-only"}, mesh, noon); h.Ranked[0].Score >= h.Ranked[1].Score {
			t.Fatalf("scores %v, %v: want lower first", h.Ranked[0].Score, h.Ranked[1].Score)
		}
	}
}
