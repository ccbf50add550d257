// Package plan says what a newer policy bundle would change before it is applied:
// for the rooms that live, for what is stored, for every node, and which countries
// become reachable that were not.
//
// It is a pure core: two bundles and what is known of the mesh go in, a Plan comes
// out. Every line of it is a difference between two answers of the gate that will
// decide afterwards; it has no rules of its own, and changes nothing.
package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
)

// World is what is known of the mesh. It names no people.
type World struct {
	Nodes   []Node
	Rooms   []Room
	Objects []Object
	Now     time.Time
}

// Node is a node of the mesh.
type Node struct {
	residency.Node
	Contradiction string // why it is not believed to be where it says, see residency.Request
}

// Room is a room that lives.
type Room struct {
	SID    string
	Tenant string
	Policy string
	Home   residency.NodeName
	Nodes  []Presence
}

// Presence is a node's part in a room.
type Presence struct {
	Node         residency.NodeName
	Participants int
	Outside      bool // one of them is from outside the media zone (R3)
	Recorder     bool
}

// Object is something stored.
type Object struct {
	ID     string          `json:"id"`
	Class  residency.Class `json:"class"`
	Tenant string          `json:"tenant,omitempty"`
	Policy string          `json:"policy"`

	Node residency.NodeName `json:"node"`
}

// Plan is the difference that a bundle makes. All lists are sorted.
type Plan struct {
	From    residency.Epoch `json:"from"`
	To      residency.Epoch `json:"to"`
	Rooms   []Effect        `json:"rooms"`     // flows of live rooms that stop, or may begin
	Objects []Stray         `json:"objects"`   // what would lie where it may not
	Nodes   []Shift         `json:"nodes"`     // nodes that become refused or permitted, by policy and class
	Thin    []Thin          `json:"thin"`      // classes with one origin left, or none
	Reach   []Reach         `json:"countries"` // countries that become reachable, or no longer are
	Gone    []string        `json:"gone"`      // policies that there are no longer
	New     []string        `json:"new"`       // policies that there were not
	Tenants []Tenant        `json:"tenants"`   // those for whom something changes
}

// Answer is the gate's, shortened.
type Answer struct {
	Allowed bool   `json:"allowed"` // under the newer bundle
	Rule    string `json:"rule"`
	Reason  string `json:"reason"`
	Hint    string `json:"hint,omitempty"`
}

// Effect is a change for a node in a live room.
type Effect struct {
	Room         string             `json:"room"` // its sid
	Tenant       string             `json:"tenant,omitempty"`
	Policy       string             `json:"policy"`
	Node         residency.NodeName `json:"node"`
	Class        residency.Class    `json:"class"`
	Store        bool               `json:"store,omitempty"`
	Participants int                `json:"participants"` // on that node
	Answer
}

// Stray is a stored object whose node may not have it.
type Stray struct {
	Object
	Answer
}

// Shift is a node that becomes refused, or permitted.
type Shift struct {
	Node   residency.NodeName `json:"node"`
	Policy string             `json:"policy"`
	Class  residency.Class    `json:"class"`
	Store  bool               `json:"store,omitempty"`
	Edge   bool               `json:"edge,omitempty"` // as an edge outside, for its own participants alone
	Answer
}

// Thin is a class that few origins may store.
type Thin struct {
	Policy  string          `json:"policy"`
	Class   residency.Class `json:"class"`
	Before  int             `json:"before"`
	Origins int             `json:"origins"`
}

// Reach is a change of where a class may go at all, whoever runs a node there.
type Reach struct {
	Policy string              `json:"policy"`
	Class  residency.Class     `json:"class"`
	Edge   bool                `json:"edge,omitempty"` // only to an edge outside, for its own participants
	New    []residency.Country `json:"new,omitempty"`
	Lost   []residency.Country `json:"lost,omitempty"`
}

// Live reports whether something stops that flows or is written now.
func (p Plan) Live() bool {
	return slices.ContainsFunc(p.Rooms, func(e Effect) bool { return !e.Allowed })
}

// Of compares two bundles over a world.
func Of(before, after *residency.Bundle, w World) Plan {
	d := &diff{old: residency.NewGate(before), new: residency.NewGate(after), w: w, nodes: map[residency.NodeName]Node{}, reached: map[reachKey][2][]residency.Country{}}
	for _, n := range w.Nodes {
		d.nodes[n.Name] = n
	}
	d.plan = Plan{From: d.old.Epoch(), To: d.new.Epoch()}
	d.plan.Gone, d.plan.New = missing(before, after), missing(after, before)
	for _, r := range w.Rooms {
		d.room(r)
	}
	for _, o := range w.Objects {
		d.object(o)
	}
	for _, policy := range after.Names() {
		d.shifts(policy)
		d.reach(before, after, policy)
	}
	d.sort()
	d.tenants(before, after)
	return d.plan
}

// missing lists the policies of a that b has not.
func missing(a, b *residency.Bundle) (names []string) {
	for _, name := range a.Names() {
		if b.Policies[name] == nil {
			names = append(names, name)
		}
	}
	return names
}

type diff struct {
	old, new *residency.Gate
	w        World
	nodes    map[residency.NodeName]Node
	reached  map[reachKey][2][]residency.Country // asked once; many tenants share a policy
	plan     Plan
}

type reachKey struct {
	epoch  residency.Epoch
	policy string
	class  residency.Class
}

// reachable is the function of that name, asked once for each policy and class.
func (d *diff) reachable(b *residency.Bundle, policy string, c residency.Class) (within, edge []residency.Country) {
	key := reachKey{b.Epoch, policy, c}
	r, ok := d.reached[key]
	if !ok {
		r[0], r[1] = reachable(b, policy, c, d.w.Now)
		d.reached[key] = r
	}
	return r[0], r[1]
}

// ask puts one question to both gates. All nodes count as having the same bundle.
func (d *diff) ask(n Node, r residency.Request) (before, after residency.Verdict) {
	r.Peer, r.Contradiction, r.Now = n.Node, n.Contradiction, d.w.Now
	r.PeerEpoch = d.old.Epoch()
	before = d.old.Decide(r)
	r.PeerEpoch = d.new.Epoch()
	return before, d.new.Decide(r)
}

func answer(v residency.Verdict) Answer {
	return Answer{Allowed: v.Allow, Rule: v.Rule, Reason: v.Reason, Hint: v.Hint}
}

// liveClasses are what a node in a room handles without keeping it.
var liveClasses = []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat}

// storedClasses are what an origin may keep of a room.
var storedClasses = []residency.Class{residency.ClassMetadata, residency.ClassRecording}

func (d *diff) room(r Room) {
	for _, p := range r.Nodes {
		if p.Participants > 0 || p.Recorder {
			for _, c := range liveClasses {
				d.effect(r, p, c, false)
			}
		}
		if p.Recorder {
			d.effect(r, p, residency.ClassRecording, true)
		}
	}
	if r.Home != "" {
		d.effect(r, Presence{Node: r.Home}, residency.ClassMetadata, true)
	}
}

func (d *diff) effect(r Room, p Presence, c residency.Class, store bool) {
	n, ok := d.nodes[p.Node]
	if !ok {
		return // it is not in the mesh any more, and has nothing to lose
	}
	before, after := d.ask(n, residency.Request{Room: r.SID, Tenant: r.Tenant, Policy: r.Policy, Class: c, Store: store,
		OutsideParticipant: p.Outside && p.Participants > 0})
	if before.Allow != after.Allow {
		d.plan.Rooms = append(d.plan.Rooms, Effect{Room: r.SID, Tenant: r.Tenant, Policy: r.Policy, Node: p.Node, Class: c, Store: store,
			Participants: p.Participants, Answer: answer(after)})
	}
}

func (d *diff) object(o Object) {
	n, ok := d.nodes[o.Node]
	if !ok {
		return
	}
	before, after := d.ask(n, residency.Request{Tenant: o.Tenant, Policy: o.Policy, Class: o.Class, Store: true})
	if before.Allow && !after.Allow {
		d.plan.Objects = append(d.plan.Objects, Stray{Object: o, Answer: answer(after)})
	}
}

// shifts compares what every node may have of a policy, whether a room lives or not.
// A policy that is new makes nothing newly permitted that anybody could miss.
func (d *diff) shifts(policy string) {
	for _, c := range liveClasses {
		for _, n := range d.w.Nodes {
			d.shift(n, policy, c, false, false)
			d.shift(n, policy, c, false, true)
		}
	}
	for _, c := range storedClasses {
		thin := Thin{Policy: policy, Class: c}
		for _, n := range d.w.Nodes {
			before, after := d.shift(n, policy, c, true, false)
			thin.Before += count(before)
			thin.Origins += count(after)
		}
		if p, err := d.new.Bundle().Policy(policy); thin.Origins < 2 && thin.Origins != thin.Before && err == nil && (c != residency.ClassRecording || p.Recording.Allowed) {
			d.plan.Thin = append(d.plan.Thin, thin)
		}
	}
}

func count(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// shift notes a change for a node; outside asks whether it may serve its own
// participants from outside the zone.
func (d *diff) shift(n Node, policy string, c residency.Class, store, outside bool) (before, after bool) {
	b, a := d.ask(n, residency.Request{Policy: policy, Class: c, Store: store, OutsideParticipant: outside})
	edge := outside && (a.Rule == residency.RuleEdgeOutside || b.Rule == residency.RuleEdgeOutside)
	if b.Allow != a.Allow && outside == edge {
		d.plan.Nodes = append(d.plan.Nodes, Shift{Node: n.Name, Policy: policy, Class: c, Store: store, Edge: edge, Answer: answer(a)})
	}
	return b.Allow, a.Allow
}

// reach asks, for every country there is, whether a class could go to a node there.
func (d *diff) reach(before, after *residency.Bundle, policy string) {
	for _, c := range residency.Classes() {
		was, wasEdge := d.reachable(before, policy, c)
		is, isEdge := d.reachable(after, policy, c)
		d.addReach(policy, c, false, was, is)
		// Who was in the zone and is at its edge has lost nothing that counts here.
		d.addReach(policy, c, true, slices.Concat(was, wasEdge), slices.Concat(is, isEdge))
	}
}

func (d *diff) addReach(policy string, c residency.Class, edge bool, was, is []residency.Country) {
	r := Reach{Policy: policy, Class: c, Edge: edge, New: without(is, was), Lost: without(was, is)}
	if edge && d.covers(r) {
		return // said already: in the zone, and so not only at its edge
	}
	if len(r.New)+len(r.Lost) > 0 {
		d.plan.Reach = append(d.plan.Reach, r)
	}
}

// covers reports whether the entry before says all that r says.
func (d *diff) covers(r Reach) bool {
	if len(d.plan.Reach) == 0 {
		return len(r.New)+len(r.Lost) == 0
	}
	last := d.plan.Reach[len(d.plan.Reach)-1]
	return last.Policy == r.Policy && last.Class == r.Class && !last.Edge &&
		len(without(r.New, last.New)) == 0 && len(without(r.Lost, last.Lost)) == 0
}

func without[T comparable](a, b []T) (rest []T) {
	for _, c := range a {
		if !slices.Contains(b, c) {
			rest = append(rest, c)
		}
	}
	return rest
}

// reachable lists the countries of nodes that could have a class of a policy, within
// its zone and at its edge. The gate is asked about a node that meets every other
// condition.
func reachable(b *residency.Bundle, policy string, c residency.Class, now time.Time) (within, edge []residency.Country) {
	p := b.Policies[policy]
	if p == nil {
		return nil, nil
	}
	open := *b
	open.Nodes = nil // the register lists the nodes of today
	gate := residency.NewGate(&open)
	everywhere := residency.Countries()
	for _, country := range everywhere {
		v := gate.Decide(residency.Request{Policy: policy, Class: c, Peer: visitor(p.Zone(c), country, everywhere, now), PeerEpoch: b.Epoch,
			OutsideParticipant: true, Now: now})
		switch {
		case v.Allow && v.Rule == residency.RuleEdgeOutside:
			edge = append(edge, country)
		case v.Allow:
			within = append(within, country)
		}
	}
	return within, edge
}

// visitor is a node in a country, run by whom a zone wants.
func visitor(z residency.Zone, country residency.Country, everywhere []residency.Country, now time.Time) residency.Node {
	n := residency.Node{Name: "any", Country: country, Operator: "any", OperatorCountry: country, Parent: "any", ParentCountry: country,
		Roles: residency.Roles(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	if len(z.Operators) > 0 {
		n.Operator = z.Operators[0]
	}
	if len(z.OperatorCountries) > 0 {
		n.OperatorCountry = z.OperatorCountries[0]
	}
	if len(z.ParentCountries) > 0 {
		n.ParentCountry = z.ParentCountries[0]
	}
	for _, other := range everywhere {
		if !slices.Contains(z.ExcludedParentCountries, n.ParentCountry) {
			break
		}
		n.ParentCountry = other
	}
	return n
}

func (d *diff) sort() {
	p := &d.plan
	slices.SortFunc(p.Rooms, func(a, b Effect) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Class, b.Class))
	})
	slices.SortFunc(p.Objects, func(a, b Stray) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Class, b.Class), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(p.Nodes, func(a, b Shift) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Class, b.Class))
	})
}
