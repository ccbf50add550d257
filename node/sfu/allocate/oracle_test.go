package allocate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The slow oracle tries every combination of steps. The best is the one that is
// the greatest, letter by letter, in what the rules care for, in their order: does
// the most important picture move, the second, …; then, class by class, does
// the first have step 1, the second, …, step 2, …
//
// It knows no time: it is right for pictures that are all new.
func oracle(wants []Want, budget float64) (best []int) {
	tracks := make([]track, len(wants))
	order := make([]int, len(wants))
	for i := range wants {
		tracks[i], order[i] = newTrack(&wants[i]), i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		if c := compareClass(&wants[i], &wants[j]); c != 0 {
			return c
		}
		return strings.Compare(wants[i].ID, wants[j].ID)
	})
	steps := make([]int, len(wants))
	var letters string
	var try func(n int, total float64)
	try = func(n int, total float64) {
		if total > budget {
			return
		}
		if n == len(wants) {
			if l := spell(wants, tracks, order, steps); best == nil || l > letters {
				best, letters = slices.Clone(steps), l
			}
			return
		}
		for s := none; s < tracks[n].n; s++ {
			steps[n] = s
			try(n+1, total+tracks[n].cost(s))
		}
	}
	try(0, 0)
	for i := range wants {
		if best[i] != none || tracks[i].unknown {
			return best
		}
	}
	// Nobody moves: the cheapest does.
	cheapest := none
	for _, i := range order {
		if tracks[i].n > 0 && (cheapest == none || tracks[i].cost(0) < tracks[cheapest].cost(0)) {
			cheapest = i
		}
	}
	if cheapest != none {
		best[cheapest] = 0
	}
	return best
}

func spell(wants []Want, tracks []track, order, steps []int) string {
	var b strings.Builder
	for _, i := range order {
		b.WriteByte("01"[min(steps[i]+1, 1)])
	}
	for n := 0; n < len(order); {
		end := n + 1
		for end < len(order) && compareClass(&wants[order[n]], &wants[order[end]]) == 0 {
			end++
		}
		for k := 1; k < maxSteps; k++ {
			for _, i := range order[n:end] {
				b.WriteByte("01"[btoi(steps[i] >= k)])
			}
		}
		n = end
	}
	return b.String()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func anyRates(rng *rand.Rand) (r Rates) {
	rate := 0.0
	for s := range r {
		if rng.IntN(4) == 0 {
			continue
		}
		rate = rate/2 + 10e3 + rng.Float64()*200e3
		for t := range 1 + rng.IntN(2) {
			r[s][t] = rate
			rate += rng.Float64() * 100e3
		}
	}
	return r
}

func anyWants(rng *rand.Rand, n int) []Want {
	wants := make([]Want, n)
	for i := range wants {
		wants[i] = Want{ID: fmt.Sprint(rng.IntN(100), "-", i), Screen: rng.IntN(4) == 0, Priority: rng.IntN(2), Max: uint8(rng.IntN(3)),
			Rates: anyRates(rng), Paused: rng.IntN(8) == 0}
	}
	return wants
}

func TestOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 3000 {
		a := Allocator{Headroom: 1e-12}
		wants := anyWants(rng, 1+rng.IntN(4))
		budget := rng.Float64() * 1.2e6
		got := a.Plan(nil, Input{Budget: budget, Wants: wants, Now: epoch})
		want := oracle(wants, budget)
		for i, g := range got {
			if a.tracks[i].step != want[i] {
				t.Fatalf("budget %.0f\n%+v\ngives %+v\nsteps %v", budget, wants, g, want)
			}
		}
		// More than what is wanted is not wanted, and less does not do.
		if next, all := a.More(); next > 0 {
			fresh := func(budget float64) (total float64) {
				b := Allocator{Headroom: 1e-12}
				for _, g := range b.Plan(nil, Input{Budget: budget, Wants: wants, Now: epoch}) {
					total += g.Rate
				}
				return total
			}
			if next > all*(1+1e-9) || next <= budget*(1-1e-9) && got[0].Reason != Last && !hasLast(got) {
				t.Fatalf("budget %.0f, next raise %.0f, everything %.0f", budget, next, all)
			}
			if most := fresh(all * (1 + 1e-9)); most < all*(1-1e-9) {
				t.Fatalf("everything is said to need %.0f, and then takes %.0f", all, most)
			}
		}
	}
}

func hasLast(grants []Grant) bool {
	return slices.ContainsFunc(grants, func(g Grant) bool { return g.Reason == Last })
}

// TestOverTime: budgets, rates and wishes that change at random, and what must
// hold at every moment.
func TestOverTime(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var a Allocator
		wants, now, budget := anyWants(rng, 1+rng.IntN(6)), epoch, 500e3
		for range 300 {
			now = now.Add(time.Duration(rng.IntN(400)) * time.Millisecond)
			budget = max(budget*(0.7+0.62*rng.Float64()), 20e3)
			if rng.IntN(10) == 0 {
				w := &wants[rng.IntN(len(wants))]
				w.Rates, w.Max, w.Paused = anyRates(rng), uint8(rng.IntN(3)), rng.IntN(6) == 0
			}
			in := Input{Budget: budget, Overuse: rng.IntN(6) == 0, Wants: wants, Now: now}
			grants := a.Plan(nil, in)
			holds(t, &a, in, grants)
			for i := range wants {
				wants[i].Current = grants[i]
			}
		}
	}
}

func holds(t *testing.T, a *Allocator, in Input, grants []Grant) {
	t.Helper()
	total, visible, moving := 0.0, 0, 0
	for i, g := range grants {
		w, tr := &in.Wants[i], &a.tracks[i]
		total += g.Rate
		if !w.Paused {
			visible++
		}
		if !g.Pause {
			moving++
		}
		raised := tr.step > tr.held && tr.held != none
		switch {
		case w.Paused && (!g.Pause || g.Reason != Client):
			t.Fatalf("paused by the client, gets %+v", g)
		case g.Spatial > w.Max:
			t.Fatalf("%d is shown, gets %+v", w.Max, g)
		case raised && in.Overuse:
			t.Fatalf("raised while overused: %+v after %+v", g, w.Current)
		case raised && !tr.wish && in.Budget < total:
			t.Fatalf("raised beyond the budget: %+v", g)
		}
	}
	if visible > 0 && moving == 0 {
		t.Fatalf("no picture moves: %+v", grants)
	}
	if total > in.Budget && !hasLast(grants) {
		t.Fatalf("%.0f of %.0f bit/s: %+v", total, in.Budget, grants)
	}
	// Nobody is paused who would fit beside the lowest steps of those who move
	// and are less important, unless it has to wait.
	for i, g := range grants {
		if g.Reason != NoRoom || a.tracks[i].held == none {
			continue
		}
		need := a.tracks[i].cost(0)
		for j := range grants {
			if !grants[j].Pause && compareClass(&in.Wants[j], &in.Wants[i]) <= 0 {
				need += a.tracks[j].cost(0)
			}
		}
		if need <= in.Budget {
			t.Fatalf("%+v paused %s, whose lowest step needs %.0f of %.0f", grants, in.Wants[i].ID, need, in.Budget)
		}
	}
}

// TestNoFlapping: a budget that swings about what a raise needs.
func TestNoFlapping(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var a Allocator
	wants := []Want{{ID: "a", Max: 2, Rates: simulcast}, {ID: "b", Max: 2, Rates: simulcast}}
	var before string
	changes := 0
	for i := range 600 { // two minutes
		budget := 1000e3 * (0.9 + 0.25*rng.Float64())
		grants := a.Plan(nil, Input{Budget: budget, Wants: wants, Now: epoch.Add(time.Duration(i) * 200 * time.Millisecond)})
		now := ""
		for i := range wants {
			wants[i].Current = grants[i]
			now += fmt.Sprint(grants[i].Spatial, grants[i].Temporal, grants[i].Pause)
		}
		if now != before {
			before = now
			changes++
		}
	}
	if changes > 20 {
		t.Errorf("%d changes in two minutes", changes)
	}
	t.Logf("%d changes in two minutes of a budget between 900 and 1150 kbit/s", changes)
}
