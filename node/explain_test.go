package node

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router/explain"
)

// explains asks a node as `domicile explain` does: explains(t, n, "room", "town", …).
func explains(t *testing.T, n *testNode, params ...string) (Explained, *Refusal) {
	t.Helper()
	q := url.Values{}
	for i := 0; i < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	x, err := n.explain(httptest.NewRequest(http.MethodGet, "/explain?"+q.Encode(), nil))
	if err != nil {
		return x, asRefusal(err)
	}
	return x, nil
}

// standingOf finds a node in an explanation.
func standingOf(x *explain.Explanation, name residency.NodeName) explain.Standing {
	i := slices.IndexFunc(x.Nodes, func(s explain.Standing) bool { return s.Node == name })
	if i < 0 {
		return explain.Standing{}
	}
	return x.Nodes[i]
}

// ruling finds the answer about a class.
func ruling(s explain.Standing, c residency.Class, keep bool) explain.Ruling {
	for _, r := range s.Rulings {
		if r.Keep == keep && slices.Contains(r.Classes, c) {
			return r
		}
	}
	return explain.Ruling{}
}

// TestExplainRoom asks all nodes of a mesh about a meeting, by room, by participant
// and by node, and one that may not be told about a room that is none of its.
func TestExplainRoom(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	fra, waw, nyc := m.node("fra"), m.node("waw"), m.node("nyc")
	bob := enter(t, fra, "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, nyc, "town", "eve", nil)
	eve.hears(camera)

	for _, asked := range []*testNode{fra, waw, nyc} {
		x, refused := explains(t, asked, "room", "town")
		if refused != nil || x.Explanation == nil {
			t.Fatalf("%s: %v %s", asked.cfg.Self.Name, refused, x.Text)
		}
		e := x.Explanation
		if e.Room.Home != "fra" || e.Asked != "fra" || x.Refused || len(e.Missing) > 0 {
			t.Errorf("%s: %s", asked.cfg.Self.Name, x.Text)
		}
		if r := ruling(standingOf(e, "nyc"), residency.ClassMedia, false); !r.Allowed || r.Rule != residency.RuleEdgeOutside || r.Until.IsZero() {
			t.Errorf("nyc may have media: %+v", r)
		}
		i := slices.IndexFunc(e.Hops, func(h explain.Hop) bool { return h.From == "fra" && h.To == "nyc" && h.Class == residency.ClassMedia })
		if i < 0 || e.Hops[i].Rule != residency.RuleEdgeOutside || e.Hops[i].TakenBy != residency.RuleZone || e.Hops[i].Tracks != 1 || e.Hops[i].Packets == 0 {
			t.Errorf("%s: hops %+v", asked.cfg.Self.Name, e.Hops)
		}
		for _, h := range e.Hops {
			if (h.From == "waw" || h.To == "waw") && h.Class != residency.ClassSignalling { // that it asks is one
				t.Errorf("a hop that is none: %+v", h)
			}
		}
		if len(e.Stores) != 5 || e.Stores[0].Node != "fra" || !e.Stores[0].Now || e.Stores[1].Now || e.Stores[2].Rule != residency.RuleNotStored {
			t.Errorf("stores: %+v", e.Stores)
		}
	}
	t.Run("participant", func(t *testing.T) {
		x, refused := explains(t, waw, "room", "town", "participant", "eve")
		if refused != nil || x.Person == nil || x.Person.Node != "nyc" || x.Person.Seat == nil || len(x.Person.Gets) != 1 || x.Refused {
			t.Fatalf("%v %s", refused, x.Text)
		}
		if g := x.Person.Gets[0]; g.Owner != "bob" || g.From != "fra" || len(g.Legs) != 1 || !g.Legs[0].Flows || g.Legs[0].Rule != residency.RuleEdgeOutside {
			t.Errorf("eve gets %+v", g)
		}
		x, _ = explains(t, waw, "room", "town", "participant", "bob")
		if len(x.Person.Sends) != 1 || len(x.Person.Sends[0].Legs) != 1 || !slices.Equal(x.Person.Sends[0].Legs[0].Receivers, []string{"eve"}) {
			t.Errorf("bob sends: %s", x.Text)
		}
	})
	t.Run("node and class", func(t *testing.T) {
		for _, c := range []struct {
			node, class, rule string
			refused           bool
		}{{"waw", "media", "zone", false}, {"waw", "storage", "store-role", true}, {"nyc", "recording", "store-role", true}, {"fra", "storage", "zone", false},
			{"nyc", "relay", "edge-outside", false}} {
			x, refused := explains(t, waw, "room", "town", "node", c.node, "class", c.class)
			if refused != nil || x.Refused != c.refused || x.Answers[0].Rule != c.rule && x.Answers[len(x.Answers)-1].Rule != c.rule {
				t.Errorf("%+v: %v %s", c, refused, x.Text)
			}
		}
	})
	t.Run("what does not exist", func(t *testing.T) {
		for want, params := range map[string][]string{
			`room "nowhere" does not exist`:              {"room", "nowhere"},
			`nobody called "ghost" is in room "town"`:    {"room", "town", "participant", "ghost"},
			`node "atlantis" is not in the mesh; it has`: {"room", "town", "node", "atlantis"},
			`class "gossip": want media`:                 {"room", "town", "class", "gossip"},
			`--country: `:                                {"room", "town", "country", "UK"},
		} {
			if _, refused := explains(t, waw, params...); refused == nil || !strings.Contains(refused.Message, want) {
				t.Errorf("%q: %v", params, refused)
			}
		}
	})
	t.Run("who is refused is told the same again", func(t *testing.T) {
		enter(t, fra, "closed", "carl", preset("eea-only"))
		_, told := refusedJoin(t, nyc, "closed", "mallory", preset("eea-only"))
		if _, err := dial(t, nyc, "closed", "mallory", preset("eea-only")); err == nil {
			t.Fatal("let in")
		}
		x, refused := explains(t, nyc, "room", "closed", "participant", "mallory")
		if refused != nil || !x.Refused || x.Person == nil || !strings.HasPrefix(told, x.Person.Refused.Reason) || x.Person.Refused.Use != "fra" {
			t.Errorf("%v %s\nmallory was told %s", refused, x.Text, told)
		}
		x, refused = explains(t, nyc, "room", "closed")
		if refused != nil || !x.Refused || x.Refusal.Rule != residency.RuleZone || x.Refusal.Use == nil || x.Refusal.Use.Node != "fra" ||
			strings.Contains(x.Text, "RM_") || strings.Contains(x.Text, "carl") {
			t.Errorf("%v %s", refused, x.Text)
		}
		for _, n := range []*testNode{fra, waw, nyc} {
			if strings.Contains(n.log.String(), "mallory") {
				t.Errorf("the log of %s names somebody", n.cfg.Self.Name)
			}
		}
	})
}

// TestExplainAfterChange tells those whom a tighter policy has sent away why.
func TestExplainAfterChange(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	enter(t, fra, "town", "bob", nil)
	eve := enter(t, nyc, "town", "eve", nil)
	m.adopt(tightened(2))
	eve.await("is sent away", func() bool { return eve.leave != nil })
	x, refused := explains(t, nyc, "room", "town", "participant", "eve")
	if refused != nil || x.Person == nil || x.Person.Refused == nil || x.Person.Refused.Rule != residency.RuleZone || !x.Refused {
		t.Errorf("%v %s", refused, x.Text)
	}
}

// carry is on how many nodes somebody is in a room, as the node has told last.
func carry(n *testNode, name string) int {
	r := n.rooms.get(name)
	if r == nil {
		return 0
	}
	return len(carriers(r.Snapshot().Nodes))
}

// TestExplainHomeAway has a node of a room tell what it knows while the home cannot
// be asked, and say so.
func TestExplainHomeAway(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	waw := m.node("waw")
	enter(t, waw, "town", "bob", nil)
	eventually(t, "waw tells of bob", func() bool { return carry(waw, "town") == 1 })
	m.halt("fra")
	eventually(t, "fra is away", func() bool { return waw.link("fra") == nil })
	_, refused := explains(t, waw, "room", "other")
	if refused == nil || refused.Rule != ruleOriginAway || !strings.Contains(refused.Error(), "node fra is back") {
		t.Errorf("of a room that fra may have: %v", refused)
	}
	x, refused := explains(t, waw, "room", "town")
	if refused != nil || x.Explanation == nil || len(x.Explanation.Missing) != 1 || x.Explanation.Missing[0].Node != "fra" || len(x.Explanation.Room.Nodes) != 1 {
		t.Errorf("%v %s", refused, x.Text)
	}
}

// randomPolicy draws a policy for the three nodes of the test below.
func randomPolicy(r *rand.Rand) *residency.Policy {
	sets := [][]residency.Country{{"DE"}, {"DE", "PL"}, {"PL", "US"}, {"DE", "PL", "US"}, {"CH"}, {"DE", "US"}}
	zone := func() residency.Zone {
		z := residency.Zone{Name: "drawn", Countries: sets[r.IntN(len(sets))]}
		if r.IntN(6) == 0 {
			z.ExcludedParentCountries = []residency.Country{"DE"}
		}
		return z
	}
	live, kept := zone(), zone()
	p := &residency.Policy{Name: "drawn", Zones: zones(kept), EdgeOutside: r.IntN(2) == 0}
	for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat} {
		p.Zones[c] = live
	}
	if r.IntN(4) == 0 {
		p.Zones[residency.ClassMedia] = zone()
	}
	return p
}

// TestExplainIsWhatHappens draws policies, asks what would be, and then tries it:
// who is said to be refused is refused with the same words, who is said to be
// served is, and every hop that flows is one that is said to be allowed.
func TestExplainIsWhatHappens(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL origin", "nyc US")
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 8 {
		b := testBundle(residency.Epoch(2 + i))
		b.Policies["drawn"] = randomPolicy(r)
		m.adopt(b)
		m.converge()
		name := fmt.Sprintf("room%d", i)
		before, refused := explains(t, m.node("fra"), "room", name, "policy", "drawn")
		if refused != nil {
			t.Fatalf("case %d: %v", i, refused)
		}
		served := map[residency.NodeName]bool{}
		for at, n := range m.nodes {
			var told string
			if status, text := refusedJoin(t, n, name, "at-"+string(at), preset("drawn")); status != http.StatusOK {
				told = text
			}
			s := standingOf(before.Explanation, at)
			media, signalling := ruling(s, residency.ClassMedia, false), ruling(s, residency.ClassSignalling, false)
			first := residency.ClassSignalling
			if may(signalling) {
				first = residency.ClassMedia
			}
			one, _ := explains(t, m.node("fra"), "room", name, "policy", "drawn", "node", string(at), "class", string(first))
			switch home := before.Explanation.Stores[0]; {
			case home.Node == "":
				if told == "" {
					t.Errorf("case %d: nobody may be home, and %s serves:\n%s", i, at, before.Text)
				}
			case may(media) && may(signalling):
				if told != "" {
					t.Errorf("case %d: %s is said to be allowed, and refuses: %s\n%s", i, at, told, before.Text)
				}
				served[at] = told == ""
			case told == "" || !strings.HasPrefix(told, one.Answers[0].Reason):
				t.Errorf("case %d: %s refuses with %q, explained is %q", i, at, told, one.Answers[0].Reason)
			}
		}
		hopsAreAllowed(t, m, name, i, served)
	}
}

// may reports whether somebody who comes to the node from its own country is
// served: an edge outside is empty until they are there.
func may(r explain.Ruling) bool { return r.Allowed || r.Rule == residency.RuleEdgeEmpty }

// hopsAreAllowed has a meeting of those who are served and compares what flows with
// what is said.
func hopsAreAllowed(t *testing.T, m *testMesh, name string, i int, served map[residency.NodeName]bool) {
	t.Helper()
	var people []*client
	var from residency.NodeName
	for _, at := range []residency.NodeName{"fra", "waw", "nyc"} {
		if served[at] {
			people = append(people, enter(t, m.node(at), name, "at-"+string(at), preset("drawn")))
			from = at
		}
	}
	if len(people) == 0 {
		return
	}
	camera := people[len(people)-1].publish("camera", livekit.TrackType_VIDEO)
	for _, p := range people[:len(people)-1] {
		p.hears(camera)
	}
	x, refused := explains(t, m.node(from), "room", name)
	if refused != nil || x.Explanation == nil {
		t.Fatalf("case %d: %v %s", i, refused, x.Text)
	}
	e := x.Explanation
	flows := 0
	for _, h := range e.Hops {
		said := ruling(standingOf(e, h.To), h.Class, h.Class == residency.ClassMetadata) // that goes where it is kept
		if !said.Allowed || said.Rule != h.Rule {
			t.Errorf("case %d: %s goes %s → %s by %q, and what is said of %s is %+v", i, h.Class, h.From, h.To, h.Rule, h.To, said)
		}
		if h.Class == residency.ClassMedia && h.Tracks > 0 {
			flows++
		}
		if !served[h.To] && h.Class == residency.ClassMedia {
			t.Errorf("case %d: media goes to %s", i, h.To)
		}
	}
	if flows < len(people)-1 {
		t.Errorf("case %d: %d ways of media for %d people:\n%s", i, flows, len(people), x.Text)
	}
	for _, p := range people {
		p.close()
	}
}

// Refusals are remembered for half an hour, one for each person, in bounds, and in
// no name.
func TestRefusalMemory(t *testing.T) {
	var m refusals
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	note := func(room, who, rule string, at time.Time) { m.note(room, who, explain.Refusal{Rule: rule, At: at}) }
	note("board", "anna", "zone", at)
	note("board", "anna", "epoch", at.Add(time.Minute))
	note("board", "ben", "zone", at.Add(time.Minute))
	if l := m.of("board", "anna", at.Add(time.Minute)); len(l) != 1 || l[0].Rule != "epoch" {
		t.Errorf("anna: %+v", l)
	}
	if l := m.of("board", "", at.Add(time.Minute)); len(l) != 2 {
		t.Errorf("everybody: %+v", l)
	}
	if l := m.of("board", "anna", at.Add(time.Hour)); len(l) != 0 || len(m.of("other", "anna", at)) != 0 {
		t.Errorf("too old, or of another room: %+v", l)
	}
	for i := range 2 * maxRefusedIn {
		note("board", fmt.Sprint("p", i), "zone", at.Add(time.Hour))
	}
	for i := range 2 * maxRefusedRooms {
		note(fmt.Sprint("r", i), "p", "zone", at.Add(time.Hour+time.Duration(i)*time.Second))
	}
	if len(m.rooms) > maxRefusedRooms {
		t.Errorf("%d rooms", len(m.rooms))
	}
	for _, list := range m.rooms {
		if len(list) > maxRefusedIn {
			t.Errorf("%d in a room", len(list))
		}
	}
	if text := fmt.Sprintf("%s %v", m.key, m.rooms); strings.Contains(text, "anna") || strings.Contains(text, "board") {
		t.Error("the memory has names in it")
	}
}
