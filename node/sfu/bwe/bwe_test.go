package bwe

import (
	"testing"
	"time"
)

func TestBottleneckComesAndGoes(t *testing.T) {
	s := newSim(1, path{rate: steps(0, 3e6, 10, 300e3, 20, 3e6), delay: 25 * time.Millisecond,
		jitter: 2 * time.Millisecond, queue: 500 * time.Millisecond}, elastic(5e6)).run(30 * time.Second)
	if d := s.reached(10*time.Second, func(e float64) bool { return e < 300e3 }); d > 1200*time.Millisecond {
		t.Errorf("fell to 300 kbit/s in %v", d)
	}
	if d := s.reached(20*time.Second, func(e float64) bool { return e > 2e6 }); d > 5*time.Second {
		t.Errorf("came back in %v", d)
	}
	if t.Failed() {
		s.print(t, 5)
	}
}

func TestSentDoesNotAllocate(t *testing.T) {
	e, now, seq := New(Config{}), simEpoch, uint16(0)
	if n := testing.AllocsPerRun(5000, func() {
		seq++
		now = now.Add(time.Millisecond)
		e.Sent(seq, 1200, now)
	}); n != 0 {
		t.Errorf("%v allocations per Sent", n)
	}
}
