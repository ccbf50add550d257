// Package replan says what other routing rules would change for those who are in
// live rooms now: who would be placed on another node, or on none, and by which rule.
//
// It is a pure core: people, as placement sees them, and two sets of rules go in, a
// tally comes out. It moves nobody, and what it says names rooms by their sid,
// countries and numbers: no person, no address, no place. Each is asked about as if
// all others stayed where they are.
package replan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Person is somebody in a live room.
type Person struct {
	SID string             // of the room
	At  residency.NodeName // serves them now
	// Ask is what placement would be asked if they came now; its rules do not count.
	Ask router.Question
}

// Move is what would be otherwise for some people of a room.
type Move struct {
	Room    string             `json:"room"` // sid
	Policy  string             `json:"policy"`
	Country residency.Country  `json:"country,omitempty"` // of the people, as far as it is known
	From    residency.NodeName `json:"from,omitempty"`    // by the rules in force; "": nobody may serve
	To      residency.NodeName `json:"to,omitempty"`
	In      residency.Country  `json:"in,omitempty"` // where To is
	Rule    string             `json:"rule"`         // by which To is chosen, or everybody refused
	Opens   bool               `json:"opens,omitempty"`
	People  int                `json:"people"`
}

// Tally is what all of them make.
type Tally struct {
	People int    `json:"people"` // in live rooms
	Moves  []Move `json:"moves"`
}

// Of asks about each person twice.
func Of(g *residency.Gate, people []Person, before, after *router.Rules) (t Tally) {
	for _, p := range people {
		if m, moves := move(g, p, before, after); moves {
			t.Moves = append(t.Moves, m)
		}
	}
	t.People, t.Moves = len(people), merged(t.Moves)
	return t
}

func move(g *residency.Gate, p Person, before, after *router.Rules) (m Move, moves bool) {
	q := p.Ask
	q.Carriers = without(q.Carriers, p.At)
	q.Rules = before
	was := router.Place(g, q)
	q.Rules = after
	is := router.Place(g, q)
	m = Move{Room: p.SID, Policy: q.Room.Policy, From: was.Node(), To: is.Node(), Rule: is.Rule, People: 1}
	if q.Attendee.Known {
		m.Country = q.Attendee.Country
	}
	if is.Chosen != nil {
		m.In = is.Chosen.Country
		m.Opens = !slices.ContainsFunc(q.Carriers, func(c router.Carrier) bool { return c.Node == m.To }) && m.To != p.At
	}
	return m, m.From != m.To
}

// without is a room that one person has left.
func without(list []router.Carrier, at residency.NodeName) (out []router.Carrier) {
	for _, c := range list {
		if c.Node == at {
			c.Attendees--
			at = ""
		}
		if c.Attendees > 0 {
			out = append(out, c)
		}
	}
	return out
}

// Join puts tallies of several nodes together.
func Join(list ...Tally) (t Tally) {
	for _, o := range list {
		t.People, t.Moves = t.People+o.People, append(t.Moves, o.Moves...)
	}
	t.Moves = merged(t.Moves)
	return t
}

// merged adds up the people of alike moves, in a fixed order.
func merged(list []Move) []Move {
	out := []Move{}
	for _, m := range list {
		alike := func(o Move) bool { o.People = m.People; return o == m }
		if i := slices.IndexFunc(out, alike); i >= 0 {
			out[i].People += m.People
			continue
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.Room, b.Room), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Country, b.Country), cmp.Compare(b.People, a.People))
	})
	return out
}

// Refused is how many people nobody would serve any more.
func (t Tally) Refused() (n int) {
	for _, m := range t.Moves {
		if m.To == "" {
			n += m.People
		}
	}
	return n
}

// NewCountries are those where a room has nobody's node now and would get one.
func (t Tally) NewCountries() (list []residency.Country) {
	for _, m := range t.Moves {
		if m.Opens && m.In != "" && !slices.Contains(list, m.In) {
			list = append(list, m.In)
		}
	}
	slices.Sort(list)
	return list
}

// String is the tally for people.
func (t Tally) String() string {
	var b strings.Builder
	moved := 0
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, m := range t.Moves {
		moved += m.People
		opens := ""
		if m.Opens {
			opens = fmt.Sprintf("opens %s for the room", m.To)
		}
		fmt.Fprintf(w, "%s\t%s\t%d from %s\t%s → %s\t%s\t%s\n", m.Room, m.Policy, m.People, orUnknown(m.Country), orNobody(m.From), orNobody(m.To), m.Rule, opens)
	}
	w.Flush()
	fmt.Fprintf(&b, "Of %d in live rooms, %d would be placed elsewhere, of whom nobody would serve %d.\n", t.People, moved, t.Refused())
	if list := t.NewCountries(); len(list) > 0 {
		fmt.Fprintf(&b, "Countries in which a node would be opened for a room: %s.\n", strings.Join(texts(list), ", "))
	}
	b.WriteString("Nobody is moved: the rules count for who joins after they are in force.\n")
	return b.String()
}

func texts(list []residency.Country) (out []string) {
	for _, c := range list {
		out = append(out, string(c))
	}
	return out
}

func orUnknown(c residency.Country) string { return cmp.Or(string(c), "an unknown place") }

func orNobody(n residency.NodeName) string { return cmp.Or(string(n), "nobody") }
