package bwe

import "time"

const (
	// lowWindow: the quickest packet of one to two windows had no queue before it.
	// Long, since a loss-driven flow beside us lets queues go empty seldom.
	lowWindow = 30 * time.Second
	// A queue stands if even the quickest of the last manyPackets waited for
	// standing, or that of the last fewPackets for sudden. Jitter delays
	// some packets, a queue delays all (the idea of RFC 8289 section 3.2). On a
	// path that became slow the sending of a packet itself takes long: standing is
	// at least the time of packetBits, up to mostStanding. Where packets overtake each
	// other each is late by itself, and by chance so are eight in a row: the quickest of
	// n has waited for width/n, if width is how far delays are apart, which is spreads
	// mean distances. There it is the quickest of packetsFor times as many as that takes
	// to be within the bar, at most mostPackets.
	manyPackets, fewPackets = 8, 3
	mostPackets             = 96
	spreads, packetsFor     = 4, 9
	standing, sudden        = 10 * time.Millisecond, 60 * time.Millisecond
	mostStanding            = 45 * time.Millisecond
	packetBits              = 12e3
	// A queue that stands although for foreignTime less than foreignPart is sent
	// of what got through when it began, is filled by others: ours would have
	// shrunk to the part drains. That is believed for foreignLasts and then tried again.
	foreignTime, foreignLasts = 2 * time.Second, 15 * time.Second
	foreignPart, drains       = 0.7, 0.8
	// A queue that others fill comes and goes. What neither moves by more than
	// still within stillTime is no queue but a longer way.
	still, stillTime = 5 * time.Millisecond, 2 * time.Second
)

// delays knows the queue: how much later packets are than the quickest.
type delays struct {
	low, lowBefore time.Duration
	rolled         time.Duration
	last           time.Duration // smoothed
	jitter         time.Duration // mean distance from it
	ring           [mostPackets]time.Duration
	n              int
	bar            time.Duration // standing, at the rate of the moment
	many           int           // how many packets tell
	width          time.Duration // how far delays are apart without a queue, 0: not at all
	holdup         holdup
	holds          bool // it is looked for

	queued  bool          // a queue stands
	got     float64       // bit/s, the most that arrived since
	below   time.Duration // since when much less is sent without effect, 0: it is not
	mark    time.Duration // how long the queue was then
	foreign bool
	since   time.Duration // of foreign
	calm    time.Duration // since when it lies between the next two
	lo, hi  time.Duration
}

// reset forgets delays: another path, or another clock.
func (d *delays) reset() { *d = delays{holds: d.holds} }

// observe takes the next packet. rate is what arrives, in bit/s.
func (d *delays) observe(sent, arrived time.Duration, bytes uint16, rate float64) {
	oneWay := arrived - sent
	if d.n == 0 {
		d.low, d.lowBefore, d.last = oneWay, oneWay, oneWay
	}
	d.holdup.observe(oneWay, arrived, oneWay-min(d.low, d.lowBefore) > standing, bytes, rate)
	d.low = min(d.low, oneWay)
	d.last += (oneWay - d.last) / 8
	d.jitter += ((oneWay - d.last).Abs() - d.jitter) / 32
	d.ring[d.n%mostPackets] = oneWay
	d.n++
}

// judge ends the observations of a feedback: whose queue is it? overtakes says that
// packets overtake each other on this path.
func (d *delays) judge(at time.Duration, sent, acked float64, overtakes bool) {
	if d.n > 0 && at-d.rolled > lowWindow {
		d.rolled, d.lowBefore, d.low = at, d.low, d.last
	}
	d.holdup.judge(at, d.last)
	slow := time.Duration(packetBits / max(acked, 1) * float64(time.Second))
	d.bar = min(max(slow, standing), mostStanding)
	d.many, d.width = manyPackets, 0
	if overtakes {
		d.width = spreads * d.jitter
		d.bar += d.width / 8
		d.many = min(max(int(packetsFor*d.width/d.bar), manyPackets), mostPackets)
	}
	least, ok := d.least(d.many)
	switch {
	case !ok || least <= d.bar:
		d.queued, d.foreign = false, false
	case !d.queued, d.foreign && at-d.since > foreignLasts:
		d.queued, d.foreign, d.got, d.below = true, false, acked, 0
	case d.foreign:
		d.settle(at, least)
	case sent > foreignPart*d.got:
		d.got, d.below = max(d.got, acked), 0
	case d.below == 0, float64(least) < drains*float64(d.mark):
		d.below, d.mark = at, least
	case at-d.below > foreignTime:
		d.foreign, d.since = true, at
		d.calm, d.lo, d.hi = at, least, least
	}
}

// settle takes a delay that does not move for the path's own.
func (d *delays) settle(at, least time.Duration) {
	d.lo, d.hi = min(d.lo, least), max(d.hi, least)
	if d.hi-d.lo > still {
		d.calm, d.lo, d.hi = at, least, least
	}
	if at-d.calm > stillTime {
		shift := d.lo + min(d.low, d.lowBefore)
		d.low, d.lowBefore, d.queued, d.foreign = shift, shift, false, false
	}
}

// least is how long the quickest of the last n packets waited.
func (d *delays) least(n int) (time.Duration, bool) {
	if d.n < n {
		return 0, false
	}
	least := d.ring[(d.n-1)%mostPackets]
	for i := 2; i <= n; i++ {
		least = min(least, d.ring[(d.n-i)%mostPackets])
	}
	return least - min(d.low, d.lowBefore), true
}

// congested reports whether a queue stands that we fill.
func (d *delays) congested() bool {
	if d.holds && d.holdup.explains() {
		return false
	}
	many, ok := d.least(d.many)
	if ok && many > d.bar {
		return true
	}
	few, ok := d.least(fewPackets)
	return ok && few > sudden+d.width
}

// queue is how long packets wait, smoothed, beside what each is late by itself.
func (d *delays) queue() time.Duration {
	if d.n == 0 {
		return 0
	}
	return max(d.last-min(d.low, d.lowBefore)-d.width/2, 0)
}
