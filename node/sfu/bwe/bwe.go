// Package bwe estimates how many bits a second the path to one receiver carries.
// It is told what was sent and what the receiver reported, and decides on values
// and `now`: it sends nothing, reads no clock and divides nothing (see package
// allocate for that).
//
// The way of a feedback packet (draft-holmer-rmcat-transport-wide-cc-extensions-01):
//
//	TransportLayerCC → history: which packets, sent when, how large
//	                 → throughput: bit/s that arrived
//	                 → trend: do queues grow?   normal | overuse | underuse
//	                 → loss: and is it ours, or does the path lose anyway?
//	                 → probe: what did the last cluster of padding prove?
//	                 → rate: raise, hold or fall (draft-ietf-rmcat-gcc-02)
//
// Three things differ from the draft, since a forwarder cannot make its source
// fill the path as an encoder does. The estimate rises only to a multiple of
// what arrived, or to what a probe proved, and forgets what nobody used. After an
// overuse it falls the deeper the longer the queue is, so that the queue goes.
// And loss that does not go away when less is sent is taken for the path's own.
//
// Receivers without transport-wide feedback drive it by REMB and by the loss in
// receiver reports.
package bwe

import (
	"cmp"
	"math"
	"time"
)

// Config bounds an Estimator. Rates are bit/s.
type Config struct {
	// Start is what is assumed of an unknown path. Default 1 Mbit/s: the middle
	// layer of a camera at once, and the first probes reach 4 Mbit/s a few round
	// trips later; on a path of 300 kbit/s it costs about half a second of queue
	// until the first overuse. Lower is kinder to such paths and slower for all
	// others.
	Start float64
	// Min is never gone below: a moving picture of the lowest layer. Default 50 kbit/s.
	Min float64
	// Max is never exceeded. Default 30 Mbit/s.
	Max float64
	// Bold is for links between nodes. What arrived, while no queue stood, is proven at
	// once: of so many sources what is sent fills the path as padding would. And loss of
	// up to a tenth, which the next hop has made good before anybody sees it, holds the
	// estimate and does not lower it: to find out whose fault it is would cost layers.
	// What a path holds up and lets go together is not taken for a queue. And whether it
	// carries Start is found out before that is needed, with padding.
	Bold bool
}

func (c Config) withDefaults() Config {
	c.Start, c.Min, c.Max = positive(c.Start, 1e6), positive(c.Min, 50e3), positive(c.Max, 30e6)
	c.Max = max(c.Max, c.Min)
	c.Start = min(max(c.Start, c.Min), c.Max)
	return c
}

func positive(v, or float64) float64 {
	if !(v > 0) || math.IsInf(v, 0) {
		return or
	}
	return v
}

// State says what the queues on the path do.
type State uint8

// The states of a path.
const (
	Normal   State = iota
	Overuse        // they grow: more is sent than the path carries
	Underuse       // they drain
)

func (s State) String() string { return [...]string{"normal", "overuse", "underuse"}[s] }

// Reason says why the estimate is what it is.
type Reason string

// The reasons of an estimate.
const (
	Started    Reason = "start estimate"
	Raised     Reason = "queues do not grow"
	NearLimit  Reason = "queues do not grow, near the last known limit"
	Unproven   Reason = "no more was sent, so no more is known"
	Forgotten  Reason = "what was proven was not used for long"
	Draining   Reason = "held until queues have drained"
	Congested  Reason = "queues grow"
	Competing  Reason = "others keep the queue full; our share is held"
	Lossy      Reason = "loss that grows with the rate"
	OwnLoss    Reason = "loss that did not fall with the rate is the path's own"
	ProbeProof Reason = "a probe arrived at this rate"
	Scouted    Reason = "probes arrived at this rate at most"
	ReceiverBE Reason = "the receiver's own estimate (REMB)"
	NoFeedback Reason = "no feedback arrives"
	NewPath    Reason = "the path changed"
)

const (
	// headroom and floorRoom: the estimate rises to 1.5 times what arrived and
	// a little, so that a trickle can grow (the libwebrtc figures).
	headroom  = 1.5
	floorRoom = 10e3
	// proofLasts is how long a proven rate counts fully without use, and
	// proofHalves the time in which half of it goes then.
	proofLasts, proofHalves = 20 * time.Second, 20 * time.Second
	// silence is how long packets may stay unreported before the estimate
	// decays: ten feedback intervals. It decays by quietFall every quietStep.
	silence, quietStep, quietFall = time.Second, 500 * time.Millisecond, 0.8
)

// Estimator is the estimate of one receiver's path. Make it with New. Not safe
// for concurrent use: the sender's lock guards it.
type Estimator struct {
	cfg   Config
	epoch time.Time // zero of all durations within
	now   time.Duration

	history  history
	clock    arrivalClock
	acked    throughput // by the receiver's clock
	sending  throughput // by ours
	trend    trend
	loss     lossControl
	probe    prober
	report   report    // the feedback at hand
	recent   []arrival // what is new in it; reused
	demand   float64
	rtt      time.Duration
	path     delays
	limit    linkLimit
	transcc  bool          // transport-wide feedback has been seen
	heard    time.Duration // last report of any kind that counted
	unheard  bool          // something was sent after it
	waiting  time.Duration // when the first of that was sent
	decayed  time.Duration // last decay for silence
	fell     time.Duration // last fall for queues
	everFell bool

	estimate float64
	proven   float64       // what arrived or was probed, as far as it is believed
	provenAt time.Duration // when it was last used or shown
	remb     float64       // 0: none
	grownAt  time.Duration

	state   State
	reason  Reason
	since   time.Duration // when the reason became what it is
	ignored Ignored
}

// New returns an Estimator that assumes cfg.Start.
func New(cfg Config) *Estimator {
	e := &Estimator{cfg: cfg.withDefaults()}
	e.estimate, e.proven, e.reason = e.cfg.Start, e.cfg.Start, Started
	e.trend.reset()
	e.loss.repaired, e.path.holds = e.cfg.Bold, e.cfg.Bold
	e.loss.reset()
	e.probe.reset()
	return e
}

// Estimate returns bit/s that the path is believed to carry, headers and
// padding of RTP included as told to Sent.
func (e *Estimator) Estimate() float64 { return e.estimate }

// State returns what the queues on the path do.
func (e *Estimator) State() State { return e.state }

// Transport reports whether transport-wide feedback has been seen.
func (e *Estimator) Transport() bool { return e.transcc }

// SetDemand tells how many bit/s would be used if there were as much. More than
// the estimate makes it probe; never called, only the first ramp is probed.
func (e *Estimator) SetDemand(rate float64) {
	if rate >= 0 {
		e.demand = min(rate, e.cfg.Max)
		e.probe.demanded = true
	}
}

// at turns a time into the Estimator's own, which never goes back.
func (e *Estimator) at(now time.Time) time.Duration {
	if e.epoch.IsZero() {
		e.epoch = now
		e.now = 0
	}
	e.now = max(e.now, now.Sub(e.epoch))
	return e.now
}

// Sent tells of a packet with a transport-wide sequence number. Without
// transport-wide feedback the caller numbers packets itself.
func (e *Estimator) Sent(seq uint16, bytes int, now time.Time) {
	at := e.at(now)
	bytes = min(max(bytes, 0), math.MaxUint16)
	e.sending.add(at, bytes)
	if !e.unheard {
		e.unheard, e.waiting = true, at
	}
	e.history.add(seq, uint16(bytes), at, e.probe.sent(bytes, at))
}

// learn takes e.report.
func (e *Estimator) learn(at time.Duration) {
	if !e.read(&e.report, at) {
		return
	}
	e.transcc = true
	e.listen(at)
	rate := e.acked.now()
	for i := range e.recent {
		e.take(&e.recent[i], rate)
	}
	e.loss.settle(at)
	e.path.judge(at, e.sending.long(), e.acked.long(), e.loss.doubts.late > 0)
	e.state = e.trend.state
	if !e.path.congested() {
		e.state = Normal // jitter: some packets are late, or early, but no queue stands
	}
	e.conclude(at)
}

// listen notes that the receiver is there.
func (e *Estimator) listen(at time.Duration) {
	e.heard, e.decayed, e.unheard = at, at, false
}

// take passes one reported packet through the estimators, in order of sending.
func (e *Estimator) take(p *arrival, rate float64) {
	if !e.probe.ofScout(p.cluster) {
		e.loss.count(p)
	}
	e.probe.reported(p)
	if p.lost {
		return
	}
	e.acked.add(p.arrived, int(p.size))
	e.path.observe(p.sent, p.arrived, p.size, rate)
	if e.trend.packet(p.sent, p.arrived) {
		e.path.reset()
	}
}

// conclude turns what the feedback brought into a rate.
func (e *Estimator) conclude(at time.Duration) {
	acked := e.acked.long()
	bound := e.loss.window(at, e.estimate, e.acked.now())
	if e.loss.cleared > e.estimate && e.state != Overuse {
		e.set(e.loss.cleared, OwnLoss, at)
	}
	if bound < e.estimate {
		e.set(bound, Lossy, at)
		e.proven = min(e.proven, e.estimate)
		e.probe.disturbed(at)
	}
	if rate, ok := e.probe.result(at, e.rtt, e.loss.own); ok && e.probe.scout {
		e.scouted(rate, at)
	} else if ok && e.state != Overuse && rate > e.estimate {
		e.limit.forgetBelow(rate)
		e.loss.allow(rate)
		e.proven, e.provenAt = rate, at
		e.set(rate, ProbeProof, at)
	}
	e.prove(acked, at)
	if e.cfg.Bold && e.state == Normal && acked > e.estimate && (bound > acked || e.loss.innocent(at)) {
		e.loss.allow(acked)
		e.set(acked, Raised, at)
	}
	switch e.state {
	case Overuse:
		e.fall(at)
	case Underuse:
		if e.path.foreign {
			e.grow(acked, at)
		}
		e.grownAt = at
	case Normal:
		e.grow(acked, at)
	}
	e.forget(acked, at)
}

// prove notes what arrived: so much the path carries.
func (e *Estimator) prove(acked float64, at time.Duration) {
	if acked >= e.proven && e.state == Normal {
		e.proven = min(acked, e.cfg.Max)
	}
	if acked*headroom >= e.proven {
		e.provenAt = at
	}
}

// ceiling is what the estimate may rise to: what is known, and a bit.
func (e *Estimator) ceiling(acked float64) float64 {
	return max(headroom*acked+floorRoom, e.proven)
}

// forget lowers a proof that nobody used, down to what would be assumed of an
// unknown path, and with it the estimate.
func (e *Estimator) forget(acked float64, at time.Duration) {
	idle := at - e.provenAt - proofLasts
	if idle <= 0 || e.proven <= e.cfg.Start {
		return
	}
	e.provenAt = at - proofLasts
	e.proven = max(e.proven*math.Exp2(-idle.Seconds()/proofHalves.Seconds()), e.cfg.Start)
	if top := e.ceiling(acked); top < e.estimate {
		e.set(top, Forgotten, at)
	}
}

// set changes the estimate and says why.
func (e *Estimator) set(rate float64, why Reason, at time.Duration) {
	if math.IsNaN(rate) {
		return
	}
	if e.remb > 0 && rate > e.remb {
		rate, why = e.remb, ReceiverBE
	}
	e.estimate = min(max(rate, e.cfg.Min), e.cfg.Max)
	if why != e.reason {
		e.reason, e.since = why, at
	}
}

// Tick is called a few times a second, also when nothing arrives: the estimate
// decays when the receiver falls silent.
func (e *Estimator) Tick(now time.Time) {
	at := e.at(now)
	e.probe.expire(at)
	if !e.unheard || at-max(e.waiting, e.heard) < silence || at-e.decayed < quietStep {
		return
	}
	e.decayed = at
	e.set(e.estimate*quietFall, NoFeedback, at)
	e.proven = min(e.proven, e.estimate)
}

// Restart forgets the path but not what the receiver could take: after a change
// of network (an ICE restart, a new selected pair) delays of the old path mean
// nothing.
func (e *Estimator) Restart(now time.Time) {
	at := e.at(now)
	e.history.forget()
	e.trend.reset()
	e.loss.reset()
	e.limit = linkLimit{}
	e.path.reset()
	e.state = Normal
	e.acked, e.everFell, e.remb = throughput{}, false, 0
	e.clock = arrivalClock{}
	e.probe.reset()
	e.listen(at)
	e.proven, e.provenAt = min(e.estimate, e.cfg.Start), at
	e.set(e.proven, NewPath, at)
}

// Probe says whether to send padding now, and how much. It is called on every
// Tick; while a probe runs, again after Plan.Again. What is sent meanwhile counts
// towards the probe, padding or not.
func (e *Estimator) Probe(now time.Time) (ProbePlan, bool) {
	at := e.at(now)
	if e.probe.running() {
		return e.probe.more(at)
	}
	if !e.mayProbe(at) {
		return ProbePlan{}, false
	}
	scout := e.unknown()
	return e.probe.start(e.target(scout), scout, at, e.path.jitter)
}

// mayProbe: only for what is wanted, on a path that is at rest.
func (e *Estimator) mayProbe(at time.Duration) bool {
	if !e.transcc && e.probe.count > 0 || e.unheard && at-max(e.waiting, e.heard) > silence/2 {
		return false // nobody would tell what became of it
	}
	ramp := e.probe.ramping()
	if (!ramp || e.probe.demanded) && e.demand <= e.estimate && !e.unknown() {
		return false
	}
	calm := e.state == Normal && e.path.queue() < calmQueue && e.remb == 0
	return calm && e.probe.due(at) && (!e.everFell || at-e.fell > afterFall)
}

// target is what to try: twice what is known, or what is wanted. The first ramp
// reaches four times the start in two steps. What arrives is known, be it more than
// the estimate: a cluster that is slower than what is sent anyway shows nothing. A scout
// is a little faster than what is assumed.
func (e *Estimator) target(scout bool) float64 {
	if scout {
		return min(e.cfg.Start*probeTimid, e.cfg.Max)
	}
	top := max(e.estimate, e.acked.long()) * e.probe.factor()
	if e.probe.demanded {
		top = min(top, max(e.demand*1.05, e.estimate*1.1))
	}
	return min(top, e.cfg.Max)
}

// Probing says when Probe should be called next: at once if true.
func (e *Estimator) Probing() bool { return e.probe.running() }

// Loss takes the fraction lost that a receiver report tells, 0 to 1
// (RFC 3550 section 6.4.1). With transport-wide feedback it is not looked at: that counts
// better.
func (e *Estimator) Loss(fraction float64, now time.Time) {
	at := e.at(now)
	if !(fraction >= 0 && fraction <= 1) {
		e.ignored.Malformed++
		return
	}
	if e.transcc {
		return
	}
	e.listen(at)
	sent := e.sending.long()
	e.loss.report(fraction, sent, at)
	if bound := e.loss.window(at, e.estimate, sent*(1-fraction)); bound < e.estimate {
		e.set(bound, Lossy, at)
		return
	}
	if e.loss.calm() {
		e.grow(sent*(1-fraction), at)
	}
}

// REMB takes the receiver's own estimate (draft-alvestrand-rmcat-remb-03). It
// is an upper bound; without transport-wide feedback it is the estimate.
func (e *Estimator) REMB(bits float64, now time.Time) {
	at := e.at(now)
	if !(bits > 0) || math.IsInf(bits, 0) {
		e.ignored.Malformed++
		return
	}
	e.remb = max(bits, e.cfg.Min)
	if e.transcc {
		if e.estimate > e.remb {
			e.set(e.remb, ReceiverBE, at)
		}
		return
	}
	e.listen(at)
	e.proven, e.provenAt = e.remb, at
	e.set(min(e.remb, cmp.Or(e.loss.bound, e.remb)), ReceiverBE, at)
}
