package relay

import (
	"testing"
	"time"
)

// A peer that answers what it was not asked, or twice, or guesses, measures
// nothing: only what it has received can be answered.
func TestHeartbeatsCannotBeAnsweredEarly(t *testing.T) {
	var h heart
	at := time.Unix(1000, 0)
	first := h.token(at)
	second := h.token(at.Add(time.Millisecond))
	for _, guess := range []uint64{0, 1, first + 1, second + 1, first ^ second, uint64(at.UnixNano())} {
		h.pong(guess, at.Add(2*time.Millisecond))
	}
	if h.least.Load() != 0 || h.rtt.Load() != 0 {
		t.Fatal("a guess counts")
	}
	h.pong(first, at.Add(80*time.Millisecond))
	h.pong(first, at.Add(80*time.Millisecond))
	h.pong(second, at.Add(91*time.Millisecond))
	h.pong(second, at)
	if got := time.Duration(h.least.Load()); got != 80*time.Millisecond {
		t.Errorf("the least is %s", got)
	}
	seen := map[uint64]bool{}
	for range 10_000 {
		token := h.token(at)
		if token == 0 || seen[token] {
			t.Fatal("a token comes twice")
		}
		seen[token] = true
	}
	late := h.token(at)
	for range outstanding {
		h.token(at)
	}
	h.pong(late, at)
	if got := time.Duration(h.least.Load()); got != 80*time.Millisecond {
		t.Errorf("an answer to what is forgotten counts: %s", got)
	}
}
