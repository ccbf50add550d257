package relay

import (
	"time"

	"github.com/domicile/domicile/node/sfu/bwe"
	"github.com/domicile/domicile/relay/flow"
	"github.com/domicile/domicile/relay/seal"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/udp"
)

const (
	// roundGap is the least time between two rounds in which media leaves: what comes
	// meanwhile shares datagrams and system calls.
	roundGap = 250 * time.Microsecond
	// tickEvery and idleTick are how often a link that is at work, or not, looks
	// after its path.
	tickEvery, idleTick = 10 * time.Millisecond, 100 * time.Millisecond
	// busyFor is how long after its last packet a link counts as at work.
	busyFor = 500 * time.Millisecond
	// reviewEvery is how often rates, layers and the carriage are judged.
	reviewEvery = 100 * time.Millisecond
	// aliveEvery is how often a link that has nothing to send makes sure that the
	// path is open.
	aliveEvery = 200 * time.Millisecond
	// doubtEvery is how often, once a sign of life should have been answered and was not,
	// for doubtFor: a path that only loses some is soon heard again.
	doubtEvery, doubtFor = 50 * time.Millisecond, 2 * time.Second
	// maxWait is how long video waits for its turn. What is older is dropped by
	// frames, and layers are left out before it comes to that.
	maxWait = 100 * time.Millisecond
	// markAfter is how long after the last packet of video an empty datagram tells
	// the receiver that it was: so that one that is lost is missed.
	markAfter = 10 * time.Millisecond
	maxMarks  = 2
	// lengthsKept is of how many datagrams the length is known. A power of two.
	lengthsKept = 2048
	// limitLasts is how long a path counts as limited after queues grew.
	limitLasts = 5 * time.Second
	// rateWeight is that of the last 100 ms in the rate of a layer.
	rateWeight = 0.3
	// rateSpare: repairs, heads and tags, beyond the bytes that are offered.
	rateSpare = 1.06
	// ipOverhead is what a datagram has beside its bytes on the path.
	ipOverhead = 28
)

// sending is what hop.run owns.
type sending struct {
	h       *hop
	now     time.Time
	port    uint16
	out     *udp.Sender
	sealer  *seal.Sealer
	est     *bwe.Estimator
	history *flow.History
	pacer   flow.Pacer
	length  flow.Length
	choice  flow.Choice
	thinner flow.Thinner
	lengths [lengthsKept]uint16
	sent    []uint16 // numbers of what waits for flush, the end of them

	arena []byte
	used  int
	cur   []byte // datagram that is being filled, from its head on; nil: none

	audio  []*outlet                    // that have something to send
	video  [wire.MaxLayer + 1][]*outlet // likewise, by layer
	all    [wire.MaxLayer + 1][]*outlet // of video, for the rates
	voices []*outlet                    // all of audio
	thin   [wire.MaxLayer + 1][]*flow.Stream

	letters  [inboxSlots][]byte
	fb       wire.Feedback
	times    []time.Duration
	asked    []uint64
	reported uint64 // one more than the greatest number that was heard of
	heardAt  time.Time
	unheard  flow.Unheard

	ticked, reviewed time.Time
	busyAt           time.Time // last media, either way
	leftAt           time.Time // the round in which media left last
	armed            time.Time // when run's timer fires; zero: it has
	lastSent         time.Time
	lastVideo        time.Time
	marks            int
	probeAt          time.Time
	limitAt          time.Time // when the estimate was last at the path's limit
	limit            float64   // which it was, bit/s
	need             float64
	quicSent         uint64
	quicLost         uint64
	quicLoss         float64
}

func (s *sending) init(h *hop, sealer *seal.Sealer, port uint16, now time.Time) {
	*s = sending{h: h, port: port, sealer: sealer, now: now,
		out: h.socket.Sender(h.to(port)), history: flow.NewHistory(),
		est:   bwe.New(bwe.Config{Start: startRate, Max: maxRate, Min: 200e3, Bold: true}),
		arena: make([]byte, hopArena),
	}
}

// run sends over UDP until the link ends.
func (h *hop) run() error {
	defer h.l.f.removeHop(h.id)
	select {
	case c := <-h.peer:
		if err := h.open(c); err != nil {
			return err
		}
	case <-h.l.ctx.Done():
		return nil
	}
	s := &h.send
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-h.wake:
		case <-timer.C:
			s.armed = time.Time{}
		case <-h.l.ctx.Done():
			s.discard()
			return nil
		}
		if h.active.Load() {
			s.rest()
			h.claim()
		}
		wait, err := s.round(time.Now())
		if err != nil {
			return err
		}
		s.arm(timer, wait)
	}
}

// rest keeps rounds apart. A round in which nothing left, as the peer was heard, does
// not hold up what is offered.
func (s *sending) rest() {
	last := s.now
	if s.h.ready.any() {
		last = s.leftAt
	}
	if wait := roundGap - time.Since(last); wait > 0 {
		s.h.socket.Pause(wait)
	}
}

// claim takes the token of what was offered since run was woken. The round that
// follows finds it; another would look in vain, and have what comes then wait.
func (h *hop) claim() {
	select {
	case <-h.wake:
	default:
	}
}

// arm has the timer fire within wait. One that fires sooner stays: to look in vain
// once in a while costs less than to set it anew each time.
func (s *sending) arm(timer *time.Timer, wait time.Duration) {
	at := s.now.Add(wait)
	if !s.armed.IsZero() && !at.Before(s.armed) {
		return
	}
	s.armed = at
	timer.Reset(wait)
}

// round does what is due, and returns when to look again.
func (s *sending) round(now time.Time) (time.Duration, error) {
	s.now = now
	s.hear()
	s.gather()
	if err := s.answer(); err != nil {
		return 0, err
	}
	if now.Sub(s.ticked) >= s.tickTime() {
		if err := s.tick(); err != nil {
			return 0, err
		}
	} else if s.est.Probing() {
		if err := s.pad(); err != nil {
			return 0, err
		}
	}
	if err := s.sendAll(); err != nil {
		return 0, err
	}
	s.flush()
	return s.wait(), nil
}

// sendAll sends what waits, sound first, then what was lost, then pictures, the
// smallest layers before the others.
func (s *sending) sendAll() error {
	if !s.h.active.Load() {
		s.giveBack()
		return nil
	}
	var err error
	if s.audio, err = s.drainAll(s.audio); err != nil {
		return err
	}
	if err := s.resend(); err != nil {
		return err
	}
	for layer := range s.video {
		if s.video[layer], err = s.drainAll(s.video[layer]); err != nil {
			return err
		}
	}
	if err := s.close(wire.HopMedia); err != nil {
		return err
	}
	if err := s.live(); err != nil {
		return err
	}
	return s.mark()
}

// live sends the sign of life that is due.
func (s *sending) live() error {
	silent := time.Duration(s.h.silent.Swap(0))
	if silent == 0 || s.now.Sub(s.lastSent) < silent {
		return nil
	}
	return s.probe(0)
}

// gather takes note of the outlets that got something.
func (s *sending) gather() {
	s.h.ready.each(func(o *outlet) {
		s.busyAt = s.now
		if !o.known {
			o.known = true
			if o.t.video {
				s.all[o.layer] = append(s.all[o.layer], o)
			} else {
				s.voices = append(s.voices, o)
			}
		}
		if o.queued {
			return
		}
		o.queued = true
		if o.t.video {
			s.video[o.layer] = append(s.video[o.layer], o)
		} else {
			s.audio = append(s.audio, o)
		}
	})
}

// drainAll sends what outlets have, and returns those that have to wait.
func (s *sending) drainAll(list []*outlet) ([]*outlet, error) {
	rest := list[:0]
	for _, o := range list {
		left, err := s.drain(o)
		if err != nil {
			return list, err
		}
		if o.queued = left; left {
			rest = append(rest, o)
		}
	}
	clear(list[len(rest):])
	return rest, nil
}

// drain sends what an outlet has, as far as the pacer lets video pass. It reports
// whether something is left.
func (s *sending) drain(o *outlet) (left bool, err error) {
	for o.batch.head < len(o.batch.buf) || o.queue.len() > 0 {
		switch o.t.standing(s.h.l.cfg.Now()) {
		case waits:
			return true, nil // Renew wakes run
		case over:
			o.discard(DropRevoked)
			return false, nil
		}
		o.refill()
		for o.batch.head < len(o.batch.buf) {
			record, marker := o.first()
			rtp := record[wire.RecordOverhead:]
			if s.stale(o, timestamp(rtp)) {
				o.t.count.drop(DropDeadline, 1)
				o.gone(record)
				continue
			}
			if o.t.video && !s.pacer.Ready(s.now) {
				return true, nil
			}
			if mediaOverhead+len(record) > s.length.Limit() { // the path has become narrower
				streams{s.h.l}.offer(o.t, o.layer, marker, rtp)
				o.gone(record)
				continue
			}
			if err := s.pack(record); err != nil {
				return false, err
			}
			o.t.count.sent(1, len(rtp))
			o.gone(record)
			if o.t.video {
				s.lastVideo, s.marks = s.now, 0
			}
		}
	}
	return false, nil
}

// stale reports whether a packet waited for so long that nobody would play it. Of a
// picture the rest goes with it.
func (s *sending) stale(o *outlet, ts uint32) bool {
	if o.skipping && o.skip == ts {
		return true
	}
	o.skipping = false
	most := s.h.l.cfg.FrameDeadline
	if o.t.video {
		most = maxWait
	}
	if since, ok := o.batch.since(ts); ok && s.now.Sub(since) >= most {
		o.skipping, o.skip = o.t.video, ts
		return true
	}
	return false
}

// pack puts a record into the datagram at hand, or a new one.
func (s *sending) pack(record []byte) error {
	if s.cur != nil && len(s.cur)+len(record)+wire.HopTag > s.length.Limit()-(wire.RepairSize-1) {
		if err := s.close(wire.HopMedia); err != nil {
			return err
		}
	}
	if s.cur == nil {
		s.begin(wire.HopMedia)
	}
	s.cur = append(s.cur, record...)
	return nil
}

// begin begins a datagram.
func (s *sending) begin(kind byte) {
	if s.used+flow.MaxLength > len(s.arena) || s.out.Full() {
		s.flush()
	}
	s.cur = s.arena[s.used : s.used+wire.HopSize+1]
	s.cur[wire.HopSize] = kind
}

// close seals the datagram at hand, if there is one of a kind, and has it leave.
func (s *sending) close(kind byte) error {
	if s.cur == nil {
		return nil
	}
	n := s.sealer.Next()
	var body []byte
	if kind == wire.HopMedia {
		body = s.cur[wire.HopSize+1:]
	}
	s.history.Add(n, body, s.now)
	sealed, err := s.sealer.Seal(s.cur, s.now)
	if err != nil {
		return err
	}
	s.cur = nil
	s.used += len(sealed)
	s.out.Add(sealed)
	s.h.count.sent.Add(1)
	s.lengths[n%lengthsKept] = uint16(len(sealed))
	if kind != wire.HopFeedback {
		s.sent = append(s.sent, uint16(n))
		s.pacer.Sent(len(sealed) + ipOverhead)
		s.unheard.Sent(s.now)
		s.lastSent = s.now
	}
	if kind == wire.HopMedia || kind == wire.HopRepair {
		s.leftAt = s.now
	}
	return nil
}

// flush hands all to the kernel. The estimate is told the time of this moment: who
// had to wait for a core since the round began has not met a queue on the path.
func (s *sending) flush() {
	now := time.Now()
	for _, n := range s.sent {
		s.est.Sent(n, int(s.lengths[n%lengthsKept])+ipOverhead, now)
	}
	s.sent = s.sent[:0]
	if n := s.out.Flush(); n > 0 {
		s.h.count.unsent.Add(uint64(n))
	}
	s.used = 0
}

// probe sends n bytes of nothing.
func (s *sending) probe(n int) error {
	s.begin(wire.HopProbe)
	pad := max(n-len(s.cur)-wire.HopTag, 0)
	at := len(s.cur)
	s.cur = s.cur[:at+pad]
	clear(s.cur[at:])
	return s.close(wire.HopProbe)
}

// mark has the receiver miss the last packets of a picture, if they were lost and
// nothing follows.
func (s *sending) mark() error {
	if s.marks >= maxMarks || s.lastVideo.IsZero() || s.now.Sub(s.lastSent) < markAfter {
		return nil
	}
	s.marks++
	return s.probe(0)
}

// resend answers for what the peer asked again. What may not leave any more does
// not, as with the first time.
func (s *sending) resend() error {
	if len(s.asked) == 0 {
		return nil
	}
	if err := s.close(wire.HopMedia); err != nil {
		return err
	}
	for _, n := range s.asked {
		body, _ := s.history.Get(n, s.now)
		s.begin(wire.HopRepair)
		s.cur = s.cur[:wire.HopSize+wire.RepairSize]
		wire.PutRepair(s.cur[wire.HopSize:], n)
		for len(body) > 0 {
			r, rest, err := wire.NextMedia(body)
			if err != nil {
				break
			}
			if s.h.l.mayRepair(r.Alias) {
				s.cur = append(s.cur, body[:len(body)-len(rest)]...)
			}
			body = rest
		}
		if err := s.close(wire.HopRepair); err != nil {
			return err
		}
		s.h.count.repairs.Add(1)
	}
	s.asked = s.asked[:0]
	return nil
}

// mayRepair reports whether a packet of a track may still leave.
func (l *Link) mayRepair(alias uint32) bool {
	l.mu.Lock()
	t := l.tracks[alias]
	l.mu.Unlock()
	return t != nil && t.standing(l.cfg.Now()) == sends
}

// giveBack has QUIC carry what waits for UDP.
func (s *sending) giveBack() {
	for _, list := range append(s.video[:], s.audio) {
		for _, o := range list {
			o.queued = false
			for o.refill() {
				record, marker := o.first()
				streams{s.h.l}.offer(o.t, o.layer, marker, record[wire.RecordOverhead:])
				o.gone(record)
			}
		}
	}
	s.audio = s.audio[:0]
	for i := range s.video {
		s.video[i] = s.video[i][:0]
	}
}

// discard drops what waits when the link has ended.
func (s *sending) discard() {
	s.gather()
	for _, list := range append(s.video[:], s.audio) {
		for _, o := range list {
			o.discard(DropClosed)
		}
	}
}
