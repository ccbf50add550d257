package room

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// letter is a message that has left for a node.
type letter struct {
	to   residency.NodeName
	kind relay.Kind
	body []byte
}

// postbox is a link that keeps what is sent.
type postbox struct {
	tap
	to  residency.NodeName
	all *[]letter
}

func (p *postbox) Send(_ residency.Permit, k relay.Kind, body []byte) error {
	*p.all = append(*p.all, letter{p.to, k, body})
	return nil
}

// middle is a room on fra, where a track of wanda's on waw is watched, with two more
// nodes.
type middle struct {
	*stage
	t       *testing.T
	letters []letter
	track   *track
}

// wish is somebody who wants layers.
type wish sfu.LayerSet

func (w wish) Wants() sfu.LayerSet              { return sfu.LayerSet(w) }
func (wish) Offer([]sfu.Packet, sfu.Out)        {}
func (wish) Report(sfu.Layer, sfu.SenderReport) {}

func newMiddle(t *testing.T) *middle {
	s := &middle{stage: newStage(t, "edge"), t: t}
	links := map[residency.NodeName]*postbox{}
	for _, name := range []residency.NodeName{"waw", "vie", "osl"} {
		n := s.members["waw"]
		n.Name, n.Serial = name, string(name)
		s.members[name] = n
		links[name] = &postbox{tap: tap{bound: map[uint32]bool{}}, to: name, all: &s.letters}
	}
	s.deps.Link = func(n residency.NodeName) Link {
		if l := links[n]; l != nil {
			return l
		}
		return nil
	}
	s.has(t, "waw", false, person("PA_wanda", "wanda", "TR_wanda"))
	s.has(t, "vie", false, person("PA_vic", "vic"))
	s.has(t, "osl", false, person("PA_ole", "ole"))
	s.track = s.tracks["TR_wanda"]
	s.ensureUp(s.track)
	s.track.up.AddSink(wish(1))
	s.doReconcile()
	return s
}

// newest is the last message of a kind to a node, zero if there is none since the
// last question.
func newest[T any](s *middle, to residency.NodeName, kind relay.Kind) (m T) {
	s.t.Helper()
	for _, l := range s.letters {
		if l.to == to && l.kind == kind {
			var next T
			if err := json.Unmarshal(l.body, &next); err != nil {
				s.t.Fatal(err)
			}
			m = next
		}
	}
	s.letters = slices.DeleteFunc(s.letters, func(l letter) bool { return l.to == to && l.kind == kind })
	return m
}

// TestWayOverAnotherNode follows a track that is to come from a node in the middle, and
// goes on from here: wishes and keyframes go up that way, and the publisher's node
// knows of it.
func TestWayOverAnotherNode(t *testing.T) {
	s := newMiddle(t)
	if got := newest[Subscribe](s, "waw", KindSubscribe); got != (Subscribe{Track: "TR_wanda", Layers: 1, Own: 1, Able: true}) {
		t.Fatalf("asked for %+v", got)
	}
	s.says("osl", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 9, Node: "osl"}) // nobody asked osl
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 2, Node: "vie"})
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 1, Node: "osl"}) // overtaken
	s.doReconcile()
	if got := newest[Subscribe](s, "vie", KindSubscribe); got != (Subscribe{Track: "TR_wanda", Layers: 1}) {
		t.Fatalf("vie is asked for %+v", got)
	}
	if got := newest[Subscribe](s, "osl", KindSubscribe); got.Track != "" {
		t.Fatalf("osl is asked for %+v", got)
	}
	s.says("vie", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3}) // it does not get the track itself yet
	if s.track.way.at.link != nil {
		t.Fatal("a way from nowhere is taken")
	}
	s.says("vie", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Path: []residency.NodeName{"waw", "vie"}})
	if s.track.way.at.link == nil {
		t.Fatal("the way is not taken")
	}

	s.says("osl", KindSubscribe, Subscribe{Track: "TR_wanda", Layers: 4})
	if got := newest[TrackOpen](s, "osl", KindTrackOpen); !slices.Equal(got.Path, []residency.NodeName{"waw", "vie", "fra"}) {
		t.Fatalf("osl is told of %+v", got)
	}
	s.doReconcile()
	if got := newest[Subscribe](s, "vie", KindSubscribe); got.Layers != 5 {
		t.Errorf("vie is asked for layers %b", got.Layers)
	}
	if got := newest[Subscribe](s, "waw", KindSubscribe); got != (Subscribe{Track: "TR_wanda", Layers: 5, Own: 1, Able: true, From: "vie"}) {
		t.Errorf("waw is told %+v", got)
	}
	s.says("osl", KindKeyframe, Keyframe{Track: "TR_wanda", Layer: 2})
	s.doReconcile()
	if got := newest[Keyframe](s, "vie", KindKeyframe); got.Layer != 2 {
		t.Errorf("vie is asked for a keyframe of %+v", got)
	}
	if got := newest[Keyframe](s, "waw", KindKeyframe); got.Track != "" {
		t.Error("waw is asked for a keyframe, though nothing comes from there")
	}

	s.says("vie", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Path: []residency.NodeName{"waw", "fra", "vie"}})
	s.doReconcile()
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.Lost != "vie" || got.From != "" {
		t.Errorf("round in a circle, and waw is told %+v", got)
	}
	if got := newest[Subscribe](s, "vie", KindSubscribe); got.Layers != 0 {
		t.Errorf("vie is asked for %+v", got)
	}
}

// TestWayChangesOnceItBrings keeps the old way until the new one has brought something
// for a while, and for good if it never does.
func TestWayChangesOnceItBrings(t *testing.T) {
	s := newMiddle(t)
	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 1})
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 1, Node: "vie"})
	s.says("vie", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Path: []residency.NodeName{"waw", "vie"}})
	step := func(d time.Duration) residency.NodeName {
		s.later(d)
		s.doReconcile()
		return s.track.way.at.from
	}
	w := &s.track.way
	if step(overlap) != "waw" {
		t.Fatal("it changes before anything comes")
	}
	w.next.came.Add(1)
	if step(0) != "waw" || step(overlap/2) != "waw" {
		t.Fatal("it changes before the old way has brought all")
	}
	if step(overlap) != "vie" || w.next != nil {
		t.Fatalf("it stays with %q", w.at.from)
	}
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.From == "vie" {
		t.Error("waw is told too early")
	}
	step(0)
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.From != "vie" {
		t.Errorf("waw is told %+v", got)
	}

	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 2, Node: "osl"})
	s.says("osl", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Path: []residency.NodeName{"waw", "osl"}})
	w.at.came.Add(1)
	step(0)
	if step(wayPatience) != "vie" || w.next != nil {
		t.Fatalf("it goes to %q, which brings nothing", w.at.from)
	}
	step(0)
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.Lost != "osl" && got.From != "vie" {
		t.Errorf("waw is told %+v", got)
	}

	s.doSuspect("vie", true)
	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 4})
	if w.next == nil || w.next.link == nil || w.at.link == nil {
		t.Fatal("a suspect node is not gone around")
	}
	w.next.came.Add(1)
	if step(0) != "waw" {
		t.Error("it waits for a suspect node")
	}
}

// TestWhoAsksForAllLosesNoWay keeps what comes from a node that asks who is here: it
// may have forgotten what it was asked for, or may only lack a name. What is wanted is
// told anew, and what comes goes on until something else does.
func TestWhoAsksForAllLosesNoWay(t *testing.T) {
	s := newMiddle(t)
	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 1})
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 1, Node: "vie"}) // has not answered yet
	s.doReconcile()
	w := &s.track.way
	asksForAll := func(node residency.NodeName) {
		t.Helper()
		s.letters = nil
		s.says(node, KindParticipants, Participants{Presence: Presence{Node: node, Participants: 1}, Tell: true})
		s.doReconcile()
		if w.at.link == nil || !w.at.link.Bound(w.at.alias) {
			t.Fatalf("%s asks who is here, and the track does not come any more", node)
		}
	}
	asksForAll("waw")
	if got := newest[Subscribe](s, "waw", KindSubscribe); got != (Subscribe{Track: "TR_wanda", Layers: 1, Own: 1, Able: true}) {
		t.Errorf("waw is asked for %+v", got)
	}
	asksForAll("vie")
	if got := newest[Subscribe](s, "vie", KindSubscribe); got != (Subscribe{Track: "TR_wanda", Layers: 1}) {
		t.Errorf("vie is asked for %+v", got)
	}

	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 2}) // it had forgotten
	if w.at.alias != 2 || !w.at.link.Bound(2) || w.at.link.Bound(1) {
		t.Errorf("alias %d is listened to", w.at.alias)
	}
}

// TestWhoLostItsWayGetsItFromHere serves a node that was told to get a track elsewhere,
// and does not get it any more: until it has gone there.
func TestWhoLostItsWayGetsItFromHere(t *testing.T) {
	s := newMiddle(t)
	s.deps.FanOut = 1
	s.films()
	tr := s.tracks["TR_gus"]
	asks := func(node, from residency.NodeName) {
		s.says(node, KindSubscribe, Subscribe{Track: "TR_gus", Layers: 1, Own: 1, Able: true, From: from})
	}
	asks("vie", "")
	asks("osl", "")
	s.doReconcile()
	over := tr.plan.from("osl")
	child := residency.NodeName("osl")
	if over == "" {
		over, child = tr.plan.from("vie"), "vie"
	}
	if over == "" || tr.plan.demands[child].sent != over {
		t.Fatalf("nobody is to get it from another: %+v", tr.plan.tree)
	}
	asks(child, over)
	if tr.serving[child] != nil {
		t.Fatal("it gets the track twice")
	}
	tr.plan.demands[child].from = "" // as if it had not gone there yet
	asks(child, "")
	if tr.serving[child] == nil {
		t.Errorf("%s, which gets it from nowhere, is left to wait for %s", child, over)
	}
	asks(child, over)
	if tr.serving[child] != nil {
		t.Error("it gets the track twice for good")
	}
}

// TestPlanThatChangesBackIsAnswered tells the publisher's node once more where a track
// comes from, if that takes back what it had planned: else it would go on sending it too.
func TestPlanThatChangesBackIsAnswered(t *testing.T) {
	s := newMiddle(t)
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 1, Node: "vie"})
	s.doReconcile()
	s.says("vie", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Path: []residency.NodeName{"waw", "vie"}})
	s.doReconcile()
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.From != "vie" {
		t.Fatalf("waw is told %+v", got)
	}
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 2, Node: "waw"})
	s.doReconcile()
	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 5})
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 3, Node: "vie"})
	s.doReconcile()
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.From != "vie" || got.Layers == 0 {
		t.Errorf("waw, which sends it as well, is told %+v", got)
	}
}

// TestHostileWays takes nothing from nodes that make it up.
func TestHostileWays(t *testing.T) {
	s := newMiddle(t)
	for _, v := range []TrackVia{{}, {Track: "TR_none", Plan: 1, Node: "vie"}, {Track: "TR_wanda", Plan: 1, Node: "fra"}} {
		s.says("waw", KindTrackVia, v)
	}
	if w := &s.track.way; w.next != nil || w.at.from != "waw" {
		t.Errorf("it comes from %q", w.at.from)
	}
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 1, Node: "mars"}) // nobody knows it
	s.doReconcile()
	if got := newest[Subscribe](s, "waw", KindSubscribe); got.Lost != "mars" {
		t.Errorf("waw is told %+v", got)
	}
	s.says("waw", KindTrackVia, TrackVia{Track: "TR_wanda", Plan: 2, Node: "vie"})
	for _, path := range [][]residency.NodeName{{"vie"}, {"osl", "vie"}, {"waw", "osl"}, make([]residency.NodeName, 1000)} {
		s.says("vie", KindTrackOpen, TrackOpen{Track: "TR_wanda", Alias: 3, Path: path})
	}
	if s.track.way.at.link != nil {
		t.Error("a path that cannot be is taken")
	}
	for range 2 * maxFailed {
		s.track.plan.fail("waw", residency.NodeName(NewID("n")), s.now)
	}
	if n := len(s.track.plan.failed); n > maxFailed {
		t.Errorf("%d ways are remembered", n)
	}
}
