package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func candidate(name residency.NodeName, c residency.Country, roles ...residency.Role) router.Candidate {
	return router.Candidate{Epoch: 3, Up: true, Node: residency.Node{Name: name, Country: c, Operator: "Example GmbH", OperatorCountry: "DE",
		Parent: "Example GmbH", ParentCountry: "DE", Roles: roles, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), Serial: "0123456789ab"}}
}

func gate(change func(*residency.Policy)) *residency.Gate {
	p := &residency.Policy{Name: "p", Zones: map[residency.Class]residency.Zone{}, EdgeOutside: true, Recording: residency.RecordingRule{Allowed: true, Consent: true}}
	for _, c := range residency.Classes() {
		p.Zones[c] = residency.Zone{Name: "home", Countries: []residency.Country{"DE", "FR"}}
	}
	change(p)
	return residency.NewGate(&residency.Bundle{Epoch: 3, Default: "p", Policies: map[string]*residency.Policy{"p": p}})
}

// world is a meeting of Anna in Frankfurt and Ben in New York.
func world() World {
	return World{Asked: "fra", Now: noon,
		Nodes: []router.Candidate{candidate("fra", "DE", residency.Roles()...), candidate("nyc", "US", residency.RoleEdge), candidate("zrh", "CH", residency.RoleOrigin)},
		Room: Room{Name: "board", SID: "RM_1", Policy: "p", Live: true, Home: "fra", Encryption: "none", Recorder: "fra",
			Nodes: []Presence{{Node: "fra", Participants: 1, Recorder: true}, {Node: "nyc", Participants: 1, Outside: true}}},
		Views: []View{
			{Node: "fra", Withheld: 2, Flows: []Flow{{Peer: "nyc", Class: residency.ClassMedia, Rule: "edge-outside", Policy: "p", Packets: 10, Bytes: 12_345}},
				Tracks: []Track{{ID: "TR_1", Kind: "audio", Source: "microphone", Owner: "anna", From: "fra", To: []residency.NodeName{"nyc"}}},
				Seat:   &Seat{SID: "PA_1", Country: "DE"}},
			{Node: "nyc", Refusals: []Refusal{{At: noon, Node: "nyc", Rule: "zone", Reason: "too far"}, {At: noon, Node: "nyc", Rule: "zone", Reason: "too far"}},
				Tracks: []Track{{ID: "TR_1", Kind: "audio", Source: "microphone", Owner: "anna", From: "fra", Receivers: []string{"ben"}}}}}}
}

func TestText(t *testing.T) {
	g := gate(func(p *residency.Policy) { p.ChatLog = true })
	w := world()
	text := Of(g, w).String()
	for _, want := range []string{
		"Room board (RM_1): policy p, decided by epoch 3 of the policies, told by node fra.\n2 participants on 2 nodes. Its home is node fra.\n",
		"  fra  DE  home, 1 participant, records  get media, signalling, chat  zone          epoch 3  certificate 01234567… until 2026-11-22 13:00 UTC\n",
		"  nyc  US  1 participant                 get media, signalling, chat  edge-outside  epoch 3",
		"  fra → nyc  media  1 track now  sent by edge-outside  taken by zone  10 packets  12 kB\n",
		"  recording  node fra  now ", "  chat       node fra  now ", "  questions  nowhere ", "  evidence   node fra  now ",
		"  zrh  CH  get media, signalling, chat  zone        node zrh is in CH, outside zone \"home\" for media, signalling, chat (policy \"p\")\n",
		"what would do: use a node in zone \"home\" (DE, FR)\n",
		"nobody is recorded who has not agreed to it; 2 tracks wait for that now",
		"  2 times  by node nyc  zone\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	w.Room.Encryption, w.Missing = "all", []Missing{{Node: "par", Why: "it is away"}}
	text = Of(g, w).String()
	for _, want := range []string{"telephone ", "a telephone cannot decrypt", "chat       node fra  would be",
		"Not known, because node par did not tell: its part of what follows (it is away).\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("encrypted: no %q in\n%s", want, text)
		}
	}
}

func TestAbout(t *testing.T) {
	g, w := gate(func(*residency.Policy) {}), world()
	p, known := About(g, w, "anna", "fra")
	if !known || len(p.Sends) != 1 || len(p.Sends[0].Legs) != 1 {
		t.Fatalf("%v %+v", known, p)
	}
	if l := p.Sends[0].Legs[0]; l.To != "nyc" || !l.Flows || l.Rule != residency.RuleEdgeOutside || !slices.Equal(l.Receivers, []string{"ben"}) {
		t.Errorf("to %+v", l)
	}
	w.Room.Nodes[1].Outside = false // the policy has nothing for an edge without somebody from outside
	p, _ = About(g, w, "anna", "fra")
	if text := p.String(); !strings.Contains(text, "fra → nyc  to ben  edge-empty: refused, node nyc is in US") {
		t.Error(text)
	}
	w.Views[0].Seat = nil
	if p, known = About(g, w, "mallory", ""); !known || p.Refused == nil || !strings.Contains(p.String(), "Refused by node nyc at 2026-11-22 12:00 UTC (zone)\n  too far\n") {
		t.Errorf("%v\n%s", known, p)
	}
	w.Views[1].Refusals = nil
	if _, known = About(g, w, "mallory", ""); known {
		t.Error("somebody is known of whom nobody tells")
	}
}

// Whatever the policies are: what is said of a node is what the gate answers to the
// very question, and what is kept lies where it may.
func TestSaysWhatTheGateSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := gate(func(p *residency.Policy) {
			p.EdgeOutside, p.ChatLog = rapid.Bool().Draw(t, "edge"), rapid.Bool().Draw(t, "chat")
			p.Recording.Allowed = rapid.Bool().Draw(t, "recording")
			for _, c := range residency.Classes() {
				p.Zones[c] = residency.Zone{Name: "z", Countries: rapid.SliceOfNDistinct(rapid.SampledFrom([]residency.Country{"DE", "US", "CH"}), 0, 3, rapid.ID).Draw(t, string(c))}
			}
		})
		w := world()
		for i := range w.Nodes {
			w.Nodes[i].Epoch = residency.Epoch(rapid.IntRange(2, 3).Draw(t, "epoch"))
			w.Nodes[i].Contradiction = rapid.SampledFrom([]string{"", "", "too fast"}).Draw(t, "contradiction")
			w.Nodes[i].Up = rapid.Bool().Draw(t, "up")
		}
		x := Of(g, w)
		for _, s := range x.Nodes {
			c, _ := w.candidate(s.Node)
			for _, r := range s.Rulings {
				for _, class := range r.Classes {
					v := g.Decide(residency.Request{Room: "board", Policy: "p", Class: class, Store: r.Keep, Peer: c.Node, PeerEpoch: c.Epoch,
						OutsideParticipant: s.Node == "nyc", Contradiction: c.Contradiction, Now: noon})
					if v.Allow != r.Allowed || v.Rule != r.Rule {
						t.Fatalf("of %s and %s is said %+v, and the gate says %+v", s.Node, class, r, v)
					}
				}
			}
		}
		answers, err := Answers(g, w, Question{})
		if err != nil || len(answers) == 0 {
			t.Fatal(err)
		}
		for _, s := range x.Stores {
			if s.Node == "" || s.What == "evidence" {
				continue
			}
			may := slices.ContainsFunc(answers, func(a Answer) bool {
				return a.Node == s.Node && a.Keep && a.Allowed && slices.Contains(a.Classes, s.Class)
			})
			if !may && (s.Now || s.Rule == "hash" || s.Rule == "only") && s.What != "questions" {
				t.Fatalf("%s is said to be kept where it may not: %+v", s.What, s)
			}
		}
		_ = fmt.Sprint(x.String(), x.AnswersText(answers)) // whatever is drawn can be told
	})
}

func TestNo(t *testing.T) {
	g, w := gate(func(p *residency.Policy) { p.EdgeOutside = false }), world()
	for _, c := range []struct {
		q  Question
		no bool
	}{
		{Question{Node: "fra", Class: "media"}, false}, {Question{Node: "nyc", Class: "media"}, true}, {Question{Class: "media"}, false},
		{Question{Node: "fra", Class: Storage}, false}, {Question{Node: "nyc", Class: Relay}, true}, {Question{Node: "fra"}, false},
		{Question{Node: "fra", Class: "chat"}, false}, // it may have it; that nobody keeps it is no refusal
	} {
		list, err := Answers(g, w, c.q)
		if err != nil || No(list) != c.no {
			t.Errorf("%+v: %v, %v", c.q, No(list), err)
		}
	}
}

// TestPathOverOtherNodes names the nodes by which a track comes.
func TestPathOverOtherNodes(t *testing.T) {
	track := Track{ID: "TR_1", From: "fra"}
	sends := func(to ...residency.NodeName) []Track { return []Track{{ID: "TR_1", From: "fra", To: to}} }
	w := World{Views: []View{{Node: "fra", Tracks: sends("waw")}, {Node: "waw", Tracks: sends("vie")}, {Node: "vie", Tracks: sends()},
		{Node: "osl", Tracks: sends("nyc")}, {Node: "nyc", Tracks: sends("osl")}}}
	for _, c := range []struct {
		to    residency.NodeName
		over  []residency.NodeName
		flows bool
	}{{"fra", nil, true}, {"waw", nil, true}, {"vie", []residency.NodeName{"waw"}, true}, {"par", nil, false}} {
		if l := w.leg(residency.NewGate(&residency.Bundle{}), track, View{Node: c.to}); !slices.Equal(l.Over, c.over) || l.Flows != c.flows {
			t.Errorf("%s: over %v, flows %v", c.to, l.Over, l.Flows)
		}
	}
	if l := w.leg(residency.NewGate(&residency.Bundle{}), track, View{Node: "nyc"}); l.Flows {
		t.Error("a loop leads nowhere")
	}
	row := Path{From: "fra"}.row("x", Leg{To: "vie", Over: []residency.NodeName{"waw"}, Flows: true})
	if row[1] != "fra → waw → vie" {
		t.Errorf("got %q", row[1])
	}
}
