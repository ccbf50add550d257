package plan

import (
	"fmt"
	"strings"

	"github.com/domicile/domicile/residency"
)

// String is the plan for people.
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Policies: epoch %d now, epoch %d planned.\n", p.From, p.To)
	p.textReach(&b)
	p.textRooms(&b)
	p.textObjects(&b)
	p.textNodes(&b)
	for _, t := range p.Thin {
		fmt.Fprintf(&b, "\n%s of %s: %s left that may store it (now %d).\n", t.Class, t.Policy, origins(t.Origins), t.Before)
	}
	for _, l := range []struct {
		what string
		list []string
	}{{"Policies that go", p.Gone}, {"Policies that come", p.New}} {
		if len(l.list) > 0 {
			fmt.Fprintf(&b, "\n%s: %s\n", l.what, strings.Join(l.list, ", "))
		}
	}
	p.textTenants(&b)
	fmt.Fprintf(&b, "\n%s\n", p.Summary())
	return b.String()
}

// Summary is the plan in a line.
func (p Plan) Summary() string {
	rooms, people, countries := map[string]bool{}, map[string]int{}, map[residency.Country]bool{}
	for _, e := range p.Rooms {
		if !e.Allowed {
			rooms[e.Room] = true
			people[e.Room+" "+string(e.Node)] = e.Participants
		}
	}
	sum := 0
	for _, n := range people {
		sum += n
	}
	for _, r := range p.Reach {
		for _, c := range r.New {
			countries[c] = true
		}
	}
	return fmt.Sprintf("Summary: %s and %s affected now; %s would lie where they may not; %s newly reachable.",
		plural(len(rooms), "live room", "live rooms"), plural(sum, "participant", "participants"),
		plural(len(p.Objects), "stored object", "stored objects"), plural(len(countries), "country", "countries"))
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func origins(n int) string {
	return map[int]string{0: "no origin is", 1: "one origin is"}[n]
}

// textReach lists countries, classes with the same change in one line.
func (p Plan) textReach(b *strings.Builder) {
	for _, part := range []struct {
		title string
		of    func(Reach) []residency.Country
	}{
		{"Countries that become reachable", func(r Reach) []residency.Country { return r.New }},
		{"Countries that are no longer reachable", func(r Reach) []residency.Country { return r.Lost }},
	} {
		var lines []string
		classes := map[string][]string{}
		for _, r := range p.Reach {
			if list := part.of(r); len(list) > 0 {
				key := r.Policy + "\x00" + where(r.Edge) + countries(list)
				if classes[key] == nil {
					lines = append(lines, key)
				}
				classes[key] = append(classes[key], string(r.Class))
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(b, "\n%s:\n", part.title)
		}
		for _, key := range lines {
			policy, rest, _ := strings.Cut(key, "\x00")
			fmt.Fprintf(b, "  %s, %s: %s\n", policy, strings.Join(classes[key], ", "), rest)
		}
	}
}

func where(edge bool) string {
	if edge {
		return "at an edge, for participants there alone: "
	}
	return ""
}

// maxListed bounds how many countries a line names; JSON has them all.
const maxListed = 40

func countries(list []residency.Country) string {
	var names []string
	for _, c := range list[:min(len(list), maxListed)] {
		names = append(names, string(c))
	}
	text := strings.Join(names, " ")
	if n := len(list) - len(names); n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

func (p Plan) textRooms(b *strings.Builder) {
	title := "\nLive rooms:\n"
	for i := 0; i < len(p.Rooms); {
		e := p.Rooms[i]
		var classes []string
		for ; i < len(p.Rooms) && p.Rooms[i].Room == e.Room && p.Rooms[i].Node == e.Node && p.Rooms[i].Allowed == e.Allowed && p.Rooms[i].Rule == e.Rule; i++ {
			classes = append(classes, string(p.Rooms[i].Class))
		}
		fmt.Fprintf(b, "%s  %s (%s): node %s, %s: %s %s\n    %s (rule %s)\n", title, e.Room, e.Policy, e.Node,
			plural(e.Participants, "participant", "participants"), may(e.Allowed), strings.Join(classes, ", "), e.Reason, e.Rule)
		title = ""
	}
}

func may(allowed bool) string {
	if allowed {
		return "may have from now on"
	}
	return "may no longer have"
}

func (p Plan) textObjects(b *strings.Builder) {
	title := "\nStored where it may not be (it is not moved or deleted; do so yourself):\n"
	for i := 0; i < len(p.Objects); {
		o, n := p.Objects[i], 0
		for ; i < len(p.Objects) && p.Objects[i].Node == o.Node && p.Objects[i].Class == o.Class && p.Objects[i].Policy == o.Policy; i++ {
			n++
		}
		fmt.Fprintf(b, "%s  node %s: %d of class %s (%s), among them %s\n    %s (rule %s)\n", title, o.Node, n, o.Class, o.Policy, o.ID, o.Reason, o.Rule)
		title = ""
	}
}

func (p Plan) textNodes(b *strings.Builder) {
	title := "\nNodes:\n"
	for i := 0; i < len(p.Nodes); {
		s := p.Nodes[i]
		var classes []string
		for ; i < len(p.Nodes) && p.Nodes[i].Node == s.Node && p.Nodes[i].Policy == s.Policy && p.Nodes[i].Allowed == s.Allowed && p.Nodes[i].Rule == s.Rule; i++ {
			classes = append(classes, string(p.Nodes[i].Class))
		}
		fmt.Fprintf(b, "%s  %s: node %s %s %s (rule %s)\n", title, s.Policy, s.Node, may(s.Allowed), strings.Join(classes, ", "), s.Rule)
		title = ""
	}
}
