package bwe

import (
	"math"
	"time"
)

// Figures of the loss controller.
const (
	// lossWindow and lossPackets: a fraction of fewer packets is chance.
	lossWindow  = 400 * time.Millisecond
	lossPackets = 20
	// lowLoss and highLoss are loss beyond the path's own: below, all is well;
	// above, the rate falls by half of it (draft-ietf-rmcat-gcc-02 section 6).
	lowLoss, highLoss = 0.02, 0.10
	// ownMost is the greatest loss that is believed to be the path's own.
	ownMost = 0.3
	// learnRate: how fast loss that comes without queues is taken for the
	// path's own, per window.
	learnRate = 0.15
	// testPart: the rate has to have fallen to this part before it can be told
	// whether loss fell with it.
	testPart = 0.85
	// boundGrowth of the bound per window without loss.
	boundGrowth = 1.05
	// quiet is a queue that says nothing of congestion.
	quietQueue = 30 * time.Millisecond
)

// lossControl bounds the rate by loss. Loss has two causes: a path loses a
// share of everything (radio), or a queue or policer loses what is beyond its
// rate B, 1 − B/S of the rate S. Only the second gets better by sending less, and
// that is how they are told apart: after a fall from S0 to S1 congestion
// promises the loss 1 − (1 − L0)·S0/S1, the path's own stays at L0.
type lossControl struct {
	arrived, lost int
	bytes         int64
	since         time.Duration
	fraction      float64 // of the last whole window
	own           float64 // the path's
	bound         float64 // bit/s; 0: none
	trial         trial
	fresh         bool // a window ended
}

// trial is a series of falls for loss, to be judged by what came of it.
type trial struct {
	rate, loss, estimate float64 // when it began
	running              bool
}

func (l *lossControl) reset() { *l = lossControl{} }

// report stands for a window of which only the fraction is known.
func (l *lossControl) report(fraction, rate float64, at time.Duration) {
	l.lost += int(math.Round(fraction * 100))
	l.arrived += 100 - int(math.Round(fraction*100))
	l.since = min(l.since, at-lossWindow)
}

// calm reports whether the last window allows a raise.
func (l *lossControl) calm() bool { return l.fraction-l.own < lowLoss }

// top is what the rate may rise to.
func (l *lossControl) top() float64 {
	if l.bound == 0 {
		return math.Inf(1)
	}
	return l.bound
}

// allow lifts the bound: a probe arrived.
func (l *lossControl) allow(rate float64) {
	if l.bound > 0 {
		l.bound = max(l.bound, rate)
	}
}

// window ends a window if it is time, and returns the greatest rate that loss allows.
func (l *lossControl) window(at time.Duration, estimate, sent float64, queue time.Duration, start float64) float64 {
	n := l.arrived + l.lost
	if n < lossPackets || at-l.since < lossWindow {
		return l.top()
	}
	l.fraction = float64(l.lost) / float64(n)
	l.arrived, l.lost, l.bytes, l.since = 0, 0, 0, at
	l.own = min(l.own, l.fraction)
	l.judge(sent)
	switch excess := l.fraction - l.own; {
	case excess > highLoss:
		l.fallFrom(estimate, sent, excess)
	case excess > lowLoss:
		l.hold(estimate, queue)
	default:
		l.release(estimate)
	}
	return l.top()
}

// fallFrom lowers the bound, from not much more than what is sent.
func (l *lossControl) fallFrom(estimate, sent, excess float64) {
	if !l.trial.running {
		l.trial = trial{rate: sent, loss: l.fraction, estimate: estimate, running: true}
	}
	from := estimate
	if sent > 0 {
		from = min(estimate, headroom*sent)
	}
	l.bound = from * (1 - excess/2)
}

// hold keeps the rate, and comes to believe in loss that brings no queue.
func (l *lossControl) hold(estimate float64, queue time.Duration) {
	l.bound = max(l.bound, estimate)
	if queue < quietQueue {
		l.own = min(l.own+learnRate*(l.fraction-l.own), ownMost)
	}
}

// release lets the bound rise, and go when it is far.
func (l *lossControl) release(estimate float64) {
	l.trial.running = false
	if l.bound == 0 {
		return
	}
	if l.bound *= boundGrowth; l.bound > 2*estimate {
		l.bound = 0
	}
}

// judge compares the loss with what congestion would have promised, once enough
// less is sent.
func (l *lossControl) judge(sent float64) {
	t := &l.trial
	if !t.running || sent <= 0 || sent > testPart*t.rate {
		return
	}
	promised := max(1-(1-t.loss)*t.rate/sent, 0)
	if l.fraction > (promised+t.loss)/2 {
		l.own = min(l.fraction, t.loss, ownMost)
		l.bound = max(l.bound, t.estimate)
	}
	t.running = false
}
