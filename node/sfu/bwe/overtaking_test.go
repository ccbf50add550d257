package bwe

import (
	"testing"
	"time"
)

// overtaking is a path on which each packet is late by chance, whatever was sent before
// it, and one in twenty is lost.
func overtaking(rate float64) path {
	return path{rate: constant(rate), delay: 25 * msec, jitter: 100 * msec, queue: 400 * msec, loss: 0.05}
}

// link is a sim whose estimator is that of a link between nodes, and hears so often.
func link(seed uint64, p path, src source, interval time.Duration) *sim {
	s := newSim(seed, p, src)
	s.e = New(Config{Start: 1e6, Min: 200e3, Max: 100e6, Bold: true})
	s.interval = interval
	return s
}

// TestOvertakingIsNoQueue: what is late by chance waits in no queue, and a path on which
// a camera has room keeps it.
func TestOvertakingIsNoQueue(t *testing.T) {
	for _, interval := range []time.Duration{20 * msec, 100 * msec} {
		for seed := uint64(1); seed <= 8; seed++ {
			s := link(seed, overtaking(20e6), elastic(2.5e6), interval).run(30 * time.Second)
			if f := s.between(5*time.Second, 30*time.Second); f.least < 2e6 {
				t.Errorf("feedback every %v, seed %d: down to %.0f kbit/s of 20 Mbit/s", interval, seed, f.least/1e3)
				s.print(t, 10)
			}
		}
	}
}

// TestQueueIsFoundBesideOvertaking: nor does it hide one.
func TestQueueIsFoundBesideOvertaking(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		s := link(seed, overtaking(3e6), elastic(5e6), 20*msec).run(30 * time.Second)
		f := s.between(5*time.Second, 30*time.Second)
		t.Logf("seed %d: %.0f %% used, queue %v, p95 %v, estimate %.0f to %.0f kbit/s", seed, 100*f.use, f.p50, f.p95, f.least/1e3, f.most/1e3)
		if f.p95 > 150*msec || f.use < 0.6 {
			t.Errorf("seed %d: %.0f %% used, p95 of the queue %v", seed, 100*f.use, f.p95)
			s.print(t, 5)
		}
	}
}

// heldUp is a path that keeps the order of packets: those behind one that is late are
// late with it, and come with it at once.
func heldUp(rate float64) path {
	p := overtaking(rate)
	p.ordered = true
	return p
}

// TestHeldUpIsNoQueue has a calm path become one that holds packets up: a camera that has
// room keeps it.
func TestHeldUpIsNoQueue(t *testing.T) {
	for _, interval := range []time.Duration{20 * msec, 100 * msec} {
		for seed := uint64(1); seed <= 16; seed++ {
			p := heldUp(20e6)
			p.jitter = 0
			s := link(seed, p, elastic(2.5e6), interval).run(10 * time.Second)
			s.p.jitter = 100 * msec
			s.run(35 * time.Second)
			if f := s.between(10*time.Second, 45*time.Second); f.least < 1.8e6 {
				t.Errorf("feedback every %v, seed %d: down to %.0f kbit/s of 20 Mbit/s", interval, seed, f.least/1e3)
				s.print(t, 10)
			}
		}
	}
}

// TestQueueIsFoundBesideHeldUp: nor does that hide a queue.
func TestQueueIsFoundBesideHeldUp(t *testing.T) {
	for seed := uint64(1); seed <= 8; seed++ {
		s := link(seed, heldUp(3e6), elastic(5e6), 20*msec).run(45 * time.Second)
		f := s.between(5*time.Second, 45*time.Second)
		t.Logf("seed %d: %.0f %% used, queue %v, p95 %v, estimate %.0f to %.0f kbit/s", seed, 100*f.use, f.p50, f.p95, f.least/1e3, f.most/1e3)
		if f.p95 > 200*msec || f.use < 0.6 {
			t.Errorf("seed %d: %.0f %% used, p95 of the queue %v", seed, 100*f.use, f.p95)
			s.print(t, 5)
		}
	}
}
