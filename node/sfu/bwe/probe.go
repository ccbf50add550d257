package bwe

import "time"

// ProbePlan is padding to send now.
type ProbePlan struct {
	Cluster int
	Rate    float64       // bit/s that the cluster as a whole shall have
	Bytes   int           // to send now, beyond the media that is sent anyway
	Again   time.Duration // when to call Probe again
}

// Figures of probing.
const (
	// A cluster lasts probeTime, and has at least probeLeast bytes: fewer than
	// five packets measure nothing. On a path of half the rate it leaves a
	// queue of probeTime behind. Beside jitter it lasts longer.
	probeTime, probeMost = 30 * time.Millisecond, 100 * time.Millisecond
	probeLeast           = 5000
	jitterTimes          = 6
	// leastStretch: arrivals closer than that compared to departures are no path.
	leastStretch = 0.25
	// probeStep is how often padding is to be sent, and mostSteps how much of a
	// missed call is made up for.
	probeStep = 5 * time.Millisecond
	mostSteps = 4
	// burstTime: packets this close are sent as one.
	burstTime = 500 * time.Microsecond
	// A cluster that was not sent or not reported by then has failed.
	sendLimit, reportLimit = 400 * time.Millisecond, time.Second
	// arrivedPart of the packets of which is known must have arrived. Loss alone fails
	// no probe, neither of packets nor of feedback: the rate that arrived tells, and
	// those of which no feedback came are taken to have fared like the others.
	arrivedPart  = 0.5
	probePackets = 4
	// spreadPart: a cluster that arrived at less than this part of the rate it was
	// sent at was spread by the bottleneck, which is what it showed; a little
	// below, there is no queue.
	spreadPart, belowSpread = 0.9, 0.95
	// probeGap after a success, probeBackoff after the first failure, doubled
	// to backoffMost: every four seconds a queue of some ten milliseconds is
	// what it costs to see soon that a bottleneck went.
	probeGap, probeBackoff, backoffMost = 100 * time.Millisecond, time.Second, 4 * time.Second
	// doubt is how long after a success a fall shows that it was none.
	doubt = 1500 * time.Millisecond
	// afterFall of the estimate nothing is probed: the queue has to drain.
	afterFall = time.Second
	// calmQueue is the longest queue beside which is probed.
	calmQueue = 50 * time.Millisecond
	// step of a ramp, and after a failure.
	probeFactor, probeTimid = 2, 1.5
	rampSteps               = 2
	// scoutTries is how often a path shows that it carries less than is assumed, until it is
	// believed. Of when packets come, inLine must follow from when they left: those that
	// wait in a queue come in a line.
	scoutTries, inLine = 3, 0.75
	// scoutPatience is how long is waited for all of a scout: there is time, and what is late
	// is not lost. Of a path with little room for what waits scoutPart of it is enough.
	scoutPatience, scoutPart = 600 * time.Millisecond, 0.2
)

// prober runs one cluster at a time.
type prober struct {
	id       uint8 // of the running or last cluster; 0 before the first
	count    int   // clusters so far
	demanded bool  // somebody says how much is wanted
	ramp     int   // steps of the first ramp that are left
	scouts   int   // that are left, see Estimator.unknown

	active     bool // padding is being sent
	judging    bool // sent, and not all reported
	scout      bool // it is one
	rate       float64
	want       int // bytes
	begun      time.Duration
	firstSent  time.Duration
	lastSent   time.Duration
	burst      time.Duration // when the last burst began
	lastBytes  int           // of it
	bytes      int
	packets    int
	got        int
	gotPackets int
	missed     int           // bytes, that were reported missing
	missing    int           // packets
	firstSeen  time.Duration // on the receiver's clock
	lastSeen   bool
	line       line

	next    time.Duration // not before
	backoff time.Duration
	shown   float64 // bit/s, the least that scouts found; 0: nothing yet
	// A success is one, and the backoff forgotten, if nothing falls until then.
	doubtful time.Duration

	succeeded, failed uint64
}

func (p *prober) reset() {
	*p = prober{ramp: rampSteps, scouts: scoutTries, id: p.id, demanded: p.demanded}
}

func (p *prober) running() bool { return p.active }
func (p *prober) ramping() bool { return p.ramp > 0 }
func (p *prober) due(at time.Duration) bool {
	return !p.active && !p.judging && at >= p.next
}

func (p *prober) factor() float64 {
	if p.backoff > 0 {
		return probeTimid
	}
	return probeFactor
}

func (p *prober) start(rate float64, scout bool, at, jitter time.Duration) (ProbePlan, bool) {
	if p.doubtful > 0 && at >= p.doubtful {
		p.backoff, p.doubtful = 0, 0
	}
	p.id++
	if p.id == 0 {
		p.id = 1
	}
	p.count++
	p.active, p.judging, p.scout = true, false, scout
	p.rate, p.begun = rate, at
	lasts := max(probeTime, min(jitterTimes*jitter, probeMost))
	if scout {
		lasts = probeTime
	}
	p.want = max(int(rate*lasts.Seconds()/8), probeLeast)
	p.firstSent, p.lastSent, p.lastBytes, p.bytes, p.packets = 0, 0, 0, 0, 0
	p.got, p.gotPackets, p.missed, p.missing, p.lastSeen, p.line = 0, 0, 0, 0, false, line{}
	return p.more(at)
}

// more says how many bytes are due now. Media that is sent meanwhile can put the
// cluster ahead of its rate; it lasts until the rate has caught up then, since a
// cluster that ends in a frame's burst measures the burst.
func (p *prober) more(at time.Duration) (ProbePlan, bool) {
	if at-p.begun > sendLimit {
		p.giveUp(at)
		return ProbePlan{}, false
	}
	step := p.rate * probeStep.Seconds() / 8
	due := p.rate*(at-p.begun).Seconds()/8 + step - float64(p.bytes)
	if p.bytes >= p.want && p.packets > probePackets && due >= 0 && at-p.lastSent < 2*probeStep {
		p.active, p.judging = false, true
		return ProbePlan{}, false
	}
	due = min(due, mostSteps*step+1200)
	return ProbePlan{Cluster: int(p.id), Rate: p.rate, Bytes: max(int(due), 0), Again: probeStep}, true
}

// giveUp ends a cluster that lasts too long: media kept it ahead of its rate, which
// shows what media has, or there was nothing to pad with, which shows nothing.
func (p *prober) giveUp(at time.Duration) {
	p.active, p.judging = false, p.bytes >= p.want && p.packets > probePackets
	if !p.judging {
		p.next = at + probeBackoff
	}
}

// sent counts a packet into the running cluster and returns its id.
func (p *prober) sent(bytes int, at time.Duration) uint8 {
	if !p.active {
		return 0
	}
	if p.packets == 0 {
		p.firstSent = at
	}
	if p.packets == 0 || at-p.burst > burstTime {
		p.burst, p.lastBytes = at, 0
	}
	p.lastSent = at
	p.lastBytes += bytes
	p.bytes += bytes
	p.packets++
	return p.id
}

// reported counts a packet of which a feedback told.
func (p *prober) reported(a *arrival) {
	if a.cluster == 0 || a.cluster != p.id || !p.active && !p.judging {
		return
	}
	if a.lost {
		p.missed, p.missing = p.missed+int(a.size), p.missing+1
		return
	}
	if a.revived {
		p.missed, p.missing = p.missed-int(a.size), p.missing-1
	}
	if p.gotPackets == 0 {
		p.firstSeen = a.arrived
	}
	p.line.add(ms(a.sent-p.firstSent), ms(a.arrived-p.firstSeen))
	p.got += int(a.size)
	p.gotPackets++
	p.lastSeen = p.lastSeen || !p.active && a.sent >= p.lastSent
}

// result returns the rate that the last cluster showed, once it is all reported.
func (p *prober) result(at, rtt time.Duration, own float64) (float64, bool) {
	patience, over := max(2*rtt, reportLimit/4), p.lastSeen
	if p.scout {
		patience, over = scoutPatience, false
	}
	if !p.judging || p.gotPackets < p.packets && at-p.lastSent < patience && !over {
		return 0, false
	}
	p.judging, p.lastSeen = false, false
	rate, ok := p.measured(own)
	switch {
	case p.scout:
		p.scouts, p.next = p.scouts-1, at+probeGap
		if !ok {
			p.scouts = 0
		}
	case !ok || rate < p.rate*0.7:
		p.fail(at)
	default:
		p.succeeded++
		p.doubtful, p.next = at+doubt, at+probeGap
		p.ramp = max(p.ramp-1, 0)
	}
	return rate, ok
}

func (p *prober) fail(at time.Duration) {
	p.failed++
	p.ramp = 0
	p.backoff = min(max(2*p.backoff, probeBackoff), backoffMost)
	p.next = at + p.backoff
}

// disturbed: the estimate fell. The ramp is over, and what a probe showed just
// before was no proof: buckets of tokens and long queues let a cluster through.
func (p *prober) disturbed(at time.Duration) {
	p.ramp = 0
	if at < p.doubtful {
		p.doubtful = 0
		p.fail(at)
	}
}

// expire fails a cluster of which nobody tells.
func (p *prober) expire(at time.Duration) {
	if p.judging && at-p.lastSent > reportLimit {
		p.judging = false
		p.fail(at)
	}
}

// measured compares how fast the cluster left with how fast it came: by the slope
// of arrivals over departures, which jitter of single packets moves little.
func (p *prober) measured(own float64) (float64, bool) {
	least := arrivedPart
	if p.scout {
		least = scoutPart
	}
	if p.gotPackets < probePackets || float64(p.gotPackets) < least*float64(p.gotPackets+p.missing) {
		return 0, false
	}
	left, stretch := p.lastSent-p.firstSent, p.line.slope()
	out := float64(p.bytes-p.lastBytes) * 8 / max(left, time.Millisecond).Seconds()
	if out <= 0 || stretch < leastStretch {
		return 0, false // no path does that
	}
	share := min(float64(p.got)/float64(p.got+p.missed)/(1-own), 1)
	if in := out * share / max(stretch, 1); in < spreadPart*out {
		return in * belowSpread, true
	}
	return out * share, true
}

// line fits a slope to points as they come.
type line struct {
	n, x, y, xx, xy, yy float64
}

func (l *line) add(x, y float64) {
	l.n, l.x, l.y, l.xx, l.xy, l.yy = l.n+1, l.x+x, l.y+y, l.xx+x*x, l.xy+x*y, l.yy+y*y
}

func (l *line) slope() float64 {
	spread := l.n*l.xx - l.x*l.x
	if spread <= 0 {
		return 0
	}
	return (l.n*l.xy - l.x*l.y) / spread
}

// fit is how much of where the points are the line explains, 0 to 1: the square of their
// correlation.
func (l *line) fit() float64 {
	x, y, both := l.n*l.xx-l.x*l.x, l.n*l.yy-l.y*l.y, l.n*l.xy-l.x*l.y
	if x <= 0 || y <= 0 {
		return 0
	}
	return both * both / x / y
}
