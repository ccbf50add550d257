// Package cascade decides by which way a track goes from the node of its
// publisher to the other nodes that want it: a tree.
//
//	            ┌─► waw ─► vie          each arrow carries the track once, in the
//	fra ────────┤                       layers that are wanted at its end or
//	(publisher) └─► nyc ─► sfo, mia     further down
//
// Every node of the tree wants the track itself and is permitted to have it by
// what the caller says; nobody is asked to pass on what nobody there watches.
// Delay to those who watch comes first, then few long ways. No node sends more
// copies than it may.
//
// One node decides for a track: the one that serves its publisher. So trees
// cannot contradict each other, whatever other nodes believe of round trips. A
// Tree has a number, which rises when an edge moves; a node believes the newest.
//
// It is a pure core: the same input and the same tree before give the same tree
// on every node. It performs no I/O, reads no clock and asks no policy.
package cascade

import (
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// DefaultFanOut is how many other nodes get a track from one node: as many as a
// meeting seldom has, so that those stay a star of one hop. Eight copies of a
// camera's three layers are some 25 Mbit/s.
const DefaultFanOut = 8

// Layers is a set of a track's layers: bit n stands for layer n.
type Layers uint8

// MaxLayers is how many layers a track may have here.
const MaxLayers = 8

// Node is one that wants the track, or that publishes it.
type Node struct {
	Name  residency.NodeName
	Wants Layers // of a publisher's node without meaning
	// Viewers is how many attendees there watch: by so much its delay counts. 0
	// counts as 1.
	Viewers int
	// FanOut is how many nodes it may send the track to. The publisher's node may
	// send it to one in any case.
	FanOut int
	// Load is the share of the node's capacity that is in use, 0 to 1. Above one
	// half a node sends to fewer, and delay over it is held to be longer.
	Load float64
}

// Input is what a plan follows from. Nodes are named by their place in Nodes.
type Input struct {
	Track string // in a room with many tracks not all choose the same nodes in the middle
	Nodes []Node // the publisher's first; the order of the others does not matter
	Rates [MaxLayers]int
	// RTT is the round trip between two nodes, measured or estimated; false: nobody knows.
	RTT func(a, b int) (time.Duration, bool)
	// May reports whether a node may and can send the track to another. It is asked
	// for both directions, and only of two different nodes.
	May func(from, to int) bool
}

// Edge is one way of a tree. Edges are listed from the publisher's node down: who
// sends has been listed as one that receives before, but for the publisher's node.
type Edge struct {
	From, To residency.NodeName
	Carries  Layers        // what To wants, and all below it
	Delay    time.Duration // from the publisher's node to To, as far as known
	Hops     int
}

// Unreached is a node that wants the track and has no place in the tree.
type Unreached struct {
	Node   residency.NodeName
	Reason Reason
}

// Reason says why a node is not reached.
type Reason string

// The reasons.
const (
	// Forbidden: no node that has the track may send it there.
	Forbidden Reason = "no node that has the track may send it there"
	// Full: those that may send it there send to as many as they may.
	Full Reason = "every node that may send it there sends to as many as it may"
)

// Tree is a plan.
type Tree struct {
	Number uint64 // rises by one when any edge is another than before
	Source residency.NodeName
	Edges  []Edge
	Left   []Unreached // in the order of their names
	Moved  int         // nodes that are in this tree and the one before, and hang elsewhere
}

// Parent is the node from which another gets the track, false if from none.
func (t *Tree) Parent(of residency.NodeName) (residency.NodeName, bool) {
	if t == nil {
		return "", false
	}
	for i := range t.Edges {
		if t.Edges[i].To == of {
			return t.Edges[i].From, true
		}
	}
	return "", false
}

// Depth is the number of hops to the node that is furthest down.
func (t *Tree) Depth() int {
	deepest := 0
	for i := range t.Edges {
		deepest = max(deepest, t.Edges[i].Hops)
	}
	return deepest
}

// The prices, in microseconds of one-way delay.
const (
	// hopCost is what a node in the middle adds: it takes the packet in, through
	// its cache and out again.
	hopCost = 500
	// spread is how far apart chance sets nodes that are as good as each other, so
	// that a room's many tracks do not all go through the same one.
	spread = 1000
	// busyCost is added by a node whose capacity is used up; half as much load
	// costs a quarter of it.
	busyCost = 20_000
	// unknownRTT is taken where nobody knows the way to one of the two: half the
	// way around the Earth, so that what is known comes first.
	unknownRTT = 300 * time.Millisecond
	// liftCost is the price of each Mbit/s of layers that a node would have to
	// fetch for the one below it alone.
	liftCost = 2000
	// edgeShare of a way's own delay is added to its price, 1/edgeShare: of two ways
	// that are nearly as fast the one that crosses less of the Earth is taken.
	edgeShare = 16
	// hopPrice is the price of each node in the middle, beside its delay: one more
	// that can fail.
	hopPrice = 5000
)

// Hysteresis: a node moves of its own accord only for a clear gain, because each
// move costs a second copy for a moment.
const (
	gainShare = 10   // at least a tenth of what it costs now
	gainLeast = 5000 // microseconds, for each viewer
	// movesShare bounds the moves of one plan that only make it better: a tenth of
	// the nodes, two in any case, and no more than eight, for each takes as long as
	// half a plan.
	movesShare = 10
	movesLeast = 2
	movesMost  = 8
	// freshMoves bounds those of a first plan, which cost nothing but time: so many
	// among as many nodes, fewer among more.
	freshMoves = 15
)

// Plan makes the tree of a track. before is the tree in force, nil if there is
// none: what can stay as it is stays.
func Plan(in Input, before *Tree) *Tree {
	p := newPlanner(in)
	p.grow(before, false)
	if left := len(p.waiting()); left > 0 { // perhaps whoever can pass it on should have come first
		if q := newPlanner(in); q.grow(nil, true) < left {
			p = q
		}
	}
	return p.tree(before)
}

// grow makes the tree and returns how many found no place.
func (p *planner) grow(before *Tree, eager bool) (left int) {
	p.fresh, p.eager = before == nil, eager
	p.keep(before)
	p.attach()
	p.squeeze()
	p.improve()
	return len(p.waiting())
}

// tree writes down what was planned.
func (p *planner) tree(before *Tree) *Tree {
	t := &Tree{Source: p.nodes[0].Name, Edges: make([]Edge, 0, len(p.nodes)-1)}
	p.carry()
	queue := []int32{0}
	for len(queue) > 0 {
		from := queue[0]
		queue = queue[1:]
		below := p.children(from)
		for _, c := range below {
			t.Edges = append(t.Edges, Edge{From: p.nodes[from].Name, To: p.nodes[c].Name, Carries: p.carries[c],
				Delay: time.Duration(p.delay[c]) * time.Microsecond, Hops: int(p.depth[c])})
		}
		queue = append(queue, below...)
	}
	for u := range p.nodes {
		if u != 0 && !p.reached[u] {
			t.Left = append(t.Left, Unreached{Node: p.nodes[u].Name, Reason: p.why(int32(u))})
		}
	}
	slices.SortFunc(t.Left, func(a, b Unreached) int { return strings.Compare(string(a.Node), string(b.Node)) })
	t.number(before)
	return t
}

// number compares the tree with the one before.
func (t *Tree) number(before *Tree) {
	if before == nil || before.Source != t.Source {
		t.Number = 1
		return
	}
	was := make(map[residency.NodeName]residency.NodeName, len(before.Edges))
	for i := range before.Edges {
		was[before.Edges[i].To] = before.Edges[i].From
	}
	t.Number = before.Number
	fresh := len(t.Edges) != len(before.Edges)
	for i := range t.Edges {
		switch from, ok := was[t.Edges[i].To]; {
		case !ok:
			fresh = true
		case from != t.Edges[i].From:
			t.Moved++
		}
	}
	if fresh || t.Moved > 0 {
		t.Number++
	}
}
