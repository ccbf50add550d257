package explain

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/domicile/domicile/residency"
)

// The texts are for people who answer for data: one table for each question that
// they have, in the order in which they ask. Cells line up; nothing is coloured.

// table lines up rows of cells below a title. Without rows it says what there is
// instead.
func table(b *strings.Builder, title, none string, rows [][]string) {
	fmt.Fprintf(b, "\n%s\n", title)
	if len(rows) == 0 {
		fmt.Fprintf(b, "  %s\n", none)
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.StripEscape)
	for _, r := range rows {
		fmt.Fprintf(w, "  %s\n", strings.Join(r, "\t"))
	}
	w.Flush()
}

func classes(list []residency.Class) string {
	texts := make([]string, len(list))
	for i, c := range list {
		texts[i] = string(c)
	}
	return strings.Join(texts, ", ")
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// heading says which room, under which policy.
func (x Explanation) heading(b *strings.Builder) {
	r := x.Room
	fmt.Fprintf(b, "Room %s", r.Name)
	if r.SID != "" {
		fmt.Fprintf(b, " (%s)", r.SID)
	}
	fmt.Fprintf(b, ": policy %s", r.Policy)
	if r.Tenant != "" {
		fmt.Fprintf(b, ", tenant %s", r.Tenant)
	}
	fmt.Fprintf(b, ", decided by epoch %d of the policies, told by node %s.\n", x.Epoch, x.Asked)
	people, nodes := 0, 0
	for _, p := range r.Nodes {
		people += p.Participants
		nodes++
	}
	switch {
	case r.SID == "":
		b.WriteString("There is no such room yet: this is how it would be.\n")
	case !r.Live:
		fmt.Fprintf(b, "Nobody is in it. Its home is node %s.\n", r.Home)
	default:
		fmt.Fprintf(b, "%s on %s. Its home is node %s.\n", plural(people, "participant"), plural(nodes, "node"), r.Home)
	}
	for _, m := range x.Missing {
		fmt.Fprintf(b, "Not known, because node %s did not tell: its part of what follows (%s).\n", m.Node, m.Why)
	}
}

// String is the explanation for people.
func (x Explanation) String() string {
	var b strings.Builder
	x.heading(&b)
	x.textNodes(&b)
	if x.Room.SID != "" {
		x.textHops(&b)
	}
	x.textStores(&b)
	x.textBarred(&b)
	x.textOff(&b)
	if len(x.Refusals) > 0 {
		var rows [][]string
		for _, c := range x.Refusals {
			rows = append(rows, []string{plural(c.Times, "time"), "by node " + string(c.Node), c.Rule})
		}
		table(&b, "Refused lately (--participant says what somebody was told)", "", rows)
	}
	return b.String()
}

// textNodes lists the nodes of the room; of a room that nobody is in, all that may.
func (x Explanation) textNodes(b *strings.Builder) {
	var rows [][]string
	for _, s := range x.Nodes {
		for _, r := range s.Rulings {
			if !r.Allowed || x.Room.Live && !s.In && !s.Home {
				continue
			}
			rows = append(rows, []string{string(s.Node), string(s.Country), s.part(), verb(r) + " " + classes(r.Classes), r.Rule,
				fmt.Sprintf("epoch %d", s.Epoch), "certificate " + short(s.Serial) + " until " + day(r.Until)})
		}
	}
	title := "Nodes in the room, and what each may"
	if !x.Room.Live {
		title = "Nodes that may"
	}
	table(b, title, "none", same(rows, 3))
}

// part is what a node is to the room.
func (s Standing) part() string {
	var list []string
	if s.Home {
		list = append(list, "home")
	}
	if s.Participants > 0 {
		list = append(list, plural(s.Participants, "participant"))
	}
	if s.Recorder {
		list = append(list, "records")
	}
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

func verb(r Ruling) string {
	if r.Keep {
		return "keep"
	}
	return "get"
}

// short is enough of a serial number to tell certificates apart.
func short(serial string) string {
	if len(serial) > 8 {
		return serial[:8] + "…"
	}
	return serial
}

// same leaves out the first cells of a row that say what those above it do.
func same(rows [][]string, first int) [][]string {
	out := make([][]string, len(rows))
	for i, r := range rows {
		out[i] = append([]string(nil), r...)
		for j := 0; i > 0 && j < first && r[0] == rows[i-1][0]; j++ {
			out[i][j] = ""
		}
	}
	return out
}

func (x Explanation) textHops(b *strings.Builder) {
	var rows [][]string
	for _, h := range x.Hops {
		now := ""
		if h.Class == residency.ClassMedia {
			now = plural(h.Tracks, "track") + " now"
		}
		taken := "taken by " + h.TakenBy
		if h.TakenBy == "" {
			taken = "not taken"
		}
		rule := h.Rule
		if h.Policy != "" {
			rule += " of policy " + h.Policy
		}
		rows = append(rows, []string{fmt.Sprintf("%s → %s", h.From, h.To), string(h.Class), now, "sent by " + rule, taken,
			fmt.Sprintf("%d packets", h.Packets), size(h.Bytes)})
	}
	table(b, "Hops", "none: nothing of the room goes from one node to another", same(rows, 1))
}

// size is a number of bytes for people.
func size(n uint64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d B", n)
	case n < 10_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	}
	return fmt.Sprintf("%d MB", n/1_000_000)
}

func (x Explanation) textStores(b *strings.Builder) {
	var rows [][]string
	for _, s := range x.Stores {
		where, when := "nowhere", ""
		if s.Node != "" {
			where, when = "node "+string(s.Node), "would be"
		}
		if s.Now {
			when = "now"
		}
		rows = append(rows, []string{s.What, where, when, s.Rule, s.Reason})
	}
	table(b, "What is kept", "", rows)
}

func (x Explanation) textBarred(b *strings.Builder) {
	var rows [][]string
	hints := map[string]bool{}
	for _, s := range x.Nodes {
		for _, r := range s.Rulings {
			if r.Allowed || r.Keep && r.Rule == residency.RuleNotStored {
				continue // what nobody keeps is said above
			}
			rows = append(rows, []string{string(s.Node), string(s.Country), verb(r) + " " + classes(r.Classes), r.Rule, r.Reason})
			if r.Hint != "" && !hints[string(s.Node)+r.Hint] {
				hints[string(s.Node)+r.Hint] = true
				rows = append(rows, []string{string(s.Node), "", "", "", "what would do: " + r.Hint})
			}
		}
	}
	table(b, "Nodes that may not", "none", same(rows, 2))
}

func (x Explanation) textOff(b *strings.Builder) {
	var rows [][]string
	for _, o := range x.Off {
		rows = append(rows, []string{o.What, o.By, o.Reason})
	}
	table(b, "Switched off", "nothing", rows)
}

// AnswersText is what the gate says of nodes and classes, for people.
func (x Explanation) AnswersText(list []Answer) string {
	var b strings.Builder
	x.heading(&b)
	var rows [][]string
	for _, a := range list {
		yes := "no"
		if a.Allowed {
			yes = "yes"
		}
		rows = append(rows, []string{string(a.Node), string(a.Country), verb(a.Ruling) + " " + classes(a.Classes), yes, a.Rule, a.Reason})
		if a.Hint != "" {
			rows = append(rows, []string{string(a.Node), "", "", "", "", "what would do: " + a.Hint})
		}
	}
	table(&b, "May it?", "", same(rows, 2))
	return b.String()
}

// PersonText explains a participant, for people.
func (x Explanation) PersonText(p Person) string {
	var b strings.Builder
	x.heading(&b)
	b.WriteString("\n" + p.String())
	return b.String()
}

// String is the participant for people.
func (p Person) String() string {
	var b strings.Builder
	if p.Node == "" {
		fmt.Fprintf(&b, "%s is not in the room.\n", p.Identity)
	} else {
		p.textSeat(&b)
		table(&b, "Media from them", "none", p.rows(p.Sends))
		table(&b, "Media to them", "none", p.rows(p.Gets))
	}
	if r := p.Refused; r != nil {
		fmt.Fprintf(&b, "\nRefused by node %s at %s (%s)\n  %s\n", r.Node, day(r.At), r.Rule, r.Reason)
		if r.Use != "" {
			fmt.Fprintf(&b, "  they were told to use node %s\n", r.Use)
		}
		if r.Hint != "" {
			fmt.Fprintf(&b, "  what would do: %s\n", r.Hint)
		}
	}
	return b.String()
}

func (p Person) textSeat(b *strings.Builder) {
	fmt.Fprintf(b, "%s is on node %s", p.Identity, p.Node)
	if p.Seat != nil && p.Seat.Country != "" {
		fmt.Fprintf(b, ", taken to be in %s", p.Seat.Country)
	}
	b.WriteString(".\n")
	for _, r := range p.Serves {
		may := "may"
		if !r.Allowed {
			may = "may not"
		}
		fmt.Fprintf(b, "  it %s have %s: %s (%s)\n", may, classes(r.Classes), r.Reason, r.Rule)
	}
	if p.Seat != nil {
		fmt.Fprintf(b, "\nWho would serve somebody from there now\n  %s\n", strings.ReplaceAll(strings.TrimSpace(p.Seat.Placement.String()), "\n", "\n  "))
	}
}

// rows are tracks, a line for each node that they go to.
func (p Person) rows(paths []Path) (rows [][]string) {
	for _, t := range paths {
		what := fmt.Sprintf("%s (%s)", t.Source, t.Kind)
		if t.Owner != p.Identity {
			what += " of " + t.Owner
		}
		if len(t.Legs) == 0 {
			rows = append(rows, []string{what, "stays on " + string(t.From), "", "nobody gets it"})
		}
		for _, l := range t.Legs {
			rows = append(rows, t.row(what, l))
			what = ""
		}
	}
	return rows
}

// maxNamed bounds how many people a line names; JSON has them all.
const maxNamed = 10

func people(list []string) string {
	if len(list) <= maxNamed {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:maxNamed], ", "), len(list)-maxNamed)
}

func (t Path) row(what string, l Leg) []string {
	way, rule := string(t.From), l.Rule
	for _, hop := range l.Over {
		way += " → " + string(hop)
	}
	way += " → " + string(l.To)
	switch {
	case l.To == t.From:
		way = "on " + string(l.To)
	case l.Reason != "":
		rule += ": refused, " + l.Reason
	case !l.Flows:
		rule += ": allowed, nothing flows now"
	}
	return []string{what, way, "to " + people(l.Receivers), rule}
}
