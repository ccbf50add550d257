package bwe

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/interceptor/pkg/twcc"

	"github.com/domicile/domicile/node/sfu/allocate"
)

// The simulated network: one bottleneck with a queue, shared by our packets and
// by others'. Time runs in steps of a millisecond, and every packet
// leaves the queue at its exact time.

const tick = time.Millisecond

type simPacket struct {
	flow  int
	seq   uint16
	id    int
	size  int
	queue time.Duration // entered the queue
	out   time.Duration // reaches its receiver
}

// path is what a test says of the network.
type path struct {
	rate    func(t time.Duration) float64 // bit/s
	delay   time.Duration                 // one way
	jitter  time.Duration                 // uniform, on top
	ordered bool                          // jitter keeps packets in order
	reorder float64                       // share of packets that come 15 ms later
	loss    float64                       // random, after the queue
	queue   time.Duration                 // drop-tail, at the rate of the moment
	tcp     func(t time.Duration) int     // competing AIMD flows
	cbr     func(t time.Duration) float64 // competing constant traffic, bit/s
}

func constant(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

// steps is a rate over time: pairs of seconds and bit/s.
func steps(pairs ...float64) func(time.Duration) float64 {
	return func(t time.Duration) float64 {
		rate := 0.0
		for i := 0; i+1 < len(pairs); i += 2 {
			if t.Seconds() >= pairs[i] {
				rate = pairs[i+1]
			}
		}
		return rate
	}
}

// source says how many bit/s of media are sent, given the estimate.
type source func(s *sim) float64

// elastic is an encoder that follows the estimate up to most.
func elastic(most float64) source {
	return func(s *sim) float64 {
		s.e.SetDemand(most)
		return min(s.e.Estimate(), most)
	}
}

// fixed is media that follows nothing.
func fixed(rate float64) source { return func(s *sim) float64 { return rate } }

// cameras is n simulcast cameras of 150, 500 and 1700 kbit/s behind the
// allocator, as in a session.
func cameras(n int) source {
	var a allocate.Allocator
	wants := make([]allocate.Want, n)
	for i := range wants {
		wants[i] = allocate.Want{ID: fmt.Sprint(i), Max: 2, Rates: simulcast}
	}
	var grants []allocate.Grant
	return func(s *sim) float64 {
		grants = a.Plan(grants[:0], allocate.Input{Budget: s.e.Estimate(), Overuse: s.e.State() == Overuse, Wants: wants, Now: s.now()})
		_, all := a.More()
		total := 0.0
		for i, g := range grants {
			if wants[i].Current.Reason != "" && (g.Spatial != wants[i].Current.Spatial || g.Pause != wants[i].Current.Pause) {
				s.switches++
			}
			wants[i].Current = g
			total += g.Rate
		}
		s.e.SetDemand(all)
		return total
	}
}

// late is a source whose switches wait for a keyframe.
func late(by time.Duration, src source) source {
	var rates []float64
	return func(s *sim) float64 {
		rates = append(rates, src(s))
		return rates[max(len(rates)-1-int(by*30/time.Second), 0)]
	}
}

// slideshow sends little, and every five seconds a slide of 100 kB.
func slideshow(s *sim) float64 {
	s.e.SetDemand(1e6)
	if s.t%(5*time.Second) < time.Second/15 {
		return 100e3 * 8 * 15
	}
	return 40e3
}

var simulcast = allocate.Rates{{70e3, 110e3, 150e3}, {230e3, 360e3, 500e3}, {800e3, 1200e3, 1700e3}}

type tcpFlow struct {
	cwnd, ssthresh float64
	inflight       int
	recover        int // halved for losses before this id
	next           int
}

type event struct {
	at time.Duration
	do func()
}

type sim struct {
	t      time.Duration
	e      *Estimator
	p      path
	rng    *rand.Rand
	src    source
	rec    *twcc.Recorder
	fifo   []simPacket
	queued int
	free   time.Duration
	flying []simPacket
	newest time.Duration // when the last one that kept its order comes
	events []event
	tcp    []*tcpFlow

	seq       uint16
	mute      func(t time.Duration) bool // feedback is lost
	interval  time.Duration
	switches  int
	carry     float64
	nextProbe time.Duration
	padding   int
	keyframes bool
	timers    time.Duration // are late by up to this
	unpadded  bool          // there is nothing to pad with
	trace     []point
	last      point
	owd       []time.Duration // queueing delay of our packets in this sample
}

// point is what a tenth of a second looked like.
type point struct {
	t                time.Duration
	estimate         float64
	sent, got, other int // bytes
	delay            time.Duration
	lost             int
	state            State
	reason           Reason
}

func newSim(seed uint64, p path, src source) *sim {
	s := &sim{e: New(Config{}), p: p, src: src, rng: rand.New(rand.NewPCG(seed, 1)), interval: 100 * time.Millisecond, seq: 65000}
	s.rec = twcc.NewRecorder(1)
	return s
}

var simEpoch = time.Unix(1700000000, 0)

func (s *sim) now() time.Time { return simEpoch.Add(s.t) }

func (s *sim) after(d time.Duration, do func()) { s.events = append(s.events, event{s.t + d, do}) }

func (s *sim) run(d time.Duration) *sim {
	frame, nextFrame := time.Second/30, s.t
	nextTick, nextFeedback, nextSample := s.t, s.t+s.interval, s.t+100*time.Millisecond
	nextCBR := s.t
	frames := 0
	for end := s.t + d; s.t < end; s.t += tick {
		for i := 0; i < len(s.events); i++ {
			if s.events[i].at <= s.t {
				do := s.events[i].do
				s.events = slices.Delete(s.events, i, i+1)
				i--
				do()
			}
		}
		if s.t >= nextTick {
			s.e.Tick(s.now())
			nextTick += 50 * time.Millisecond
			s.nextProbe = min(s.nextProbe, s.t)
		}
		if s.t >= nextFrame {
			nextFrame += frame
			frames++
			s.frame(s.src(s)/30, frames)
		}
		if s.t >= s.nextProbe {
			s.probe()
		}
		s.others(&nextCBR)
		s.serve()
		s.deliver()
		if s.t >= nextFeedback {
			nextFeedback += s.interval
			s.feedback()
		}
		if s.t >= nextSample {
			nextSample += 100 * time.Millisecond
			s.sample()
		}
	}
	return s
}

// frame sends a frame's packets one after the other, as a publisher's pacer does.
func (s *sim) frame(bits float64, n int) {
	bits *= 0.8 + 0.4*s.rng.Float64()
	if s.keyframes && n%150 == 1 {
		bits *= 5
	}
	bytes := int(bits/8 + s.carry)
	s.carry = 0
	for at := time.Duration(0); bytes > 0; at += time.Millisecond {
		size := min(bytes, 1200)
		if size < 60 {
			s.carry = float64(size)
			break
		}
		bytes -= size
		s.after(at, func() { s.send(size) })
	}
}

func (s *sim) send(size int) {
	s.seq++
	s.e.Sent(s.seq, size, s.now())
	s.last.sent += size
	s.enqueue(simPacket{seq: s.seq, size: size})
}

func (s *sim) probe() {
	plan, ok := s.e.Probe(s.now())
	if !ok {
		s.nextProbe = s.t + time.Hour
		return
	}
	s.nextProbe = s.t + plan.Again + time.Duration(s.rng.Float64()*float64(s.timers))
	for n := plan.Bytes; n > 0 && !s.unpadded; n -= 1200 {
		s.padding += min(n, 1200)
		s.send(max(min(n, 1200), 200))
	}
}

func (s *sim) enqueue(p simPacket) {
	p.queue = s.t
	if limit := s.p.rate(s.t) * s.p.queue.Seconds() / 8; float64(s.queued+p.size) > max(limit, 3000) {
		s.dropped(p)
		return
	}
	s.queued += p.size
	s.fifo = append(s.fifo, p)
}

func (s *sim) serve() {
	for len(s.fifo) > 0 {
		p := s.fifo[0]
		start := max(s.free, p.queue)
		rate := s.p.rate(s.t)
		if start > s.t || rate <= 0 {
			return
		}
		s.fifo = s.fifo[1:]
		s.queued -= p.size
		s.free = start + time.Duration(float64(p.size*8)/rate*1e9)
		p.out = s.free + s.p.delay + time.Duration(s.rng.Float64()*float64(s.p.jitter))
		if s.p.ordered { // as behind a queue
			p.out = max(p.out, s.newest)
			s.newest = p.out
		}
		if s.rng.Float64() < s.p.reorder {
			p.out += 15 * time.Millisecond
		}
		if p.flow == 0 {
			s.owd = append(s.owd, s.free-p.queue)
			if s.rng.Float64() < s.p.loss {
				s.dropped(p)
				continue
			}
		}
		s.flying = append(s.flying, p)
	}
}

func (s *sim) dropped(p simPacket) {
	if p.flow == 0 {
		s.last.lost++
		return
	}
	if p.flow > 0 {
		f := s.tcp[p.flow-1]
		s.after(2*s.p.delay+20*time.Millisecond, func() {
			f.inflight--
			if p.id >= f.recover {
				f.ssthresh = max(f.cwnd/2, 2)
				f.cwnd, f.recover = f.ssthresh, f.next
			}
		})
	}
}

func (s *sim) deliver() {
	kept := s.flying[:0]
	for _, p := range s.flying {
		if p.out > s.t {
			kept = append(kept, p)
			continue
		}
		switch {
		case p.flow == 0:
			s.last.got += p.size
			// The receiver's clock is not ours.
			s.rec.Record(1, p.seq, (p.out + 1000*time.Second).Microseconds())
		case p.flow > 0:
			s.last.other += p.size
			f := s.tcp[p.flow-1]
			s.after(s.p.delay, func() {
				f.inflight--
				if f.cwnd < f.ssthresh {
					f.cwnd++
				} else {
					f.cwnd += 1 / f.cwnd
				}
			})
		default:
			s.last.other += p.size
		}
	}
	s.flying = kept
}

// others sends what competes.
func (s *sim) others(nextCBR *time.Duration) {
	if s.p.tcp != nil {
		n := s.p.tcp(s.t)
		for len(s.tcp) < n {
			s.tcp = append(s.tcp, &tcpFlow{cwnd: 10, ssthresh: 1e9})
		}
		for i, f := range s.tcp[:n] {
			for f.inflight < int(f.cwnd) {
				f.inflight++
				f.next++
				s.enqueue(simPacket{flow: i + 1, id: f.next - 1, size: 1500})
			}
		}
	}
	if s.p.cbr != nil {
		if rate := s.p.cbr(s.t); rate > 0 && s.t >= *nextCBR {
			*nextCBR = s.t + time.Duration(1000*8/rate*1e9)
			s.enqueue(simPacket{flow: -1, size: 1000})
		}
	}
}

// feedback goes over the wire as it would.
func (s *sim) feedback() {
	for _, pkt := range s.rec.BuildFeedbackPacket() {
		raw, err := pkt.Marshal()
		if err != nil || s.mute != nil && s.mute(s.t) {
			continue
		}
		s.after(s.p.delay, func() {
			s.e.Compound(raw, s.now())
			s.nextProbe = min(s.nextProbe, s.t)
		})
	}
}

func (s *sim) sample() {
	p := s.last
	p.t, p.estimate, p.state, p.reason = s.t, s.e.Estimate(), s.e.State(), s.e.reason
	if len(s.owd) > 0 {
		p.delay = slices.Max(s.owd)
	}
	s.trace, s.last, s.owd = append(s.trace, p), point{}, s.owd[:0]
}

// figures are what a stretch of time looked like.
type figures struct {
	use, other            float64 // share of the bottleneck
	estimate, least, most float64 // bit/s
	p50, p95              time.Duration
	loss                  float64
}

func (s *sim) between(from, to time.Duration) figures {
	var f figures
	var got, sent, other, lost, n int
	var room float64
	var delays []time.Duration
	for _, p := range s.trace {
		if p.t <= from || p.t > to {
			continue
		}
		n++
		got, sent, other, lost = got+p.got, sent+p.sent, other+p.other, lost+p.lost
		room += s.p.rate(p.t-50*time.Millisecond) / 80
		f.estimate += p.estimate
		if f.least == 0 || p.estimate < f.least {
			f.least = p.estimate
		}
		f.most = max(f.most, p.estimate)
		delays = append(delays, p.delay)
	}
	if n == 0 {
		return f
	}
	slices.Sort(delays)
	f.use, f.other, f.estimate = float64(got)/room, float64(other)/room, f.estimate/float64(n)
	f.p50, f.p95 = delays[len(delays)/2], delays[len(delays)*95/100]
	f.loss = float64(lost*1100) / float64(max(sent, 1))
	return f
}

// reached returns how long after from the estimate was first on the right side.
func (s *sim) reached(from time.Duration, ok func(estimate float64) bool) time.Duration {
	for _, p := range s.trace {
		if p.t > from && ok(p.estimate) {
			return p.t - from
		}
	}
	return time.Hour
}

func (s *sim) print(t *testing.T, every int) {
	for i := 0; i < len(s.trace); i += every {
		p := s.trace[i]
		t.Logf("%5.1f s  %7.0f kbit/s  sent %6.0f got %6.0f other %6.0f of %6.0f  delay %4d ms lost %2d  %s: %s", p.t.Seconds(), p.estimate/1e3,
			float64(p.sent)*.08, float64(p.got)*.08, float64(p.other)*.08, s.p.rate(p.t)/1e3, p.delay.Milliseconds(), p.lost, p.state, p.reason)
	}
}
