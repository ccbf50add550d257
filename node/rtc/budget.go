package rtc

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/allocate"
	"github.com/domicile/domicile/node/sfu/bwe"
)

// planEvery is how often the estimate is divided anew: a few times in the second
// that a raise has to hold. One that fell below planBelow of what was divided is
// at once: each packet too many now waits in a queue before the others.
const (
	planEvery = 200 * time.Millisecond
	planBelow = 0.9
)

// budget keeps what is sent to a client within what its way carries: it numbers
// the packets, learns from the client's feedback how they fared, divides the
// estimate among the pictures, and tries with padding whether there is more. Audio
// is not in it: it always goes out.
type budget struct {
	p *peer // static
	// planning is held from the asking of the pictures until each has its limit: two
	// plans at a time, a tick's and that of bad news, would cross.
	planning sync.Mutex

	mu      sync.Mutex // guards the rest
	next    uint16     // transport-wide sequence number
	est     *bwe.Estimator
	reports bool // the client tells what arrives
	alloc   allocate.Allocator
	planned time.Time
	divided float64 // the estimate at that time
	// strained: the way has shown that it has an end. Before that the estimate is
	// only what was not yet tried, and no reason to pause a picture.
	strained bool
	wants    []allocate.Want
	grants   []allocate.Grant
	last     map[*sfu.DownTrack]held
	limit    float64 // bit/s; 0: none
}

// held is what a picture has, and whether its client was told that it pauses.
type held struct {
	grant  allocate.Grant
	paused bool
}

// startRate is what an unknown way is taken to carry, bit/s: one camera of 720
// lines, so that the first seconds of most meetings need no step down and up again.
const startRate = 2.5e6

func newBudget(p *peer) *budget {
	return &budget{p: p, est: bwe.New(bwe.Config{Start: startRate}), last: make(map[*sfu.DownTrack]held)}
}

// stamp numbers a packet that leaves now.
func (b *budget) stamp(size int, now time.Time) uint16 {
	b.mu.Lock()
	b.next++
	n := b.next
	b.est.Sent(n, size, now)
	b.mu.Unlock()
	return n
}

// reported takes the transport-wide feedback out of a compound packet and returns
// what is left. The estimator reads it itself: a few bytes of it can make the
// library do milliseconds of work.
func (b *budget) reported(compound []byte, now time.Time) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := b.est.Compound(compound, now)
	b.reports = b.reports || b.est.Transport()
	b.hurry()
	return rest
}

// hurry makes the next tick divide anew if there is much less to divide.
func (b *budget) hurry() {
	if b.est.Estimate() < planBelow*b.divided {
		b.planned = time.Time{}
	}
}

// moved forgets what was learnt of a way that the client has left.
func (b *budget) moved(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.est.Restart(now)
}

// feedback learns from what else the client reports. A report may be about streams
// that are no more: loss of those counts as well.
func (b *budget) feedback(pkts []rtcp.Packet, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, pkt := range pkts {
		if remb, ok := pkt.(*rtcp.ReceiverEstimatedMaximumBitrate); ok {
			b.reports = true
			b.est.REMB(float64(remb.Bitrate), now)
		}
	}
	b.hurry()
}

// tick divides the estimate and looks whether to try for more.
// Whoever finds another at it leaves it to that one: a worker does not wait.
func (b *budget) tick(now time.Time) {
	if !b.planning.TryLock() {
		return
	}
	defer b.planning.Unlock()
	if !b.due(now) {
		return
	}
	// Asked before the lock is taken: a DownTrack numbers packets under its own.
	pictures := b.pictures(now)
	changed, repair, rtt := b.plan(pictures, now)
	for _, c := range changed {
		c.apply(b.p)
	}
	for _, p := range pictures {
		p.s.down.SetRepair(repair, rtt)
	}
}

func (b *budget) due(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.est.Tick(now)
	if !b.reports || now.Sub(b.planned) < planEvery {
		return false
	}
	b.planned, b.divided = now, b.est.Estimate()
	b.strained = b.strained || b.est.State() == bwe.Overuse || b.est.Estimate() < startRate/2
	return true
}

// picture is a video track and what it could use.
type picture struct {
	s      *sender
	demand sfu.Demand
}

func (b *budget) pictures(now time.Time) (list []picture) {
	for _, s := range b.p.send.all() {
		if s.up.Kind() == sfu.Video && s.running() {
			list = append(list, picture{s, s.down.Demand(now)})
		}
	}
	return list
}

// limit is a grant on its way to its DownTrack.
type limit struct {
	s     *sender
	grant allocate.Grant
	told  bool // the client is to hear that the track pauses or goes on
}

// apply bounds the DownTrack only where the budget does: who may have all that
// there is may also have a layer that the publisher does not send now for want of
// viewers, and is one.
func (c limit) apply(p *peer) {
	g, l := c.grant, sfu.Unlimited
	if g.Reason != allocate.Full && g.Reason != allocate.Unknown && g.Reason != allocate.Client {
		l = sfu.Limit{Spatial: sfu.Layer(g.Spatial), Temporal: g.Temporal, Pause: g.Pause && !p.s.cfg.NoPause}
	}
	c.s.down.SetLimit(l)
	if c.told && !p.s.cfg.NoPause {
		p.s.gate.pass(func() { p.s.events.StreamState(c.s.down, g.Pause) })
	}
}

// repairPart is what of an estimate that pictures use up retransmissions may have
// all the same.
const repairPart = 0.1

// plan asks for a grant for each picture. It returns those that changed, and what
// is left for the retransmissions of each.
func (b *budget) plan(pictures []picture, now time.Time) (changed []limit, repair float64, rtt time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wants = b.wants[:0]
	for _, p := range pictures {
		b.wants = append(b.wants, allocate.Want{
			ID: p.s.sub.TrackID, Screen: p.s.sub.Screen, Priority: int(p.s.priority.Load()), Max: uint8(p.demand.Max),
			Rates: allocate.Rates(p.demand.Rates), Paused: p.demand.Paused, Current: b.last[p.s.down].grant,
		})
	}
	b.grants = b.alloc.Plan(b.grants[:0], allocate.Input{
		Budget: b.available(), Overuse: b.est.State() == bwe.Overuse, Wants: b.wants, Now: now,
	})
	_, all := b.alloc.More()
	b.est.SetDemand(all)
	left := b.est.Estimate()
	for i, g := range b.grants {
		left -= g.Rate
		if c, news := b.note(pictures[i].s, g, b.wants[i].Paused); news {
			changed = append(changed, c)
		}
	}
	b.prune(pictures)
	repair = max(left, repairPart*b.est.Estimate()) / float64(max(len(pictures), 1))
	return changed, repair, b.est.Stats().RTT
}

// note keeps a grant, and reports whether it is another than before. still says that
// the picture would not move anyway, so that the client need not hear that it pauses.
func (b *budget) note(s *sender, g allocate.Grant, still bool) (c limit, news bool) {
	if g.Pause && !still && !b.strained {
		g.Pause, g.Spatial, g.Temporal = false, 0, 0
	}
	h, had := b.last[s.down]
	old := h.grant
	c = limit{s: s, grant: g, told: !still && h.paused != g.Pause}
	if c.told {
		h.paused = g.Pause
	}
	h.grant = g
	b.last[s.down] = h
	return c, c.told || !had || old.Spatial != g.Spatial || old.Temporal != g.Temporal || old.Pause != g.Pause || old.Reason != g.Reason
}

// prune forgets what is not sent any more: a track may have ended while it was
// planned for.
func (b *budget) prune(pictures []picture) {
	if len(b.last) == len(pictures) {
		return
	}
	maps.DeleteFunc(b.last, func(d *sfu.DownTrack, _ held) bool {
		return !slices.ContainsFunc(pictures, func(p picture) bool { return p.s.down == d })
	})
}

// bound puts a limit on the estimate.
func (b *budget) bound(limit float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.reports = limit, b.reports || limit > 0
}

func (b *budget) available() float64 {
	if b.limit > 0 {
		return min(b.limit, b.est.Estimate())
	}
	return b.est.Estimate()
}

// forget drops a track that is not sent any more.
func (b *budget) forget(d *sfu.DownTrack) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.last, d)
}

// probe sends the padding that the estimator asks for, and returns when to ask
// again, 0: with the next tick.
func (b *budget) probe(now time.Time, out sfu.Out) time.Duration {
	b.mu.Lock()
	if !b.reports || len(b.last) == 0 {
		b.mu.Unlock()
		return 0
	}
	plan, ok := b.est.Probe(now)
	b.mu.Unlock()
	if !ok {
		return 0
	}
	for _, s := range b.p.send.all() {
		if plan.Bytes <= 0 {
			break
		}
		plan.Bytes -= s.down.Pad(plan.Bytes, out)
	}
	return plan.Again
}

// estimate returns what the way to the client is thought to carry, bit/s.
func (b *budget) estimate() bwe.Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.est.Stats()
}
