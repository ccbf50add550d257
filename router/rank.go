package router

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/domicile/domicile/residency"
)

const (
	// overloaded is the load from which a node comes after all others: what is
	// left must absorb the bursts of those who are already there.
	overloaded = 0.95
)

// entry is a candidate on its way to being Ranked.
type entry struct {
	c        Candidate
	out      Ranked
	load     float64 // c.Load, made sane
	hash     uint64
	home     bool
	draw     float64 // weighted rendezvous draw, see draw()
	trip     Trip    // to the attendee
	prefers  string  // the last override that prefers others
	inPlace  bool    // in the attendee's country, asked only if the place is unknown
	originAt bool    // likewise: is an origin
}

// ordering is one named rule of a chain: the first that tells two candidates
// apart decides, and its name and sentence are the grounds of the later one.
type ordering struct {
	cmp  func(a, b *entry) int
	rule func(before, after *entry) (rule, reason string)
}

// named gives an ordering whose name and sentence do not depend on the pair.
func named(rule, reason string, compare func(a, b *entry) int) ordering {
	return ordering{cmp: compare, rule: func(*entry, *entry) (string, string) { return rule, reason }}
}

// first orders those for which f holds before the others.
func first(f func(*entry) bool) func(a, b *entry) int {
	return func(a, b *entry) int {
		switch x, y := f(a), f(b); {
		case x == y:
			return 0
		case x:
			return -1
		default:
			return 1
		}
	}
}

const textOverload = "overloaded; used only when no other permitted node is left"

// byOverload puts the overloaded last.
var byOverload = named(RuleOverload, textOverload,
	first(func(e *entry) bool { return e.load < overloaded }))

// byTie makes equal candidates stable: every node computes the same order, and
// different rooms spread over equal nodes.
var byTie = named(RuleTie, "equal in distance and load; a hash of room and node decides",
	func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.hash, a.hash), cmp.Compare(a.c.Node.Name, b.c.Node.Name))
	})

// compare runs a chain and returns the ordering that told a and b apart.
func compare(chain []ordering, a, b *entry) (int, ordering) {
	for _, o := range chain {
		if d := o.cmp(a, b); d != 0 {
			return d, o
		}
	}
	return 0, byTie
}

// rank sorts the allowed by the chain, the refused by distance behind them, and
// gives each allowed one the grounds on which it stands behind the one before.
func rank(entries []*entry, chain []ordering) (ranked []Ranked) {
	slices.SortStableFunc(entries, func(a, b *entry) int {
		if d := first(func(e *entry) bool { return e.out.Allowed })(a, b); d != 0 {
			return d
		}
		if !a.out.Allowed {
			return cmp.Or(cmp.Compare(knownKm(a.out.DistanceKm), knownKm(b.out.DistanceKm)), cmp.Compare(a.c.Node.Name, b.c.Node.Name))
		}
		d, _ := compare(chain, a, b)
		return d
	})
	ranked = make([]Ranked, 0, len(entries))
	for i, e := range entries {
		if i > 0 && e.out.Allowed {
			_, o := compare(chain, entries[i-1], e)
			e.out.Rule, e.out.Reason = o.rule(entries[i-1], e)
		}
		ranked = append(ranked, e.out)
	}
	return ranked
}

// newEntry fills in what does not depend on the question's kind.
func newEntry(room string, c Candidate, km float64) *entry {
	e := &entry{c: c, load: saneLoad(c.Load), hash: hash(room, c.Node.Name)}
	e.draw = draw(e.hash, c.Capacity)
	e.out = Ranked{Node: c.Node.Name, Country: c.Node.Country, DistanceKm: km, Load: e.load, URL: c.URL}
	return e
}

// refuse records why the candidate may not serve.
func (e *entry) refuse(rule, reason string) {
	e.out.Allowed, e.out.Rule, e.out.Reason = false, rule, reason
}

// available refuses nodes that are down or, if attendees matter, full.
func (e *entry) available(countAttendees bool) bool {
	switch {
	case !e.c.Up:
		e.refuse(RuleDown, fmt.Sprintf("node %s does not answer or is draining", e.c.Node.Name))
	case countAttendees && e.c.Capacity > 0 && e.c.Attendees >= e.c.Capacity:
		e.refuse(RuleFull, fmt.Sprintf("node %s has %d of at most %d attendees", e.c.Node.Name, e.c.Attendees, e.c.Capacity))
	default:
		return true
	}
	return false
}

// permitted asks the gate about each request in turn and refuses the candidate
// on the first refusal.
func (e *entry) permitted(g *residency.Gate, requests ...residency.Request) bool {
	for _, r := range requests {
		r.Peer, r.PeerEpoch, r.Contradiction = e.c.Node, e.c.Epoch, e.c.Contradiction
		r.NoEvidence = cmp.Or(r.NoEvidence, e.c.NoEvidence)
		v := g.Decide(r)
		if !v.Allow {
			e.refuse(v.Rule, v.Reason)
			return false
		}
		e.out.Allowed, e.out.Rule, e.out.Reason = true, v.Rule, v.Reason
	}
	return e.out.Allowed
}

// saneLoad brings a load into 0 to 1; what is not a number counts as saturated,
// because a node that cannot measure itself should not attract attendees.
func saneLoad(l float64) float64 {
	if math.IsNaN(l) || l > 1 {
		return 1
	}
	return max(l, 0)
}

// knownKm makes an unknown distance the worst one.
func knownKm(km float64) float64 {
	if km < 0 {
		return unknownKm
	}
	return km
}

// hash is the rendezvous hash of a room on a node. SHA-256 is not needed for
// secrecy but for being the same in every version and spreading well.
func hash(room string, node residency.NodeName) uint64 {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%s", len(room), room, node)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// draw turns a hash into the node's lot in a weighted rendezvous: the highest
// wins, and a node of twice the weight wins twice as many rooms. With u uniform
// in (0,1) the lot -weight/ln(u) has that property, and the lots of other nodes
// do not change when one comes or goes.
func draw(hash uint64, weight int) float64 {
	u := (float64(hash>>11) + 0.5) / (1 << 53)
	return -float64(max(weight, 1)) / math.Log(u)
}
