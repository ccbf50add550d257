package room

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router/cascade"
)

// draft is a tree while it is made. Of 500 nodes each may get a track from each, and
// whoever compares that many ways is busy for tens of milliseconds. So of many nodes the tree
// is made beside the room, from what the room knew when it began:
//
//	room    ── planned ──────── goes on ──────── doDrafted ── tellPlaces ──
//	                 └─ make: the gate, round trips, cascade.Plan ─┘
//
// There is one draft at a time, of the track that has waited longest, and what changes
// meanwhile waits for the next: changes that come together cost one. When it
// is done, much may be otherwise. A draft of other policies than those in force now is
// dropped; of another, nobody is told a way without the gate being asked again (mayCome).
type draft struct {
	// Static after planned.
	room   *Room // of it nothing but what is safe for concurrent use
	track  *track
	before *cascade.Tree
	gate   *residency.Gate
	ask    residency.Request // without the peer
	now    time.Time
	in     cascade.Input
	peers  []peerOf      // of in.Nodes, the room's own node first
	failed map[pair]bool // ways by which it did not come lately
	trips  *trips

	// Of make, for doDrafted.
	tree *cascade.Tree
	over map[residency.NodeName]residency.NodeName // see plan
	took time.Duration
}

// peerOf is what matters of a node of a draft, beside what cascade has to know.
type peerOf struct {
	outside bool // it serves somebody from outside the media zone
	good    bool // nothing speaks against it
}

const (
	// planHere is of how many nodes a tree is made at once, by the room itself: it takes
	// some 100 µs.
	planHere = 32
	// restShare is how much longer than a draft took nothing is drafted after it: of one
	// processor a room uses a fifth at most.
	restShare = 4
)

// planned is what the tree of a track follows from. A node that knows nothing of
// plans is sent its own copy from here.
func (r *Room) planned(t *track, now time.Time) *draft {
	p := &t.plan
	gate := r.deps.Gate()
	d := &draft{room: r, track: t, before: p.tree, gate: gate, now: now, peers: []peerOf{{good: true}},
		ask: r.asking(r.deps.Self, gate.Epoch(), residency.ClassMedia, false),
		in:  cascade.Input{Track: string(t.id), Nodes: []cascade.Node{{Name: r.deps.Self.Name, FanOut: r.fanOut()}}}}
	for name, w := range p.demands {
		if !w.able {
			d.in.Nodes[0].FanOut--
			continue
		}
		m := r.remotes[name]
		if w.own == 0 || m == nil {
			continue
		}
		d.in.Nodes = append(d.in.Nodes, cascade.Node{Name: name, Wants: cascade.Layers(w.own), Viewers: len(m.participants), FanOut: r.fanOut()})
		d.peers = append(d.peers, peerOf{outside: m.outside(now), good: !m.suspect && r.mayServe(t, name)})
	}
	d.in.Rates = apart(t.up.Rates(now), t.up.SVC())
	for e := range p.failed {
		if p.avoids(e, now) {
			if d.failed == nil {
				d.failed = map[pair]bool{}
			}
			d.failed[e] = true
		}
	}
	return d
}

// apart are bit/s of each layer alone. With all layers in one stream, rates are those of a
// layer and what it rests upon.
func apart(rates sfu.Rates, svc bool) (alone [cascade.MaxLayers]int) {
	below := 0
	for l := range rates {
		whole := int(slices.Max(rates[l][:]))
		alone[l] = max(whole-below, 0)
		if svc {
			below = max(below, whole)
		}
	}
	return alone
}

// mayDraft reports whether a draft may begin.
func (r *Room) mayDraft(now time.Time) bool { return r.draft == nil && !now.Before(r.rests) }

// begin has a draft made beside the room.
func (r *Room) begin(d *draft) {
	d.trips = r.lately(d.now)
	r.draft, d.track.plan.draft = d, d
	r.aside(func() {
		begun := r.deps.Now()
		d.make()
		d.took = r.deps.Now().Sub(begun)
	}, func() { r.doDrafted(d) })
}

// spawn has work done beside the room, and then something by the room. Run waits for it.
func (r *Room) spawn(work, then func()) {
	r.drafting.Add(1)
	go func() {
		defer r.drafting.Done()
		work()
		r.post(then)
	}()
}

// doDrafted takes what was drafted, if it is what the track waits for and was made by
// the policies in force, and begins what is due next.
func (r *Room) doDrafted(d *draft) {
	now := r.deps.Now()
	r.draft, r.rests = nil, now.Add(restShare*d.took)
	if t := d.track; r.tracks[t.id] == t && t.plan.draft == d {
		if t.plan.draft = nil; d.gate.Epoch() != r.deps.Gate().Epoch() {
			t.plan.due = true
		} else {
			r.adopt(d)
		}
	}
	r.doPlans(now)
}

// make makes the tree.
func (d *draft) make() {
	n := len(d.in.Nodes)
	barred := make([][]int, n)
	number := make(map[residency.NodeName]int, n)
	for i := range d.in.Nodes {
		number[d.in.Nodes[i].Name] = i
		if i > 0 {
			d.look(i)
		}
	}
	for e := range d.failed {
		from, ok := number[e.from]
		if to, ok2 := number[e.to]; ok && ok2 {
			barred[from] = append(barred[from], to)
		}
	}
	trips := d.trips.among(d.in.Nodes)
	d.in.RTT = func(a, b int) (time.Duration, bool) { return trips.between(d.room.deps.RoundTrip, a, b) }
	d.in.May = func(a, b int) bool {
		if !d.peers[a].good || !d.peers[b].good {
			return false
		}
		for _, to := range barred[a] {
			if to == b {
				return false
			}
		}
		return true
	}
	d.tree = cascade.Plan(d.in, d.before)
	d.over = make(map[residency.NodeName]residency.NodeName, n)
	for _, node := range d.in.Nodes[1:] {
		d.over[node.Name] = ""
	}
	for _, e := range d.tree.Edges {
		if e.From != d.tree.Source {
			d.over[e.To] = e.From
		}
	}
}

// look fills in what is known of a node: whether it may have the track and pass it on,
// and how busy it is.
func (d *draft) look(i int) {
	node, p := &d.in.Nodes[i], &d.peers[i]
	node.Load = d.room.load(node.Name)
	alone := d.allows(node.Name, false)
	if !alone {
		node.FanOut = 0 // see mayPass
	}
	allowed := alone
	if p.outside {
		allowed = d.allows(node.Name, true)
	}
	p.good = p.good && allowed && d.room.deps.Link(node.Name) != nil
}

// allows asks the gate about a node, for the room's media.
func (d *draft) allows(node residency.NodeName, outside bool) bool {
	peer, epoch, ok := d.room.peer(d.gate, node)
	if !ok {
		return false
	}
	q := d.ask
	q.Peer, q.PeerEpoch, q.OutsideParticipant, q.Contradiction = peer, epoch, outside, d.room.contradiction(node)
	return d.gate.Decide(q).Allow
}

// trips remembers how far nodes are from each other, for planEvery: among 500 nodes
// each tree asks a hundred thousand times. The room and its draft use it at once.
type trips struct {
	since time.Time // static

	mu    sync.Mutex
	at    map[residency.NodeName]int
	names []residency.NodeName // like rows, only appended to
	// rows has one for each node, with those before it: what is asked once is asked
	// for both ways.
	rows [][]atomic.Int64
}

// What stands in rows instead of a round trip.
const (
	notAsked     = 0
	notKnown     = -1
	shortestTrip = 1
)

// lately is what the room remembers: its tracks go by the same round trips, so that
// those of equal plans take the same ways.
func (r *Room) lately(now time.Time) *trips {
	if r.trips == nil || now.Sub(r.trips.since) >= planEvery {
		r.trips = newTrips(now)
	}
	return r.trips
}

func newTrips(now time.Time) *trips {
	return &trips{since: now, at: map[residency.NodeName]int{}}
}

// among are the round trips between some nodes.
func (t *trips) among(nodes []cascade.Node) among {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := among{at: make([]int, len(nodes))}
	for i := range nodes {
		at, ok := t.at[nodes[i].Name]
		if !ok {
			at = len(t.names)
			t.at[nodes[i].Name] = at
			t.names, t.rows = append(t.names, nodes[i].Name), append(t.rows, make([]atomic.Int64, at))
		}
		w.at[i] = at
	}
	w.names, w.rows = t.names, t.rows
	return w
}

// among is what trips knows of some nodes, and what is asked of them meanwhile.
type among struct {
	at    []int // rows of the nodes
	names []residency.NodeName
	rows  [][]atomic.Int64
}

// between is how far two of the nodes are from each other, as far as who is asked knows.
// Who asks first decides.
func (w among) between(ask func(a, b residency.NodeName) (time.Duration, bool), a, b int) (time.Duration, bool) {
	if ask == nil || a == b {
		return 0, false
	}
	a, b = max(w.at[a], w.at[b]), min(w.at[a], w.at[b])
	known := &w.rows[a][b]
	if known.Load() == notAsked {
		x, y := w.names[a], w.names[b]
		rtt, ok := ask(min(x, y), max(x, y))
		if rtt = max(rtt, shortestTrip); !ok {
			rtt = notKnown
		}
		known.CompareAndSwap(notAsked, int64(rtt))
	}
	rtt := known.Load()
	return time.Duration(rtt), rtt != notKnown
}
