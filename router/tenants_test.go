package router_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// TestPinnedTenant asks for placements under the profile of R2 with attendees
// anywhere and nodes in any state: a room of the pinned tenant has all its nodes
// in its country, a room of anybody else never one there, wherever its attendees are.
func TestPinnedTenant(t *testing.T) {
	bundle, err := configs.ProfileBundle("tenant-pinned-country")
	if err != nil {
		t.Fatal(err)
	}
	g, now := residency.NewGate(bundle), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	served := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		var mesh []router.Candidate
		for _, n := range bundle.Nodes {
			mesh = append(mesh, router.Candidate{Up: rapid.Bool().Draw(t, "up"), Epoch: 1, Load: rapid.Float64Range(0, 1).Draw(t, "load"), Local: n.Name == "fra",
				Node: residency.Node{Name: n.Name, Country: n.Country, Operator: "o", OperatorCountry: n.Country, Parent: "o", ParentCountry: n.Country,
					Roles: n.Roles, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), Serial: string(n.Name)}})
		}
		tenant := rapid.SampledFrom([]string{"example-ru", "", "unknown"}).Draw(t, "tenant")
		rm := router.Room{Name: "r", Tenant: tenant, Policy: rapid.SampledFrom(append(bundle.Names(), "")).Draw(t, "policy")}
		at := router.Attendee{Known: true, Country: rapid.SampledFrom([]residency.Country{"RU", "DE", "US"}).Draw(t, "attendee in")}
		for _, p := range []router.Placement{
			router.Place(g, router.Question{Room: rm, Attendee: at, Candidates: mesh, Now: now}),
			router.Home(g, rm, mesh, now), router.RecordingNode(g, rm, mesh, now),
		} {
			for _, c := range p.Ranked {
				if c.Allowed && (c.Country == "RU") != (tenant == "example-ru") {
					t.Fatalf("tenant %q, attendee in %s: node %s in %s may serve: %s", tenant, at.Country, c.Node, c.Country, c.Reason)
				}
			}
			if p.Chosen != nil {
				served[tenant == "example-ru"]++
			}
		}
	})
	if served[true] == 0 || served[false] == 0 {
		t.Errorf("served %v: the test does not see both", served)
	}
	if !slices.ContainsFunc(bundle.Nodes, func(r residency.Registered) bool { return r.Country == "RU" }) {
		t.Error("no node in the country")
	}
}
