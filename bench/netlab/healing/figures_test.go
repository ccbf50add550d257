//go:build linux

package healing

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/machine"
)

// What is to be reached at the 99th percentile.
const (
	healGoal = 500 * ms
	backGoal = 2 * time.Second
)

// round is what a failure did.
type round struct {
	heal   []missed // those whose tracks came over the node that failed
	back   []missed // its own attendees
	beside []missed // those whose tracks came another way
	after  []missed // all who stayed, when it came back
	stall  time.Duration

	suspicions int // by all nodes of all others, while it lasted
}

type missed struct {
	what  string
	pause time.Duration
	moves int
}

func (r round) String() string {
	return fmt.Sprintf("healed %s, back %s, beside %s, after %s, %d suspicions, measuring process stood still %s",
		longest(r.heal), longest(r.back), longest(r.beside), longest(r.after), r.suspicions, r.stall.Round(ms))
}

func longest(list []missed) time.Duration {
	var most time.Duration
	for _, m := range list {
		most = max(most, m.pause)
	}
	return most.Round(ms)
}

// figures are what is known of each failure.
type figures map[string]*figure

type figure struct {
	Times   int `json:"times"`
	Stalled int `json:"of_them_not_counted_because_the_measuring_process_stood_still"`

	Suspicions int `json:"suspicions_at_least"` // how often a node took another for one that may be dead
	Moved      int `json:"attendees_who_went_to_another_node"`

	Heal   pauses   `json:"tracks_over_it_flow_again"`
	Back   pauses   `json:"its_attendees_are_back"`
	Beside pauses   `json:"longest_pause_of_tracks_that_came_another_way"`
	After  pauses   `json:"longest_pause_when_it_comes_back"`
	Missed []string `json:"goals_missed"`
}

// pauses are times without a packet.
type pauses struct {
	Samples int       `json:"samples"`
	P50     float64   `json:"p50_ms"`
	P90     float64   `json:"p90_ms"`
	P99     float64   `json:"p99_ms"`
	Max     float64   `json:"max_ms"`
	All     []float64 `json:"all_ms"`
}

func (p *pauses) take(list []missed) {
	for _, m := range list {
		p.All = append(p.All, float64(m.pause.Round(ms)/ms))
	}
	slices.Sort(p.All)
	at := func(q float64) float64 { return p.All[min(int(q*float64(len(p.All))), len(p.All)-1)] }
	if p.Samples = len(p.All); p.Samples > 0 {
		p.P50, p.P90, p.P99, p.Max = at(0.5), at(0.9), at(0.99), at(1)
	}
}

func (f figures) take(name string, r round) {
	if f[name] == nil {
		f[name] = &figure{}
	}
	g := f[name]
	g.Times++
	if r.stall > *stall {
		g.Stalled++
		return
	}
	g.Suspicions += r.suspicions
	for _, m := range slices.Concat(r.heal, r.back, r.beside) {
		g.Moved += m.moves
	}
	g.Heal.take(r.heal)
	g.Back.take(r.back)
	g.Beside.take(r.beside)
	g.After.take(r.after)
	for _, list := range []struct {
		what string
		all  []missed
		goal time.Duration
	}{{"heals", r.heal, healGoal}, {"is back", r.back, backGoal}, {"comes another way", r.beside, healGoal}, {"stays", r.after, healGoal}} {
		for _, m := range list.all {
			if m.pause > list.goal {
				g.Missed = append(g.Missed, fmt.Sprintf("%s: %s after %s", m.what, list.what, m.pause.Round(ms)))
			}
		}
	}
}

// judge tells what was measured, and fails where nobody was helped: the goals are for a
// machine that has nothing else to do.
func (f figures) judge(t *testing.T) {
	t.Helper()
	for name, g := range f {
		t.Logf("%s, %d times: heals %v, back %v, beside %v, after %v", name, g.Times, g.Heal, g.Back, g.Beside, g.After)
		for _, m := range g.Missed {
			t.Logf("%s: goal missed: %s", name, m)
		}
		if g.Times > g.Stalled && (g.Heal.Samples == 0 && name != "source" || g.Back.Samples == 0) {
			t.Errorf("%s: nothing was measured", name)
		}
		if path := name == "loss" || name == "overtaking"; path && (g.Suspicions > 0 || g.Moved > 0) {
			t.Errorf("%s: %d suspicions though nobody failed, %d attendees moved", name, g.Suspicions, g.Moved)
		} else if name == "flap" && g.Suspicions == 0 { // the others may end the links that knew
			t.Errorf("%s: nobody was suspected", name)
		}
		if g.Heal.Max > 3000 || g.Back.Max > 8000 {
			t.Errorf("%s: flows again after %.0f ms, back after %.0f ms", name, g.Heal.Max, g.Back.Max)
		}
	}
}

func (p pauses) String() string {
	return fmt.Sprintf("%d: p50 %.0f p90 %.0f p99 %.0f max %.0f ms", p.Samples, p.P50, p.P90, p.P99, p.Max)
}

// write adds the figures to those in a file, if they are of the same code.
func (f figures) write(t *testing.T, path string) {
	t.Helper()
	type file struct {
		Machine machine.Machine `json:"machine"`
		Loads   []string        `json:"load_averages_after_each_piece"`
		Outcome figures         `json:"outcome"`
	}
	now := file{Machine: machine.Describe(time.Now(), "make bench-heal RECORD=1, in pieces: FOR=75s"), Outcome: f}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		now.Loads = []string{strings.TrimSpace(string(b))}
	}
	var before file
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &before) == nil {
		if before.Machine.Commit != now.Machine.Commit {
			t.Fatalf("%s is of commit %s, this is %s", path, before.Machine.Commit, now.Machine.Commit)
		}
		now.Loads = append(before.Loads, now.Loads...)
		for name, g := range before.Outcome {
			now.Outcome.add(name, g)
		}
	}
	b, err := json.MarshalIndent(now, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f figures) add(name string, g *figure) {
	to := f[name]
	if to == nil {
		f[name] = g
		return
	}
	to.Suspicions, to.Moved = to.Suspicions+g.Suspicions, to.Moved+g.Moved
	to.Times, to.Stalled, to.Missed = to.Times+g.Times, to.Stalled+g.Stalled, append(to.Missed, g.Missed...)
	for _, p := range [][2]*pauses{{&to.Heal, &g.Heal}, {&to.Back, &g.Back}, {&to.Beside, &g.Beside}, {&to.After, &g.After}} {
		p[0].All = append(p[0].All, p[1].All...)
		p[0].take(nil)
	}
}
