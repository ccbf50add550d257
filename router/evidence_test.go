package router_test

import (
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// TestNodeWithoutEvidence is passed over where the policy wants evidence, and says why.
func TestNodeWithoutEvidence(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	zones := map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		zones[c] = residency.Zone{Name: "DE", Countries: []residency.Country{"DE"}}
	}
	node := func(name residency.NodeName, lon float64, noEvidence string) router.Candidate {
		return router.Candidate{Node: residency.Node{Name: name, Country: "DE", Roles: residency.Roles(), NotBefore: now.Add(-1), NotAfter: now.Add(time.Hour)},
			At: router.Point{Lat: 50, Lon: lon}, Epoch: 1, Up: true, NoEvidence: noEvidence}
	}
	for rule, want := range map[residency.EvidenceRule]residency.NodeName{residency.EvidenceRequired: "far", "": "far", residency.EvidenceOff: "near"} {
		gate := residency.NewGate(&residency.Bundle{Epoch: 1, Default: "p",
			Policies: map[string]*residency.Policy{"p": {Name: "p", Zones: zones, Evidence: rule}}})
		p := router.Place(gate, router.Question{Room: router.Room{Name: "town"}, Now: now,
			Attendee:   router.Attendee{Country: "DE", At: router.Point{Lat: 50, Lon: 8}, Known: true},
			Candidates: []router.Candidate{node("near", 8, "the disk is full"), node("far", 13, "")}})
		if p.Node() != want {
			t.Errorf("evidence %q: %q is chosen, want %q", rule, p.Node(), want)
		}
		if last := p.Ranked[1]; want == "far" && (last.Allowed || last.Rule != residency.RuleEvidence) {
			t.Errorf("evidence %q: %+v", rule, last)
		}
	}
}
