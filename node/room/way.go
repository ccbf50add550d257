package room

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// way is how a track of another node comes here: from the node of its publisher, or
// from one that gets it itself and passes it on, as the publisher's node says
// (plans.go). Packets keep the publisher's numbers on all ways, so what comes twice
// is dropped by the UpTrack, and nothing is missing while the way changes:
//
//	at    ════════════════════════╗  overlap
//	next            ══════════════╩═════════════════════
//	        told    first packet     at is given up
//
// If a node in the middle fails, the track is asked for at the publisher's node at
// once; where it comes from in the end is settled afterwards. Owned by Room.run.
type way struct {
	at     feed               // where it comes from, or was asked for
	next   *feed              // where it will come from, once it does
	plan   uint64             // the newest that the publisher's node told
	told   Subscribe          // what the publisher's node was told last
	toldAt time.Time          //
	lost   residency.NodeName // see Subscribe
}

// feed is a link by which a track comes.
type feed struct {
	from    residency.NodeName
	since   time.Time // it was chosen, or bound
	asked   sfu.LayerSet
	askedAt time.Time
	anew    bool // it is to be asked again in any case
	link    Link // nil until it is bound
	alias   uint32
	path    []residency.NodeName // from the publisher's node to from
	came    *atomic.Uint32       // bursts
	flowing time.Time            // since when something comes
	mark    uint32               // bursts that the other way had brought when this one was bound
}

const (
	// askAgain repeats a subscription that got no answer.
	askAgain = time.Second
	// overlap is how long a track comes by two ways: longer than the delays of the two
	// differ, so that the old one has brought what the new one began behind.
	overlap = 300 * time.Millisecond
	// wayPatience is how long a new way may take until it brings something.
	wayPatience = 2 * time.Second
	// maxPath bounds the nodes by which a track may come; no sensible tree is as deep.
	maxPath = 16
)

// feeds are the ways by which the track comes or is to come.
func (w *way) feeds() []*feed {
	if w.next != nil {
		return []*feed{&w.at, w.next}
	}
	return []*feed{&w.at}
}

// feed is the way over a node, nil if there is none.
func (w *way) feed(from residency.NodeName) *feed {
	for _, f := range w.feeds() {
		if f.from == from {
			return f
		}
	}
	return nil
}

// unbind stops listening for packets.
func (f *feed) unbind() {
	if f.link != nil {
		f.link.Unbind(f.alias)
	}
	f.link, f.alias, f.path = nil, 0, nil
}

// own is what is watched of the track on this node, by attendees and the recorder.
func (t *track) own() sfu.LayerSet {
	return t.up.WantedBy(func(s sfu.Sink) bool {
		_, out := s.(*outgoing)
		return !out
	})
}

// askLayers subscribes to exactly the layers that somebody here, or further down, wants.
func (r *Room) askLayers(t *track, now time.Time) {
	for _, f := range t.way.feeds() {
		if f.link != nil && !f.link.Bound(f.alias) { // its permit has ended, or the other end's
			r.lose(t, f)
			break
		}
	}
	want := t.up.Wanted()
	if want == 0 {
		r.quit(t)
		return
	}
	r.tellSource(t, want, now)
	for _, f := range t.way.feeds() {
		if f.from != t.node && !r.askFeed(t, f, want, now) {
			r.lose(t, f)
			break
		}
	}
	r.changeWay(t, now)
}

// tellSource tells the publisher's node what is wanted here, and where it comes from.
func (r *Room) tellSource(t *track, want sfu.LayerSet, now time.Time) {
	w := &t.way
	s := Subscribe{Track: t.id, Layers: want, Own: t.own(), Able: true}
	if w.at.from != t.node {
		s.From = w.at.from
	}
	f := w.feed(t.node)
	unanswered := f != nil && f.link == nil && now.Sub(w.toldAt) >= askAgain
	if s == w.told && !unanswered && w.lost == "" {
		return
	}
	w.told = s
	s.Lost = w.lost
	if r.sendTo(t.node, KindSubscribe, encode(s)) != nil {
		w.told = Subscribe{} // retried by the next tick
		return
	}
	w.toldAt, w.lost = now, ""
}

// askFeed asks another node than the publisher's; it reports false if that is in vain.
func (r *Room) askFeed(t *track, f *feed, want sfu.LayerSet, now time.Time) bool {
	if f.link == nil && now.Sub(f.since) >= wayPatience {
		return false
	}
	if want == f.asked && !f.anew && (f.link != nil || now.Sub(f.askedAt) < askAgain) {
		return true
	}
	f.asked, f.askedAt, f.anew = want, now, false
	return r.sendTo(f.from, KindSubscribe, encode(Subscribe{Track: t.id, Layers: want})) == nil
}

// changeWay lets the track come by its new way alone, once it does.
func (r *Room) changeWay(t *track, now time.Time) {
	w := &t.way
	n := w.next
	switch {
	case n == nil:
		return
	case n.link != nil && w.at.link == nil:
	case n.link != nil && n.came.Load() > 0:
		if n.flowing.IsZero() {
			n.flowing = now
		}
		if now.Sub(n.flowing) < overlap && !r.suspects(w.at.from) {
			return
		}
	case now.Sub(n.since) < wayPatience:
		return
	case n.link == nil || w.at.came.Load() != n.mark:
		r.lose(t, n) // the old way brings something, this one does not
		return
	} // else nothing comes by either: it is muted, or nobody wants it
	old := w.at
	w.at, w.next = *n, nil
	r.deps.Trees.Moved.Add(1)
	r.endFeed(t, &old)
	r.tellPath(t)
	r.poke()
}

// suspects reports whether nothing arrives from a node just now.
func (r *Room) suspects(node residency.NodeName) bool {
	m := r.remotes[node]
	return m == nil || m.suspect
}

// endFeed ends a way. The publisher's node learns of it from what it is told next.
func (r *Room) endFeed(t *track, f *feed) {
	f.unbind()
	if f.from != t.node && f.asked != 0 {
		r.sendTo(f.from, KindSubscribe, encode(Subscribe{Track: t.id}))
	}
	f.asked = 0
}

// quit ends all that this node has asked for.
func (r *Room) quit(t *track) {
	for _, f := range t.way.feeds() {
		r.endFeed(t, f)
	}
	if t.way.told.Layers != 0 && r.sendTo(t.node, KindSubscribe, encode(Subscribe{Track: t.id})) != nil {
		return // retried by the next tick
	}
	t.way = way{at: feed{from: t.node}, plan: t.way.plan}
}

// lose gives a way up that brings nothing more, and takes another one at once.
func (r *Room) lose(t *track, f *feed) {
	w, was := &t.way, *f
	if t.node == r.deps.Self.Name { // its publisher has come here; see takeover.go
		r.endFeed(t, f)
		w.next = nil
		return
	}
	if was.from != t.node {
		w.lost = was.from
		r.deps.Trees.Lost.Add(1)
	} else {
		w.told = Subscribe{} // asks anew
	}
	switch {
	case f == w.next:
		w.next = nil
	case w.next != nil && (w.next.link != nil || w.next.from == t.node):
		w.at, w.next = *w.next, nil
	default:
		w.at = feed{from: t.node, since: r.deps.Now()}
	}
	r.endFeed(t, &was)
	r.poke()
}

// loseWays gives up what comes from a node.
func (r *Room) loseWays(t *track, node residency.NodeName) {
	if t.node == node {
		t.way.told = Subscribe{}
	}
	if f := t.way.feed(node); f != nil {
		r.lose(t, f)
	}
}

// loseAllWays stops receiving the track; it is asked for again while it is wanted.
func (r *Room) loseAllWays(t *track) {
	for _, f := range t.way.feeds() {
		r.endFeed(t, f)
	}
	t.way = way{at: feed{from: t.node}, plan: t.way.plan}
}

// redirect has a track come from another publisher's node. What comes by the way
// before is taken until the other sends.
func (r *Room) redirect(t *track, to residency.NodeName) {
	t.node, t.plan = to, plan{}
	w := &t.way
	if w.next != nil {
		r.endFeed(t, w.next)
	}
	w.told, w.plan, w.lost, w.next = Subscribe{}, 0, "", nil
	if f := (feed{from: to, since: r.deps.Now()}); w.at.link == nil {
		w.at = f
	} else {
		w.next = &f
	}
}

// arrive makes a track one of this node. What comes by the way before is taken until
// the publisher sends to this node.
func (r *Room) arrive(t *track) {
	t.node, t.plan = r.deps.Self.Name, plan{}
	if w := &t.way; w.next != nil && w.at.link == nil {
		w.at, w.next = *w.next, nil
	}
	if n := t.way.next; n != nil {
		r.endFeed(t, n)
		t.way.next = nil
	}
	t.way.told = Subscribe{}
}

// goAround has tracks that come over a node which may be dead come straight from
// their publishers' nodes.
func (r *Room) goAround(node residency.NodeName) {
	for _, t := range r.tracks {
		if w := &t.way; w.at.from == node && t.node != node {
			w.lost = node
			if w.next == nil {
				w.next = &feed{from: t.node, since: r.deps.Now()}
			}
		}
		t.plan.due = true
	}
}

// doTrackVia takes the publisher's node's word on where to get a track.
func (r *Room) doTrackVia(from residency.NodeName, v TrackVia) {
	t := r.tracks[v.Track]
	if t == nil || t.node != from || t.up == nil || v.Plan < t.way.plan || v.Node == r.deps.Self.Name {
		return
	}
	w := &t.way
	w.plan, w.lost = v.Plan, ""
	defer r.poke()
	switch {
	case w.next != nil && w.next.from == v.Node:
		return
	case w.next != nil:
		r.endFeed(t, w.next)
		w.next = nil
	}
	switch f := (feed{from: v.Node, since: r.deps.Now()}); {
	case v.Node == w.at.from:
		w.told = Subscribe{} // it comes this way already: whoever sends it too stops when told so
	case r.remotes[v.Node] == nil:
		w.lost = v.Node
	case w.at.link == nil: // nothing comes yet
		r.endFeed(t, &w.at)
		w.at = f
	default:
		w.next = &f
	}
}

// doTrackOpen connects the packets of an alias with the track, after asking
// the gate about the sender.
func (r *Room) doTrackOpen(from residency.NodeName, m TrackOpen) {
	t := r.tracks[m.Track]
	if t != nil && t.node == r.deps.Self.Name && t.way.at.from == from && t.way.at.link != nil {
		return // its publisher has come here, and this is the way until the media has
	}
	if t == nil || t.up == nil || t.node == r.deps.Self.Name {
		r.sendTo(from, KindSubscribe, encode(Subscribe{Track: m.Track})) // not wanted any more
		return
	}
	f := t.way.feed(from)
	if f == nil {
		s := Subscribe{Track: m.Track}
		if from == t.node {
			s = t.way.told // it comes from another node
			s.Track = m.Track
		}
		r.sendTo(from, KindSubscribe, encode(s))
		return
	}
	if path, ok := r.pathHere(t, f, m.Path); ok {
		r.bind(t, f, m, path)
	}
}

// pathHere is the way by which a track comes over a node. It reports false while
// that node does not get the track itself, or gets it from here.
func (r *Room) pathHere(t *track, f *feed, path []residency.NodeName) ([]residency.NodeName, bool) {
	if f.from == t.node {
		return []residency.NodeName{t.node}, true
	}
	if len(path) < 2 || len(path) > maxPath || path[0] != t.node || path[len(path)-1] != f.from {
		return nil, false
	}
	if slices.Contains(path, r.deps.Self.Name) {
		if f.link != nil {
			r.lose(t, f)
		}
		return nil, false
	}
	return path, true
}

// bind listens for the track's packets, if the gate lets the sender and the
// publisher's node send them.
func (r *Room) bind(t *track, f *feed, m TrackOpen, path []residency.NodeName) {
	for _, node := range []residency.NodeName{t.node, f.from} {
		if _, v := r.permit(node, residency.ClassMedia); !v.Allow {
			r.noteRefusal(node, v)
			return
		}
	}
	permit, _ := r.permit(f.from, residency.ClassMedia)
	link := r.deps.Link(f.from)
	if link == nil {
		return
	}
	if f == &t.way.at {
		t.up.SetAvailable(m.Available)
		t.up.SetRates(m.Rates)
	}
	if f.link != link || f.alias != m.Alias {
		f.unbind()
		came := new(atomic.Uint32)
		if err := link.Bind(permit, m.Alias, incoming{t.up, r.deps.Engine, came}); err != nil {
			r.log.Debug("track is not received", "track", t.id, "node", f.from, "error", err)
			return // asked for again with the next tick
		}
		f.link, f.alias, f.came, f.since, f.flowing = link, m.Alias, came, r.deps.Now(), time.Time{}
		if f != &t.way.at && t.way.at.came != nil {
			f.mark = t.way.at.came.Load()
		}
	}
	changed := !slices.Equal(f.path, path)
	f.path = path
	if f == &t.way.at {
		r.askKeyframes(t)
		if changed {
			r.tellPath(t)
		}
	}
	r.poke()
}

// doTrackClosed takes note that a track does not come from a node, or no longer.
func (r *Room) doTrackClosed(from residency.NodeName, m TrackClosed) {
	t := r.tracks[m.Track]
	if t == nil || t.up == nil {
		return
	}
	switch f := t.way.feed(from); {
	case f == nil:
		return
	case f == t.way.next, from != t.node && !m.Again:
		r.lose(t, f)
	case from != t.node:
		f.unbind()
		f.asked, f.since = 0, r.deps.Now()
		r.poke()
	default:
		f.unbind()
		t.way.toldAt = r.deps.Now() // asked again, but not at once
	}
	r.log.Debug("track does not come", "track", t.id, "node", from)
}

// pathOf is the way by which a track comes here, with this node; none for its own
// tracks, and while it does not come.
func (r *Room) pathOf(t *track) []residency.NodeName {
	if t.way.at.link == nil {
		return nil
	}
	return append(slices.Clone(t.way.at.path), r.deps.Self.Name)
}

// tellPath tells the nodes that get a track from here that it comes another way.
func (r *Room) tellPath(t *track) {
	for name, o := range t.serving {
		r.tellOpen(t, name, o)
	}
}

// mayPass reports whether a node may pass on what others publish: one that has the
// room's media for its own participants from outside alone may not.
func (r *Room) mayPass(node residency.NodeName) bool {
	_, v := r.ask(node, residency.ClassMedia, false)
	return v.Allow
}

// recheckPassing stops passing tracks on when this node may not any more.
func (r *Room) recheckPassing() {
	if r.mayPass(r.deps.Self.Name) {
		return
	}
	for _, t := range r.tracks {
		if t.node == r.deps.Self.Name {
			continue
		}
		for name := range t.serving {
			t.stopServing(name, "not from this node")
			r.sendTo(name, KindTrackClosed, encode(TrackClosed{Track: t.id, Reason: "this node passes nothing on any more"}))
		}
	}
}

// passesOn reports whether this node passes a track of another node on to a third.
// Only what is watched here is.
func (r *Room) passesOn(t *track, to residency.NodeName) bool {
	if t == nil || t.up == nil || t.node == to || t.node == r.deps.Self.Name || r.remotes[to] == nil || !r.mayPass(r.deps.Self.Name) {
		return false
	}
	return t.serving[to] != nil || t.own() != 0 && len(t.serving) < 2*r.fanOut()
}
