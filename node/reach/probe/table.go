package probe

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Title is how people read a way to a port.
func (w Way) Title(port uint16) string {
	t := titles[w]
	if strings.Contains(t, "%d") {
		return fmt.Sprintf(t, port)
	}
	return t
}

func (r Report) title(w Way) string { return w.Title(r.Port) }

// Print writes a report for people: a table, and below it what to do.
func (r Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, r.headline())
	fmt.Fprintln(t, "\nOVER\tWAY\tRESULT\tTIME\tRTT\t")
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", x.Over, r.title(x.Way), x.shown(), x.Took, x.RTT, x.Detail)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, r.advice()+r.verdict())
	return err
}

func (r Report) headline() string {
	if r.Node == nil {
		return fmt.Sprintf("%s port %d: no Domicile node was found", r.Host, r.Port)
	}
	return fmt.Sprintf("%s port %d: node %s in %s, version %s", r.Host, r.Port, r.Node.Name, r.Node.Country, r.Node.Version)
}

// shown is the outcome, in capitals where it counts.
func (x Result) shown() string {
	s := strings.ReplaceAll(string(x.Outcome), "-", " ")
	if x.Required && x.Outcome.bad() {
		return strings.ToUpper(s)
	}
	return s
}

// advice lists what went wrong, why, and what to do. What is the same over IPv4
// and IPv6 is said once.
func (r Report) advice() string {
	var b strings.Builder
	said := map[string]bool{}
	for _, x := range r.Results {
		if x.Cause == "" || said[x.Cause+x.Mend] {
			continue
		}
		said[x.Cause+x.Mend] = true
		fmt.Fprintf(&b, "\n%s, %s: %s\n", r.title(x.Way), x.Over, x.Cause)
		if x.Mend != "" {
			fmt.Fprintf(&b, "  %s\n", x.Mend)
		}
	}
	return b.String()
}

func (r Report) verdict() string {
	bad := r.titles(Outcome.bad)
	unknown := r.titles(func(o Outcome) bool { return o == Untested })
	switch {
	case r.OK:
		return "\nEvery way in that the node offers works from here.\n"
	case bad != "":
		return "\nDoes not work from here: " + bad + "\n"
	case unknown != "":
		return "\nCould not be tested: " + unknown + "\n"
	}
	return "\nNothing could be tested.\n"
}

// titles lists the ways that count and have such an outcome.
func (r Report) titles(is func(Outcome) bool) string {
	var list []string
	for _, x := range r.Results {
		if x.Required && is(x.Outcome) {
			list = append(list, fmt.Sprintf("%s (%s)", r.title(x.Way), x.Over))
		}
	}
	return strings.Join(list, ", ")
}
