package router

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// String prints the placement as a table for a terminal: the answer, then every
// candidate with what ranked or refused it.
func (p Placement) String() string {
	var b strings.Builder
	if p.Chosen != nil {
		fmt.Fprintf(&b, "%s (%s)\n  %s\n", p.Chosen.Node, p.Rule, p.Reason)
	} else {
		fmt.Fprintf(&b, "nobody (%s)\n  %s\n", p.Rule, p.Reason)
	}
	if p.Hint != "" {
		fmt.Fprintf(&b, "  hint: %s\n", p.Hint)
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i, r := range p.Ranked {
		mark := "-"
		if r.Allowed {
			mark = fmt.Sprint(i + 1)
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%.0f %%\t%s\t%s\n", mark, r.Node, r.Country, shortKm(r.DistanceKm), 100*r.Load, r.Rule, r.Reason)
	}
	w.Flush()
	p.textTerms(&b)
	return b.String()
}

// textTerms prints what the scores are made of, one column for each term that
// is a millisecond of somebody's.
func (p Placement) textTerms(b *strings.Builder) {
	var names []string
	for _, name := range termNames {
		if slices.ContainsFunc(p.Ranked, func(r Ranked) bool { return r.term(name) >= 0.5 }) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "  ms\t%s\tsum\n", strings.Join(names, "\t"))
	for _, r := range p.Ranked {
		if !r.Allowed {
			continue
		}
		fmt.Fprintf(w, "  %s\t", r.Node)
		for _, name := range names {
			fmt.Fprintf(w, "%.0f\t", r.term(name))
		}
		fmt.Fprintf(w, "%.0f\n", r.Score)
	}
	w.Flush()
}

// term is a term of the candidate's score, 0 if it has none.
func (r Ranked) term(name string) (ms Millis) {
	for _, t := range r.Terms {
		if t.Name == name {
			ms = t.MS
		}
	}
	return ms
}

// shortKm is a distance for a column.
func shortKm(km float64) string {
	if km < 0 {
		return "? km"
	}
	return fmt.Sprintf("%.0f km", km)
}
