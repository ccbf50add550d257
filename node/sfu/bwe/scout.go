package bwe

import (
	"cmp"
	"time"
)

// A link that has been idle begins with many pictures at once. If the path carries less
// than is assumed of it, a queue of a quarter of a second stands until feedback has said so
// and layers have been left out; who speaks meanwhile is heard that much later. So while next
// to nothing is sent, clusters of padding, a little faster than what is assumed, look
// whether the path carries that. They are so short that the queue they leave is, too.

// unknown reports whether a scout is to look at the path: nothing has shown yet what it
// carries, what is wanted fits into what is assumed, and somebody tells what arrives.
func (e *Estimator) unknown() bool {
	return e.cfg.Bold && e.probe.scouts > 0 && e.transcc && e.demand <= e.estimate && e.estimate == e.cfg.Start
}

// scouted takes the rate at which a scout arrived. Only if all of them came more slowly
// than is assumed, one packet behind the other, the path carries less: what the slowest
// had. What is late or lost by chance is not so each time.
func (e *Estimator) scouted(rate float64, at time.Duration) {
	p := &e.probe
	if rate >= e.cfg.Start || p.line.fit() < inLine || e.estimate != e.cfg.Start { // media has shown more, or less
		p.scouts = 0
		return
	}
	p.shown = min(cmp.Or(p.shown, rate), rate)
	if p.scouts == 0 {
		e.limit.learn(p.shown)
		e.set(p.shown, Scouted, at)
		e.proven = min(e.proven, e.estimate)
		p.fail(at)
	}
}

// ofScout reports whether a cluster is that of the last scout, whose loss says nothing of
// what is sent otherwise.
func (p *prober) ofScout(cluster uint8) bool { return p.scout && cluster != 0 && cluster == p.id }
