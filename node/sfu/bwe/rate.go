package bwe

import (
	"math"
	"time"
)

// Figures of the rate control: draft-ietf-rmcat-gcc-02 section 5.5.
const (
	growth    = 1.08 // per second, far from a known limit
	nearPart  = 0.03 // of the limit per second, near it: a second's error costs little queue
	nearLeast = 20e3 // bit/s per second at least
	beta      = 0.85 // of what arrives, after an overuse
	// betaDeep is for queues of drainAll and more: what stands in the queue has
	// to go as well, while the path still brings what it brings.
	betaDeep = 0.6
	drainAll = 600 * time.Millisecond
	// fallEvery bounds falls: an effect takes a round trip to be seen.
	fallLeast, fallMost = 100 * time.Millisecond, 400 * time.Millisecond
	// Beside flows that are driven by loss only, falling for queues is of no use
	// to anybody: little and seldom.
	// Growth is what Reno does in a round trip of half a second, 12 kbit/RTT².
	betaForeign, foreignPause, foreignGrowth = 0.95, time.Second, 50e3
	// alarm is how long a first warning counts. While much less is sent than
	// estimated, the first takes away the unproven rest only; jitter costs no
	// layer then.
	alarm = 3 * time.Second
)

// linkLimit remembers at which rates queues began to grow.
type linkLimit struct {
	mean, variance float64 // bit/s; variance relative to the mean
	set            bool
}

func (l *linkLimit) learn(rate float64) {
	if !l.set {
		l.mean, l.variance, l.set = rate, 0.01, true
		return
	}
	const alpha = 0.05
	diff := rate - l.mean
	l.mean += alpha * diff
	l.variance = (1-alpha)*l.variance + alpha*diff*diff/max(l.mean, 1)/max(l.mean, 1)
	l.variance = min(max(l.variance, 0.0004), 0.04)
}

func (l *linkLimit) deviation() float64 { return math.Sqrt(l.variance) * l.mean }

// near reports whether the rate is where queues began to grow; far beyond, the
// limit is no longer true.
func (l *linkLimit) near(rate float64) bool {
	if !l.set {
		return false
	}
	if math.Abs(rate-l.mean) > 3*l.deviation() {
		if rate > l.mean {
			l.set = false
		}
		return false
	}
	return true
}

func (l *linkLimit) forgetBelow(rate float64) {
	if l.set && rate > l.mean+3*l.deviation() {
		l.set = false
	}
}

// grow raises the estimate while queues do not grow.
func (e *Estimator) grow(acked float64, at time.Duration) {
	dt := min((at - e.grownAt).Seconds(), 1)
	e.grownAt = at
	top := min(e.ceiling(acked), e.loss.top())
	if e.estimate >= top || dt <= 0 {
		if e.estimate >= top && e.reason == Raised {
			e.set(e.estimate, Unproven, at)
		}
		return
	}
	next, why := e.estimate*math.Pow(growth, dt), Raised
	switch {
	case e.path.foreign:
		next, why = max(next, e.estimate+foreignGrowth*dt), Competing
	case e.limit.near(acked):
		next, why = e.estimate+max(nearPart*e.limit.mean, nearLeast)*dt, NearLimit
	}
	if next >= top {
		next, why = top, Unproven
	}
	e.set(next, why, at)
}

// fall follows what arrives, and lets the queue drain.
func (e *Estimator) fall(at time.Duration) {
	e.grownAt = at
	acked := e.acked.now()
	if acked <= 0 {
		acked = e.estimate / 2 // queues grow before a rate could be measured
	}
	pause := min(max(e.rtt, fallLeast), fallMost)
	if e.path.foreign {
		pause = foreignPause
	}
	if e.everFell && at-e.fell < pause && acked > e.estimate/2 {
		return
	}
	factor, why := beta-(beta-betaDeep)*min(e.path.queue().Seconds()/drainAll.Seconds(), 1), Congested
	switch {
	case e.path.foreign && acked > e.estimate/2:
		acked, factor, why = e.estimate, betaForeign, Competing
	case e.estimate > headroom*acked && (!e.everFell || at-e.fell > alarm):
		factor = 1.1
	}
	e.everFell, e.fell = true, at
	e.limit.learn(acked)
	e.probe.disturbed(at)
	if rate := acked * factor; rate < e.estimate {
		e.set(rate, why, at)
		e.proven = min(e.proven, e.estimate)
	}
}
