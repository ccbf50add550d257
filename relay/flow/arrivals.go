// Package flow decides what a link does with its datagrams over UDP: which of them
// are asked for again and sent again, how fast they leave, how long they may be,
// which layers are left out when the path does not carry all, and whether the
// carriage is used at all. It decides on values and `now`; it sends nothing, reads
// no clock and does not know what a packet is.
package flow

import (
	"slices"
	"time"

	"github.com/domicile/domicile/relay/seal"
	"github.com/domicile/domicile/relay/wire"
)

const (
	// reportEvery is how long arrivals wait to be reported: the sender's estimate
	// needs some of them at a time, and a queue is seen as soon as this.
	reportEvery = 10 * time.Millisecond
	// reportAt is how many of them do not wait any longer.
	reportAt = 300
	// ringSize is for how many arrivals the time is kept until they are reported.
	// A power of two.
	ringSize = 2048
	// maxMissing bounds what is asked for at once. Of a longer gap the newest are.
	maxMissing = 1024
	// A gap is waited out, where packets overtake each other, for as long as they come
	// late, but for no longer than a round trip, as in RFC 8985 section 6.2: who asks
	// before gets most of it twice. shortWait is allowed always, longWait is the most: three
	// questions fit into the time in which a frame is of use.
	shortWait, longWait = 40 * time.Millisecond, 150 * time.Millisecond
	// lateForgets is the time in which half of what is known of overtaking goes.
	lateForgets = 5 * time.Second
	// againLeast is the least time between two questions for one datagram, beyond a
	// round trip.
	againLeast = 4 * time.Millisecond
)

// Arrivals is what the receiver of a direction knows of its datagrams. The zero
// value has seen none; Patience says when it gives a datagram up.
type Arrivals struct {
	// Patience is how long a datagram is asked for.
	Patience time.Duration

	epoch    time.Time
	seen     seal.Window // what was delivered, by itself or by a repair
	ring     [ringSize]int64
	reported uint64 // up to here all was reported, or never will be
	top      uint64 // one more than the greatest number that came
	back     uint64 // the least number that came late and was not reported; top: none
	news     int    // arrivals that were not reported
	since    time.Time
	missing  []missing // rising
	late     time.Duration
	lateAt   time.Time

	Lost     uint64 // given up
	Repaired uint64
	Repeats  uint64 // came twice, by a repair that was not needed
	asked    []uint64
}

// missing is a datagram that did not come.
type missing struct {
	number uint64
	since  time.Time
	asked  time.Time // zero: not yet
}

func (a *Arrivals) units(t time.Time) int64 {
	if a.epoch.IsZero() {
		a.epoch = t.Add(-time.Second) // arrivals are never 0
	}
	return t.Sub(a.epoch).Microseconds() / wire.FeedbackUnit
}

// Came takes note of a datagram that arrived at arrival and is looked at now;
// matters says that the sender waits to hear of it.
// It reports false if what it holds was delivered before, by a repair, and gap if
// others are missing now that were not.
func (a *Arrivals) Came(n uint64, matters bool, arrival, now time.Time) (fresh, gap bool) {
	at := a.units(arrival)
	if a.top == 0 { // what was sent before the first that comes is not missing
		a.top, a.reported, a.back = n, n, n
		for i := range a.ring {
			a.ring[i] = wire.Missed
		}
	}
	switch {
	case n >= a.top:
		gap = n > a.top
		a.miss(n, now)
		if a.back == a.top {
			a.back = n + 1
		}
		a.top = n + 1
		a.ring[n%ringSize] = at
	case n+ringSize > a.top:
		a.overtaken(n, now)
		a.back = min(a.back, n)
		a.ring[n%ringSize] = at
	}
	if matters {
		if a.news == 0 {
			a.since = now
		}
		a.news++
	}
	if !a.seen.May(n) {
		a.Repeats++
		return false, gap
	}
	a.seen.Take(n)
	return true, gap
}

// miss notes what is missing before n, which came.
func (a *Arrivals) miss(n uint64, now time.Time) {
	for i := max(a.top, n-min(n, ringSize)); i < n; i++ {
		a.ring[i%ringSize] = wire.Missed
	}
	from := max(a.top, n-min(n, maxMissing))
	a.Lost += from - a.top
	for i := from; i < n; i++ {
		if len(a.missing) == maxMissing {
			a.missing = slices.Delete(a.missing, 0, 1)
			a.Lost++
		}
		a.missing = append(a.missing, missing{number: i, since: now})
	}
}

// overtaken learns from a datagram that was taken for missing how long to wait
// before the next such is.
func (a *Arrivals) overtaken(n uint64, now time.Time) {
	i, ok := a.find(n)
	if !ok {
		return
	}
	by := now.Sub(a.missing[i].since)
	a.missing = slices.Delete(a.missing, i, i+1)
	if by = min(by+by/4, longWait); by >= a.late {
		a.late, a.lateAt = by, now
	}
}

func (a *Arrivals) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(a.missing, n, func(m missing, n uint64) int {
		switch {
		case m.number < n:
			return -1
		case m.number > n:
			return 1
		}
		return 0
	})
}

// Repair takes note of a datagram that came again under another number. It reports
// whether what it holds is still wanted. empty says that it is not to be had.
func (a *Arrivals) Repair(n uint64, empty bool) bool {
	i, ok := a.find(n)
	if !ok {
		a.Repeats++
		return false
	}
	a.missing = slices.Delete(a.missing, i, i+1)
	if empty {
		return false
	}
	a.Repaired++
	if n < a.seen.Top() && !a.seen.May(n) {
		return false
	}
	a.seen.Take(n)
	return true
}

// patience is how long a gap is waited out before it is asked for.
func (a *Arrivals) patience(now time.Time, rtt time.Duration) time.Duration {
	for a.late > 0 && now.Sub(a.lateAt) >= lateForgets {
		a.late, a.lateAt = a.late/2, a.lateAt.Add(lateForgets)
		if a.late < time.Millisecond {
			a.late = 0
		}
	}
	return min(a.late, max(rtt, shortWait))
}

// due returns when a missing datagram is asked for next.
func (m *missing) due(wait, rtt time.Duration) time.Time {
	if m.asked.IsZero() {
		return m.since.Add(wait)
	}
	return m.asked.Add(rtt + max(rtt/4, wait/2) + againLeast) // the repair may be late, too
}

// Next returns when Feedback has something to say: zero for never.
func (a *Arrivals) Next(now time.Time, rtt time.Duration) (at time.Time) {
	if a.news > 0 {
		at = a.since.Add(reportEvery)
		if a.news >= reportAt {
			at = now
		}
	}
	wait := a.patience(now, rtt)
	for i := range a.missing {
		if due := a.missing[i].due(wait, rtt); at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}

// Feedback fills f with what is to be said now, and reports whether that is
// anything. It is to be called again until it reports false.
func (a *Arrivals) Feedback(f *wire.Feedback, now time.Time, rtt time.Duration) bool {
	a.asked = a.asked[:0]
	wait := a.patience(now, rtt)
	a.missing = slices.DeleteFunc(a.missing, func(m missing) bool {
		if now.Sub(m.since) < a.Patience {
			return false
		}
		a.Lost++
		return true
	})
	for i := range a.missing {
		if m := &a.missing[i]; len(a.asked) < wire.MaxAsked && !now.Before(m.due(wait, rtt)) {
			m.asked = now
			a.asked = append(a.asked, m.number)
		}
	}
	if len(a.asked) == 0 && (a.news == 0 || now.Sub(a.since) < reportEvery && a.news < reportAt) {
		return false
	}
	a.report(f)
	f.Asked = a.asked
	return true
}

// report tells of what came since the last report, and of what came late.
func (a *Arrivals) report(f *wire.Feedback) {
	f.Base, f.At = max(min(a.back, a.reported), a.top-min(a.top, ringSize)), f.At[:0]
	end := min(a.top, f.Base+wire.MaxReported)
	last := int64(wire.Missed)
	for n := f.Base; n < end; n++ {
		at := a.ring[n%ringSize]
		if at != wire.Missed {
			if last != wire.Missed && (at-last > wire.MaxGap || last-at > wire.MaxGap) {
				end = n // further apart than one report can say
				break
			}
			last = at
		}
		f.At = append(f.At, at)
	}
	a.reported, a.back = max(a.reported, end), a.top
	if end < a.top {
		a.back = end // the rest comes with the next
		return
	}
	a.news = 0
}

// Missing returns how many datagrams are waited for.
func (a *Arrivals) Missing() int { return len(a.missing) }
