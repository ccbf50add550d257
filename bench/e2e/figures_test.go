//go:build network

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/netlab/impair"
)

// condition is a network as it may be on a bad day. Each is measured for
// figureTime, on the viewer's side of the node and then on the publisher's.
type condition struct {
	name    string
	profile impair.Profile
}

const (
	path         = 20 * time.Millisecond // the delay of all conditions, one way
	figureTime   = 20 * time.Second
	recoveryTime = 40 * time.Second
)

var conditions = []condition{
	{"no impairment but 20 ms", impair.Profile{Delay: path}},
	{"150 ms, jitter 40 ms", impair.Profile{Delay: 150 * time.Millisecond, Jitter: 40 * time.Millisecond}},
	{"5 % late by 25 ms", impair.Profile{Delay: path, Reorder: 0.05, ReorderBy: 25 * time.Millisecond}},
	{"loss 1 %", impair.Profile{Delay: path, Loss: 0.01}},
	{"loss 5 %", impair.Profile{Delay: path, Loss: 0.05}},
	{"loss 20 %", impair.Profile{Delay: path, Loss: 0.2}},
	{"loss 5 % in runs of 5", impair.Profile{Delay: path, Loss: 0.05, Burst: 5}},
	{"300 kbit/s", impair.Profile{Delay: path, Bottleneck: impair.Constant(300e3), Queue: 15_000}},
	{"500 kbit/s for 5 s of 10", impair.Profile{Delay: path, Queue: 20_000,
		Bottleneck: []impair.Step{{Rate: 500e3, For: 5 * time.Second}, {Rate: impair.Unlimited, For: 5 * time.Second}}}},
	{"gone for 2 s of 10", impair.Profile{Delay: path, Queue: 1,
		Bottleneck: []impair.Step{{Rate: impair.Unlimited, For: 4 * time.Second}, {For: 2 * time.Second}, {Rate: impair.Unlimited, For: 4 * time.Second}}}},
}

// figures is what a viewer's browser measured under one condition.
type figures struct {
	Condition string   `json:"condition"`
	Side      string   `json:"impaired"` // whose path to the node
	FPS       float64  `json:"frames_per_second"`
	Height    int      `json:"height_at_the_end"`
	Freezes   int      `json:"freezes"`
	Frozen    float64  `json:"frozen_s"`
	Concealed float64  `json:"sound_concealed"` // share of the samples
	Recovery  *float64 `json:"recovery_s"`      // until the full picture moves again; null: not within 40 s
	Lost      uint64   `json:"packets_lost"`
	Dropped   uint64   `json:"packets_dropped_by_the_queue"`
}

// TestNetworkFigures measures what real browsers make of bad networks and writes
// it into bench/results.
func TestNetworkFigures(t *testing.T) {
	var all []figures
	for _, side := range []string{"viewer", "publisher"} {
		lab := netlab.NewImpaired(t)
		for _, c := range measureSide(t, lab, side) {
			all = append(all, c)
		}
	}
	writeFigures(t, all)
}

func measureSide(t *testing.T, lab *netlab.Lab, side string) (list []figures) {
	m := startProduction(t, lab.Host, productionNode{Name: "gate", Country: "DE", Roles: "origin,edge", HTTPS: 8443, Port: 7882})
	inside := map[bool]string{true: lab.Name}
	set := func(p impair.Profile) {
		if err := lab.Impair(p); err != nil {
			t.Fatal(err)
		}
	}
	set(conditions[0].profile)
	publisher := m.joinMediaAt(startBrowsers(t, inside[side == "publisher"]), lab.Host, "gate", "figures", "publisher", options{"dynacast": true}, "")
	viewer := m.joinMediaAt(startBrowsers(t, inside[side == "viewer"]), lab.Host, "gate", "figures", "viewer", nil, "")
	publisher.must(`await publishVideo({ simulcast: true, videoCodec: "vp8" }); await publishAudio()`, nil)
	if recovered(viewer) == nil {
		t.Fatalf("%s impaired: the picture did not come", side)
	}
	for _, c := range conditions {
		inBefore, outBefore := lab.Counts()
		set(c.profile)
		g := viewer.grows(figureTime)
		set(conditions[0].profile)
		f := figures{Condition: c.name, Side: side, FPS: float64(g.Frames) / figureTime.Seconds(), Height: g.Height, Freezes: g.Freezes,
			Frozen: g.Frozen, Concealed: g.Concealed / max(g.Samples, 1), Recovery: recovered(viewer)}
		in, out := lab.Counts()
		f.Lost = in.Lost + out.Lost - inBefore.Lost - outBefore.Lost
		f.Dropped = in.QueueFull + out.QueueFull - inBefore.QueueFull - outBefore.QueueFull
		list = append(list, f)
		line, _ := json.Marshal(f)
		t.Logf("%s", line)
	}
	return list
}

// recovered waits until the full picture moves, without a freeze and with whole
// sound, and returns how long that took; nil: too long.
func recovered(viewer *tab) *float64 {
	for began := time.Now(); time.Since(began) < recoveryTime; {
		at := time.Since(began).Seconds()
		if g := viewer.grows(time.Second); g.Height == 540 && g.Frames >= 12 && g.Freezes == 0 && g.Concealed < 0.02*g.Samples {
			return &at
		}
	}
	return nil
}

const results = "../results"

// The table of README.md lies between these lines.
const (
	networkBegins = "<!-- table of the network's figures: written by make bench-network -->"
	networkEnds   = "<!-- end of the network's figures -->"
)

func writeFigures(t *testing.T, all []figures) {
	t.Helper()
	m := machine.Describe(time.Now(), "make bench-network")
	b, err := json.MarshalIndent(map[string]any{"figures": all, "machine": m}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	day, _, _ := strings.Cut(m.At, "T")
	if err := os.WriteFile(filepath.Join(results, day+"-network.json"), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	readme := filepath.Join(results, "README.md")
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), networkBegins)
	_, after, ends := strings.Cut(rest, networkEnds)
	if !ok || !ends {
		t.Fatalf("%s lacks the lines %q and %q", readme, networkBegins, networkEnds)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "Measured %s at `%s`.\n\n", day, m.Commit)
	table.WriteString("| impaired path | condition | frames/s of 15 | height of 540 | freezes | frozen, s of 20 | sound made up | recovery, s |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, f := range all {
		recovery := "more than 40"
		if f.Recovery != nil {
			recovery = fmt.Sprintf("%.1f", *f.Recovery)
		}
		fmt.Fprintf(&table, "| %s | %s | %.1f | %d | %d | %.1f | %.1f %% | %s |\n", f.Side, f.Condition, f.FPS, f.Height, f.Freezes, f.Frozen, 100*f.Concealed, recovery)
	}
	if err := os.WriteFile(readme, []byte(before+networkBegins+"\n\n"+table.String()+"\n"+networkEnds+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
