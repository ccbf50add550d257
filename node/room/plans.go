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
// is planned. Owned by Room.run.
type plan struct {
	demands map[residency.NodeName]*demand
	tree    *cascade.Tree // nil: straight from here
	number  uint64
	due     bool // something has changed
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
			d.sent = ""
			return true
		}
	}
	if p.due {
		r.makePlan(t, now)
	}
	return r.direct(t, from, d)
}

// direct has a node that said what it wants get the track as planned, and reports
// whether that is from here.
func (r *Room) direct(t *track, to residency.NodeName, d *demand) bool {
	over := t.plan.over(to)
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

// over is the node from which another is to get the track, "" if from here.
func (p *plan) over(node residency.NodeName) residency.NodeName {
	d := p.demands[node]
	if d == nil || d.own == 0 {
		if d == nil {
			return ""
		}
		return d.sent // it only passes on what it has, until nobody wants it there
	}
	from, ok := p.tree.Parent(node)
	if !ok || from == p.tree.Source {
		return ""
	}
	return from
}

// place tells a node where it is to get the track, and lets it have it from here if
// that is here.
func (r *Room) place(t *track, to residency.NodeName, d *demand, over residency.NodeName) {
	if d.sent == over {
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

// doPlans makes the plans that are due, and tells nodes what concerns them.
func (r *Room) doPlans(now time.Time) {
	for _, t := range r.tracks {
		p := &t.plan
		if t.node != r.deps.Self.Name || t.up == nil {
			continue
		}
		if p.due || p.tree != nil && now.Sub(p.at) >= planEvery {
			r.makePlan(t, now)
		}
		for name, d := range p.demands {
			r.place(t, name, d, p.over(name))
		}
	}
}

// makePlan makes the tree of a track.
func (r *Room) makePlan(t *track, now time.Time) {
	p := &t.plan
	p.due, p.at = false, now
	in := r.planned(t, now)
	slots := in.Nodes[0].FanOut
	switch members := len(in.Nodes) - 1; {
	case members == 0, p.tree == nil && members <= slots, members <= slots-starSlack:
		if p.tree != nil {
			p.tree = nil
			p.number++
		}
		return
	}
	before := p.tree
	p.tree = cascade.Plan(in, before)
	if before == nil || before.Number != p.tree.Number {
		p.number++
		r.deps.Trees.Plans.Add(1)
	}
}

// planned is what the plan of a track follows from. A node that knows nothing of
// plans, or wants what cannot be passed on, is sent its own copy from here.
func (r *Room) planned(t *track, now time.Time) cascade.Input {
	p := &t.plan
	in := cascade.Input{Track: string(t.id), Nodes: []cascade.Node{{Name: r.deps.Self.Name, FanOut: r.fanOut()}}}
	good := []bool{true}
	for name, d := range p.demands {
		if !d.able || t.up.SVC() {
			in.Nodes[0].FanOut--
			continue
		}
		m := r.remotes[name]
		if d.own == 0 || m == nil {
			continue
		}
		_, v := r.permit(name, residency.ClassMedia)
		node := cascade.Node{Name: name, Wants: cascade.Layers(d.own), Viewers: len(m.participants), FanOut: r.fanOut(), Load: r.load(name)}
		if !r.mayPass(name) {
			node.FanOut = 0
		}
		in.Nodes = append(in.Nodes, node)
		good = append(good, v.Allow && !m.suspect && r.deps.Link(name) != nil && r.mayServe(t, name))
	}
	for l, rates := range t.up.Rates(now) {
		for _, rate := range rates {
			in.Rates[l] = max(in.Rates[l], int(rate))
		}
	}
	in.RTT = func(a, b int) (time.Duration, bool) { return r.roundTrip(in.Nodes[a].Name, in.Nodes[b].Name, now) }
	in.May = func(a, b int) bool {
		if !good[a] || !good[b] {
			return false
		}
		at, failed := p.failed[pair{in.Nodes[a].Name, in.Nodes[b].Name}]
		return !failed || now.Sub(at) >= failedFor
	}
	return in
}

// trips remembers how far nodes are from each other, for planEvery: in a room over
// a hundred nodes each plan asks ten thousand times.
type trips struct {
	known map[pair]trip
	since time.Time
}

type trip struct {
	rtt time.Duration
	ok  bool
}

// roundTrip is how far two nodes are from each other, as far as this one knows.
func (r *Room) roundTrip(a, b residency.NodeName, now time.Time) (time.Duration, bool) {
	if r.deps.RoundTrip == nil {
		return 0, false
	}
	if b < a {
		a, b = b, a
	}
	if c := &r.trips; c.known == nil || now.Sub(c.since) >= planEvery {
		c.known, c.since = map[pair]trip{}, now
	}
	t, ok := r.trips.known[pair{a, b}]
	if !ok {
		t.rtt, t.ok = r.deps.RoundTrip(a, b)
		r.trips.known[pair{a, b}] = t
	}
	return t.rtt, t.ok
}

// load is how busy another node says it is.
func (r *Room) load(node residency.NodeName) float64 {
	if r.deps.Load == nil {
		return 0
	}
	return r.deps.Load(node)
}
