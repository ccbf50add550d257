package replan

import (
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func mesh() (g *residency.Gate, list []router.Candidate) {
	eea, _ := residency.NamedZone("EEA")
	p := &residency.Policy{Name: "eea-only", Zones: map[residency.Class]residency.Zone{}}
	for _, c := range residency.Classes() {
		p.Zones[c] = residency.Zone{Name: "EEA", Countries: eea}
	}
	for name, at := range map[residency.NodeName]router.Point{"fra": {Lat: 50.11, Lon: 8.68}, "waw": {Lat: 52.23, Lon: 21.01}, "nyc": {Lat: 40.71, Lon: -74.01}} {
		country := map[residency.NodeName]residency.Country{"fra": "DE", "waw": "PL", "nyc": "US"}[name]
		list = append(list, router.Candidate{At: at, Epoch: 1, Up: true, Node: residency.Node{Name: name, Country: country, Operator: "Example", OperatorCountry: "DE",
			Parent: "Example", ParentCountry: "DE", Roles: []residency.Role{residency.RoleEdge}, Serial: string(name), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}})
	}
	return residency.NewGate(&residency.Bundle{Epoch: 1, Default: "eea-only", Policies: map[string]*residency.Policy{"eea-only": p}}), list
}

func people(list []router.Candidate, city string, n int, carriers ...router.Carrier) (out []Person) {
	from := map[string]router.Attendee{
		"warsaw":  {Known: true, Country: "PL", At: router.Point{Lat: 52.23, Lon: 21.01}},
		"cologne": {Known: true, Country: "DE", At: router.Point{Lat: 50.94, Lon: 6.96}}}[city]
	at := map[string]residency.NodeName{"warsaw": "waw", "cologne": "fra"}[city]
	for range n {
		out = append(out, Person{SID: "RM_1", At: at, Ask: router.Question{Room: router.Room{Name: "secret name", Policy: "eea-only"}, Attendee: from, Candidates: list, Carriers: carriers, Now: noon}})
	}
	return out
}

func TestWhoWouldBeElsewhere(t *testing.T) {
	g, list := mesh()
	carriers := []router.Carrier{{Node: "fra", Attendees: 2}, {Node: "waw", Attendees: 3}}
	all := append(people(list, "warsaw", 3, carriers...), people(list, "cologne", 2, carriers...)...)
	if same := Of(g, all, nil, router.DefaultRules()); len(same.Moves) != 0 || same.People != 5 {
		t.Errorf("the same rules change:\n%s", same)
	}
	rules := router.DefaultRules()
	rules.Overrides = []router.Override{{Name: "poland", Countries: []residency.Country{"PL"}, Not: []string{"waw"}}}
	got := Of(g, all, nil, rules)
	want := "RM_1  eea-only  3 from PL  waw → fra  only  \n" +
		"Of 5 in live rooms, 3 would be placed elsewhere, of whom nobody would serve 0.\n" +
		"Nobody is moved: the rules count for who joins after they are in force.\n"
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	// Pinned to an edge that the policy refuses: nobody serves them, and nothing is leaked to it.
	rules.Overrides = []router.Override{{Name: "america", Only: []string{"nyc"}}}
	if got := Of(g, all, nil, rules); got.Refused() != 5 || len(got.NewCountries()) != 0 || strings.Contains(got.String(), "secret") {
		t.Errorf("pinned to a refused node:\n%s", got)
	}
	// Who is alone on fra would open waw.
	rules.Overrides = []router.Override{{Name: "germans", Countries: []residency.Country{"DE"}, Prefer: []string{"waw"}, By: 100}}
	alone := people(list, "cologne", 1, router.Carrier{Node: "fra", Attendees: 1})
	got = Of(g, alone, nil, rules)
	if len(got.Moves) != 1 || !got.Moves[0].Opens || got.NewCountries()[0] != "PL" {
		t.Errorf("opens:\n%s", got)
	}
	twice := Join(got, got)
	if twice.People != 2 || len(twice.Moves) != 1 || twice.Moves[0].People != 2 {
		t.Errorf("two nodes together:\n%s", twice)
	}
}
