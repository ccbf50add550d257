package allocate

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// simulcast is a camera of 150, 500 and 1700 kbit/s with three temporal layers,
// slides a screen share of 400 and 1500 kbit/s.
var (
	simulcast = Rates{{70e3, 110e3, 150e3}, {230e3, 360e3, 500e3}, {800e3, 1200e3, 1700e3}}
	slides    = Rates{{120e3, 200e3, 400e3}, {600e3, 900e3, 1500e3}}
)

var update = flag.Bool("update", false, "write what the transcripts say now")

var epoch = time.Unix(1700000000, 0)

// TestTranscripts runs testdata/*.txt. A line is a wish or a plan; what begins
// with ">" is what the plan before has to say.
//
//	camera bob [max 1] [priority 2]     a new picture, or another wish of it
//	screen ann
//	pause bob | resume bob | leave bob | rates bob none|known
//	at 1.5 budget 700 [overused]        seconds, kbit/s
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcript(t, string(raw))
			if *update {
				err = os.WriteFile(file, []byte(got), 0o644)
			}
			if err != nil || !*update && got != string(raw) {
				t.Errorf("says\n%s%v", got, err)
			}
		})
	}
}

func transcript(t *testing.T, script string) string {
	var out strings.Builder
	var a Allocator
	var wants []Want
	find := func(id string) *Want {
		for i := range wants {
			if wants[i].ID == id {
				return &wants[i]
			}
		}
		wants = append(wants, Want{ID: id, Max: 2, Rates: simulcast})
		return &wants[len(wants)-1]
	}
	for _, line := range strings.SplitAfter(script, "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != ">" {
			out.WriteString(line)
		}
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || f[0] == ">" {
			continue
		}
		switch f[0] {
		case "camera", "screen":
			w := find(f[1])
			if w.Screen = f[0] == "screen"; w.Screen {
				w.Rates = slides
			}
			for i := 2; i+1 < len(f); i += 2 {
				n, _ := strconv.Atoi(f[i+1])
				switch f[i] {
				case "max":
					w.Max = uint8(n)
				case "priority":
					w.Priority = n
				}
			}
		case "pause", "resume":
			find(f[1]).Paused = f[0] == "pause"
		case "rates":
			find(f[1]).Rates = map[string]Rates{"none": {}, "known": simulcast}[f[2]]
		case "leave":
			for i := range wants {
				if wants[i].ID == f[1] {
					wants = append(wants[:i], wants[i+1:]...)
					break
				}
			}
		case "at":
			at, err1 := strconv.ParseFloat(f[1], 64)
			budget, err2 := strconv.ParseFloat(f[3], 64)
			if err1 != nil || err2 != nil {
				t.Fatalf("line %q", line)
			}
			in := Input{Budget: budget * 1e3, Overuse: len(f) > 4, Wants: wants, Now: epoch.Add(time.Duration(at * float64(time.Second)))}
			said := a.Plan(nil, in)
			total := 0.0
			for i, g := range said {
				wants[i].Current = g
				total += g.Rate
				what := fmt.Sprintf("%d:%d %.0f", g.Spatial, g.Temporal, g.Rate/1e3)
				if g.Pause {
					what = "-"
				}
				fmt.Fprintf(&out, "> %-4s %-9s %s\n", wants[i].ID, what, g.Reason)
			}
			next, all := a.More()
			fmt.Fprintf(&out, "> %.0f used; the next raise needs %.0f, everything %.0f\n", total/1e3, next/1e3, all/1e3)
		default:
			t.Fatalf("line %q", line)
		}
	}
	return out.String()
}

func TestValuesThatCannotBe(t *testing.T) {
	var a Allocator
	bad := Rates{{math.NaN(), -1, math.Inf(1), 100e3}, {math.Inf(-1)}}
	for _, budget := range []float64{math.NaN(), math.Inf(-1), -1, 0, math.Inf(1)} {
		got := a.Plan(nil, Input{Budget: budget, Now: epoch, Wants: []Want{
			{ID: "a", Max: 255, Rates: bad}, {ID: "a", Max: 255, Priority: -1 << 62, Rates: simulcast, Current: Grant{Spatial: 255, Temporal: 255, Reason: Full}},
		}})
		if len(got) != 2 || got[0].Pause && got[1].Pause {
			t.Errorf("budget %v: %+v", budget, got)
		}
		for _, g := range got {
			if g.Spatial >= MaxSpatial || g.Temporal >= MaxTemporal || !(g.Rate >= 0) || math.IsInf(g.Rate, 0) {
				t.Errorf("budget %v: %+v", budget, g)
			}
		}
	}
	if got := a.Plan(nil, Input{Budget: 1e6, Now: epoch}); len(got) != 0 {
		t.Errorf("nobody wants anything: %+v", got)
	}
	if next, all := a.More(); next != 0 || all != 0 {
		t.Errorf("nobody wants anything, and more is %v, %v", next, all)
	}
}

// TestLadders: what is dropped first.
func TestLadders(t *testing.T) {
	flat := Rates{{100e3, 100e3, 100e3, 100e3}, {400e3, 400e3, 400e3, 400e3}}
	halves := Rates{{60e3, 100e3, 100e3, 100e3}, {200e3, 400e3, 400e3, 400e3}}
	tests := []struct {
		name string
		want Want
		down string
	}{
		{"camera", Want{Max: 2, Rates: simulcast}, "2:2 2:1 1:2 1:1 0:2 0:1 0:0"},
		{"camera shown small", Want{Max: 0, Rates: simulcast}, "0:2 0:1 0:0"},
		{"screen share", Want{Max: 2, Screen: true, Rates: slides}, "1:2 1:1 1:0 0:0"},
		{"screen share of three sizes", Want{Max: 2, Screen: true, Rates: simulcast}, "2:2 2:1 2:0 1:0 0:0"},
		{"no temporal layers", Want{Max: 2, Rates: flat}, "1:3 0:3"},
		{"two temporal layers", Want{Max: 2, Rates: halves}, "1:3 1:0 0:3 0:0"},
		{"the middle layer is not sent", Want{Max: 2, Rates: Rates{simulcast[0], {}, simulcast[2]}}, "2:2 2:1 0:2 0:1 0:0"},
		{"the lowest layer is not sent", Want{Max: 2, Rates: Rates{{}, simulcast[1]}}, "1:2 1:1"},
		{"slides that cost nothing large", Want{Max: 1, Rates: Rates{simulcast[1], simulcast[0]}}, "1:2 1:1"},
		{"nothing is known", Want{Max: 2}, ""},
	}
	for _, tt := range tests {
		tr := newTrack(&tt.want)
		var down []string
		for i := tr.n - 1; i >= 0; i-- {
			down = append(down, fmt.Sprintf("%d:%d", tr.steps[i].spatial, tr.steps[i].temporal))
		}
		if got := strings.Join(down, " "); got != tt.down {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.down)
		}
	}
}

func TestPlanDoesNotAllocate(t *testing.T) {
	var a Allocator
	wants := make([]Want, 50)
	for i := range wants {
		wants[i] = Want{ID: strconv.Itoa(i), Screen: i == 7, Priority: i % 3, Max: 2, Rates: simulcast}
	}
	var grants []Grant
	now, n := epoch, 0
	plan := func() {
		now, n = now.Add(200*time.Millisecond), n+1
		grants = a.Plan(grants[:0], Input{Budget: float64(1+n%7) * 3e6, Wants: wants, Now: now})
		for i := range grants {
			wants[i].Current = grants[i]
		}
		a.More()
	}
	plan()
	if got := testing.AllocsPerRun(200, plan); got != 0 {
		t.Errorf("%v allocations per Plan", got)
	}
}

func BenchmarkPlan(b *testing.B) {
	var a Allocator
	wants := make([]Want, 25)
	for i := range wants {
		wants[i] = Want{ID: strconv.Itoa(i), Max: 2, Rates: simulcast}
	}
	var grants []Grant
	now := epoch
	for b.Loop() {
		now = now.Add(200 * time.Millisecond)
		grants = a.Plan(grants[:0], Input{Budget: 9e6, Wants: wants, Now: now})
		for i := range grants {
			wants[i].Current = grants[i]
		}
	}
}
