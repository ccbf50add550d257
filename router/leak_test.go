package router_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/router"
)

// TestNoLeak plays worlds against the gate and the router: policies change, nodes
// come, go and end, people move, clocks jump. Whatever is decided must be what the
// requirements say; a permit must not outlive what it rests on. `make
// residency-million` plays a million of them.
func TestNoLeak(t *testing.T) {
	residencytest.Run(t, 3000, func(seed uint64) []string {
		w := newWorld(seed)
		for range 12 {
			w.happens()
			w.decides()
		}
		return w.wrong
	})
}

// world is a mesh as one node sees it.
type world struct {
	residencytest.Rand
	sites      residencytest.Rand // for what stands outside of the mesh
	now        time.Time
	nodes      []residency.Node
	bundle     *residency.Bundle
	epoch      residency.Epoch // of the latest bundle
	gate       *residency.Gate
	candidates []router.Candidate
	permits    []granted
	wrong      []string
}

// granted is a permit with what was asked.
type granted struct {
	residency.Permit
	ask residency.Request
}

func newWorld(seed uint64) *world {
	r := residencytest.NewRand(seed, 1)
	w := &world{Rand: r, sites: residencytest.NewRand(seed, 7), now: residencytest.Noon}
	w.nodes = residencytest.Nodes(r, 2+r.IntN(5))
	w.adopt(residencytest.Bundle(r, residency.Epoch(1+r.IntN(3)), w.nodes))
	for i, n := range w.nodes {
		w.candidates = append(w.candidates, router.Candidate{Node: n, At: router.Point{Lat: r.Float64()*60 + 1, Lon: r.Float64() * 90},
			Epoch: w.bundle.Epoch, Up: true, Local: i == 0, URL: "https://" + string(n.Name)})
	}
	return w
}

// adopt puts a bundle in force, nil for none. Epochs are never used twice.
func (w *world) adopt(b *residency.Bundle) {
	w.bundle, w.gate = b, residency.NewGate(b)
	if b != nil {
		w.epoch = b.Epoch
	}
}

func (w *world) fails(format string, a ...any) { w.wrong = append(w.wrong, fmt.Sprintf(format, a...)) }

// happens changes the world.
func (w *world) happens() {
	if w.bundle == nil { // lost, and found again
		w.adopt(residencytest.Bundle(w.Rand, w.epoch+1, w.nodes))
	}
	c := &w.candidates[w.IntN(len(w.candidates))]
	switch w.IntN(8) {
	case 0:
		w.adopt(residencytest.Next(w.Rand, w.bundle, w.nodes))
	case 1: // the mesh follows
		for i := range w.candidates {
			if !w.In(5) {
				w.candidates[i].Epoch = w.bundle.Epoch
			}
		}
	case 2:
		c.Epoch = w.bundle.Epoch + residency.Epoch(w.IntN(3)) - 1
	case 3:
		c.Up = !c.Up
	case 4:
		c.Contradiction = residencytest.Pick(w.Rand, "", "", "9 ms to a node 2,000 km away")
		c.Load, c.Capacity, c.Attendees = w.Float64()*1.2, w.IntN(3), w.IntN(3)
	case 5: // renewed
		c.Node.NotBefore, c.Node.NotAfter = w.now, w.now.Add(w.Between(time.Second, time.Hour))
		c.Node.Serial = fmt.Sprintf("fe%x", w.Uint32())
	default:
		w.now = w.now.Add(w.Between(-time.Second, 8*time.Second))
	}
	if w.In(40) {
		w.adopt(nil)
	}
}

// decides asks everything that can be asked.
func (w *world) decides() {
	for range 3 {
		w.asks()
	}
	for range min(4, len(w.permits)) {
		w.uses(residencytest.Pick(w.Rand, w.permits...))
		w.keeps(residencytest.Pick(w.Rand, w.permits...))
	}
	if w.In(4) {
		w.places()
	}
	w.hands()
}

// request draws what may be asked of the gate.
func (w *world) request() residency.Request {
	c := w.candidates[w.IntN(len(w.candidates))]
	r := residency.Request{Room: residencytest.Pick(w.Rand, "north", "south"), Tenant: residencytest.Pick(w.Rand, residencytest.Tenants...),
		Policy: residencytest.Pick(w.Rand, residencytest.Policies...), Class: residencytest.Pick(w.Rand, residency.Classes()...),
		QA: w.In(4), Peer: c.Node, PeerEpoch: c.Epoch, Store: w.In(3), OutsideParticipant: w.In(2), Now: w.now}
	switch w.IntN(24) {
	case 0:
		r.Policy = "grey"
	case 1:
		r.Class = residencytest.Pick[residency.Class](w.Rand, "", "video", "Media")
	case 2:
		r.Tenant = "nobody"
	case 3:
		r.Peer.Name = ""
	case 4, 5, 6, 7:
		r.Policy = ""
	}
	if r.Store && w.sites.In(2) {
		r.Place = residencytest.Place(w.sites)
	}
	if w.In(6) {
		r.Contradiction = "9 ms to a node 2,000 km away"
	}
	if w.In(6) {
		r.NoEvidence = "the disk is full"
	}
	return r
}

func (w *world) facts(r residency.Request) residencytest.Facts {
	return residencytest.Facts{Bundle: w.bundle, Tenant: r.Tenant, Policy: r.Policy, Class: r.Class, QA: r.QA, Store: r.Store, Place: r.Place,
		Peer: r.Peer, PeerEpoch: r.PeerEpoch, Outside: r.OutsideParticipant, Contradicted: r.Contradiction != "", Unprovable: r.NoEvidence != "", Now: r.Now}
}

// asks compares the gate with the requirements, both ways.
func (w *world) asks() {
	r := w.request()
	p, v := w.gate.Permit(r)
	broken := residencytest.Against(w.facts(r))
	if v.Allow != (len(broken) == 0) || v.Rule == "" || v.Reason == "" {
		w.fails("gate: %+v\n  of %+v\n  broken: %q", v, r, broken)
	}
	if p.Allows(r.Peer.Name, w.gate.Epoch(), r.Now) != v.Allow {
		w.fails("the permit %+v does not follow the verdict %+v", p, v)
	}
	if !v.Allow {
		return
	}
	if p.Room() != r.Room || p.Class() != r.Class || p.Stores() != r.Store || p.Tenant() != r.Tenant || p.Peer() != r.Peer.Name || v.Serial != r.Peer.Serial {
		w.fails("the permit %+v is for something else than %+v", p, r)
	}
	w.permits = append(w.permits, granted{p, r})
}

// uses looks at a permit again, as the links do for all that leaves. It must open
// nothing under other policies, nor to another node, nor after the end of
// anything that it was given for.
func (w *world) uses(g granted) {
	peer := residencytest.Pick(w.Rand, w.candidates...).Node.Name
	for _, at := range []time.Time{w.now, g.Until().Add(-1), g.Until(), w.now.Add(w.Between(0, 2*time.Hour))} {
		if peer != g.ask.Peer.Name && g.Allows(peer, w.gate.Epoch(), at) {
			w.fails("the permit for %s opens %s", g.ask.Peer.Name, peer)
		}
		if !g.Allows(g.ask.Peer.Name, w.gate.Epoch(), at) || at.Before(g.ask.Now) {
			continue
		}
		if w.bundle == nil || w.bundle.Epoch != g.Verdict().Epoch {
			w.fails("a permit of epoch %d is good for another", g.Verdict().Epoch)
			continue
		}
		f := w.facts(g.ask)
		f.Now = at
		if broken := residencytest.Against(f); len(broken) > 0 {
			w.fails("the permit %+v\n  is still good at %s: %q", g.Permit, at, broken)
		}
	}
}

// keeps shows a permit to a disk, as whatever writes does: its own, or one that
// differs from it in something.
func (w *world) keeps(g granted) {
	at, room := w.now, g.ask.Room
	d := residency.Disk{Node: g.ask.Peer.Name, Class: g.ask.Class, Epoch: w.gate.Epoch, Now: func() time.Time { return at }}
	d.Place = residencytest.Pick(w.sites, g.ask.Place, g.ask.Place, residencytest.Place(w.sites), residency.Place{})
	p := g.Permit
	switch w.IntN(8) {
	case 0:
		d.Node = residencytest.Pick(w.Rand, w.candidates...).Node.Name
	case 1:
		d.Class = residencytest.Pick(w.Rand, residency.Classes()...)
	case 2:
		room = residencytest.Pick(w.Rand, "north", "south", "")
	case 3:
		at = g.Until().Add(w.Between(-time.Second, time.Second))
	case 4:
		p = residency.Permit{}
	}
	if d.Admit(p, room) != nil || at.Before(g.ask.Now) {
		return
	}
	if d.Place != (residency.Place{}) && d.Place != g.ask.Place {
		w.fails("%s is written to a store in %q by a permit for one in %q", d.Class, d.Place.Country, g.ask.Place.Country)
	}
	if p == (residency.Permit{}) || !g.ask.Store || d.Node != g.ask.Peer.Name || d.Class != g.ask.Class || room != g.ask.Room {
		w.fails("%s of room %q is written on %s by the permit %+v", d.Class, room, d.Node, p)
		return
	}
	f := w.facts(g.ask)
	f.Now = at
	if broken := residencytest.Against(f); w.bundle == nil || len(broken) > 0 {
		w.fails("%s is written on %s at %s by the permit %+v: %q", d.Class, d.Node, at, p, broken)
	}
}

// hands compares what may be given to somebody outside of the mesh with the requirements.
func (w *world) hands() {
	there := residencytest.Place(w.sites)
	r := residency.Request{Room: "north", Tenant: residencytest.Pick(w.sites, residencytest.Tenants...), Policy: residencytest.Pick(w.sites, residencytest.Policies...),
		Class: residencytest.Pick(w.sites, residency.Classes()...), QA: w.sites.In(4), Now: w.now}
	if w.sites.In(6) {
		r.NoEvidence = "the disk is full"
	}
	to := residency.Recipient{Name: "hooks.example", Country: there.Country, Operator: there.Operator, OperatorCountry: there.OperatorCountry, Parent: there.Parent, ParentCountry: there.ParentCountry}
	v := w.gate.Hand(r, to)
	if broken := residencytest.Handing(w.facts(r), there); v.Allow != (len(broken) == 0) || v.Rule == "" || v.Reason == "" {
		w.fails("handed out: %+v\n  of %+v to %+v\n  broken: %q", v, r, to, broken)
	}
}

// places compares the router with the requirements: nobody is chosen who may not,
// and if somebody may, somebody is chosen.
func (w *world) places() {
	q := router.Question{Room: router.Room{Name: "north", Tenant: residencytest.Pick(w.Rand, residencytest.Tenants...), Policy: residencytest.Pick(w.Rand, append(residencytest.Policies, "")...)},
		Attendee: router.Attendee{Country: residencytest.Country(w.Rand), Known: !w.In(5)}, Candidates: w.candidates,
		Unknown: residencytest.Pick(w.Rand, router.FallbackOrigin, router.FallbackOrigin, router.FallbackLocal), Now: w.now}
	excluded := w.wishes(&q)
	from := q.Attendee.Country
	if !q.Attendee.Known || from == "" {
		from = ""
		if q.Unknown == router.FallbackLocal {
			from = w.candidates[0].Node.Country
		}
	}
	outside := residencytest.Outside(w.bundle, q.Room.Tenant, q.Room.Policy, from)
	if from == "XX" || from == "UK" || from == "eu" { // where the node is, is no country: nobody is known to be outside
		outside = false
	}
	ask := residencytest.Facts{Bundle: w.bundle, Tenant: q.Room.Tenant, Policy: q.Room.Policy, Now: w.now, Outside: outside}
	w.chosen("place", router.Place(w.gate, q), func(c router.Candidate) []string {
		broken := w.broken(ask, c, "signalling", "media")
		if c.Capacity > 0 && c.Attendees >= c.Capacity {
			broken = append(broken, "the node is full")
		}
		if c.Node.Name == excluded {
			broken = append(broken, "the operator excludes it")
		}
		return broken
	})
	ask.Outside = false
	home := router.Home(w.gate, q.Room, w.candidates, w.now)
	ask.Store = true
	w.chosen("home", home, func(c router.Candidate) []string {
		told := ask
		told.Store = false
		return append(w.broken(ask, c, "metadata"), w.broken(told, c, "signalling")...)
	})
	rec := router.RecordingNode(w.gate, q.Room, w.candidates, w.now)
	w.chosen("recording", rec, func(c router.Candidate) []string {
		kept := w.broken(ask, c, "recording")
		live := ask
		live.Store = false
		return append(kept, w.broken(live, c, "media")...)
	})
}

// wishes puts everything into a question that may order the permitted, and must
// not permit anything: round trips, where the room is, where somebody was, rules.
func (w *world) wishes(q *router.Question) (excluded residency.NodeName) {
	r := router.DefaultRules()
	q.Rules, q.Attendee.Trips = r, map[residency.NodeName]router.Trip{}
	for _, c := range w.candidates {
		if w.In(2) {
			q.Attendee.Trips[c.Node.Name] = router.Trip{MS: router.Millis(w.Float64() * 200), How: router.Measured}
		}
		if w.In(3) {
			q.Carriers = append(q.Carriers, router.Carrier{Node: c.Node.Name, Attendees: w.IntN(4)})
		}
	}
	any := residencytest.Pick(w.Rand, w.candidates...).Node.Name
	q.Before = residencytest.Pick(w.Rand, "", any)
	r.Limits = router.Limits{RTT: router.Millis(w.IntN(100)), Nodes: w.IntN(3)}
	if w.In(3) {
		r.Overrides = append(r.Overrides, router.Override{Name: "wish", Prefer: []string{string(any)}, By: 500})
	}
	if w.In(3) {
		excluded = residencytest.Pick(w.Rand, w.candidates...).Node.Name
		r.Overrides = append(r.Overrides, router.Override{Name: "no", Not: []string{string(excluded)}})
	}
	return excluded
}

func (w *world) broken(f residencytest.Facts, c router.Candidate, classes ...residency.Class) (broken []string) {
	f.Peer, f.PeerEpoch, f.Contradicted = c.Node, c.Epoch, c.Contradiction != ""
	for _, class := range classes {
		f.Class = class
		broken = append(broken, residencytest.Against(f)...)
	}
	if !c.Up {
		broken = append(broken, "the node is down")
	}
	return broken
}

// chosen holds a placement against what is wrong with each candidate.
func (w *world) chosen(what string, p router.Placement, wrong func(router.Candidate) []string) {
	anybody := false
	for _, c := range w.candidates {
		broken := wrong(c)
		anybody = anybody || len(broken) == 0
		i := slices.IndexFunc(p.Ranked, func(r router.Ranked) bool { return r.Node == c.Node.Name })
		if len(broken) > 0 && (p.Node() == c.Node.Name || i >= 0 && p.Ranked[i].Allowed) {
			w.fails("%s: %s may not: %s\n%s", what, c.Node.Name, strings.Join(broken, "; "), p)
		}
	}
	if anybody && p.Chosen == nil {
		w.fails("%s: somebody may, and nobody is chosen:\n%s", what, p)
	}
	if p.Chosen == nil && (p.Rule == "" || p.Reason == "") {
		w.fails("%s: refused without a reason", what)
	}
}
