package main

import (
	"bytes"
	"encoding/json"
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
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}), goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

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
	dir := t.TempDir()
	// Some seconds, in which the node learns that the paths carry two cameras.
	r := measureWith(t, "--publishers", "2", "--subscribers", "3", "--meet", "--audio", "--floor=false", "--warmup", "4s", "--record", "--results", dir)
	if r.Joined != 5 || r.Failed != 0 || r.WithoutMedia != 0 {
		t.Errorf("%d joined, %d failed, %d without media; want 5, 0, 0", r.Joined, r.Failed, r.WithoutMedia)
	}
	if r.SentPPS < 300 || r.SentPPS > 600 { // 460
		t.Errorf("%v packets/s published, want 460", r.SentPPS)
	}
	if r.Delivered < 0.9 {
		t.Errorf("%v of the packets delivered, want nearly all", r.Delivered)
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
}

func TestMesh(t *testing.T) {
	r := measureWith(t, "--publishers", "1", "--subscribers", "3", "--mesh", "--floor=false")
	if r.Nodes != 3 || r.Joined != 4 || r.WithoutMedia != 0 || r.Delivered < 0.9 {
		t.Errorf("%d nodes, %d joined, %d without media, %v delivered", r.Nodes, r.Joined, r.WithoutMedia, r.Delivered)
	}
}

func TestBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"--publishers 0":                            "0 publishers",
		"--subscribers 0":                           "nobody receives",
		"--video=false":                             "neither video nor audio",
		"--scenario nonsense":                       `"nonsense"`,
		"--sample 2000":                             "--sample 2000",
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
	r := measureWith(t, "--scenario", "join-50", "--arrivals", "1ns", "--floor=false", "--record", "--results", dir)
	if r.Joined != 51 || r.WithoutMedia != 0 || r.AloneP50 == nil || *r.AloneP50 <= 0 || r.FirstP50 <= 0 {
		t.Errorf("%d joined, %d without media, first media after %v alone, %v at once", r.Joined, r.WithoutMedia, r.AloneP50, r.FirstP50)
	}
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
		if n < 16 || n > maxSample || n%2 == 0 || n%3 == 0 {
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
