// Package report tells a lawyer what a room's evidence proves: which nodes in
// which countries, of which operators, handled which data, when and under which
// policy, as HTML that needs nothing else or as plain text, in English or German.
//
// It takes the result of residency/evidence/verify and decides nothing: what it
// calls proved is what the verifier found whole. It performs no I/O.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/verify"
)

//go:embed report.html
var page string

var html = template.Must(template.New("report").Parse(page))

// document is a report before it has a form: text in the reader's language.
type document struct {
	Lang    verify.Lang
	Words   words
	State   string // proved, gap or broken, for the colour
	Verdict string
	Facts   [][2]string
	Tables  []table
	Lists   []list
}

// table has a head and rows of as many cells.
type table struct {
	Title, Note string
	Head        []string
	Rows        [][]string
}

type list struct {
	Title string
	Items []string
}

// HTML writes the report as one page.
func HTML(r *verify.Result, lang verify.Lang) ([]byte, error) {
	var b bytes.Buffer
	if err := html.Execute(&b, compose(r, lang)); err != nil {
		return nil, fmt.Errorf("write report: %w", err)
	}
	return b.Bytes(), nil
}

// Text writes the report for a terminal or a letter.
func Text(r *verify.Result, lang verify.Lang) []byte {
	d := compose(r, lang)
	var b bytes.Buffer
	title := func(s string) { fmt.Fprintf(&b, "\n%s\n%s\n", s, strings.Repeat("-", len([]rune(s)))) }
	fmt.Fprintf(&b, "%s\n%s\n\n%s\n\n", d.Words.Title, strings.Repeat("=", len([]rune(d.Words.Title))), wrap(d.Verdict, ""))
	for _, f := range d.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f[0], f[1])
	}
	for _, t := range d.Tables {
		title(t.Title)
		if t.Note != "" {
			fmt.Fprintln(&b, wrap(t.Note, ""))
		}
		writeRows(&b, t)
	}
	for _, l := range d.Lists {
		title(l.Title)
		for _, item := range l.Items {
			fmt.Fprintf(&b, "- %s\n", wrap(item, "  "))
		}
	}
	return b.Bytes()
}

// writeRows puts each row into lines of its own: a table of eight columns has no
// room on paper without one.
func writeRows(b *bytes.Buffer, t table) {
	for _, row := range t.Rows {
		fmt.Fprintf(b, "\n%s\n", row[0])
		for i := 1; i < len(row); i++ {
			if row[i] != "" {
				fmt.Fprintf(b, "  %s: %s\n", t.Head[i], row[i])
			}
		}
	}
}

// lineLength is that of a letter in a typewriter's face.
const lineLength = 88

// wrap breaks a text into lines, all but the first with an indent.
func wrap(s, indent string) string {
	var b strings.Builder
	n := 0
	for i, word := range strings.Fields(s) {
		switch size := len([]rune(word)); {
		case i == 0:
			n = len(indent)
		case n+1+size > lineLength:
			b.WriteString("\n" + indent)
			n = len(indent)
		default:
			b.WriteByte(' ')
			n++
		}
		b.WriteString(word)
		n += len([]rune(word))
	}
	return b.String()
}

func compose(r *verify.Result, lang verify.Lang) document {
	w := inEnglish
	if lang == verify.German {
		w = inGerman
	}
	d := document{Lang: lang, Words: w}
	d.State, d.Verdict = verdict(r, w)
	d.Facts = facts(r, w)
	d.Tables = []table{nodes(r, w), flows(r, w)}
	for _, t := range []table{kept(r, w), refused(r, w), policies(r, w)} {
		if len(t.Rows) > 0 {
			d.Tables = append(d.Tables, t)
		}
	}
	if len(r.Findings) > 0 {
		l := list{Title: w.Findings}
		for _, f := range r.Findings {
			l.Items = append(l.Items, f.In(lang))
		}
		d.Lists = append(d.Lists, l)
	}
	d.Lists = append(d.Lists, list{w.Covers, covers(r, w)}, list{w.Not, w.NotItems})
	return d
}

func verdict(r *verify.Result, w words) (state, text string) {
	switch r.Worst() {
	case verify.None:
		return "proved", w.Proved
	case verify.Gap:
		return "gap", w.Gap
	case verify.Breach:
		return "broken", w.Breach
	}
	return "broken", w.Broken
}

func facts(r *verify.Result, w words) [][2]string {
	f := [][2]string{{w.Room, r.Room.SID}, {w.Pseudonym, string(r.Room.Pseudonym)}}
	if r.First > 0 {
		f = append(f, [2]string{w.Period, w.time(r.First) + " – " + w.time(r.Last)})
	}
	f = append(f, [2]string{w.Policy, r.Policy})
	if r.Tenant != "" {
		f = append(f, [2]string{w.Tenant, r.Tenant})
	}
	f = append(f, [2]string{w.Receipts, fmt.Sprint(r.Receipts)}, [2]string{w.Exported, string(r.Origin) + ", " + w.time(r.Exported)})
	for _, l := range r.Logs {
		names := make([]string, len(l.Witnesses))
		for i, n := range l.Witnesses {
			names[i] = string(n)
		}
		by := strings.Join(names, ", ")
		if by == "" {
			by = w.Nobody
		}
		f = append(f, [2]string{w.Log, fmt.Sprintf(w.LogText, l.Origin, l.Size, w.time(l.Time), by)})
	}
	return f
}

func nodes(r *verify.Result, w words) table {
	t := table{Title: w.Nodes, Note: w.NodesNote, Head: []string{w.Node, w.Country, w.Operator, w.Parent, w.Roles}}
	for _, n := range r.Nodes {
		if !tookPart(r, n.Name) {
			continue
		}
		roles := make([]string, len(n.Roles))
		for i, role := range n.Roles {
			roles[i] = string(role)
		}
		t.Rows = append(t.Rows, []string{string(n.Name), w.country(n.Country), n.Operator + " (" + w.country(n.OperatorCountry) + ")",
			n.Parent + " (" + w.country(n.ParentCountry) + ")", strings.Join(roles, ", ")})
	}
	return t
}

// tookPart reports whether a node had anything of the meeting: one from which all
// was kept had not, and is listed with what was refused.
func tookPart(r *verify.Result, name residency.NodeName) bool {
	return slices.ContainsFunc(r.Flows, func(f verify.Flow) bool {
		return f.Node == name || f.Peer == name && f.Side != evidence.Refused
	})
}

// flows lists what went from node to node, by the sender's word.
func flows(r *verify.Result, w words) table {
	t := table{Title: w.Hops, Note: w.HopsNote, Head: []string{w.FromTo, w.Class, w.Bytes, w.Packets, w.When, w.Epoch, w.Rule}}
	countries := map[residency.NodeName]string{}
	for _, n := range r.Nodes {
		countries[n.Name] = string(n.Country)
	}
	where := func(n residency.NodeName) string { return string(n) + " (" + countries[n] + ")" }
	for _, f := range r.Flows {
		from, to := f.Node, f.Peer
		switch {
		case f.Side == evidence.Received && !sentByPeer(r, f):
			from, to = f.Peer, f.Node // all that there is
		case f.Side != evidence.Sent:
			continue
		}
		t.Rows = append(t.Rows, []string{where(from) + " → " + where(to), w.class(f.Class), w.size(f.Bytes), w.number(f.Packets),
			w.span(f.First, f.Last), fmt.Sprint(f.Epoch), w.rule(f.Rule)})
	}
	return t
}

func sentByPeer(r *verify.Result, f verify.Flow) bool {
	return slices.ContainsFunc(r.Flows, func(o verify.Flow) bool {
		return o.Side == evidence.Sent && o.Node == f.Peer && o.Peer == f.Node && o.Class == f.Class
	})
}

// kept lists what was stored and recorded, and what was erased of it.
func kept(r *verify.Result, w words) table {
	t := table{Title: w.Kept, Head: []string{w.Node, w.Class, w.How, w.Bytes, w.When, w.Epoch}}
	for _, f := range r.Flows {
		if f.Side == evidence.Stored || f.Side == evidence.Recorded || f.Side == evidence.Erased {
			t.Rows = append(t.Rows, []string{string(f.Node), w.keptClass(f), w.Sides[f.Side], w.size(f.Bytes), w.span(f.First, f.Last), fmt.Sprint(f.Epoch)})
		}
	}
	return t
}

func refused(r *verify.Result, w words) table {
	t := table{Title: w.Refused, Note: w.RefusedNote, Head: []string{w.FromTo, w.Class, w.Times, w.When, w.Because}}
	for _, f := range r.Flows {
		if f.Side == evidence.Refused {
			t.Rows = append(t.Rows, []string{string(f.Node) + " → " + string(f.Peer), w.class(f.Class), w.number(f.Packets), w.span(f.First, f.Last), w.refusal(f.Rule)})
		}
	}
	return t
}

func policies(r *verify.Result, w words) table {
	t := table{Title: w.Policies, Head: []string{w.Epoch, w.Promise, w.When}}
	for _, e := range r.Epochs {
		t.Rows = append(t.Rows, []string{fmt.Sprint(e.Number), strings.TrimSpace(e.Title + ". " + e.Description), w.span(e.First, e.Last)})
	}
	return t
}

// covers says what stands although something was found.
func covers(r *verify.Result, w words) []string {
	switch r.Worst() {
	case verify.None:
		return w.CoversItems
	case verify.Gap:
		return append([]string{w.CoversGap}, w.CoversItems...)
	}
	return []string{w.CoversNothing}
}

func (w words) time(ms int64) string { return evidence.Time(ms).Format(w.TimeForm) }

func (w words) span(first, last int64) string {
	a, b := evidence.Time(first), evidence.Time(last)
	if a.Format(time.DateOnly) == b.Format(time.DateOnly) {
		return a.Format(w.ShortForm) + "–" + b.Format("15:04:05")
	}
	return a.Format(w.ShortForm) + " – " + b.Format(w.ShortForm)
}

// number groups digits by threes.
func (w words) number(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + w.Group + s[i:]
	}
	return s
}

func (w words) size(n uint64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, u := float64(n), 0
	for f >= 1000 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return strings.Replace(fmt.Sprintf("%.1f ", f), ".", w.Point, 1) + units[u] + " (" + w.number(n) + ")"
}

func (w words) class(c residency.Class) string {
	if s := w.Classes[c]; s != "" {
		return s
	}
	return string(c)
}

func (w words) rule(rule string) string {
	if s := w.Rules[rule]; s != "" {
		return s
	}
	return rule
}

// refusal says by which rule something was kept back: the rules' names are those
// of what they ask, so that "zone" allows and refuses.
func (w words) refusal(rule string) string {
	if s := w.Refusals[rule]; s != "" {
		return s
	}
	return rule
}

// keptClass tells questions and answers from chat, since each has its own switch.
func (w words) keptClass(f verify.Flow) string {
	if f.QA {
		return w.QA
	}
	return w.class(f.Class)
}

// country is the code: names of countries differ between the languages, the
// codes of ISO 3166-1 do not.
func (w words) country(c residency.Country) string { return string(c) }

// Summary is the verdict, who took part and what was found: enough for a
// terminal.
func Summary(r *verify.Result, lang verify.Lang) []byte {
	d := compose(r, lang)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", wrap(d.Verdict, ""))
	for _, f := range d.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f[0], f[1])
	}
	for _, row := range d.Tables[0].Rows {
		fmt.Fprintf(&b, "  %s\n", strings.Join(row, "  "))
	}
	if len(r.Findings) > 0 {
		fmt.Fprintf(&b, "\n%s:\n", d.Words.Findings)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "- %s\n", wrap(f.In(lang), "  "))
	}
	fmt.Fprintf(&b, "\n%s:\n", d.Words.Not)
	for _, item := range d.Words.NotItems {
		fmt.Fprintf(&b, "- %s\n", wrap(item, "  "))
	}
	return b.Bytes()
}
