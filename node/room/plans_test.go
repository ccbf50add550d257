package room

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// arena is a room on fra, where gus has a camera, with people on n other nodes that lie
// on a plane.
type arena struct {
	*middle
	nodes  []residency.NodeName
	drafts []func()      // that are being made: completes one
	asked  int           // round trips
	most   time.Duration // that the room was held by one event
}

func newArena(t testing.TB, n int) *arena {
	h := &arena{middle: &middle{stage: newStage(t, "closed")}}
	gate := residency.NewGate(h.bundle)
	h.deps.Gate = func() *residency.Gate { return gate }
	links, at := map[residency.NodeName]*postbox{}, map[residency.NodeName]int{"fra": 0}
	for i := range n {
		name := residency.NodeName(fmt.Sprintf("node-%03d", i+1))
		m := h.members["waw"]
		m.Name, m.Serial = name, string(name)
		h.members[name], at[name] = m, i+1
		links[name] = &postbox{tap: tap{bound: map[uint32]bool{}}, to: name, all: &h.letters}
		h.nodes = append(h.nodes, name)
	}
	h.deps.Link = func(n residency.NodeName) Link {
		if l := links[n]; l != nil {
			return l
		}
		return nil
	}
	h.deps.RoundTrip = func(a, b residency.NodeName) (time.Duration, bool) {
		x, y := at[a], at[b]
		h.asked++
		return time.Duration(math.Hypot(float64(x*37%200-y*37%200), float64(x*61%100-y*61%100)) * float64(time.Millisecond)), true
	}
	h.aside = func(work, then func()) {
		h.drafts = append(h.drafts, func() { work(); h.holds(then) })
	}
	gus, _ := h.films()
	gus.stop = func(error) {}
	for i, name := range h.nodes {
		h.has(t, name, false, person(fmt.Sprint("PA_", i), fmt.Sprint("p", i)))
	}
	return h
}

// asks has a node say what it wants of gus's camera.
func (h *arena) asks(node residency.NodeName, own int) {
	layers := 1 | own
	d := h.tracks["TR_gus"].plan.demands[node]
	var from residency.NodeName
	if d != nil {
		from = d.sent
	}
	h.says(node, KindSubscribe, Subscribe{Track: "TR_gus", Layers: sfu.LayerSet(layers), Own: sfu.LayerSet(own), Able: true, From: from})
}

// all has everybody ask for the camera.
func (h *arena) all() {
	for _, name := range h.nodes {
		h.asks(name, 1)
	}
}

// told says where nodes were told to get the camera, since the last question.
func (h *arena) told() map[residency.NodeName]residency.NodeName {
	out := map[residency.NodeName]residency.NodeName{}
	for _, l := range h.letters {
		if l.kind == KindTrackVia {
			var v TrackVia
			if err := json.Unmarshal(l.body, &v); err != nil {
				panic(err)
			}
			out[l.to] = v.Node
		}
	}
	h.letters = nil
	return out
}

// middles are the nodes that pass the camera on, by where nodes get it.
func middles(over map[residency.NodeName]residency.NodeName) (list []residency.NodeName) {
	for _, from := range over {
		if from != "fra" && from != "" && !slices.Contains(list, from) {
			list = append(list, from)
		}
	}
	slices.Sort(list)
	return list
}

// TestLargeTreesAreMadeBesideTheRoom has 120 nodes come at once: the room compares no ways,
// sends the track to nobody beyond its limit, and all changes but the first together
// cost one more draft.
func TestLargeTreesAreMadeBesideTheRoom(t *testing.T) {
	h := newArena(t, 120)
	for i, name := range h.nodes {
		if i == planHere {
			h.asked = 0
		}
		h.asks(name, 1)
	}
	h.doReconcile()
	if h.asked > 0 {
		t.Errorf("the room itself has asked for %d round trips", h.asked)
	}
	serving := h.tracks["TR_gus"].serving
	if len(h.drafts) != 1 || len(serving) > planHere {
		t.Fatalf("%d drafts, %d nodes are served from here", len(h.drafts), len(serving))
	}
	made := 0
	for len(h.drafts) > 0 {
		made++
		h.drafted1()
	}
	if p := &h.tracks["TR_gus"].plan; made != 2 || p.due || len(p.tree.Edges) != 120 {
		t.Fatalf("%d drafts for a tree of %d edges, due %v", made, len(p.tree.Edges), p.due)
	}
	told := h.told()
	for _, name := range h.nodes {
		if d := h.tracks["TR_gus"].plan.demands[name]; !d.waits.IsZero() || d.sent == "" && serving[name] == nil {
			t.Fatalf("nobody answers %s: %+v", name, d)
		}
	}
	if len(middles(told)) < 12 {
		t.Errorf("%d nodes pass it on", len(middles(told)))
	}
}

// TestDraftIsThePlan makes the same trees beside the room as in it.
func TestDraftIsThePlan(t *testing.T) {
	beside, here := newArena(t, 40), newArena(t, 40)
	here.planHere = 1000
	for _, h := range []*arena{beside, here} {
		h.all()
		h.drafted()
		h.tracks["TR_gus"].plan.tree = nil
		h.tracks["TR_gus"].plan.due = true
		h.doReconcile()
		h.drafted()
	}
	a, b := beside.tracks["TR_gus"].plan, here.tracks["TR_gus"].plan
	if !slices.Equal(a.tree.Edges, b.tree.Edges) || !maps.Equal(a.over, b.over) {
		t.Errorf("beside %v\nhere %v", a.tree.Edges, b.tree.Edges)
	}
}

// TestTracksGoByTheSameRoundTrips has two tracks of one publisher planned at a time, one by
// the room and one beside it, before or after: each round trip is asked for once, until
// trees are looked at again.
func TestTracksGoByTheSameRoundTrips(t *testing.T) {
	for _, first := range []bool{false, true} {
		t.Run(fmt.Sprint("the draft is ready first ", first), func(t *testing.T) {
			h := newArena(t, 40)
			h.planHere = 30
			asked := map[pair]int{}
			ask := h.deps.RoundTrip
			h.deps.RoundTrip = func(a, b residency.NodeName) (time.Duration, bool) {
				asked[pair{min(a, b), max(a, b)}]++
				return ask(a, b)
			}
			h.all()
			if len(h.drafts) != 1 {
				t.Fatalf("%d drafts", len(h.drafts))
			}
			if first {
				h.drafted()
			}
			info := &livekit.TrackInfo{Sid: "TR_two", Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA, MimeType: vp8.MimeType}
			h.doPublished(h.locals["gus"], info, TrackRecord{Codec: vp8}, newUp("TR_two", sfu.Video, info, TrackRecord{Codec: vp8}, false))
			for _, name := range h.nodes[:20] {
				h.says(name, KindSubscribe, Subscribe{Track: "TR_two", Layers: 1, Own: 1, Able: true})
			}
			h.doReconcile()
			if p := &h.tracks["TR_two"].plan; p.tree == nil || len(p.tree.Edges) != 20 {
				t.Fatalf("the small tree: %+v", p.tree)
			}
			h.drafted()
			if p := &h.tracks["TR_gus"].plan; p.tree == nil || len(p.tree.Edges) != 40 {
				t.Fatalf("the large tree: %+v", p.tree)
			}
			for p, n := range asked {
				if n > 1 {
					t.Fatalf("between %s and %s was asked %d times", p.from, p.to, n)
				}
			}
			if len(asked) < 100 {
				t.Fatalf("%d round trips were asked for", len(asked))
			}
		})
	}
}

// TestDraftOfOldPolicies tightens the policies, or finds something else out about nodes,
// while a draft is made, and when it is done but not everybody has been told: nobody is
// sent to a node that may have it no more.
func TestDraftOfOldPolicies(t *testing.T) {
	for name, tighten := range map[string]func(*arena, residency.NodeName){
		"the zone is smaller": func(h *arena, bad residency.NodeName) {
			zones := maps.Clone(h.bundle.Policies["closed"].Zones)
			zones[residency.ClassMedia] = residency.Zone{Name: "DE", Countries: []residency.Country{"DE", "FR"}}
			gate := residency.NewGate(&residency.Bundle{Epoch: 2, Default: "closed",
				Policies: map[string]*residency.Policy{"closed": {Name: "closed", Zones: zones}}})
			h.bundle = gate.Bundle()
			h.deps.Gate = func() *residency.Gate { return gate }
		},
		"the node is not believed": func(h *arena, bad residency.NodeName) {
			h.deps.Contradiction = func(n residency.NodeName) string {
				if n == bad {
					return "too fast"
				}
				return ""
			}
		},
		"the node is suspect": func(h *arena, bad residency.NodeName) { h.remotes[bad].suspect = true },
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/late=%v", name, late), func(t *testing.T) {
				h := newArena(t, 40)
				h.planHere, h.draft = 0, &draft{} // all in one draft
				h.all()
				h.draft = nil
				h.doReconcile()
				d := h.draft
				d.make()
				bad := middles(d.over)[0]
				for _, n := range h.nodes { // the others are elsewhere
					if m := h.members[n]; n != bad {
						m.Country = "DE"
						h.members[n] = m
					}
				}
				h.drafts, h.letters = nil, nil
				if late { // it is taken, and nobody told
					h.draft = nil
					h.adopt(d)
					tighten(h, bad)
				} else {
					tighten(h, bad)
					h.doDrafted(d)
				}
				h.drafts = nil
				h.doReconcile()
				told := h.told()
				for to, over := range told {
					if over == bad {
						t.Fatalf("%s is sent to %s", to, bad)
					}
				}
				if epoch := h.deps.Gate().Epoch(); epoch == 1 && len(told) == 0 {
					t.Error("nobody is told anything")
				} else if epoch == 2 && !late && (len(told) > 0 || h.tracks["TR_gus"].plan.tree != nil || h.draft == nil) {
					t.Errorf("a tree of old policies is taken: %v", told)
				}
			})
		}
	}
}

// TestWaitsForAPlaceNotForLong lets a node wait for a tree, and answers it from here if
// none comes, or if what it had does not come any more.
func TestWaitsForAPlaceNotForLong(t *testing.T) {
	h := newArena(t, 41)
	late, lost := h.nodes[40], h.nodes[39]
	for _, name := range h.nodes[:39] {
		h.asks(name, 1)
	}
	h.drafted()
	tr := h.tracks["TR_gus"]
	h.asks(lost, 1)
	h.asks(late, 1)
	h.asks(late, 1) // not more urgent by that
	h.doReconcile()
	if tr.serving[late] != nil || len(h.drafts) != 1 {
		t.Fatalf("it does not wait; %d drafts", len(h.drafts))
	}
	h.says(lost, KindSubscribe, Subscribe{Track: "TR_gus", Layers: 1, Own: 1, Able: true, Lost: h.nodes[0]})
	if tr.serving[lost] == nil {
		t.Error("who has lost its way waits")
	}
	h.later(waitsFor)
	h.doReconcile()
	if tr.serving[late] == nil {
		t.Error("it waits for ever")
	}
	h.drafted()
	h.drafted()
	if over := tr.plan.from(late); over != tr.plan.demands[late].sent {
		t.Errorf("it is to go to %q and was told %q", over, tr.plan.demands[late].sent)
	}
}

// TestDraftComesTooLate ends the track, moves its publisher, or has nearly all leave
// while a draft is made: it counts for nothing.
func TestDraftComesTooLate(t *testing.T) {
	for name, happens := range map[string]func(*arena){
		"the track ends":       func(h *arena) { h.dropTrack("TR_gus") },
		"the publisher leaves": func(h *arena) { h.redirect(h.tracks["TR_gus"], h.nodes[0]) },
		"a star is enough": func(h *arena) {
			for _, n := range h.nodes[3:] {
				h.says(n, KindSubscribe, Subscribe{Track: "TR_gus"})
			}
			h.doReconcile()
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newArena(t, 40)
			h.all()
			tr := h.tracks["TR_gus"]
			d := h.draft
			d.make()
			happens(h)
			h.letters = nil
			was := tr.plan.tree
			h.doDrafted(d)
			if told := h.told(); tr.plan.tree != was || h.draft != nil || len(told) > 0 {
				t.Errorf("the draft is taken: %v", told)
			}
		})
	}
}

// TestRoomAnswersWhileItDrafts asks a room that runs, while its draft waits for the first
// round trip, and ends it then.
func TestRoomAnswersWhileItDrafts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newArena(t, 40)
		h.aside = h.spawn
		hold := make(chan struct{})
		ask := h.deps.RoundTrip
		h.deps.RoundTrip = func(a, b residency.NodeName) (time.Duration, bool) {
			<-hold
			return ask(a, b)
		}
		h.planHere = 0
		stop := h.run(t)
		h.call(t.Context(), func() error { h.all(); return nil })
		synctest.Wait()
		if err := h.call(t.Context(), func() error { return nil }); err != nil {
			t.Fatal(err)
		}
		edges := func() (n int) {
			h.call(t.Context(), func() error {
				if tree := h.tracks["TR_gus"].plan.tree; tree != nil {
					n = len(tree.Edges)
				}
				return nil
			})
			return n
		}
		if n := edges(); n != 0 {
			t.Errorf("a tree of %d edges without round trips", n)
		}
		close(hold)
		synctest.Wait()
		if n := edges(); n != 40 {
			t.Errorf("a tree of %d edges", n)
		}
		stop()
	})
}

// holds does what the room does in one go.
func (h *arena) holds(f func()) {
	begin := time.Now()
	f()
	h.most = max(h.most, time.Since(begin))
}

// drafted completes the drafts, with what follows from them.
func (h *arena) drafted() {
	for len(h.drafts) > 0 {
		h.drafted1()
	}
}

// drafted1 completes one.
func (h *arena) drafted1() {
	f := h.drafts[0]
	h.drafts = h.drafts[1:]
	f()
	h.posted()
}

// posted does what waits for the room.
func (h *arena) posted() {
	for {
		select {
		case f := <-h.inbox:
			h.holds(f)
		case <-h.wake:
			h.holds(h.doReconcile)
		default:
			return
		}
	}
}

// BenchmarkHeld is for how long at most a room over so many nodes answers nobody because
// it plans: as all come, as one comes or goes, and when a tree is looked at again. The
// goal is 1 ms. What is planned beside the room is in ns/op.
func BenchmarkHeld(b *testing.B) {
	for _, n := range []int{100, 500} {
		h := newArena(b, n)
		run := func(name string, each func(i int)) {
			b.Run(fmt.Sprintf("%s/nodes=%d", name, n), func(b *testing.B) {
				var most []time.Duration
				for i := 0; b.Loop(); i++ {
					h.letters, h.most = nil, 0
					each(i)
					h.drafted()
					most = append(most, h.most)
				}
				slices.Sort(most)
				b.ReportMetric(float64(most[len(most)/2].Nanoseconds())/1e3, "held-µs")
				b.ReportMetric(float64(most[len(most)*99/100].Nanoseconds())/1e3, "held-p99-µs")
			})
		}
		run("come", func(int) {
			h.tracks["TR_gus"].plan = plan{}
			for _, name := range h.nodes {
				h.holds(func() { h.asks(name, 1) })
			}
		})
		run("change", func(i int) {
			h.holds(func() { h.asks(h.nodes[i/2%n], i%2) })
			h.holds(h.doReconcile)
		})
		run("review", func(int) {
			h.later(planEvery)
			h.holds(h.doReconcile)
		})
		run("tick", func(int) { h.holds(h.doReconcile) })
	}
}

// What a layer takes is counted once, however it is sent.
func TestRatesOfLayersApart(t *testing.T) {
	rates := sfu.Rates{{100, 150}, {400, 500}, {0, 1500}}
	if got := apart(rates, false); got != [8]int{150, 500, 1500} {
		t.Errorf("streams of their own: %v", got)
	}
	if got := apart(rates, true); got != [8]int{150, 350, 1000} {
		t.Errorf("one stream: %v", got)
	}
	rates[1] = [sfu.MaxTemporal]float64{} // it never came
	if got := apart(rates, true); got != [8]int{150, 0, 1350} {
		t.Errorf("one stream without the middle: %v", got)
	}
}
