package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The table in README.md lies between these lines, which are kept.
const (
	tableBegins = "<!-- table of the newest results: written by load --record -->"
	tableEnds   = "<!-- end of the table -->"
)

// writeTable renews the table in dir's README.md, if it has one.
func writeTable(dir string) error {
	path := filepath.Join(dir, "README.md")
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !ok || !ends {
		return fmt.Errorf("write table: %s lacks the lines %q and %q", path, tableBegins, tableEnds)
	}
	newest, err := newestResults(dir)
	if err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	text := before + tableBegins + "\n\n" + table(newest) + "\n" + tableEnds + after
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// newestResults reads the newest result of each of our scenarios, in their order.
func newestResults(dir string) (list []*result, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "20??-??-??-*.json"))
	if err != nil {
		return nil, err
	}
	newest := map[string]*result{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		var kind struct {
			Scenario json.RawMessage `json:"scenario"`
		}
		r := &result{}
		if err := json.Unmarshal(b, &kind); err != nil {
			return nil, fmt.Errorf("read %s: %w", p, err)
		}
		if !bytes.HasPrefix(kind.Scenario, []byte("{")) {
			continue // another program's
		}
		if err := json.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("read %s: %w", p, err)
		}
		if old := newest[r.Scenario.Name]; old == nil || old.Machine.At < r.Machine.At {
			newest[r.Scenario.Name] = r
		}
	}
	for _, s := range slices.Concat(scenarios, largeScenarios) {
		if r := newest[s.Name]; r != nil {
			list = append(list, r)
		}
	}
	return list, nil
}

func table(list []*result) string {
	var b strings.Builder
	b.WriteString("| scenario | node, µs/packet | floor | times the floor | delivered | latency p50 / p99, ms | join to media p50 / p99, ms | MB/subscriber | when, commit |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range list {
		if r.Way != nil || r.Allocations != nil || r.Scale != nil || r.Recording != nil {
			continue // the other tables'
		}
		floor := "–"
		if r.Floor != nil {
			floor = fmt.Sprintf("%.2f", r.Floor.SegmentedUS)
		}
		join := fmt.Sprintf("%.0f / %.0f", r.FirstP50, r.FirstP99)
		if r.AloneP50 != nil {
			join = fmt.Sprintf("%.0f alone, %s", *r.AloneP50, join)
		}
		day, _, _ := strings.Cut(r.Machine.At, "T")
		fmt.Fprintf(&b, "| `%s` | %s | %s | **%s** | %.2f %% | %.2f / %.2f | %s | %s | %s `%s` |\n", r.Scenario.Name,
			figure(r.NodeCPU), floor, figure(r.OfFloor), r.Delivered*100, r.LatencyP50, r.LatencyP99, join, figure(r.Memory), day, r.Machine.Commit)
	}
	return b.String() + wayTable(list) + allocationTable(list) + scaleTable(list) + recordingTable(list)
}

// recordingTable is of the scenarios that are recorded.
func recordingTable(list []*result) string {
	var b strings.Builder
	for _, r := range list {
		c := r.Recording
		if c == nil {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n| recorded | node, cores, without | what recording adds | written, Mbit/s | latency p99, ms, without | what recording adds | when, commit |\n")
			b.WriteString("| --- | --- | --- | --- | --- | --- | --- |\n")
		}
		day, _, _ := strings.Cut(r.Machine.At, "T")
		fmt.Fprintf(&b, "| %d tracks of %.2f Mbit/s | %s | **%.3f** | %.0f of %.0f | %.2f | **%.2f** | %s `%s` |\n", c.Tracks, c.TrackMbit, figure(r.NodeCores), c.Cores,
			c.WrittenMbit, c.PublishedMbit, r.LatencyP99, c.AddedP99, day, r.Machine.Commit)
	}
	return b.String()
}

// scaleTable is the curve of the scenarios that scale.
func scaleTable(list []*result) string {
	var b strings.Builder
	for _, r := range list {
		for _, s := range r.Scale {
			if b.Len() == 0 {
				b.WriteString("\n| nodes | subscribers | nodes, µs/packet | carry, times one node | delivered at least | latency p50 / p99, ms | when, commit |\n| --- | --- | --- | --- | --- | --- | --- |\n")
			}
			day, _, _ := strings.Cut(r.Machine.At, "T")
			fmt.Fprintf(&b, "| %d | %d | %.2f | **%.2f** | %.2f %% | %.2f / %.2f | %s `%s` |\n", s.Nodes, s.Subscribers, s.NodeCPU, s.Carries, s.Delivered*100,
				s.LatencyP50, s.LatencyP99, day, r.Machine.Commit)
		}
	}
	return b.String()
}

// wayTable is of the scenarios with a way.
func wayTable(list []*result) string {
	var b strings.Builder
	for _, r := range list {
		c := r.Way
		if c == nil {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n| way | node, µs/packet | without | times | what the way adds | coturn | delivered at least | when, commit |\n")
			b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- |\n")
		}
		day, _, _ := strings.Cut(r.Machine.At, "T")
		fmt.Fprintf(&b, "| `%s` | %s | %.2f | **%.2f** | %.2f | %s | %.2f %% | %s `%s` |\n", r.Scenario.Name, figure(r.NodeCPU), c.Direct, c.OfDirect,
			c.Relay, figure(c.Coturn), c.Delivered*100, day, r.Machine.Commit)
	}
	return b.String()
}

func figure(f *float64) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", *f)
}

func allocationTable(list []*result) string {
	var b strings.Builder
	for _, r := range list {
		a := r.Allocations
		if a == nil {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n| TURN over TLS | kB per idle one | opened per second and core | failed | when, commit |\n| --- | --- | --- | --- | --- |\n")
		}
		day, _, _ := strings.Cut(r.Machine.At, "T")
		fmt.Fprintf(&b, "| `%s`, %d idle, %d opened | **%.1f** | **%.0f** | %d | %s `%s` |\n", r.Scenario.Name, a.Idle, a.Opened, a.KB, a.PerCore, a.Failed, day, r.Machine.Commit)
	}
	return b.String()
}
