package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func node(name residency.NodeName, c residency.Country, roles ...residency.Role) Node {
	return Node{Node: residency.Node{Name: name, Country: c, Operator: "Example GmbH", OperatorCountry: "DE", Parent: "Example GmbH",
		ParentCountry: "DE", Roles: roles, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), Serial: string(name)}}
}

func bundle(epoch residency.Epoch, edge bool, countries ...residency.Country) *residency.Bundle {
	z := residency.Zone{Name: "zone", Countries: countries}
	p := &residency.Policy{Name: "p", Zones: map[residency.Class]residency.Zone{}, EdgeOutside: edge, Evidence: residency.EvidenceOff,
		Recording: residency.RecordingRule{Allowed: true}}
	for _, c := range residency.Classes() {
		p.Zones[c] = z
	}
	return &residency.Bundle{Epoch: epoch, Default: "p", Policies: map[string]*residency.Policy{"p": p}}
}

func TestText(t *testing.T) {
	w := World{Now: noon, Nodes: []Node{
		node("fra", "DE", residency.RoleOrigin, residency.RoleEdge), node("par", "FR", residency.RoleOrigin, residency.RoleEdge),
		node("nyc", "US", residency.RoleEdge)},
		Rooms: []Room{{SID: "RM_1", Policy: "p", Home: "par", Nodes: []Presence{{Node: "fra", Participants: 2}, {Node: "nyc", Participants: 1, Outside: true}}},
			{SID: "RM_2", Policy: "p", Home: "fra", Nodes: []Presence{{Node: "fra", Participants: 1}}}},
		Objects: []Object{{ID: "RE_1", Class: residency.ClassRecording, Policy: "p", Node: "par"}, {ID: "RE_2", Class: residency.ClassRecording, Policy: "p", Node: "par"}}}
	p := Of(bundle(1, true, "DE", "FR"), bundle(2, false, "DE", "CH"), w)
	got := p.String()
	for _, want := range []string{
		"epoch 1 now, epoch 2 planned", "Countries that become reachable:\n  p, media,", ": CH\n",
		"RM_1 (p): node nyc, 1 participant: may no longer have chat, media, signalling\n    node nyc is in US",
		"RM_1 (p): node par, 0 participants: may no longer have metadata",
		"node par: 2 of class recording (p), among them RE_1",
		"recording of p: one origin is left that may store it (now 2)",
		"Summary: 1 live room and 1 participant affected now; 2 stored objects would lie where they may not; 1 country newly reachable.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if !p.Live() {
		t.Error("nothing live is affected")
	}
	if strings.Contains(got, "RM_2") {
		t.Errorf("RM_2 is not affected:\n%s", got)
	}
	if same := Of(bundle(1, true, "DE"), bundle(2, true, "DE"), w); same.Live() || len(same.Reach)+len(same.Nodes)+len(same.Rooms) > 0 {
		t.Errorf("a bundle that changes nothing:\n%s", same)
	}
}

// The plan says exactly what the gate of the newer bundle then does.
func TestPlanIsWhatHappens(t *testing.T) {
	all := []residency.Country{"DE", "FR", "CH", "US", "GB"}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(epoch residency.Epoch) *residency.Bundle {
			b := bundle(epoch, rapid.Bool().Draw(t, "edge"), rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 4, rapid.ID).Draw(t, "zone")...)
			b.Policies["p"].Recording.Allowed = rapid.Bool().Draw(t, "recording")
			if rapid.Bool().Draw(t, "register") {
				for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 3), 1, 4, rapid.ID).Draw(t, "registered") {
					b.Nodes = append(b.Nodes, residency.Registered{Name: residency.NodeName('a' + rune(i)), Country: all[i]})
				}
			}
			if rapid.Bool().Draw(t, "revoke") {
				b.Revoked = []string{"a"}
			}
			return b
		}
		old, new := draw(1), draw(2)
		w := World{Now: noon}
		for i := range 4 {
			roles := residency.Roles()[:rapid.IntRange(1, 2).Draw(t, "roles")]
			w.Nodes = append(w.Nodes, node(residency.NodeName('a'+rune(i)), all[i], roles...))
		}
		room := Room{SID: "RM", Policy: "p", Home: "b"}
		for _, n := range w.Nodes {
			room.Nodes = append(room.Nodes, Presence{Node: n.Name, Participants: rapid.IntRange(0, 2).Draw(t, "people"),
				Outside: rapid.Bool().Draw(t, "outside"), Recorder: rapid.Bool().Draw(t, "recorder")})
		}
		w.Rooms = []Room{room}
		p := Of(old, new, w)
		// What the two gates say of each flow, by themselves.
		flows := map[string][2]bool{}
		for i, b := range []*residency.Bundle{old, new} {
			gate := residency.NewGate(b)
			note := func(n Node, c residency.Class, store, outside bool) {
				v := gate.Decide(residency.Request{Policy: "p", Class: c, Store: store, OutsideParticipant: outside, Peer: n.Node, PeerEpoch: b.Epoch, Now: noon})
				key := fmt.Sprint(n.Name, c)
				f := flows[key]
				f[i] = v.Allow
				flows[key] = f
			}
			for j, n := range w.Nodes {
				pres := room.Nodes[j]
				if pres.Participants > 0 || pres.Recorder {
					for _, c := range []residency.Class{"media", "signalling", "chat"} {
						note(n, c, false, pres.Outside && pres.Participants > 0)
					}
				}
				if pres.Recorder {
					note(n, "recording", true, pres.Outside && pres.Participants > 0)
				}
				if n.Name == room.Home {
					note(n, "metadata", true, false)
				}
			}
		}
		for key, f := range flows {
			i := slices.IndexFunc(p.Rooms, func(e Effect) bool { return fmt.Sprint(e.Node, e.Class) == key })
			switch {
			case f[0] == f[1] && i >= 0, f[0] != f[1] && i < 0, i >= 0 && p.Rooms[i].Allowed != f[1]:
				t.Fatalf("%s goes from %v to %v; the plan:\n%s", key, f[0], f[1], p)
			}
		}
		if len(p.Rooms) > len(flows) {
			t.Fatalf("more than there is:\n%s", p)
		}
	})
}

// Of two tenants one gets a wider policy and one a tighter one: each is told where its
// rooms may newly go, and what of it stops.
func TestTenants(t *testing.T) {
	with := func(b *residency.Bundle, tenants ...residency.Tenant) *residency.Bundle {
		b.Policies["wide"] = bundle(1, false, "DE", "FR", "US").Policies["p"]
		b.Policies["wide"].Name = "wide"
		b.Tenants = tenants
		return b
	}
	before := with(bundle(1, false, "DE", "FR"), residency.Tenant{Name: "acme", Policy: "p"}, residency.Tenant{Name: "same", Policy: "p"},
		residency.Tenant{Name: "umbra", Policy: "wide"}, residency.Tenant{Name: "gone", Policy: "p"})
	after := with(bundle(2, false, "DE", "FR"), residency.Tenant{Name: "acme", Policy: "p", Policies: []string{"wide"}}, residency.Tenant{Name: "same", Policy: "p"},
		residency.Tenant{Name: "umbra", Policy: "p"}, residency.Tenant{Name: "fresh", Policy: "p"})
	w := World{Now: noon, Nodes: []Node{node("fra", "DE", residency.RoleOrigin, residency.RoleEdge), node("nyc", "US", residency.RoleOrigin, residency.RoleEdge)},
		Rooms: []Room{{SID: "RM_1", Tenant: "umbra", Policy: "wide", Home: "fra", Nodes: []Presence{{Node: "nyc", Participants: 2}, {Node: "fra", Participants: 1}}},
			{SID: "RM_2", Tenant: "acme", Policy: "p", Home: "fra", Nodes: []Presence{{Node: "fra", Participants: 4}}}},
		Objects: []Object{{ID: "RM_3", Class: residency.ClassMetadata, Tenant: "umbra", Policy: "wide", Node: "nyc"}}}
	p := Of(before, after, w)
	got := map[string]Tenant{}
	for _, x := range p.Tenants {
		got[x.Name] = x
	}
	if _, ok := got["same"]; ok || len(got) != 4 {
		t.Errorf("tenants %+v", p.Tenants)
	}
	if a := got["acme"]; len(a.May) != 1 || len(a.Area) != len(residency.Classes()) || !slices.Equal(a.Area[0].New, []residency.Country{"US"}) || len(a.Rooms) > 0 {
		t.Errorf("acme %+v", a)
	}
	if u := got["umbra"]; !slices.Equal(u.Rooms, []string{"RM_1"}) || u.Participants != 3 || !slices.Equal(u.Objects, []string{"RM_3"}) || !slices.Equal(u.Area[0].Lost, []residency.Country{"US"}) {
		t.Errorf("umbra %+v", u)
	}
	text := p.String()
	for _, want := range []string{"  acme: policy p; may newly have wide\n    media, signalling, chat, ", " may newly go to: US\n",
		"  umbra: policy wide now, p planned; may newly have p; may no longer have wide\n", " may no longer go to: US\n",
		"    1 live room and 3 participants affected now: RM_1; 1 stored object would lie where they may not\n",
		"  gone: is no tenant any more", "  fresh: is new, with policy p"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
