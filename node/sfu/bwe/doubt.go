package bwe

import "time"

const (
	// lateMost bounds how long a packet that was reported missing may be only late: the
	// path overtakes itself both ways.
	lateMost = 300 * time.Millisecond
	// lateForgets is the time in which half of what is known of late packets goes.
	lateForgets = 5 * time.Second
	// manyDoubts bounds the feedbacks whose missing packets are in doubt: of one every
	// 10 ms, more than lateMost.
	manyDoubts = 40
)

// doubts are packets that were reported missing and may still come: where packets
// overtake each other a receiver that reports often misses most of them for a moment,
// and to take that for loss would leave layers out for nothing. How long to wait is
// learned from those that came; at least until the next feedback.
type doubts struct {
	fresh  int // of the feedback at hand
	ring   [manyDoubts]absence
	first  int // the oldest
	n      int
	late   time.Duration // how late packets come
	lateAt time.Duration // when that was learned
	seen   time.Duration // the latest of the feedback at hand
}

// absence is what one feedback reported missing, and what of it has not come since.
type absence struct {
	at      time.Duration
	packets int
}

// revive takes a packet that came so much later than it was reported missing. It
// reports false if that counts as lost already.
func (d *doubts) revive(late time.Duration) bool {
	d.seen = max(d.seen, min(late+late/4, lateMost))
	for i := range d.n {
		if at := &d.ring[(d.first+i)%manyDoubts]; at.packets > 0 {
			at.packets--
			return true
		}
	}
	return false
}

// settle ends a feedback and returns how many packets are given up as lost.
func (d *doubts) settle(at time.Duration) (lost int) {
	d.learn(at)
	for d.n > 0 && (d.n == manyDoubts || at-d.ring[d.first].at >= d.late) {
		lost += d.ring[d.first].packets
		d.first, d.n = (d.first+1)%manyDoubts, d.n-1
	}
	d.ring[(d.first+d.n)%manyDoubts] = absence{at, d.fresh}
	d.n++
	d.fresh = 0
	return lost
}

// learn notes how late packets come, and forgets it again.
func (d *doubts) learn(at time.Duration) {
	if d.seen > 0 && d.seen >= d.late {
		d.late, d.lateAt = d.seen, at
	}
	for d.seen = 0; d.late > 0 && at-d.lateAt >= lateForgets; d.lateAt += lateForgets {
		if d.late /= 2; d.late < time.Millisecond {
			d.late = 0
		}
	}
}
