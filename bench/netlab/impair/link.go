package impair

import (
	"math"
	"time"
)

// link is a bottleneck: one packet after the other, at a rate that changes by
// the profile's schedule.
type link struct {
	free    time.Time // when the last accepted packet is through
	waiting []waiting // accepted and not through, oldest first
	backlog int       // their bytes
}

type waiting struct {
	done time.Time
	size int
}

// serve takes a packet into the queue and returns when its last bit has passed;
// false if there is no room. A packet larger than the queue passes when nothing
// waits.
func (l *link) serve(p *Path, now time.Time, size int) (time.Time, bool) {
	l.expire(now)
	if len(p.profile.Bottleneck) == 0 {
		return now, true // what still waits under an older profile is not waited for
	}
	if len(l.waiting) > 0 && l.backlog+size > p.profile.Queue {
		return time.Time{}, false
	}
	start := now
	if len(l.waiting) > 0 {
		start = l.free
	}
	done, ok := p.finish(start, float64(size)*8)
	if !ok {
		return time.Time{}, false
	}
	if done.After(now) {
		l.free = done
		l.backlog += size
		l.waiting = append(l.waiting, waiting{done, size})
	}
	return done, true
}

// expire forgets what is through.
func (l *link) expire(now time.Time) {
	n := 0
	for n < len(l.waiting) && !l.waiting[n].done.After(now) {
		l.backlog -= l.waiting[n].size
		n++
	}
	l.waiting = append(l.waiting[:0], l.waiting[n:]...)
}

// finish returns when bits that begin at start have passed; false if they never
// do.
func (p *Path) finish(start time.Time, bits float64) (time.Time, bool) {
	i, left := p.step(start)
	for stalled := 0; ; i, left = p.next(i) {
		rate := p.profile.Bottleneck[i].Rate
		if math.IsInf(rate, 1) {
			return start, true
		}
		// Not a time.Duration yet: a byte at 1 bit/year would overflow it.
		if needs := bits / rate * float64(time.Second); rate > 0 && needs <= float64(left) {
			return start.Add(time.Duration(needs)), true
		}
		if rate > 0 {
			stalled = 0
			bits -= rate * left.Seconds()
		} else if stalled++; left == forever || stalled > len(p.profile.Bottleneck) {
			return time.Time{}, false
		}
		if left == forever {
			return time.Time{}, false
		}
		start = start.Add(left)
	}
}

// forever is what is left of a step that does not end.
const forever = time.Duration(math.MaxInt64)

// step finds the step of the schedule at a time and what is left of it.
func (p *Path) step(at time.Time) (i int, left time.Duration) {
	steps := p.profile.Bottleneck
	last := len(steps) - 1
	var cycle time.Duration
	for _, s := range steps {
		cycle += s.For
	}
	in := max(at.Sub(p.since), 0)
	if steps[last].For > 0 {
		in %= cycle
	}
	for i, s := range steps[:last] {
		if in < s.For {
			return i, s.For - in
		}
		in -= s.For
	}
	if steps[last].For == 0 {
		return last, forever
	}
	return last, steps[last].For - in
}

// next is the step after one, as long as it is.
func (p *Path) next(i int) (int, time.Duration) {
	i = (i + 1) % len(p.profile.Bottleneck)
	if d := p.profile.Bottleneck[i].For; d > 0 {
		return i, d
	}
	return i, forever
}
