package relay

import (
	"slices"
	"time"

	"github.com/domicile/domicile/node/sfu/bwe"
	"github.com/domicile/domicile/relay/flow"
	"github.com/domicile/domicile/relay/wire"
)

// hear reads the peer's feedback.
func (s *sending) hear() {
	for i := range s.h.in.take(&s.letters) {
		if err := s.fb.Parse(s.letters[i]); err != nil {
			s.h.l.end(protocolError(err))
			return
		}
		s.learn()
	}
}

// learn takes a feedback: what arrived, and what is asked for.
func (s *sending) learn() {
	end := s.fb.Base + uint64(len(s.fb.At))
	if end > s.sealer.Next() {
		s.h.count.missed.Add(1) // of datagrams that were not sent
		return
	}
	s.times = s.times[:0]
	for i, at := range s.fb.At {
		n, came := s.fb.Base+uint64(i), at != wire.Missed
		t := time.Duration(-1)
		if came {
			t = time.Duration(at) * wire.FeedbackUnit * time.Microsecond
			if n >= s.reported {
				s.reported, s.heardAt = n+1, s.now
				s.unheard.Heard()
			}
		}
		s.times = append(s.times, t)
		s.length.Heard(n, int(s.lengths[n%lengthsKept]), came, s.now)
	}
	s.est.Arrived(uint16(s.fb.Base), s.times, s.now)
	for _, n := range s.fb.Asked {
		if n < s.sealer.Next() && len(s.asked) < lengthsKept {
			s.asked = append(s.asked, n)
		}
	}
}

// answer tells the peer what arrived and what did not.
func (s *sending) answer() error {
	o, rtt := s.h.opened.Load(), s.h.rtt()
	for {
		o.mu.Lock()
		due := o.arrivals.Feedback(&s.fb, s.now, rtt)
		o.mu.Unlock()
		if !due {
			return nil
		}
		s.begin(wire.HopFeedback)
		b, _ := wire.AppendFeedback(s.cur[:wire.HopSize], &s.fb)
		s.cur = b
		if err := s.close(wire.HopFeedback); err != nil {
			return err
		}
	}
}

// tickTime is how often the path is looked after.
func (s *sending) tickTime() time.Duration {
	switch {
	case s.now.Sub(s.busyAt) < busyFor:
		return tickEvery
	case s.alive() < idleTick:
		return s.alive()
	}
	return idleTick
}

// alive is how long nothing may be sent, so that the path is known to be open.
func (s *sending) alive() time.Duration {
	if quiet := s.now.Sub(s.heardAt); quiet > aliveEvery+idleTick+2*s.h.rtt() && quiet < doubtFor {
		return doubtEvery
	}
	return aliveEvery
}

// tick looks after the path.
func (s *sending) tick() error {
	s.ticked = s.now
	s.est.Tick(s.now)
	if s.now.Sub(s.reviewed) >= reviewEvery {
		s.review()
	}
	s.pacer.SetRate(s.est.Estimate(), s.limited())
	if n := s.length.Try(s.now, s.h.rtt()); n > 0 && !s.heardAt.IsZero() {
		if err := s.try(n); err != nil {
			return err
		}
	}
	if s.now.Sub(s.lastSent) >= s.alive() {
		if err := s.probe(0); err != nil {
			return err
		}
	}
	return s.pad()
}

// try sends a datagram of a length that the path may not carry. That it is lost says
// nothing of congestion (RFC 8899 section 3), and it is no sign of life.
func (s *sending) try(n int) error {
	s.length.Tried(s.sealer.Next(), s.now)
	last := s.lastSent
	err := s.probe(n)
	s.lastSent = last
	s.sent = s.sent[:max(len(s.sent)-1, 0)]
	return err
}

// limited reports whether the path is known to carry no more than the estimate. What
// was the limit of one that carries twice as much now was none.
func (s *sending) limited() bool {
	e := s.est.Stats()
	switch e.Reason {
	case bwe.Congested, bwe.Draining, bwe.NearLimit, bwe.Lossy, bwe.Competing, bwe.Scouted:
		s.limitAt, s.limit = s.now, e.Estimate
	}
	if e.Estimate > 2*s.limit {
		return false
	}
	return s.now.Sub(s.limitAt) < limitLasts
}

// pad sends what the estimator wants to try the path with. Media counts towards
// it.
func (s *sending) pad() error {
	if !s.h.active.Load() || s.now.Before(s.probeAt) {
		return nil
	}
	plan, ok := s.est.Probe(s.now)
	if !ok {
		return nil
	}
	s.probeAt = s.now.Add(plan.Again)
	for left := plan.Bytes; left > 0; left -= s.length.Limit() {
		if err := s.probe(min(left, s.length.Limit())); err != nil {
			return err
		}
	}
	return nil
}

// review judges rates, layers and the carriage.
func (s *sending) review() {
	since := s.now.Sub(s.reviewed)
	s.reviewed = s.now
	s.forget()
	voices := 0.0
	for _, o := range s.voices {
		voices += s.rate(o, since)
	}
	need := voices
	for layer, list := range s.all {
		s.thin[layer] = s.thin[layer][:0]
		for _, o := range list {
			need += s.rate(o, since)
			s.thin[layer] = append(s.thin[layer], &o.stream)
		}
	}
	s.need = need * rateSpare
	s.est.SetDemand(s.need / 0.85)
	s.choose(since)
	s.hold(voices * rateSpare)
	s.publish()
}

// rate measures what is offered of a layer. Of a layer that is held back, and
// perhaps not offered for that, the last rate is kept.
func (s *sending) rate(o *outlet, since time.Duration) float64 {
	n := o.offered.Load()
	if n != o.seen || !o.stream.Held {
		now := float64(n-o.seen) * 8 / max(since, reviewEvery/2).Seconds()
		o.stream.Rate += rateWeight * (now - o.stream.Rate)
		if o.stream.Rate < 1 {
			o.stream.Rate = 0
		}
	}
	o.seen = n
	return o.stream.Rate
}

// hold leaves out what the path does not carry.
func (s *sending) hold(voices float64) {
	if s.h.active.Load() {
		if !s.thinner.Thin(s.thin[:], s.est.Estimate(), voices, s.limited(), s.now) {
			return
		}
	} else {
		for _, list := range s.all {
			for _, o := range list {
				o.stream.Held = false
			}
		}
	}
	for layer, list := range s.all {
		for _, o := range list {
			if bit := uint32(1) << layer; o.stream.Held {
				o.t.thinned.Or(bit)
			} else {
				o.t.thinned.And(^bit)
			}
		}
	}
}

// forget drops the outlets of tracks that have ended.
func (s *sending) forget() {
	ended := func(o *outlet) bool {
		return !o.queued && (o.t.closed.Load() || o.t.revoked.Load() != nil) && o.waiting() == 0
	}
	s.voices = slices.DeleteFunc(s.voices, ended)
	for i := range s.all {
		s.all[i] = slices.DeleteFunc(s.all[i], ended)
	}
}

// choose moves the link to a carriage.
func (s *sending) choose(since time.Duration) {
	q := s.h.l.conn.ConnectionStats()
	if sent := q.PacketsSent - s.quicSent; sent >= 50 {
		s.quicLoss += 0.3 * (float64(q.PacketsLost-s.quicLost)/float64(sent) - s.quicLoss)
		s.quicSent, s.quicLost = q.PacketsSent, q.PacketsLost
	}
	carriage, why := s.choice.Now(flow.Path{Offered: true, HeardAt: s.heardAt, Unheard: s.unheard.Overdue(s.now, s.h.rtt()), RTT: s.h.rtt(),
		Loss: s.quicLoss, LossUDP: s.est.Stats().Loss, Need: s.need, LengthOK: s.length.Done()}, s.now)
	was := s.h.state.Load()
	if was.carriage != carriage {
		s.h.l.cfg.Log.Info("relay: carriage", "peer", s.h.l.peer.Name, "carriage", carriage, "reason", why)
		if carriage == flow.UDP {
			s.out.SetTo(s.h.to(s.port))
		}
	}
	s.h.active.Store(carriage == flow.UDP)
	s.h.limit.Store(int32(s.length.Limit()))
	next := *was
	next.carriage, next.why = carriage, why
	s.h.state.Store(&next)
}

// publish has others see what is known.
func (s *sending) publish() {
	next, e := *s.h.state.Load(), s.est.Stats()
	next.estimate, next.cause, next.queue, next.loss = e.Estimate, e.Reason, e.Queue, e.Loss
	next.moves, next.phase, next.held = s.choice.Moves, s.sealer.Phase(), 0
	for _, list := range s.all {
		for _, o := range list {
			if o.stream.Held {
				next.held++
			}
		}
	}
	s.h.state.Store(&next)
}

// wait is how long nothing is due.
func (s *sending) wait() time.Duration {
	wait := s.tickTime() - s.now.Sub(s.ticked)
	sooner := func(d time.Duration) { wait = min(wait, d) }
	if s.h.active.Load() {
		if slices.ContainsFunc(s.video[:], func(l []*outlet) bool { return len(l) > 0 }) {
			sooner(max(s.pacer.Wait(), roundGap))
		}
		if s.marks < maxMarks && !s.lastVideo.IsZero() {
			sooner(markAfter - s.now.Sub(s.lastSent))
		}
		if s.est.Probing() {
			sooner(s.probeAt.Sub(s.now))
		}
	}
	o := s.h.opened.Load()
	o.mu.Lock()
	next := o.arrivals.Next(s.now, s.h.rtt())
	o.mu.Unlock()
	if !next.IsZero() {
		sooner(next.Sub(s.now))
	}
	return max(wait, 0)
}
