package router

import (
	"fmt"
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
	return b.String()
}

// shortKm is a distance for a column.
func shortKm(km float64) string {
	if km < 0 {
		return "? km"
	}
	return fmt.Sprintf("%.0f km", km)
}
