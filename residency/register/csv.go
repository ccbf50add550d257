package register

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"time"
)

// columns are the same in every language, so that programs find them.
var columns = []string{"operator", "operator_country", "parent", "parent_country", "node", "country", "third_country", "roles",
	"takes_part", "certificate", "valid_from", "valid_until", "tenants", "policy", "stores", "passes_on",
	"passes_on_for_outside_participants", "transfer_basis", "policy_epoch", "made"}

// CSV writes the register as RFC 4180 has it, a line for each node and policy.
func (r Register) CSV(w io.Writer, lang Language) error {
	s, out := in(lang), csv.NewWriter(w)
	out.UseCRLF = true
	rows := [][]string{columns}
	for _, p := range r.Processors {
		for _, n := range p.Nodes {
			part := s.say("yes")
			if why := s.refusal(n); why != "" {
				part = s.say("no") + ": " + why
			}
			row := []string{p.Name, string(p.Country), p.Parent, string(p.ParentCountry), string(n.Name), string(n.Country),
				yesNo(s, n.Third), join(n.Roles), part, n.Serial, n.From.Format(time.RFC3339), n.Until.Format(time.RFC3339), join(n.Tenants)}
			tail := []string{fmt.Sprint(r.Epoch), r.Made.Format(time.RFC3339)}
			for _, u := range n.Uses {
				rows = append(rows, concat(row, []string{u.Policy, join(u.Stores), join(u.Handles), join(u.Outside), s.transfer(n, u)}, tail))
			}
			if len(n.Uses) == 0 {
				rows = append(rows, concat(row, make([]string, 5), tail))
			}
		}
	}
	for _, row := range rows {
		for i := range row {
			row[i] = plain(row[i])
		}
		if err := out.Write(row); err != nil {
			return fmt.Errorf("write register: %w", err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write register: %w", err)
	}
	return nil
}

// plain keeps a spreadsheet from taking a text for a formula: names come from
// certificates, and whoever opens the file trusts it (R25). The apostrophe makes
// it a text; full-width signs count as formulas in some programs, and so does
// what follows spaces.
func plain(s string) string {
	if strings.HasPrefix(s, "\t") || strings.HasPrefix(s, "\r") || strings.HasPrefix(s, "\n") {
		return "'" + s
	}
	if t := strings.TrimSpace(s); t != "" && strings.ContainsRune("=+-@|%＝＋－＠", []rune(t)[0]) {
		return "'" + s
	}
	return s
}

func yesNo(s speaker, v bool) string {
	if v {
		return s.say("yes")
	}
	return s.say("no")
}

func join[S ~string](list []S) string {
	var out []string
	for _, v := range list {
		out = append(out, string(v))
	}
	return strings.Join(out, " ")
}

func concat(parts ...[]string) (row []string) {
	for _, p := range parts {
		row = append(row, p...)
	}
	return row
}
