package room

import (
	"cmp"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router/cascade"
)

// plan is by which nodes a track that is published here goes to the others: a tree
// of router/cascade, which this node alone makes. As long as no more nodes want the
// track than it may go to from here, it goes to all of them from here, and nothing
// is planned. A tree of many nodes takes longer to make than the room may be held: it
// is drafted beside the room (draft.go). Owned by Room.run.
type plan struct {
	demands map[residency.NodeName]*demand
	tree    *cascade.Tree                             // nil: straight from here
	over    map[residency.NodeName]residency.NodeName // of each node in the plan where it gets the track, "": here
	number  uint64
	due     bool   // something has changed
	draft   *draft // that is being made, nil if none is
	at      time.Time
	failed  map[pair]time.Time // ways by which it did not come
}

// Trees counts what becomes of plans, in all rooms of a node.
type Trees struct {
	Plans atomic.Uint64 // trees made or changed for tracks published here
	Moved atomic.Uint64 // tracks that come by another way now, as planned
	Lost  atomic.Uint64 // tracks that did not come any more from the node in the middle
}

// demand is another node that wants the track.
type demand struct {
	layers sfu.LayerSet // there and further down
	own    sfu.LayerSet // watched there
	able   bool         // it can get it from another node than this
	from   residency.NodeName
	sent   residency.NodeName // where it was told to get it; "": here
	waits  time.Time          // since when it is told nothing, until a tree has a place for it; zero: it is not
}

// pair are the two nodes of a way.
type pair struct{ from, to residency.NodeName }

const (
	// planEvery is how often a tree is looked at again without a cause: round trips
	// and loads drift.
	planEvery = 5 * time.Second
	// failedFor is how long a way is not planned again by which a track did not come.
	failedFor = 10 * time.Second
	// maxFailed bounds them, for one track.
	maxFailed = 256
	// waitsFor is the longest that a node waits for a place in a tree. Then it gets the
	// track from here, before it asks again (askAgain).
	waitsFor = 500 * time.Millisecond
	// tellsAtOnce bounds the nodes that are told of new trees before the room looks
	// after anything else: each takes some 10 µs.
	tellsAtOnce = 40
	// starSlack is by how many fewer nodes than fit a tree becomes a star again.
	starSlack = 2
)

// fanOut is to how many other nodes a track goes from one.
func (r *Room) fanOut() int { return cmp.Or(r.deps.FanOut, cascade.DefaultFanOut) }

// forget takes note that a node wants the track no more.
func (p *plan) forget(node residency.NodeName) {
	if p.demands[node] != nil {
		delete(p.demands, node)
		p.due = true
	}
}

// fail notes that the track did not come by a way.
func (p *plan) fail(from, to residency.NodeName, now time.Time) {
	if p.failed == nil {
		p.failed = map[pair]time.Time{}
	}
	for e, at := range p.failed {
		if now.Sub(at) >= failedFor {
			delete(p.failed, e)
		}
	}
	if len(p.failed) < maxFailed {
		p.failed[pair{from, to}] = now
	}
}

// doDemand notes what another node wants of a track, and reports whether it is to
// get that from here.
func (r *Room) doDemand(t *track, from residency.NodeName, s Subscribe) bool {
	p, now := &t.plan, r.deps.Now()
	d := p.demands[from]
	if d == nil {
		d = &demand{}
		if p.demands == nil {
			p.demands = map[residency.NodeName]*demand{}
		}
		p.demands[from] = d
		p.due = true
		d.waits = now
	}
	own := s.Own
	if !s.Able {
		own = s.Layers
	}
	p.due = p.due || (d.own == 0) != (own == 0) || d.able != s.Able
	d.layers, d.own, d.able, d.from = s.Layers, own, s.Able, s.From
	if s.Lost != "" {
		p.fail(s.Lost, from, now)
		p.due = true
		if s.From == "" || s.From == s.Lost { // at once from here; where it comes from in the end is planned afterwards
			d.sent, d.waits = "", time.Time{}
			return true
		}
	}
	if p.due {
		r.makePlan(t, now)
	}
	if r.awaits(t, from, now) {
		return false
	}
	return r.answer(t, from, d)
}

// answer has a node that waits no more get the track as planned, and reports whether
// that is from here. If the plan is out of date, it waits for the next one.
func (r *Room) answer(t *track, to residency.NodeName, d *demand) bool {
	since := d.waits
	d.waits = time.Time{}
	here := r.direct(t, to, d)
	if !here && d.sent == "" && d.from == "" && t.serving[to] == nil {
		d.waits = since
	}
	return here
}

// awaits reports whether a node that is new has to wait until a tree has a place for
// it: in a large room all come at once, and from here the track goes to few.
func (r *Room) awaits(t *track, name residency.NodeName, now time.Time) bool {
	p := &t.plan
	d := p.demands[name]
	if _, known := p.over[name]; known || d.waits.IsZero() || now.Sub(d.waits) >= waitsFor {
		return false
	}
	return (p.due || p.draft != nil) && d.able && d.own != 0
}

// direct has a node that said what it wants get the track as planned, and reports
// whether that is from here.
func (r *Room) direct(t *track, to residency.NodeName, d *demand) bool {
	over := t.plan.from(to)
	switch {
	case over == "" && d.from == "" && d.sent == "":
		return true
	case d.from == "" && d.sent == over && t.serving[to] == nil:
		return true // it was told to get it there, and has lost the way from here before that brought anything
	case d.from != "":
		d.sent = d.from // it has gone there
	}
	if d.from == over && over != "" {
		t.stopServing(to, "it comes from another node")
	}
	r.place(t, to, d, over)
	if o := t.serving[to]; o != nil { // until it has gone there
		o.layers.Store(uint32(d.layers))
		t.up.WantsChanged()
	}
	return false
}

// from is the node from which another is to get the track, "" if from here.
func (p *plan) from(node residency.NodeName) residency.NodeName {
	d := p.demands[node]
	if d == nil || p.tree == nil && d.own != 0 || !d.able {
		return ""
	}
	if over, ok := p.over[node]; ok && d.own != 0 {
		return over
	}
	return d.sent // it only passes on what it has until nobody wants it there, or no tree has been made for it yet
}

// place tells a node where it is to get the track, and lets it have it from here if
// that is here. Policy is asked again: the tree may be older than what speaks against it.
func (r *Room) place(t *track, to residency.NodeName, d *demand, over residency.NodeName) {
	if d.sent == over {
		return
	}
	if over != "" && !r.mayCome(t, over, to) {
		t.plan.due = true
		return
	}
	via := TrackVia{Track: t.id, Plan: t.plan.number, Node: cmp.Or(over, r.deps.Self.Name)}
	if r.sendTo(to, KindTrackVia, encode(via)) != nil {
		return // retried by the next tick
	}
	d.sent = over
	if over == "" {
		r.provide(t, to, d.layers)
	}
}

// mayCome reports whether a node may get the track from another now, by all that a
// plan goes by.
func (r *Room) mayCome(t *track, over, to residency.NodeName) bool {
	if d := t.plan.demands[over]; d == nil || d.own == 0 || t.plan.avoids(pair{over, to}, r.deps.Now()) || !r.mayPass(over) {
		return false
	}
	for _, node := range []residency.NodeName{over, to} {
		m := r.remotes[node]
		if m == nil || m.suspect || r.deps.Link(node) == nil || !r.mayServe(t, node) {
			return false
		}
		if _, v := r.permit(node, residency.ClassMedia); !v.Allow {
			return false
		}
	}
	return true
}

// avoids reports whether the track did not come by a way lately.
func (p *plan) avoids(e pair, now time.Time) bool {
	at, failed := p.failed[e]
	return failed && now.Sub(at) < failedFor
}

// doPlans makes the plans that are due, and tells nodes what concerns them. Of large
// ones the one that has waited longest is begun.
func (r *Room) doPlans(now time.Time) {
	var large *track
	left, told := tellsAtOnce, false
	for _, t := range r.tracks {
		p := &t.plan
		if t.node != r.deps.Self.Name || t.up == nil {
			continue
		}
		switch {
		case !p.due && (p.tree == nil || now.Sub(p.at) < planEvery):
		case len(p.demands) <= r.planHere:
			r.makePlan(t, now)
		case large == nil || p.at.Before(large.plan.at) || p.at.Equal(large.plan.at) && t.id < large.id:
			large = t
		}
		told = r.tellPlaces(t, now, &left) || told
	}
	if left == 0 && told {
		r.poke() // there may be more
	}
	if large != nil {
		r.makePlan(large, now)
	}
}

// tellPlaces tells nodes where they are to get the track, if that is elsewhere than
// before, as long as some are left that it may try; and gives up waiting for a place in
// vain. It reports whether it could tell any.
func (r *Room) tellPlaces(t *track, now time.Time, left *int) (told bool) {
	for name, d := range t.plan.demands {
		if *left == 0 {
			return told
		}
		over := t.plan.from(name)
		if d.waits.IsZero() && d.sent == over || r.awaits(t, name, now) {
			continue
		}
		*left--
		if d.waits.IsZero() {
			r.place(t, name, d, over)
			told = told || d.sent == over
			continue
		}
		if r.answer(t, name, d) {
			r.provide(t, name, d.layers)
		}
		told = told || d.waits.IsZero()
	}
	return told
}

// makePlan makes the tree of a track, or begins to.
func (r *Room) makePlan(t *track, now time.Time) {
	p := &t.plan
	if len(p.demands) > r.planHere && !r.mayDraft(now) {
		return // still due
	}
	d := r.planned(t, now)
	p.due, p.at = false, now
	slots := d.in.Nodes[0].FanOut
	switch members := len(d.in.Nodes) - 1; {
	case members == 0, p.tree == nil && members <= slots, members <= slots-starSlack:
		p.draft = nil
		if p.tree != nil {
			p.tree, p.over = nil, nil
			p.number++
		}
	case members > r.planHere:
		r.begin(d)
	default:
		d.trips = r.lately(now)
		d.make()
		r.adopt(d)
	}
}

// adopt takes the tree of a draft.
func (r *Room) adopt(d *draft) {
	p := &d.track.plan
	if d.before == nil || d.before.Number != d.tree.Number {
		p.number++
		r.deps.Trees.Plans.Add(1)
	}
	p.tree, p.over, p.draft = d.tree, d.over, nil
}

// load is how busy another node says it is.
func (r *Room) load(node residency.NodeName) float64 {
	if r.deps.Load == nil {
		return 0
	}
	return r.deps.Load(node)
}
