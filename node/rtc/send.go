package rtc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/rtc/jsep"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

// sending is what goes out over a connection: a DownTrack for each track that
// the client receives.
type sending struct {
	p      *peer // static, like budget
	budget *budget
	list   atomic.Pointer[[]*sender] // immutable, replaced under mu

	mu      sync.Mutex // guards the rest
	senders map[*sfu.DownTrack]*sender
	stands  bool // the connection does, so that there are keys
	closed  bool
	serial  uint64
}

// sender joins a DownTrack to a media section: it is the DownTrack's Writer.
type sender struct {
	// Static after construction.
	p    *peer
	key  jsep.Key
	up   *sfu.UpTrack
	down *sfu.DownTrack
	sub  Subscription

	bound    atomic.Pointer[jsep.Binding] // written under sending.mu
	priority atomic.Int32
	started  atomic.Bool // the DownTrack may write

	// binding is held while the DownTrack is told where to write.
	binding sync.Mutex
	stream  atomic.Pointer[transport.Stream] // set before the DownTrack is bound, then used under its lock
}

func (g *sending) init(p *peer) {
	g.p, g.senders, g.budget = p, make(map[*sfu.DownTrack]*sender), newBudget(p)
	g.list.Store(new([]*sender))
}

func (g *sending) all() []*sender { return *g.list.Load() }

func (g *sending) publish() {
	list := make([]*sender, 0, len(g.senders))
	for _, s := range g.senders {
		list = append(list, s)
	}
	g.list.Store(&list)
}

// subscribe adds a track to the next negotiation.
func (p *peer) subscribe(sub Subscription) (*sfu.DownTrack, error) {
	s := &sender{p: p, up: sub.Up, sub: sub}
	s.down = sfu.NewDownTrack(sub.Up, sfu.DownConfig{Report: s.report})
	if err := p.send.add(s); err != nil {
		s.down.Close()
		return nil, err
	}
	if err := p.offerSender(s); err != nil {
		p.send.remove(s.down)
		s.down.Close()
		return nil, err
	}
	p.change()
	return s.down, nil
}

func (g *sending) add(s *sender) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	g.serial++
	s.key = jsep.Key(fmt.Sprintf("%s#%d", s.sub.TrackID, g.serial))
	g.senders[s.down] = s
	g.publish()
	return nil
}

func (p *peer) offerSender(s *sender) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	kind := jsep.Audio
	if s.up.Kind() == sfu.Video {
		kind = jsep.Video
	}
	return p.neg.AddSender(jsep.Sender{
		Key: s.key, Kind: kind, StreamID: s.sub.StreamID, TrackID: s.sub.TrackID,
		Codec: jsep.Codec(s.up.Codec()), Stereo: s.sub.Stereo,
	})
}

// unsubscribe ends a track. When it returns, nothing more is sent.
func (p *peer) unsubscribe(d *sfu.DownTrack) error {
	s := p.send.remove(d)
	if s == nil {
		return errors.New("unsubscribe: no such track in this session")
	}
	s.end() // not under a lock: it tells the track's owner
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.neg.RemoveSender(s.key)
	p.dirty = true
	p.wakeUp()
	return nil
}

func (g *sending) remove(d *sfu.DownTrack) *sender {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.senders[d]
	delete(g.senders, d)
	g.publish()
	g.budget.forget(d)
	return s
}

// negotiated notes what the client agreed to. Called with peer.mu held.
func (g *sending) negotiated(c jsep.Change) {
	var again []*sender
	g.mu.Lock()
	for _, b := range c.Bound {
		if s := g.find(b.Key); s != nil {
			s.bound.Store(&b)
			if s.started.Load() {
				again = append(again, s)
			}
		}
	}
	for _, k := range c.Unbound {
		if s := g.find(k); s != nil {
			s.bound.Store(nil)
			if s.started.Load() {
				again = append(again, s)
			}
		}
	}
	g.mu.Unlock()
	for _, s := range again {
		s.rebind()
	}
	g.startAll()
	g.tellUnsupported(c)
}

// tellUnsupported tells of the tracks that the client cannot decode, from a
// goroutine of its own: whoever hears of it may change what is sent.
func (g *sending) tellUnsupported(c jsep.Change) {
	var list []*sender
	g.mu.Lock()
	for _, b := range c.Bound {
		if s := g.find(b.Key); s != nil && b.Unsupported {
			list = append(list, s)
		}
	}
	g.mu.Unlock()
	if len(list) == 0 {
		return
	}
	g.p.tasks.Go(func() {
		for _, s := range list {
			g.p.s.gate.pass(func() { g.p.s.events.Unsupported(s.down) })
		}
	})
}

func (g *sending) prioritize(d *sfu.DownTrack, priority int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.senders[d]; s != nil {
		s.priority.Store(int32(priority))
	}
}

func (g *sending) find(k jsep.Key) *sender {
	for _, s := range g.senders {
		if s.key == k {
			return s
		}
	}
	return nil
}

// connected lets everything begin that waited for the keys.
func (g *sending) connected() {
	g.mu.Lock()
	g.stands = true
	g.mu.Unlock()
	g.startAll()
}

func (g *sending) startAll() {
	for _, s := range g.due() {
		s.start()
	}
}

// due takes the senders that are negotiated, have keys, and have not begun.
func (g *sending) due() []*sender {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stands || g.closed {
		return nil
	}
	var list []*sender
	for _, s := range g.senders {
		if b := s.bound.Load(); b != nil && !b.Unsupported && s.started.CompareAndSwap(false, true) {
			list = append(list, s)
		}
	}
	return list
}

// start lets the DownTrack write.
func (s *sender) start() {
	stream, err := s.p.conn.NewStream()
	if err != nil {
		s.p.s.engine.log.Debug("sender does not begin", "err", err)
		return // the connection is closing
	}
	s.binding.Lock()
	s.stream.Store(stream)
	s.bind()
	s.binding.Unlock()
	out := s.p.s.engine.lend()
	s.down.Tick(s.p.s.engine.now(), out) // ask for the first picture now
	s.p.s.engine.back(out)
}

// rebind follows a negotiation after the first.
func (s *sender) rebind() {
	s.binding.Lock()
	defer s.binding.Unlock()
	if s.stream.Load() != nil { // else start has yet to do it
		s.bind()
	}
}

// bind tells the DownTrack what was negotiated last. binding is held, so that of two
// who do it at a time the second sees the news. All its numbers are sealed by one
// stream, whose state goes on where an SSRC does. If the client has taken its section
// away, the stream ends: otherwise a client that does so again and again would make
// it grow.
func (s *sender) bind() {
	b := s.bound.Load()
	if b == nil || b.Unsupported {
		s.down.Bind(sfu.Binding{})
		s.stream.Swap(nil).Close()
		s.started.Store(false)
		return
	}
	s.down.Bind(sfu.Binding{
		SSRC: b.SSRC, PayloadType: b.PayloadType, RTXSSRC: b.RTXSSRC, RTXPayloadType: b.RTXPayloadType,
		Extensions: mediaExtensions(b.Extensions), MID: b.MID, PlainOpus: b.PlainOpus,
		OpusPayloadType: b.OpusPayloadType, Writer: s,
	})
}

// end stops the DownTrack, and then what seals its packets.
func (s *sender) end() {
	s.down.Close()
	s.binding.Lock()
	defer s.binding.Unlock()
	if stream := s.stream.Swap(nil); stream != nil {
		stream.Close()
	}
}

// running reports whether packets may be on their way.
func (s *sender) running() bool { return s.started.Load() }

// Write implements sfu.Writer. The DownTrack calls it under its lock.
func (s *sender) Write(out sfu.Out, rtp []byte, stampAt int) error {
	b, ok := out.(*transport.Batch)
	if !ok { // from somebody who has no batch: send at once
		b = s.p.s.engine.transport.Batch()
		defer s.p.s.engine.transport.Release(b)
		rtp = append(b.Reserve(len(rtp))[:0], rtp...)
	}
	if stampAt != 0 {
		binary.BigEndian.PutUint16(rtp[stampAt:], s.p.send.budget.stamp(len(rtp), b.Now()))
	}
	return s.stream.Load().Write(b, rtp)
}

// report sends the client a sender report (RFC 3550 section 6.4.1).
func (s *sender) report(sr sfu.SenderReport, out sfu.Out) {
	b := s.bound.Load()
	batch, ok := out.(*transport.Batch)
	if b == nil || !ok {
		return
	}
	s.p.writeRTCP(batch, &rtcp.SenderReport{
		SSRC: b.SSRC, NTPTime: sr.NTP, RTPTime: sr.RTP, PacketCount: sr.Packets, OctetCount: sr.Octets,
	}, &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{{
		Source: b.SSRC, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: b.CNAME}},
	}}})
}

// feedback hands the client's RTCP to the DownTracks and the estimate.
func (g *sending) feedback(pkts []rtcp.Packet, at time.Time, out sfu.Out) {
	list := g.all()
	if len(list) == 0 {
		return
	}
	g.budget.feedback(pkts, at)
	about := concerned(pkts)
	for _, s := range list {
		if b := s.bound.Load(); b != nil && slices.Contains(about, b.SSRC) {
			s.down.HandleRTCP(pkts, at, out)
		}
	}
}

// concerned lists the streams that feedback is about, each once.
func concerned(pkts []rtcp.Packet) (ssrcs []uint32) {
	for _, p := range pkts {
		ssrcs = append(ssrcs, p.DestinationSSRC()...)
	}
	slices.Sort(ssrcs)
	return slices.Compact(ssrcs)
}

func (g *sending) tick(now time.Time, out sfu.Out) {
	g.budget.tick(now)
	for _, s := range g.all() {
		s.down.Tick(now, out)
	}
}

func (g *sending) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	for _, s := range g.all() {
		s.end()
	}
}
