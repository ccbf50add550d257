package alloc

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// limiterSlots is how many sources a limiter tells apart: 64 KiB, whoever comes.
// Sources that fall into one slot share its allowance; which do is not to be
// foreseen from outside.
const limiterSlots = 8192

// limiter grants each source so many events in a second, in a table that does
// not grow. A slot holds when its allowance is whole again (GCRA: a bucket kept
// as one number).
type limiter struct {
	every time.Duration // for each event
	burst time.Duration // events at once, times every
	seed  maphash.Seed
	slots [limiterSlots]atomic.Int64 // ns of Unix time
}

func newLimiter(perSecond, burst int, seed maphash.Seed) *limiter {
	every := time.Second / time.Duration(perSecond)
	return &limiter{every: every, burst: time.Duration(burst) * every, seed: seed}
}

// allow counts one event of a source, or refuses it. When several come at the
// same instant one of them may not be counted.
func (l *limiter) allow(now time.Time, source netip.Prefix) bool {
	slot := &l.slots[maphash.Comparable(l.seed, source)%limiterSlots]
	was, at := slot.Load(), now.UnixNano()
	whole := max(was, at) + int64(l.every)
	if whole-at > int64(l.burst) {
		return false
	}
	slot.CompareAndSwap(was, whole)
	return true
}
