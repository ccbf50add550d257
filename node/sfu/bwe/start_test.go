package bwe

import (
	"math/rand/v2"
	"testing"
	"time"
)

// wire is a path that loses and delays, and has feedback every 10 ms.
type wire struct {
	e    *Estimator
	now  time.Time
	rng  *rand.Rand
	loss float64
	seq  uint16
	base uint16          // first that was not reported
	at   []time.Duration // when they came
	late []func()        // feedback on its way, one for each step
	deaf float64         // share of it that is lost
}

const wireStep, wireSteps = 10 * time.Millisecond, 4 // of feedback, and the round trip in them

// step sends a step's media at a rate, and padding if asked for.
func (w *wire) step(rate float64) {
	bytes := int(rate / 8 * wireStep.Seconds())
	for part := range 2 {
		now := w.now.Add(time.Duration(part) * wireStep / 2)
		w.e.Tick(now)
		plan, _ := w.e.Probe(now)
		for n := bytes/2 + plan.Bytes; n > 0; n -= 1200 {
			w.send(max(min(n, 1200), 50), now)
		}
	}
	w.now = w.now.Add(wireStep)
	base, at := w.base, w.at
	w.base, w.at = w.seq+1, nil
	lost := w.rng.Float64() < w.deaf
	w.late = append(w.late, func() {
		if !lost {
			w.e.Arrived(base, at, w.now)
		}
	})
	if len(w.late) > wireSteps {
		w.late[0]()
		w.late = w.late[1:]
	}
}

func (w *wire) send(bytes int, now time.Time) {
	w.seq++
	w.e.Sent(w.seq, bytes, now)
	at := now.Sub(simEpoch) + time.Minute
	if w.rng.Float64() < w.loss {
		at = -1
	}
	w.at = append(w.at, at)
}

func newWire(seed uint64, cfg Config) *wire {
	return &wire{e: New(cfg), now: simEpoch, rng: rand.New(rand.NewPCG(seed, 9)), base: 1}
}

// A link that lost some of little, while it was idle, takes what arrives for proven once
// it is busy. Before, the bound of then held it for as long as that took to rise by 5 %
// a second.
func TestBoundOfATrickleGoes(t *testing.T) {
	for seed := range uint64(20) {
		w := newWire(seed, Config{Start: 5e6, Max: 10e9, Bold: true})
		w.e.SetDemand(0)
		w.loss = 0.05
		for range 1000 {
			w.step(40e3)
		}
		if w.e.loss.bound == 0 {
			t.Fatalf("seed %d: no bound", seed)
		}
		w.loss = 0.01
		for range 100 {
			w.step(16e6)
		}
		if got := w.e.Estimate(); got < 15e6 {
			t.Errorf("seed %d: 16 Mbit/s arrive for a second: %s", seed, w.e.Explain())
		}
	}
}

// A probe is faster than what is sent anyway, and one that media overtook is judged by
// what media showed. Before, it was waited for until it was given up, again and again.
func TestProbeBesideMoreMedia(t *testing.T) {
	w := newWire(1, Config{Start: 1e6})
	w.e.SetDemand(20e6)
	for range 150 {
		w.step(6e6)
	}
	if p := w.e.probe; w.e.Estimate() < 12e6 || p.failed > 0 {
		t.Errorf("6 Mbit/s are sent, and 20 wanted, for 1.5 s: %d of %d probes failed, %s", p.failed, p.count, w.e.Explain())
	}
}

// Neither one lost packet in twenty nor one lost feedback in ten fails a probe. Before, all
// of which nobody told counted as lost.
func TestLossFailsNoProbe(t *testing.T) {
	for seed := range uint64(60) {
		w := newWire(seed, Config{Start: 5e6, Max: 1e9, Bold: true})
		w.loss, w.deaf = 0.05, 0.1
		w.e.SetDemand(80e6)
		for range 60 {
			w.step(4e6)
		}
		if p := w.e.probe; p.failed > 0 || w.e.Estimate() < 15e6 {
			t.Errorf("seed %d: %d of %d probes failed, %s", seed, p.failed, p.count, w.e.Explain())
		}
	}
}
