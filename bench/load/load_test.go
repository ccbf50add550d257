package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/internal/steady"
)

// binary is bin/domicile, built for these tests.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "domicile-load-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "domicile")
	if b, err := exec.Command("go", "build", "-o", binary, "../../cmd/domicile").CombinedOutput(); err != nil {
		println("load: building:", err.Error(), string(b))
		os.RemoveAll(dir)
		os.Exit(1)
	}
	// HTTP connections of the wait for a node are kept by the default client.
	code := leaks.Run(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
	os.RemoveAll(dir)
	os.Exit(code)
}

// late is how long this process, in which all attendees are, may be kept waiting.
const late = 20 * time.Millisecond

// measureWith runs the generator and returns its one result.
func measureWith(t *testing.T, args ...string) *result {
	t.Helper()
	var out bytes.Buffer
	args = append([]string{"--bin", binary, "--duration", "2s", "--warmup", "500ms", "--arrivals", "300ms", "--sample", "1", "--quiet"}, args...)
	if err := load(t.Context(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("printed %q: %v", out.String(), err)
	}
	return &r
}

// A real node, real clients: what is published is received, and every figure is
// there and sane.
func TestOneNode(t *testing.T) {
	steady.Measure(t, late, func() string {
		dir := t.TempDir()
		// Some seconds, in which the node learns that the paths carry two cameras.
		r := measureWith(t, "--publishers", "2", "--subscribers", "3", "--meet", "--audio", "--floor=false", "--warmup", "4s", "--record", "--results", dir)
		if r.Joined != 5 || r.Failed != 0 || r.WithoutMedia != 0 {
			return fmt.Sprintf("%d joined, %d failed, %d without media; want 5, 0, 0", r.Joined, r.Failed, r.WithoutMedia)
		}
		if r.SentPPS < 300 || r.SentPPS > 600 { // 460
			return fmt.Sprintf("%v packets/s published, want 460", r.SentPPS)
		}
		if r.Delivered < 0.9 {
			return fmt.Sprintf("%v of the packets delivered, want nearly all", r.Delivered)
		}
		switch {
		case r.NodeCPU == nil || *r.NodeCPU <= 0, r.Memory == nil, r.MemoryTotal == nil || *r.MemoryTotal < 5:
			t.Errorf("node's CPU and memory were not measured: %+v", r)
		case r.LatencyP50 <= 0 || r.LatencyP99 < r.LatencyP50:
			t.Errorf("latency %v and %v ms", r.LatencyP50, r.LatencyP99)
		case r.FirstP50 <= 0 || r.GeneratorCPU <= 0:
			t.Errorf("first media after %v ms, generator's CPU %v µs", r.FirstP50, r.GeneratorCPU)
		}
		if m := r.Machine; m.Go == "" || m.Commit == "" || m.CPUs < 1 || !strings.Contains(m.Command, "load") {
			t.Errorf("machine is described as %+v", m)
		}
		files, err := filepath.Glob(filepath.Join(dir, "20??-??-??-2x3.json"))
		if err != nil || len(files) != 1 {
			t.Errorf("recorded %v (%v), want one file", files, err)
		}
		return ""
	})
}

func TestMesh(t *testing.T) {
	steady.Measure(t, late, func() string {
		r := measureWith(t, "--publishers", "1", "--subscribers", "3", "--mesh", "--floor=false")
		if r.Nodes != 3 || r.Joined != 4 || r.WithoutMedia != 0 || r.Delivered < 0.9 {
			return fmt.Sprintf("%d nodes, %d joined, %d without media, %v delivered", r.Nodes, r.Joined, r.WithoutMedia, r.Delivered)
		}
		return ""
	})
}

// Subscribers take a way and a socket in turn, and coturn where it is installed.
func TestWayIsCompared(t *testing.T) {
	steady.Measure(t, late, func() string {
		r := measureWith(t, "--publishers", "1", "--subscribers", "2", "--way", "turn-tls", "--duration", "1s", "--warmup", "1s")
		c := r.Way
		if r.Joined != 3 || r.WithoutMedia != 0 || c == nil {
			return fmt.Sprintf("%d joined, %d without media, compared: %+v", r.Joined, r.WithoutMedia, c)
		}
		if *r.NodeCPU <= 0 || c.Direct <= 0 || c.OfDirect <= 0 || c.Delivered < 0.5 { // the node is still learning what the paths carry
			return fmt.Sprintf("compared: %+v", c)
		}
		if _, err := exec.LookPath("turnserver"); err == nil && (c.Coturn == nil || *c.Coturn <= 0 || *c.CoturnNode <= 0) {
			t.Errorf("coturn was not measured: %+v", c)
		}
		if table := wayTable([]*result{r}); !strings.Contains(table, "| `1x2` |") {
			t.Errorf("table %q", table)
		}
		return ""
	})
}

func TestAllocations(t *testing.T) {
	steady.Measure(t, late, func() string {
		r := measureWith(t, "--idle", "25", "--duration", "1s")
		a := r.Allocations
		if r.Joined != 3 || a == nil || a.Idle != 25 || a.Failed > 0 || a.Opened < 10 || a.PerCore <= 0 || a.CPU <= 0 {
			return fmt.Sprintf("%d joined, allocations: %+v", r.Joined, a)
		}
		if table := allocationTable([]*result{r}); !strings.Contains(table, "25 idle") {
			t.Errorf("table %q", table)
		}
		return ""
	})
}

// TestScaleCurve: what a second node costs beside its subscribers is missing in what
// the two carry.
func TestScaleCurve(t *testing.T) {
	steps := make([]step, 2)
	for _, m := range []struct {
		nodes int
		cpu   float64
	}{{1, 9}, {2, 13}, {2, 12}, {1, 11}} {
		r := &result{Scenario: scenario{Subscribers: 60 * m.nodes}, NodeCPU: &m.cpu, Delivered: 1 - m.cpu/1000, LatencyP50: m.cpu, LatencyP99: 2 * m.cpu}
		steps[m.nodes-1].add(m.nodes, r)
	}
	finish(steps)
	want := []step{{1, 60, 10, 1, 0.989, 11, 22}, {2, 120, 12.5, 1.6, 0.987, 13, 26}}
	if !slices.Equal(steps, want) {
		t.Errorf("got %+v, want %+v", steps, want)
	}
	if table := scaleTable([]*result{{Scale: steps}}); !strings.Contains(table, "| 2 | 120 | 12.50 | **1.60** | 98.70 % | 13.00 / 26.00 |") {
		t.Errorf("table %q", table)
	}
}

func TestBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"--publishers 0":                            "0 publishers",
		"--subscribers 0":                           "nobody receives",
		"--video=false":                             "neither video nor audio",
		"--scenario nonsense":                       `"nonsense"`,
		"--sample 2000":                             "--sample 2000",
		"--way pigeon":                              "pigeon",
		"--way turn-tls --mesh":                     "turn-tls",
		"--idle -1":                                 "-1 idle",
		"--alone -1":                                "-1 join alone",
		"--duration 1ms":                            "1ms",
		"--nodes ws://127.0.0.1:1 --pids x":         `"x"`,
		"--nodes ws://127.0.0.1:1 --mesh":           "--mesh",
		"extra":                                     `"extra"`,
		"--bin /nonexistent/domicile":               "/nonexistent/domicile",
		"--nodes ws://127.0.0.1:1 --pids 999999999": "no publisher",
	} {
		err := load(t.Context(), append(strings.Fields(line), "--quiet"), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", line, err, want)
		}
	}
}

// Who joins alone, then all at once; the table of the results is renewed.
func TestJoinsAloneAndAtOnce(t *testing.T) {
	dir := t.TempDir()
	readme := filepath.Join(dir, "README.md")
	if err := os.WriteFile(readme, []byte("before\n"+tableBegins+"\nold\n"+tableEnds+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	steady.Measure(t, late, func() string {
		r := measureWith(t, "--scenario", "join-50", "--arrivals", "1ns", "--duration", "1s", "--warmup", "1s", "--floor=false", "--record", "--results", dir)
		if r.Joined != 51 || r.WithoutMedia != 0 || r.AloneP50 == nil || *r.AloneP50 <= 0 || r.FirstP50 <= 0 {
			return fmt.Sprintf("%d joined, %d without media, first media after %v alone, %v at once", r.Joined, r.WithoutMedia, r.AloneP50, r.FirstP50)
		}
		return ""
	})
	b, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); !strings.Contains(s, "| `join-50` |") || strings.Contains(s, "old") || !strings.HasPrefix(s, "before") || !strings.HasSuffix(s, "after\n") {
		t.Errorf("the table reads %q", s)
	}
	if err := os.WriteFile(readme, []byte(tableBegins), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeTable(dir); err == nil {
		t.Error("a table without an end was written")
	}
}

// Every place in a frame is timed, however many subscribers there are.
func TestSampleSharesNoFactorWithFrames(t *testing.T) {
	for _, s := range append(slices.Clone(scenarios), largeScenarios...) {
		n := s.sample()
		if packets, _ := s.frame(); n < 16 || n > maxSample || n%2 == 0 || n%3 == 0 || int(n)%packets == 0 {
			t.Errorf("%s: one in %d", s.Name, n)
		}
	}
}

func TestScenarioTimes(t *testing.T) {
	s := scenario{Arrivals: time.Minute}.timed(scenario{Warmup: time.Second})
	if s.Arrivals != time.Minute || s.Warmup != time.Second || s.Duration != defaultDuration {
		t.Errorf("%+v", s)
	}
}

// TestCostOfRecording: what a node does beside recording is not what recording costs.
func TestCostOfRecording(t *testing.T) {
	r := &run{scenario: scenario{Publishers: 10, Subscribers: 5, Rooms: 5, Recorded: true}}
	r.recording.Store(true)
	r.measuring.Store(true)
	r.timed(5 * time.Millisecond)
	without := &phase{took: 10 * time.Second, nodes: 4 * time.Second, others: time.Second}
	with := &phase{packets: packets{sent: 21_000, received: 10_500}, took: 10 * time.Second, nodes: 5 * time.Second, others: 3 * time.Second, written: 25_000_000}
	c, err := r.costs(&result{LatencyP50: 1, LatencyP99: 2}, without, with)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cores != 0.1 || c.Ratio != 1.25 || c.Others != 0.2 || c.TrackMbit != 2 || c.WrittenMbit != 20 || c.Delivered != 0.5 || c.AddedP99 < 2.7 || c.FileSystem == "" {
		t.Errorf("%+v", c)
	}
	if table := recordingTable([]*result{{NodeCores: new(0.4), Recording: c}}); !strings.Contains(table, "| 10 tracks of 2.00 Mbit/s | 0.40 | **0.100** |") {
		t.Errorf("table %q", table)
	}
	if n, err := writtenBytes(os.Getpid()); err != nil || n <= 0 {
		t.Errorf("this process wrote %d bytes: %v", n, err)
	}
}

func TestProcessTimeGrows(t *testing.T) {
	before, err := processTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
	}
	after, err := processTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("CPU time went from %v to %v (%v)", before, after, err)
	}
	if _, err := processTime(1 << 30); err == nil {
		t.Error("a process that does not exist has CPU time")
	}
}

func TestRecordNumbersResultsOfOneDay(t *testing.T) {
	dir := t.TempDir()
	r := &result{Scenario: scenario{Name: "1x1"}, Machine: machine.Machine{At: "2026-01-02T03:04:05Z"}}
	for _, want := range []string{"2026-01-02-1x1.json", "2026-01-02-1x1-2.json"} {
		path, err := record(dir, r)
		if err != nil || filepath.Base(path) != want {
			t.Errorf("recorded as %q (%v), want %q", path, err, want)
		}
	}
	if _, err := record(filepath.Join(dir, "missing"), r); err == nil {
		t.Error("a result was recorded in a directory that does not exist")
	}
}
