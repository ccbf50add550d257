package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/domicile/domicile/bench/machine"
)

// The table of README.md lies between these lines.
const (
	tableBegins = "<!-- what residency costs and shows: written by bench/residency -->"
	tableEnds   = "<!-- end of what residency costs and shows -->"
)

// writeTable puts the newest results into README.md.
func writeTable(dir string) error {
	path := filepath.Join(dir, "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !ok || !ends {
		return fmt.Errorf("%s lacks the lines %q and %q", path, tableBegins, tableEnds)
	}
	table, err := table(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+tableBegins+"\n\n"+table+"\n"+tableEnds+after), 0o644)
}

// newest reads the newest result of a name; none is no error.
func newest(dir, name string, into any) (bool, error) {
	list, err := filepath.Glob(filepath.Join(dir, "20??-??-??-"+name+".json"))
	if err != nil || len(list) == 0 {
		return false, err
	}
	b, err := os.ReadFile(list[len(list)-1]) // Glob sorts
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	return err == nil, err
}

func table(dir string) (string, error) {
	var b strings.Builder
	for _, part := range []func(*strings.Builder, string) error{costTable, stopTable, realTable} {
		if err := part(&b, dir); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func measured(b *strings.Builder, m machine.Machine) {
	fmt.Fprintf(b, "Measured %s at `%s` by `%s`.\n\n", m.At, m.Commit, m.Command)
}

func costTable(b *strings.Builder, dir string) error {
	var r struct {
		Costs   []cost
		Machine machine.Machine
	}
	if ok, err := newest(dir, "residency-costs", &r); !ok {
		return err
	}
	measured(b, r.Machine)
	b.WriteString("| cost | median | least to most | limit, or before | allocations |\n| --- | --- | --- | --- | --- |\n")
	for _, c := range r.Costs {
		fmt.Fprintf(b, "| %s | **%.2f** %s | %.2f to %.2f | %s | %.0f |\n", c.What, c.Median, c.Unit, c.Least, c.Most, c.Limit, c.Allocs)
	}
	b.WriteString("\n")
	return nil
}

func stopTable(b *strings.Builder, dir string) error {
	type ends struct {
		Samples int
		P50     float64 `json:"p50_ms"`
		P99     float64 `json:"p99_ms"`
		Max     float64 `json:"max_ms"`
	}
	var r struct {
		Outcome map[string]ends
		Machine machine.Machine
	}
	if ok, err := newest(dir, "residency-stops", &r); !ok {
		return err
	}
	measured(b, r.Machine)
	b.WriteString("| from | to the last packet of media, p50 / p99 / most, ms | goal | flows |\n| --- | --- | --- | --- |\n")
	for _, k := range []struct{ name, what string }{{"policy_tightened", "a tightened policy, given to one node"},
		{"certificate_revoked", "a revoked certificate, given to one node"}, {"edge_outside_left", "the last attendee of an edge outside leaves"},
		{"participant_removed", "a speaker is removed, at a third node"}} {
		e, ok := r.Outcome[k.name]
		if !ok {
			continue // an older record
		}
		fmt.Fprintf(b, "| %s | **%.0f / %.0f / %.0f** | 1000 (p99) | %d |\n", k.what, e.P50, e.P99, e.Max, e.Samples)
	}
	b.WriteString("\n")
	return nil
}

func realTable(b *strings.Builder, dir string) error {
	var r struct {
		Outcome struct {
			Seed     uint64  `json:"seed"`
			Judged   int     `json:"cases_judged"`
			Leaks    int     `json:"leaks"`
			Repeated int     `json:"cases_not_seen_whole"`
			Seconds  float64 `json:"seconds"`
			Passed   int     `json:"packets_with_a_canary"`
			Entered  int     `json:"attendees_who_entered"`
			Refused  int     `json:"attendees_refused"`
			Changes  int     `json:"changes_of_policy"`
			Revoked  int     `json:"revocations"`
			Kills    int     `json:"kills"`
		}
		Machine machine.Machine
	}
	if ok, err := newest(dir, "residency-real", &r); !ok {
		return err
	}
	o := r.Outcome
	measured(b, r.Machine)
	fmt.Fprintf(b, "%d random cases on real nodes in namespaces, seed %d: **%d leaks** among %d packets with a canary, in %.0f minutes. %d attendees entered, %d were refused; "+
		"%d changes of policy, %d revocations, %d killed nodes. %d cases more were not seen whole and played again.\n", o.Judged, o.Seed, o.Leaks, o.Passed, o.Seconds/60,
		o.Entered, o.Refused, o.Changes, o.Revoked, o.Kills, o.Repeated)
	return nil
}
