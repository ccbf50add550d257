package bwe

import "time"

// Ignored counts reports that said nothing, by cause.
type Ignored struct {
	Malformed uint64 // chunks, deltas and count disagree, or a value that cannot be
	Unknown   uint64 // feedback on packets that were not sent, or are long forgotten
	Repeated  uint64 // packets that an earlier feedback reported already
}

// arrival is a packet that feedback spoke of. arrived is on the receiver's clock.
type arrival struct {
	sent, arrived time.Duration
	size          uint16
	cluster       uint8
	lost          bool
	revived       bool          // reported as lost before,
	late          time.Duration // so long ago
}

// arrivalClock turns reference times, 24 bits of 64 ms, into a clock that runs on.
type arrivalClock struct {
	last    int64 // unwrapped reference time
	started bool
}

const (
	referenceUnit = 64 * time.Millisecond
	// clockLeap is a minute: further apart it is another clock, and starts anew.
	clockLeap = int64(time.Minute / referenceUnit)
)

func (c *arrivalClock) reference(ref uint32) time.Duration {
	ref &= 1<<24 - 1
	if !c.started {
		c.started, c.last = true, int64(ref)+1<<24
	}
	diff := int64(int32((ref-uint32(c.last&(1<<24-1)))<<8) >> 8)
	if diff > clockLeap || diff < -clockLeap {
		c.last = int64(ref) + 1<<24
		return time.Duration(c.last) * referenceUnit
	}
	c.last += diff
	return time.Duration(c.last) * referenceUnit
}

// read fills e.recent with what a report says of packets that were sent, and
// reports whether it says anything.
func (e *Estimator) read(r *report, at time.Duration) bool {
	e.recent = e.recent[:0]
	base := e.history.unwrap(r.base)
	if !e.history.started || base > e.history.newest || base+int64(len(r.statuses)) <= e.history.newest-historySize {
		e.ignored.Unknown++
		return false
	}
	e.presume(base)
	arrived, newest := e.clock.reference(r.reference), time.Duration(-1)
	for i, s := range r.statuses {
		arrived += s.delta
		if sent, ok := e.status(base+int64(i), s.symbol, arrived); ok {
			newest = max(newest, sent)
		}
	}
	e.history.reported = max(e.history.reported, min(base+int64(len(r.statuses))-1, e.history.newest))
	if newest >= 0 {
		e.measure(at - newest)
	}
	return len(e.recent) > 0
}

// presume counts packets before base that no report spoke of: a report was lost,
// not they. Else what arrived would look like less, just when a path is bad.
func (e *Estimator) presume(base int64) {
	for n := max(e.history.reported+1, base-historySize); n < base; n++ {
		if rec := e.history.get(n); rec != nil && rec.known == flying && e.path.n > 0 {
			rec.known = landed
			e.acked.add(rec.sent+e.path.last, int(float64(rec.size)*(1-e.loss.fraction)))
		}
	}
}

// status takes what a report says of packet n, and returns when that was sent if
// it is news that it arrived.
func (e *Estimator) status(n int64, s symbol, arrived time.Duration) (time.Duration, bool) {
	rec := e.history.get(n)
	if rec == nil || s == reserved {
		return 0, false
	}
	received := s != absent
	if rec.known == landed || rec.known == missing && !received {
		e.ignored.Repeated++
		return 0, false
	}
	p := arrival{sent: rec.sent, arrived: arrived, size: rec.size, cluster: rec.cluster, lost: !received, revived: rec.known == missing}
	if p.revived {
		p.late = e.now - time.Duration(rec.missed)*time.Millisecond
	}
	rec.known = landed
	if !received {
		rec.known, rec.missed = missing, uint32(e.now/time.Millisecond)
	}
	e.recent = append(e.recent, p)
	return rec.sent, received
}

// measure smooths the time from sending a packet to hearing of it: the round
// trip and what the receiver waits before it reports.
func (e *Estimator) measure(sample time.Duration) {
	sample = min(max(sample, 0), maxRTT)
	if e.rtt == 0 {
		e.rtt = sample
		return
	}
	e.rtt += (sample - e.rtt) / 8
}

// maxRTT bounds what is believed of a round trip.
const maxRTT = 2 * time.Second

// Arrived takes feedback of another format: when packets from base on arrived, by
// the receiver's clock, which has any beginning; negative: they did not.
func (e *Estimator) Arrived(base uint16, times []time.Duration, now time.Time) {
	at := e.at(now)
	if len(times) == 0 || len(times) > historySize {
		e.ignored.Malformed++
		return
	}
	r := &e.report
	r.base, r.statuses = base, r.statuses[:0]
	last := time.Duration(-1)
	for _, t := range times {
		if t < 0 {
			r.statuses = append(r.statuses, status{symbol: absent})
			continue
		}
		if last < 0 {
			last = t.Truncate(referenceUnit)
			r.reference = uint32(t / referenceUnit)
		}
		r.statuses = append(r.statuses, status{symbol: near, delta: t - last})
		last = t
	}
	e.learn(at)
}
