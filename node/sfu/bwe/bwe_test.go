package bwe

import (
	"testing"
	"time"
)

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
