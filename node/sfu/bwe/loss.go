package bwe

import (
	"math"
	"time"
)

// Figures of the loss controller.
const (
	// lossWindow and lossPackets: a fraction of fewer packets is chance. Windows
	// are smoothed by lossWeight; one of many more packets than the last weighs more.
	lossWindow  = 400 * time.Millisecond
	lossPackets = 20
	lossWeight  = 0.5
	// lowLoss and highLoss are loss beyond the path's own: below, all is well;
	// above, the rate falls by half of it (draft-ietf-rmcat-gcc-02 section 6).
	lowLoss, highLoss = 0.02, 0.10
	// ownMost is the greatest loss that is believed to be the path's own, and
	// ownSinks how fast the belief follows, per window, when less is lost.
	ownMost, ownSinks = 0.3, 0.2
	// between low and high the rate is held for holdWindows, and then falls to
	// trialPart to see what the loss does; a trial tells something from testPart
	// on, and ends after trialTime without. trialGap is between trials.
	holdWindows         = 3
	trialPart, testPart = 0.8, 0.87
	trialTime, trialGap = 3 * time.Second, 5 * time.Second
	// after loss that was ours the rate stays at what got through for stay, and
	// rises by boundGrowth per window.
	stay, through, boundGrowth = 4 * time.Second, 0.97, 1.02
)

// lossControl bounds the rate by loss. Loss has two causes: a path loses a
// share of everything (radio), or a queue or policer loses what is beyond its
// rate B, 1 − B/S of the rate S. Only the second gets better by sending less, and
// that is how they are told apart: after a fall from S0 to S1 congestion
// promises the loss 1 − (1 − L0)·S0/S1, the path's own stays at L0.
type lossControl struct {
	arrived, lost int
	doubts        doubts        // what was reported missing, and is perhaps only late
	bytes         int           // of all
	first, last   time.Duration // when the first and the last of them were sent
	since         time.Duration

	before   int     // packets of the last window
	fraction float64 // of the last windows, smoothed
	own      float64 // the path's
	bound    float64 // bit/s; 0: none
	holds    int     // windows between low and high
	stays    time.Duration
	trial    trial
	next     time.Duration // no trial before
	cleared  float64       // bit/s that a trial of this window found innocent
	repaired bool          // what is lost comes again: no trial for a little
}

// trial is a fall for loss, to be judged by what comes of it.
type trial struct {
	rate, loss, estimate float64 // when it began
	begun                time.Duration
	running              bool
}

func (l *lossControl) reset() { *l = lossControl{repaired: l.repaired} }

// count takes what became of a packet.
func (l *lossControl) count(p *arrival) {
	if p.revived {
		if !l.doubts.revive(p.late) {
			l.lost = max(l.lost-1, 0)
		}
		l.arrived++
		return
	}
	if l.bytes == 0 || p.sent < l.first {
		l.first = p.sent
	}
	l.last = max(l.last, p.sent)
	l.bytes += int(p.size)
	if p.lost {
		l.doubts.fresh++
	} else {
		l.arrived++
	}
}

// settle ends a feedback: what one before missed, and none has brought since, is lost
// once it is later than packets come on this path.
func (l *lossControl) settle(at time.Duration) { l.lost += l.doubts.settle(at) }

// report stands for a window of which a receiver tells only the fraction.
func (l *lossControl) report(fraction, rate float64, at time.Duration) {
	l.lost = int(math.Round(fraction * 100))
	l.arrived = 100 - l.lost
	l.first, l.last = max(l.since, at-time.Second), at
	l.bytes = int(rate / 8 * (l.last - l.first).Seconds())
	l.since = min(l.since, at-lossWindow)
}

// rate is how fast the packets of this window were sent: what is lost now is the
// fault of that rate, not of the one that is sent by now.
func (l *lossControl) rate() float64 {
	return float64(l.bytes*8) / max(l.last-l.first, 50*time.Millisecond).Seconds()
}

// calm reports whether loss allows a raise.
func (l *lossControl) calm() bool { return l.fraction-l.own < lowLoss }

// innocent reports whether the bound is no word against what arrives: little is lost,
// and no fall is under way or has just shown that loss was ours.
func (l *lossControl) innocent(at time.Duration) bool {
	return l.calm() && !l.trial.running && at >= l.stays
}

// top is what the rate may rise to.
func (l *lossControl) top() float64 {
	if l.bound == 0 {
		return math.Inf(1)
	}
	return l.bound
}

// allow lifts the bound: so much arrived.
func (l *lossControl) allow(rate float64) {
	if l.bound > 0 {
		l.bound = max(l.bound, rate)
	}
}

// window ends a window if it is time, and returns the greatest rate that loss
// allows.
func (l *lossControl) window(at time.Duration, estimate, acked float64) float64 {
	l.cleared = 0
	n := l.arrived + l.lost
	if n < lossPackets || at-l.since < lossWindow {
		return l.top()
	}
	fraction, sent := float64(l.lost)/float64(n), l.rate()
	l.arrived, l.lost, l.bytes, l.last, l.since = 0, 0, 0, 0, at
	weight := lossWeight
	if l.before > 0 {
		weight = max(weight, float64(n)/float64(n+l.before))
	}
	l.fraction += weight * (fraction - l.fraction)
	l.before = n
	if l.fraction < l.own {
		l.own += ownSinks * (l.fraction - l.own)
	}
	l.judge(sent, fraction, at)
	switch excess := l.fraction - l.own; {
	case excess > highLoss:
		l.fall(at, estimate, sent, acked, excess)
	case excess > lowLoss:
		l.hold(at, estimate, sent)
	default:
		l.release(at, estimate)
	}
	return l.top()
}

func (l *lossControl) try(at time.Duration, sent, estimate float64) {
	if !l.trial.running {
		l.trial = trial{rate: sent, loss: l.fraction, estimate: estimate, begun: at, running: true}
	}
}

// fall lowers the bound, from not much more than what is sent, but not below
// what arrives: loss that is reported now was of an older, perhaps greater rate.
func (l *lossControl) fall(at time.Duration, estimate, sent, acked, excess float64) {
	l.holds = 0
	l.try(at, sent, estimate)
	from := min(estimate, headroom*sent)
	l.bound = max(from*(1-excess/2), min(beta*acked, estimate))
}

// hold keeps the rate, and if that does not help, tries less.
func (l *lossControl) hold(at time.Duration, estimate, sent float64) {
	if l.trial.running {
		return
	}
	l.holds++
	l.bound = estimate
	if l.holds >= holdWindows && at >= l.next && !l.repaired {
		l.holds, l.next = 0, at+trialGap
		l.try(at, sent, estimate)
		l.bound = min(estimate, trialPart*sent)
	}
}

// release lets the bound rise, and go when it is far.
func (l *lossControl) release(at time.Duration, estimate float64) {
	l.holds = 0
	if l.bound == 0 || at < l.stays {
		return
	}
	if l.bound *= boundGrowth; l.bound > 2*estimate {
		l.bound = 0
	}
}

// judge compares the loss with what congestion would have promised, once enough
// less was sent.
func (l *lossControl) judge(sent, fraction float64, at time.Duration) {
	t := &l.trial
	if !t.running {
		return
	}
	if sent > testPart*t.rate {
		t.running = at-t.begun <= trialTime && sent <= headroom*t.rate
		return
	}
	t.running = false
	promised := max(1-(1-t.loss)*t.rate/sent, 0)
	if fraction > (promised+t.loss)/2 {
		l.own = min((fraction+t.loss)/2, ownMost)
		l.fraction = max(l.own, 0)
		l.bound, l.cleared = max(l.bound, t.estimate), t.estimate
		return
	}
	l.fraction = fraction
	l.bound = max(through*(1-t.loss+l.own)*t.rate, l.bound)
	l.stays = at + stay
}
