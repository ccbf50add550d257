package node

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/whereabouts"
	"github.com/domicile/domicile/router"
)

const (
	// lookEvery is how often the node looks where the others are: five
	// heartbeats, of which the fastest counts. Three looks contradict.
	lookEvery = time.Second
	// tellEvery is how often it repeats to the others what it found.
	tellEvery = 5 * lookEvery
	// placeNews bounds what others said and this node has not looked at. What
	// does not fit is repeated.
	placeNews = 64
)

// places is what this node knows against the whereabouts of the others.
type places struct {
	heard   chan speech // from the links
	current atomic.Pointer[placesSeen]
}

// placesSeen is the latest look, immutable.
type placesSeen struct {
	doubts  map[residency.NodeName]whereabouts.Doubt
	freed   map[residency.NodeName]bool // those of them that an override believes
	accused []residency.NodeName        // who doubt this node
	geo     string                      // what is wrong with the GeoIP database
}

// speech is what a node said of others.
type speech struct {
	by   residency.NodeName
	list []wire.Doubt
}

func (p *places) init() {
	p.heard = make(chan speech, placeNews)
	p.current.Store(&placesSeen{})
}

// contradiction says why a node is not believed to be where its certificate
// says; empty if it is. Every question to the gate carries it.
func (n *Node) contradiction(name residency.NodeName) string {
	return n.places.current.Load().doubts[name].Reason
}

// hear takes what a node says of others. It never waits.
func (n *Node) hear(l *relay.Link, list []wire.Doubt) {
	select {
	case n.places.heard <- speech{by: l.Peer().Name, list: list}:
	default:
	}
}

// watchPlaces looks where the other nodes are until ctx ends.
func (n *Node) watchPlaces(ctx context.Context) error {
	look, tell := time.NewTicker(lookEvery), time.NewTicker(tellEvery)
	defer look.Stop()
	defer tell.Stop()
	watch := whereabouts.New(n.self())
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-n.places.heard:
			watch.Hear(s.by, words(s.list), n.now())
		case <-tell.C:
			n.fabric.Doubt(doubts(watch.Words()))
			continue
		case <-look.C:
			n.lookAround(watch)
		}
		n.judgePlaces(watch)
	}
}

// lookAround takes a sighting of every linked node.
func (n *Node) lookAround(watch *whereabouts.Watch) {
	mesh := n.mesh.Snapshot()
	for _, l := range n.fabric.Links() {
		s := whereabouts.Sighting{Peer: l.Peer(), RTT: l.LeastRTT()}
		if m, ok := mesh.Member(s.Peer.Name); ok {
			s.At = whereabouts.Place{Lat: m.At.Lat, Lon: m.At.Lon}
		}
		s.SeenIn = n.countryOf(l.SeenAt())
		watch.See(s, n.now())
	}
}

// countryOf is where an address is known to be now; empty if it is not. A
// database that is broken or stale knows nothing, or what was true once.
func (n *Node) countryOf(addr netip.Addr) residency.Country {
	if n.geo.Warning(n.now()) != "" {
		return ""
	}
	loc, _, _ := n.geo.Lookup(addr)
	return loc.Country
}

// judgePlaces takes over who is where it should not be. What is not allowed any
// more stops at once.
func (n *Node) judgePlaces(watch *whereabouts.Watch) {
	now := n.now()
	var members []residency.Node
	for _, m := range n.mesh.Snapshot().Members {
		members = append(members, m.Node)
	}
	seen := &placesSeen{doubts: map[residency.NodeName]whereabouts.Doubt{}, freed: map[residency.NodeName]bool{}, accused: watch.AccusedBy(members, now), geo: n.geo.Warning(now)}
	for _, d := range watch.Judge(members, func(name residency.NodeName) bool { return n.believed(name) != nil }, now) {
		seen.doubts[d.Node], seen.freed[d.Node] = d, n.believed(d.Node) != nil
	}
	old := n.places.current.Swap(seen)
	n.logPlaces(old, seen)
	same := func(a, b whereabouts.Doubt) bool { return a.Ground == b.Ground }
	if maps.EqualFunc(old.doubts, seen.doubts, same) {
		return
	}
	for _, r := range n.rooms.all() {
		r.PolicyChanged()
	}
}

// logPlaces tells the operator what is new. That a reason is put in other
// figures is not.
func (n *Node) logPlaces(old, now *placesSeen) {
	for name, d := range now.doubts {
		if was, known := old.doubts[name]; known && was.Ground == d.Ground && old.freed[name] == now.freed[name] {
			continue
		}
		if now.freed[name] {
			n.log.Info("a node's place is contradicted, and an override believes it", "node", name, "ground", d.Ground, "reason", d.Reason)
		} else {
			n.log.Warn("a node is in quarantine: it is not believed to be where its certificate says", "node", name, "ground", d.Ground, "reason", d.Reason,
				"hint", "find out where it is; if it is where it says, put an override for it into the policies")
		}
	}
	for name := range old.doubts {
		if _, still := now.doubts[name]; !still {
			n.log.Info("nothing contradicts a node's place any more", "node", name)
		}
	}
	if len(now.accused) > 0 && !slices.Equal(old.accused, now.accused) {
		n.log.Warn("other nodes do not believe that this one is where its certificate says", "nodes", now.accused)
	}
	if now.geo != old.geo && now.geo != "" && n.cfg.Geo.Database != "" {
		n.log.Warn("addresses of nodes contradict nothing", "reason", now.geo)
	}
}

// believed returns the override in force for a node's place, nil if there is none.
func (n *Node) believed(name residency.NodeName) *residency.Override {
	b := n.gate().Bundle()
	if b == nil {
		return nil
	}
	for i, o := range b.Overrides {
		if o.Node == name && n.now().Before(o.Until) {
			return &b.Overrides[i]
		}
	}
	return nil
}

// DoubtState is a node that is not where its certificate says, as far as this
// one can tell.
type DoubtState struct {
	whereabouts.Doubt
	// Quarantined nodes get nothing; the others are believed by an override.
	Quarantined bool                `json:"quarantined"`
	Override    *residency.Override `json:"override,omitempty"`
}

// doubted lists the nodes that are not where they should be, by name.
func (n *Node) doubted() []DoubtState {
	out := []DoubtState{}
	doubts := n.places.current.Load().doubts
	for _, name := range slices.Sorted(maps.Keys(doubts)) {
		o := n.believed(name)
		out = append(out, DoubtState{Doubt: doubts[name], Quarantined: o == nil, Override: o})
	}
	return out
}

// contradicted adds what is known against their places to candidates.
func (n *Node) contradicted(list []router.Candidate) []router.Candidate {
	for i := range list {
		if !list[i].Local {
			list[i].Contradiction = n.contradiction(list[i].Node.Name)
		}
	}
	return list
}

// words and doubts are the same in two languages: the core's and the wire's.
func words(list []wire.Doubt) []whereabouts.Word {
	out := make([]whereabouts.Word, len(list))
	for i, d := range list {
		out[i] = whereabouts.Word{Of: residency.NodeName(d.Of), Country: residency.Country(d.Country),
			RTT: d.RTT, SeenIn: residency.Country(d.SeenIn)}
	}
	return out
}

func doubts(words []whereabouts.Word) []wire.Doubt {
	out := []wire.Doubt{}
	for _, w := range words {
		// A microsecond more than measured, never less.
		rtt := (w.RTT + time.Microsecond - 1).Truncate(time.Microsecond)
		d := wire.Doubt{Of: string(w.Of), Country: string(w.Country), RTT: rtt, SeenIn: string(w.SeenIn)}
		if d.Check() == nil {
			out = append(out, d)
		}
	}
	return out
}
