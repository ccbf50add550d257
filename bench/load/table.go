package main

import (
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
		r := &result{}
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
	return b.String()
}

func figure(f *float64) string {
	if f == nil {
		return "–"
	}
	return fmt.Sprintf("%.2f", *f)
}
