package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Question asks whether a node may get or keep a class of the room.
type Question struct {
	Node  residency.NodeName // empty: every node of the mesh
	Class string             // a data class, "relay", "storage"; empty: all that a room has
}

// Answer is the gate's answer about one node.
type Answer struct {
	Node    residency.NodeName `json:"node"`
	Country residency.Country  `json:"country"`
	Ruling
}

// The words for several classes at once.
const (
	Relay   = "relay"   // what passes through a node
	Storage = "storage" // what an origin keeps
)

// Answers asks the gate.
func Answers(g *residency.Gate, w World, q Question) ([]Answer, error) {
	get, keep, err := q.classes()
	if err != nil {
		return nil, err
	}
	var list []Answer
	for _, c := range w.Nodes {
		if q.Node != "" && c.Node.Name != q.Node {
			continue
		}
		for _, r := range append(w.rulings(g, c, get, false), w.rulings(g, c, keep, true)...) {
			list = append(list, Answer{c.Node.Name, c.Node.Country, r})
		}
	}
	slices.SortStableFunc(list, func(a, b Answer) int { return cmp.Compare(a.Node, b.Node) })
	if len(list) == 0 {
		return nil, fmt.Errorf("node %q is not in the mesh; it has %s", q.Node, names(w.Nodes))
	}
	return list, nil
}

// classes are those to be asked about: to get, and to keep.
func (q Question) classes() (get, keep []residency.Class, err error) {
	stored := append(slices.Clone(kept), residency.ClassChat)
	switch c := residency.Class(q.Class); {
	case q.Class == "":
		return live, stored, nil
	case q.Class == Relay:
		return live, nil, nil
	case q.Class == Storage:
		return nil, stored, nil
	case c == residency.ClassMedia, c == residency.ClassSignalling:
		return []residency.Class{c}, nil, nil // nobody keeps it, whatever the policy says
	case slices.Contains(residency.Classes(), c):
		return []residency.Class{c}, []residency.Class{c}, nil
	}
	var all []string
	for _, c := range residency.Classes() {
		all = append(all, string(c))
	}
	return nil, nil, fmt.Errorf("class %q: want %s, %s or %s", q.Class, strings.Join(all, ", "), Relay, Storage)
}

// No reports whether the answer as a whole is no: there is a class that none of the
// nodes may have. What passes through a node need not be kept there; of the rest it
// is the keeping that counts.
func No(list []Answer) bool {
	may := map[residency.Class]bool{}
	for _, a := range list {
		for _, c := range a.Classes {
			if a.Keep != slices.Contains(live, c) {
				may[c] = may[c] || a.Allowed
			}
		}
	}
	for _, ok := range may {
		if !ok {
			return true
		}
	}
	return false
}

func names(nodes []router.Candidate) string {
	var list []string
	for _, c := range nodes {
		list = append(list, string(c.Node.Name))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// Person is a participant of the room, or somebody who was refused lately.
type Person struct {
	Identity string             `json:"identity"`
	Node     residency.NodeName `json:"node,omitempty"` // that serves them; empty: none does
	Seat     *Seat              `json:"seat,omitempty"` // absent if that node did not answer
	Serves   []Ruling           `json:"serves,omitempty"`
	Sends    []Path             `json:"sends,omitempty"`
	Gets     []Path             `json:"gets,omitempty"`
	Refused  *Refusal           `json:"refused,omitempty"` // the last time
}

// Path is a track on its way.
type Path struct {
	Track  string             `json:"track"`
	Kind   string             `json:"kind"`
	Source string             `json:"source"`
	Owner  string             `json:"owner,omitempty"`
	From   residency.NodeName `json:"from"`
	Legs   []Leg              `json:"legs"`
}

// Leg is the part of a way that leads to one node.
type Leg struct {
	To        residency.NodeName   `json:"to"`
	Over      []residency.NodeName `json:"over,omitempty"` // nodes by which it comes there now
	Flows     bool                 `json:"flows"`          // it is open now
	Rule      string               `json:"rule"`           // that lets it, or refuses it
	Reason    string               `json:"reason,omitempty"`
	Receivers []string             `json:"receivers,omitempty"`
}

// About explains one participant, who is served by a node, or refused, or both.
// It reports false if nothing is known of such a person.
func About(g *residency.Gate, w World, identity string, node residency.NodeName) (p Person, known bool) {
	p = Person{Identity: identity, Node: node}
	for _, v := range w.Views {
		for _, r := range v.Refusals {
			if p.Refused == nil || r.At.After(p.Refused.At) {
				p.Refused = &r
			}
		}
		if v.Seat != nil {
			p.Node, p.Seat = v.Node, v.Seat
		}
	}
	if p.Node == "" {
		return p, p.Refused != nil
	}
	if c, ok := w.candidate(p.Node); ok {
		p.Serves = w.rulings(g, c, live, false)
	}
	for _, v := range w.Views {
		for _, t := range v.Tracks {
			switch {
			case t.Owner == identity && v.Node == p.Node:
				p.Sends = append(p.Sends, w.path(g, t))
			case t.Owner != identity && v.Node == p.Node && slices.Contains(t.Receivers, identity):
				t.Receivers = []string{identity}
				p.Gets = append(p.Gets, Path{Track: t.ID, Kind: t.Kind, Source: t.Source, Owner: t.Owner, From: t.From, Legs: []Leg{w.leg(g, t, v)}})
			}
		}
	}
	return p, true
}

// path follows a track from its publisher's node to everybody who gets it.
func (w World) path(g *residency.Gate, t Track) Path {
	p := Path{Track: t.ID, Kind: t.Kind, Source: t.Source, Owner: t.Owner, From: t.From}
	for _, v := range w.Views {
		for _, o := range v.Tracks {
			if o.ID == t.ID && (len(o.Receivers) > 0 || slices.Contains(t.To, v.Node)) {
				p.Legs = append(p.Legs, w.leg(g, o, v))
			}
		}
	}
	return p
}

// maxHops bounds the nodes by which a track is held to come.
const maxHops = 16

// sender is the node from which another gets a track, as it says itself.
func (w World) sender(track string, to residency.NodeName) (residency.NodeName, bool) {
	for _, v := range w.Views {
		for _, o := range v.Tracks {
			if o.ID == track && slices.Contains(o.To, to) {
				return v.Node, true
			}
		}
	}
	return "", false
}

// leg is the way of a track to a node, as both ends tell of it.
func (w World) leg(g *residency.Gate, t Track, at View) Leg {
	l := Leg{To: at.Node, Receivers: t.Receivers, Flows: at.Node == t.From}
	for hop := at.Node; !l.Flows && len(l.Over) < maxHops; {
		from, ok := w.sender(t.ID, hop)
		if !ok {
			l.Over = nil
			break
		}
		if from == t.From {
			l.Flows = true
		} else {
			l.Over = append([]residency.NodeName{from}, l.Over...)
		}
		hop = from
	}
	if c, ok := w.candidate(at.Node); ok {
		v := w.ask(g, c, residency.ClassMedia, false)
		l.Rule = v.Rule
		if !v.Allow {
			l.Reason = v.Reason
		}
	}
	return l
}
