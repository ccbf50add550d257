package router

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/domicile/domicile/residency"
)

// The terms of a score, in ms. Their sum is the mean round trip between the
// attendee and the others in the room through the node (up to what is the same
// for every node), and what the operator wants besides.
const (
	TermYou    = "you"    // between the attendee and the node
	TermDoubt  = "doubt"  // by how much that may be longer, if it was not measured
	TermRoom   = "room"   // between the node and the others in the room
	TermLoad   = "load"   // what a busy node adds
	TermOpen   = "open"   // the node does not carry the room yet
	TermMove   = "move"   // the attendee was on another node
	TermPrefer = "prefer" // an override prefers others
)

// Term is a part of a score.
type Term struct {
	Name string `json:"name"`
	MS   Millis `json:"ms"`
}

// termNames is their order in tables.
var termNames = []string{TermYou, TermDoubt, TermRoom, TermLoad, TermOpen, TermMove, TermPrefer}

// scoring is what all candidates are scored by.
type scoring struct {
	q         Question
	w         whereabouts
	rules     *Rules
	overrides []Override
	carriers  []carrier
	people    int  // on them
	placed    bool // something is known of where the attendee is
}

// carrier is a Carrier with where it is.
type carrier struct {
	Carrier
	at Point
}

// newScoring looks up once what does not depend on the candidate.
func newScoring(q Question, w whereabouts) *scoring {
	s := &scoring{q: q, w: w, rules: q.rules(), overrides: q.overrides(w), placed: w.at.Stated()}
	seen, measured := map[residency.NodeName]Point{}, 0
	for _, c := range q.Candidates {
		seen[c.Node.Name] = c.At
		if q.Attendee.Trips[c.Node.Name].sane() {
			measured++
		}
	}
	s.placed = s.placed || measured >= 2 // one alone compares with nothing
	for _, c := range q.Carriers {
		if at, ok := seen[c.Node]; ok && c.Attendees > 0 { // who has left the mesh is no help
			s.carriers = append(s.carriers, carrier{c, at})
			s.people += c.Attendees
		}
	}
	// Sums of floating-point numbers depend on the order.
	slices.SortFunc(s.carriers, func(a, b carrier) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Attendees, b.Attendees))
	})
	return s
}

// carries reports whether a node carries the room.
func (s *scoring) carries(n residency.NodeName) bool {
	return slices.ContainsFunc(s.carriers, func(c carrier) bool { return c.Node == n })
}

// score fills in a candidate's terms and their sum.
func (s *scoring) score(e *entry) {
	w := s.rules.Weights
	if s.placed {
		e.trip = s.q.trip(e.c, e.out.DistanceKm)
		e.add(TermYou, Millis(w.You)*e.trip.MS)
		e.add(TermDoubt, Millis(w.You)*e.trip.Spread)
	}
	e.add(TermRoom, Millis(w.Room)*s.others(e))
	e.add(TermLoad, w.Load*Millis(e.load*e.load))
	if len(s.carriers) > 0 && !s.carries(e.c.Node.Name) {
		e.add(TermOpen, w.Open)
	}
	if s.q.Before != "" && s.q.Before != e.c.Node.Name {
		e.add(TermMove, w.Move)
	}
	for _, o := range s.overrides {
		if len(o.Prefer) > 0 && !s.rules.among(o.Prefer, e.c.Node) {
			e.add(TermPrefer, o.By)
			e.prefers = o.Name
		}
	}
}

// others is the mean round trip from a candidate to everybody's node.
func (s *scoring) others(e *entry) (ms Millis) {
	for _, c := range s.carriers {
		ms += Millis(c.Attendees) * s.q.between(e.c, c.Node, c.at).upper()
	}
	return ms / Millis(max(s.people, 1))
}

// add puts a term into the score; terms of one name add up.
func (e *entry) add(name string, ms Millis) {
	e.out.Score += float64(ms)
	for i := range e.out.Terms {
		if e.out.Terms[i].Name == name {
			e.out.Terms[i].MS += ms
			return
		}
	}
	e.out.Terms = append(e.out.Terms, Term{Name: name, MS: ms})
}

// ms is a term of the candidate, 0 if it has none.
func (e *entry) ms(name string) (ms Millis) {
	for _, t := range e.out.Terms {
		if t.Name == name {
			ms = t.MS
		}
	}
	return ms
}

// wanted refuses what the operator's overrides exclude.
func (s *scoring) wanted(e *entry) {
	for _, o := range s.overrides {
		switch {
		case s.rules.among(o.Not, e.c.Node):
			e.refuse(RuleExcluded, fmt.Sprintf("override %q keeps you off node %s", o.Name, e.c.Node.Name))
			return
		case len(o.Only) > 0 && !s.rules.among(o.Only, e.c.Node):
			e.refuse(RulePinned, fmt.Sprintf("override %q keeps you on other nodes than %s", o.Name, e.c.Node.Name))
			return
		}
	}
}

// crowded reports whether only the reserve is left of a node, which is for those
// who come back to it.
func (s *scoring) crowded(e *entry) bool {
	return e.load >= 1-s.rules.Reserve && (e.c.Node.Name != s.q.Before || e.load >= 1)
}

// beyond reports whether the node is outside the operator's limits.
func (s *scoring) beyond(e *entry) bool {
	l := s.rules.Limits
	return l.RTT > 0 && s.placed && e.trip.MS > l.RTT ||
		l.Nodes > 0 && len(s.carriers) >= l.Nodes && !s.carries(e.c.Node.Name)
}

// deciding is the term that puts one candidate behind another most.
func deciding(before, after *entry) string {
	most, term := Millis(0), ""
	for _, name := range termNames {
		d := after.ms(name) - before.ms(name)
		if name == TermYou { // they are one reason
			d += after.ms(TermDoubt) - before.ms(TermDoubt)
		}
		if name != TermDoubt && d > most {
			most, term = d, name
		}
	}
	return term
}
