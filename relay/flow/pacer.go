package flow

import "time"

const (
	// paceFactor is how much faster than the estimate a burst may leave: what a
	// frame has more than its share drains within a few frames, and a queue that it
	// makes on the way is short. calmFactor is for a path of which no limit is
	// known: the estimate is only what was sent so far, and a bit.
	paceFactor, calmFactor = 1.25, 4
	// burstTime and burstLeast are what may leave at once, after a pause.
	burstTime  = 10 * time.Millisecond
	burstLeast = 12_000 // bytes: a frame of 30 packets at 3 Mbit/s is no burst
)

// Pacer spreads what is sent over time. The zero value lets everything pass until
// a rate is set.
type Pacer struct {
	rate   float64 // bytes a second
	budget float64 // bytes; may be negative
	at     time.Time
}

// SetRate takes the estimate of the path, in bit/s; limited says that it is where
// queues began to grow.
func (p *Pacer) SetRate(estimate float64, limited bool) {
	p.rate = estimate / 8 * calmFactor
	if limited {
		p.rate = estimate / 8 * paceFactor
	}
}

func (p *Pacer) most() float64 { return max(p.rate*burstTime.Seconds(), burstLeast) }

// Ready reports whether something may leave now.
func (p *Pacer) Ready(now time.Time) bool {
	if p.rate == 0 {
		return true
	}
	if p.at.IsZero() {
		p.budget = p.most()
	} else {
		p.budget = min(p.budget+now.Sub(p.at).Seconds()*p.rate, p.most())
	}
	p.at = now
	return p.budget > 0
}

// Sent takes what left.
func (p *Pacer) Sent(bytes int) { p.budget -= float64(bytes) }

// Wait returns how long Ready will say no.
func (p *Pacer) Wait() time.Duration {
	if p.budget > 0 || p.rate == 0 {
		return 0
	}
	return time.Duration((1 - p.budget) / p.rate * float64(time.Second))
}
