// Package explain says of a room, live or not yet, which node may have which
// class of its data and by which rule, what goes from where to where now, what
// lies where, and what is switched off.
//
// It is a pure core: a gate and what is known of the room go in, an Explanation
// comes out. Every yes and no in it is the answer of the same gate to the question
// that is asked before data moves; it has no rules of its own, and permits nothing.
package explain

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// World is what is known of a room and of the mesh.
type World struct {
	Asked      residency.NodeName // who answers
	Room       Room
	Nodes      []router.Candidate // of the whole mesh, as homes are chosen among them
	Views      []View             // what the room's nodes say of themselves
	Missing    []Missing
	NoEvidence string // why Asked cannot write any; empty if it can
	Now        time.Time
}

// Room is the room that is asked about.
type Room struct {
	Name       string             `json:"name"`
	SID        string             `json:"sid,omitempty"` // empty: there is no such room yet
	Tenant     string             `json:"tenant,omitempty"`
	Policy     string             `json:"policy"`
	Live       bool               `json:"live"`
	Home       residency.NodeName `json:"home,omitempty"`
	Nodes      []Presence         `json:"nodes,omitempty"`
	Encryption string             `json:"encryption,omitempty"` // "all", "some" or "none" of what is published
	Recorder   residency.NodeName `json:"recorder,omitempty"`   // who records it now
	Problem    string             `json:"problem,omitempty"`    // why the last recording ended early
}

// Presence is a node's part in the room.
type Presence struct {
	Node         residency.NodeName `json:"node"`
	Participants int                `json:"participants"`
	Outside      bool               `json:"outside,omitempty"` // serves somebody from outside the media zone (R3)
	Recorder     bool               `json:"recorder,omitempty"`
}

// View is what a node of the room says of its own part.
type View struct {
	Node     residency.NodeName `json:"node"`
	Flows    []Flow             `json:"flows,omitempty"`
	Tracks   []Track            `json:"tracks,omitempty"`
	Seat     *Seat              `json:"seat,omitempty"`     // of the participant who was asked about, if here
	Refusals []Refusal          `json:"refusals,omitempty"` // lately
	Withheld int                `json:"withheld,omitempty"` // tracks not recorded, for want of notice or consent
}

// Flow is what was sent to a peer, or came from it, under the policies in force.
// The figures are those of the receipts.
type Flow struct {
	Peer    residency.NodeName `json:"peer"`
	Inbound bool               `json:"inbound,omitempty"`
	Class   residency.Class    `json:"class"`
	Rule    string             `json:"rule,omitempty"`   // of the permit under which it is sent; inbound: not known
	Policy  string             `json:"policy,omitempty"` // likewise
	Serial  string             `json:"serial,omitempty"`
	Packets uint64             `json:"packets"`
	Bytes   uint64             `json:"bytes"`
}

// Track is a track of a participant at one node.
type Track struct {
	ID        string               `json:"id"`
	Kind      string               `json:"kind"`   // "audio" or "video"
	Source    string               `json:"source"` // such as "camera"
	Owner     string               `json:"owner,omitempty"`
	From      residency.NodeName   `json:"from"`                // serves its publisher
	To        []residency.NodeName `json:"to,omitempty"`        // it is sent there from here
	Receivers []string             `json:"receivers,omitempty"` // who gets it here
}

// Seat is a participant at the node that serves them.
type Seat struct {
	SID       string            `json:"sid"`
	Country   residency.Country `json:"country,omitempty"` // as it was taken to be when they joined
	Placement router.Placement  `json:"placement"`         // of somebody from there, now
}

// Refusal is what a person or program was told lately instead of being let in.
type Refusal struct {
	At     time.Time          `json:"at"`
	Node   residency.NodeName `json:"node"` // that refused
	Rule   string             `json:"rule,omitempty"`
	Reason string             `json:"reason"`
	Hint   string             `json:"hint,omitempty"`
	Use    residency.NodeName `json:"use,omitempty"` // the node that was named instead
}

// Missing is a node of the room that did not answer.
type Missing struct {
	Node residency.NodeName `json:"node"`
	Why  string             `json:"why"`
}

// Ruling is the gate's answer about one node and some classes.
type Ruling struct {
	Classes []residency.Class `json:"classes"`
	Keep    bool              `json:"keep,omitempty"` // to store it, not only to pass it on
	Allowed bool              `json:"allowed"`
	Rule    string            `json:"rule"`
	Reason  string            `json:"reason"`
	Hint    string            `json:"hint,omitempty"`
	Until   time.Time         `json:"until,omitzero"`
}

// Standing is a node of the mesh and what it may have of the room.
type Standing struct {
	Node         residency.NodeName `json:"node"`
	Country      residency.Country  `json:"country"`
	Operator     string             `json:"operator"`
	Parent       string             `json:"parent,omitempty"`
	Serial       string             `json:"serial"`
	Until        time.Time          `json:"until"` // end of its certificate
	Epoch        residency.Epoch    `json:"epoch"`
	In           bool               `json:"in"` // takes part in the room now
	Home         bool               `json:"home,omitempty"`
	Participants int                `json:"participants"`
	Recorder     bool               `json:"recorder,omitempty"`
	Rulings      []Ruling           `json:"rulings"`
}

// Hop is one way between two nodes of the room.
type Hop struct {
	From    residency.NodeName `json:"from"`
	To      residency.NodeName `json:"to"`
	Class   residency.Class    `json:"class"`
	Tracks  int                `json:"tracks,omitempty"` // of media, now
	Rule    string             `json:"rule"`             // by which From lets To have it
	Policy  string             `json:"policy,omitempty"` // under which, if it is not the room's: a node asked for the room before it knew
	TakenBy string             `json:"taken_by"`         // by which To takes it from From; empty: it does not
	Packets uint64             `json:"packets"`
	Bytes   uint64             `json:"bytes"`
}

// Store is where something of the room is kept, or would be.
type Store struct {
	What   string             `json:"what"` // "record", "recording", "chat", "questions", "evidence"
	Class  residency.Class    `json:"class"`
	Node   residency.NodeName `json:"node,omitempty"` // empty: nowhere
	Now    bool               `json:"now"`            // it is being kept; else that is where it would be
	Rule   string             `json:"rule"`
	Reason string             `json:"reason"`
	Hint   string             `json:"hint,omitempty"`
}

// Off is something that the room does not have, and why.
type Off struct {
	What   string `json:"what"`
	By     string `json:"by"` // "policy", "e2ee", "consent"
	Reason string `json:"reason"`
}

// Explanation is the answer.
type Explanation struct {
	Asked    residency.NodeName `json:"asked"`
	Epoch    residency.Epoch    `json:"epoch"`
	Room     Room               `json:"room"`
	Nodes    []Standing         `json:"nodes"`
	Hops     []Hop              `json:"hops"`
	Stores   []Store            `json:"stores"`
	Off      []Off              `json:"off"`
	Refusals []Count            `json:"refusals"` // lately, by rule
	Missing  []Missing          `json:"missing"`
}

// Count is how often a rule refused lately.
type Count struct {
	Rule  string             `json:"rule"`
	Node  residency.NodeName `json:"node"`
	Times int                `json:"times"`
}

// live are what a node of a room handles without keeping it, kept what an origin
// may keep. Of the other classes nothing is made.
var (
	live = []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat}
	kept = []residency.Class{residency.ClassMetadata, residency.ClassRecording}
)

// Of explains a room.
func Of(g *residency.Gate, w World) Explanation {
	x := Explanation{Asked: w.Asked, Epoch: g.Epoch(), Room: w.Room, Missing: w.Missing}
	for _, c := range w.Nodes {
		x.Nodes = append(x.Nodes, w.standing(g, c))
	}
	slices.SortFunc(x.Nodes, func(a, b Standing) int { return cmp.Compare(a.Node, b.Node) })
	x.Hops, x.Stores, x.Off = w.hops(g), w.stores(g), w.off(g)
	x.Refusals = w.refusals()
	return x
}

// presence is a node's part in the room, an empty one if it has none.
func (w World) presence(node residency.NodeName) Presence {
	for _, p := range w.Room.Nodes {
		if p.Node == node {
			return p
		}
	}
	return Presence{Node: node}
}

// ask puts the question that is asked before anything of the room goes to a node.
func (w World) ask(g *residency.Gate, c router.Candidate, class residency.Class, keep bool) residency.Verdict {
	p := w.presence(c.Node.Name)
	return g.Decide(residency.Request{Room: w.Room.Name, Tenant: w.Room.Tenant, Policy: w.Room.Policy, Class: class, Store: keep,
		Peer: c.Node, PeerEpoch: c.Epoch, OutsideParticipant: p.Outside && p.Participants > 0,
		Contradiction: c.Contradiction, NoEvidence: w.NoEvidence, Now: w.Now})
}

func (w World) standing(g *residency.Gate, c router.Candidate) Standing {
	p := w.presence(c.Node.Name)
	s := Standing{Node: c.Node.Name, Country: c.Node.Country, Operator: c.Node.Operator, Parent: c.Node.Parent, Serial: c.Node.Serial,
		Until: c.Node.NotAfter, Epoch: c.Epoch, Participants: p.Participants, Recorder: p.Recorder,
		In: p.Participants > 0 || p.Recorder, Home: c.Node.Name == w.Room.Home}
	s.Rulings = append(w.rulings(g, c, live, false), w.rulings(g, c, kept, true)...)
	return s
}

// rulings asks about each class; those with the same answer become one.
func (w World) rulings(g *residency.Gate, c router.Candidate, classes []residency.Class, keep bool) (list []Ruling) {
	for _, class := range classes {
		v := w.ask(g, c, class, keep)
		i := slices.IndexFunc(list, func(r Ruling) bool {
			return r.Allowed == v.Allow && r.Rule == v.Rule && r.Reason == forAll(v.Reason, class, r.Classes)
		})
		if i >= 0 {
			all := append(list[i].Classes, class)
			list[i].Classes, list[i].Reason = all, forAll(v.Reason, class, all)
			continue
		}
		list = append(list, Ruling{Classes: []residency.Class{class}, Keep: keep, Allowed: v.Allow, Rule: v.Rule, Reason: v.Reason, Hint: v.Hint, Until: v.Until})
	}
	return list
}

// forAll is a reason about one class as one about several.
func forAll(reason string, class residency.Class, all []residency.Class) string {
	for _, word := range []string{" for ", " live "} {
		reason = strings.Replace(reason, word+string(class), word+classes(all), 1)
	}
	return reason
}

// candidate finds a node of the mesh.
func (w World) candidate(name residency.NodeName) (router.Candidate, bool) {
	i := slices.IndexFunc(w.Nodes, func(c router.Candidate) bool { return c.Node.Name == name })
	if i < 0 {
		return router.Candidate{}, false
	}
	return w.Nodes[i], true
}

// hops are the ways between nodes, as the sender tells of each; where it does not
// answer, as the receiver does.
func (w World) hops(g *residency.Gate) (list []Hop) {
	told := map[residency.NodeName]bool{}
	for _, v := range w.Views {
		told[v.Node] = true
	}
	for _, v := range w.Views {
		for _, f := range v.Flows {
			h := Hop{From: v.Node, To: f.Peer, Class: f.Class, Rule: f.Rule, Packets: f.Packets, Bytes: f.Bytes}
			if f.Inbound {
				if told[f.Peer] {
					continue
				}
				h.From, h.To, h.Rule = f.Peer, v.Node, w.rule(g, v.Node, f.Class)
			}
			if f.Policy != w.Room.Policy {
				h.Policy = f.Policy
			}
			h.TakenBy = w.rule(g, h.From, f.Class)
			if f.Class == residency.ClassMedia {
				h.Tracks = w.tracks(h.From, h.To)
			}
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b Hop) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(rank(a.Class), rank(b.Class)), cmp.Compare(a.Rule, b.Rule))
	})
	return list
}

// rank orders classes as the documentation does.
func rank(c residency.Class) int { return slices.Index(residency.Classes(), c) }

// rule is the rule that lets a node have a class, "" if none does.
func (w World) rule(g *residency.Gate, node residency.NodeName, class residency.Class) string {
	c, ok := w.candidate(node)
	if !ok {
		return ""
	}
	if v := w.ask(g, c, class, false); v.Allow {
		return v.Rule
	}
	return ""
}

func (w World) tracks(from, to residency.NodeName) (n int) {
	for _, v := range w.Views {
		if v.Node != from {
			continue
		}
		for _, t := range v.Tracks {
			if slices.Contains(t.To, to) {
				n++
			}
		}
	}
	return n
}

// refusals counts those of all views.
func (w World) refusals() (list []Count) {
	for _, v := range w.Views {
		for _, r := range v.Refusals {
			i := slices.IndexFunc(list, func(c Count) bool { return c.Rule == r.Rule && c.Node == r.Node })
			if i < 0 {
				list, i = append(list, Count{Rule: r.Rule, Node: r.Node}), len(list)
			}
			list[i].Times++
		}
	}
	slices.SortFunc(list, func(a, b Count) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Rule, b.Rule)) })
	return list
}
