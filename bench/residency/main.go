// Command residency measures what residency costs and writes it, with what the real
// nodes' tests have found, into bench/results.
//
// It runs the benchmarks of single packages and keeps the median of several runs; it
// measures nothing itself and judges nothing but the limits that it prints beside.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/domicile/domicile/bench/machine"
)

const results = "bench/results"

// cost is a figure of a benchmark.
type cost struct {
	What  string `json:"what"`
	Limit string `json:"limit,omitempty"` // or what it was before
	Unit  string `json:"unit"`

	Package   string  `json:"package"`
	Benchmark string  `json:"benchmark"`
	Metric    string  `json:"metric"` // of the benchmark's line
	divide    float64 // from the metric to the unit

	Median float64 `json:"median"`
	Least  float64 `json:"least"`
	Most   float64 `json:"most"`
	Allocs float64 `json:"allocs_per_op"`
}

const micro = 1000

// costs are what is measured, in the order of the table.
var costs = []cost{
	{What: "open a track: both ends ask the gate (1,000 tenants, 500 nodes)", Unit: "µs", Package: "./bench/residency", Benchmark: "BenchmarkOpenStream", Metric: "µs-gate/stream"},
	{What: "open a track: its accounts, at both ends", Unit: "µs", Package: "./bench/residency", Benchmark: "BenchmarkOpenStream", Metric: "µs-accounts/stream"},
	{What: "open a track: both together", Limit: "50", Unit: "µs", Package: "./bench/residency", Benchmark: "BenchmarkOpenStream", Metric: "µs-open/stream"},
	{What: "its receipts, signed by both ends when the room has ended", Unit: "µs", Package: "./bench/residency", Benchmark: "BenchmarkOpenStream", Metric: "µs-receipts/stream"},
	{What: "a permit looked at, for each packet", Unit: "ns", Package: "./residency", Benchmark: "BenchmarkAllows", Metric: "ns/op"},
	{What: "relay a packet of video, sender, receiver and kernel", Limit: "11.8 to 12.8 before there were accounts", Unit: "µs", Package: "./relay", Benchmark: "BenchmarkVideo", Metric: "cpu-ns/packet", divide: micro},
	{What: "relay a packet of audio", Limit: "5.7 to 5.8 before", Unit: "µs", Package: "./relay", Benchmark: "BenchmarkAudio", Metric: "cpu-ns/packet", divide: micro},
	{What: "offer a packet of video to a link", Limit: "1.5 to 1.7 before", Unit: "µs", Package: "./relay", Benchmark: "BenchmarkOffer/video", Metric: "ns/op", divide: micro},
	{What: "offer a packet of audio to a link", Limit: "0.25 to 0.35 before", Unit: "µs", Package: "./relay", Benchmark: "BenchmarkOffer/audio", Metric: "ns/op", divide: micro},
	{What: "load, verify and check policies of 1,000 tenants and 500 nodes", Limit: "1000", Unit: "ms", Package: "./configs", Benchmark: "BenchmarkLoadSignedPolicy", Metric: "ns/op", divide: 1e6},
}

func main() {
	runs := flag.Int("runs", 5, "how often each benchmark is run")
	each := flag.Duration("time", time.Second, "how long")
	tableOnly := flag.Bool("table", false, "only write the table anew, from the newest results")
	flag.Parse()
	if err := run(*runs, *each, *tableOnly); err != nil {
		fmt.Fprintln(os.Stderr, "residency:", err)
		os.Exit(1)
	}
}

func run(runs int, each time.Duration, tableOnly bool) error {
	if !tableOnly {
		if err := measure(runs, each); err != nil {
			return err
		}
		if err := write(); err != nil {
			return err
		}
	}
	return writeTable(results)
}

// measure compiles all benchmarks before it runs the first.
func measure(runs int, each time.Duration) error {
	dir, err := os.MkdirTemp("", "domicile-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	benchmarks := map[string][]string{} // by package
	var order []string
	for _, c := range costs {
		if benchmarks[c.Package] == nil {
			order = append(order, c.Package)
		}
		if !slices.Contains(benchmarks[c.Package], c.Benchmark) {
			benchmarks[c.Package] = append(benchmarks[c.Package], c.Benchmark)
		}
	}
	for i, pkg := range order {
		if out, err := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, fmt.Sprint(i)), pkg).CombinedOutput(); err != nil {
			return fmt.Errorf("compile %s: %w\n%s", pkg, err, out)
		}
	}
	for i, pkg := range order {
		for _, name := range benchmarks[pkg] {
			first, second, _ := strings.Cut(name, "/")
			pattern := "^" + first + "$"
			if second != "" {
				pattern += "/^" + second + "$"
			}
			cmd := exec.Command(filepath.Join(dir, fmt.Sprint(i)), "-test.run", "^$", "-test.bench", pattern, "-test.benchmem",
				"-test.count", fmt.Sprint(runs), "-test.benchtime", each.String())
			cmd.Dir = pkg
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s of %s: %w\n%s", name, pkg, err, out)
			}
			for j := range costs {
				if c := &costs[j]; c.Package == pkg && c.Benchmark == name {
					if err := c.take(out); err != nil {
						return err
					}
					fmt.Printf("%-70s %8.3f %s (%.3f to %.3f), %.0f allocations\n", c.What, c.Median, c.Unit, c.Least, c.Most, c.Allocs)
				}
			}
		}
	}
	return nil
}

// take reads the figure out of go test's lines, one for each run.
func (c *cost) take(out []byte) error {
	var all []float64
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], c.Benchmark) {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return fmt.Errorf("%s: %q", c.Benchmark, lines.Text())
			}
			switch f[i+1] {
			case c.Metric:
				all = append(all, v/max(c.divide, 1))
			case "allocs/op":
				c.Allocs = v
			}
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("%s says nothing of %s:\n%s", c.Benchmark, c.Metric, out)
	}
	slices.Sort(all)
	c.Least, c.Median, c.Most = all[0], all[len(all)/2], all[len(all)-1]
	return nil
}

func write() error {
	m := machine.Describe(time.Now(), "make bench-residency")
	b, err := json.MarshalIndent(map[string]any{"costs": costs, "machine": m}, "", "  ")
	if err != nil {
		return err
	}
	day, _, _ := strings.Cut(m.At, "T")
	return os.WriteFile(filepath.Join(results, day+"-residency-costs.json"), append(b, '\n'), 0o644)
}
