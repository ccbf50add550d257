package rtc

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/rtc/jsep"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

// peer is one connection of a session: its negotiation, what comes in over it
// and what goes out. It is the Handler of its transport.
//
// A client answers one offer at a time. What changes meanwhile goes into the
// next one, so that fifty tracks that come together cost one or two rounds; a
// worker makes the offers. mu is not held while events are told.
type peer struct {
	// Static after construction.
	s      *Session
	target Target
	conn   *transport.Conn
	wake   chan struct{}
	// probing hands a probe that a tick began to the worker: when to go on with it.
	probing chan time.Duration
	done    chan struct{}
	tasks   sync.WaitGroup // the worker and the announcements

	out  outbox
	recv receiving
	send sending

	mu          sync.Mutex // guards the rest, and orders negotiations
	neg         *jsep.Peer
	closed      bool
	dirty       bool // something changed since the last offer
	iceRestart  bool // the next offer restarts ICE
	repeat      bool // the outstanding offer is to be told again
	outstanding uint32
	lastID      uint32
	lastOffer   string
	lastTracks  map[string]string
	asked       [2]int            // sections that the client was asked for, audio and video
	profile     transport.Profile // of SRTP, that the client has had with another node
}

var _ transport.Handler = (*peer)(nil)

func (s *Session) newPeer(t Target) (*peer, error) {
	p := &peer{s: s, target: t, wake: make(chan struct{}, 1), probing: make(chan time.Duration, 1), done: make(chan struct{})}
	cfg := transport.ConnConfig{Owner: s.cfg.Owner, MaxMessage: maxMessage}
	if t == TargetSubscriber && !s.cfg.NoData {
		cfg.Channels = channels()
	}
	p.neg = jsep.New(jsep.Config{
		SessionID: uint64(newSSRC())<<16 | uint64(newSSRC()&0xffff), FirstSSRC: newSSRC(),
		Data: t == TargetSubscriber && !s.cfg.NoData, MaxMessage: maxMessage, RED: true, FreshSections: s.cfg.PionClient,
	})
	p.recv.init(p)
	p.send.init(p)
	conn, err := s.engine.transport.NewConn(p, cfg)
	if err != nil {
		return nil, fmt.Errorf("make connection: %w", err)
	}
	p.conn = conn
	p.tasks.Add(1)
	go p.run()
	return p, nil
}

// newSSRC returns a random one that is not 0.
func newSSRC() uint32 {
	var b [4]byte
	for {
		_, _ = rand.Read(b[:]) // it cannot fail (crypto/rand)
		if v := binary.BigEndian.Uint32(b[:]); v != 0 {
			return v
		}
	}
}

// wakeUp lets the worker look what there is to negotiate. It may be called with mu
// held or not.
func (p *peer) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default: // awake already
	}
}

func (p *peer) change() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dirty = true
	p.wakeUp()
}

// run negotiates until the connection closes.
func (p *peer) run() {
	defer p.tasks.Done()
	probe := time.NewTimer(time.Hour) // until a probe begins
	defer probe.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-p.wake:
			p.negotiate()
		case again := <-p.probing:
			probe.Reset(again)
		case <-probe.C:
			p.probe(probe)
		}
	}
}

// probe goes on with a probe: it lasts some 30 ms, and padding leaves every few.
func (p *peer) probe(timer *time.Timer) {
	out := p.s.engine.lend()
	again := p.send.budget.probe(p.s.engine.now(), out)
	p.s.engine.back(out)
	if again > 0 {
		timer.Reset(again)
	}
}

// negotiate tells the client what changed: by an offer, or by asking for one.
func (p *peer) negotiate() {
	if p.s.holding() {
		return // Together wakes it
	}
	if p.target == TargetPublisher {
		p.askSections()
		return
	}
	p.mu.Lock()
	sdp, id, tracks, err := p.nextOffer()
	p.mu.Unlock()
	switch {
	case err != nil:
		p.s.engine.log.Error("offer to subscriber failed", "err", err)
		p.s.gate.pass(func() { p.s.events.State(p.target, "failed") })
	case id != 0:
		p.s.gate.pass(func() { p.s.events.Offer(sdp, id, tracks) })
	}
}

// nextOffer returns id 0 if there is none to be told now.
func (p *peer) nextOffer() (sdp string, id uint32, tracks map[string]string, err error) {
	switch {
	case p.closed:
		return "", 0, nil, nil
	case p.outstanding != 0 && p.repeat:
		p.repeat = false
		return p.lastOffer, p.outstanding, p.lastTracks, nil
	case p.outstanding != 0 || !p.dirty:
		return "", 0, nil, nil
	}
	p.dirty = false
	if p.iceRestart {
		p.conn.Restart()
		p.send.budget.moved(p.s.engine.now())
		p.iceRestart = false
	}
	if sdp, err = p.neg.Offer(p.local()); err != nil {
		return "", 0, nil, fmt.Errorf("create offer: %w", err)
	}
	p.lastID++
	p.outstanding, p.lastOffer, p.lastTracks = p.lastID, sdp, p.neg.MIDs()
	return sdp, p.outstanding, p.lastTracks, nil
}

// askSections asks the client of a single connection for an offer that has room
// for what it is to receive.
func (p *peer) askSections() {
	p.mu.Lock()
	audio, video := p.neg.Missing()
	ask := !p.closed && p.dirty && p.s.cfg.Single && p.neg.Pending()
	p.dirty = false
	more := [2]int{max(audio-p.asked[0], 0), max(video-p.asked[1], 0)}
	p.asked[0] += more[0]
	p.asked[1] += more[1]
	p.mu.Unlock()
	if ask {
		p.s.gate.pass(func() { p.s.events.Sections(more[0], more[1]) })
	}
}

// local is what the transport contributes to a description.
func (p *peer) local() jsep.Local {
	l := p.conn.Local()
	out := jsep.Local{Ufrag: l.Ufrag, Pwd: l.Pwd, Fingerprint: p.s.engine.transport.Fingerprint()}
	for _, c := range l.Candidates {
		out.Candidates = append(out.Candidates, c.String())
	}
	return out
}

// answer negotiates an offer of the client.
func (p *peer) answer(offer string) (Answer, error) {
	a, ended, err := p.takeOffer(offer)
	p.unpublish(ended)
	return a, err
}

func (p *peer) takeOffer(offer string) (a Answer, ended []*incoming, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return a, nil, errClosed
	}
	change, err := p.neg.TakeOffer(offer)
	if err != nil {
		return a, nil, err
	}
	if change.ICERestarted {
		p.conn.Restart()
		p.send.budget.moved(p.s.engine.now())
	}
	if err := p.connect(change.Remote); err != nil {
		return a, nil, err
	}
	if a.SDP, err = p.neg.Answer(p.local()); err != nil {
		return Answer{}, nil, err
	}
	p.asked = [2]int{}
	ended = p.take(change)
	if p.neg.Pending() {
		p.dirty = true
		p.wakeUp()
	}
	a.Tracks = p.neg.MIDs()
	return a, ended, nil
}

// answered takes the client's answer to an offer.
func (p *peer) answered(sdp string, id uint32) error {
	ended, err := p.takeAnswer(sdp, id)
	p.unpublish(ended)
	return err
}

func (p *peer) takeAnswer(sdp string, id uint32) (ended []*incoming, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, errClosed
	case p.outstanding == 0:
		return nil, errors.New("no offer waits for one")
	case id != 0 && id != p.outstanding:
		return nil, fmt.Errorf("it is for offer %d, offer %d waits", id, p.outstanding)
	}
	change, err := p.neg.TakeAnswer(sdp)
	if err != nil {
		return nil, err
	}
	p.outstanding, p.repeat = 0, false
	if err := p.connect(change.Remote); err != nil {
		return nil, err
	}
	ended = p.take(change)
	if p.dirty {
		p.wakeUp()
	}
	return ended, nil
}

func (p *peer) connect(r jsep.Remote) error {
	out := transport.Remote{Ufrag: r.Ufrag, Pwd: r.Pwd, Setup: r.Setup, SCTPPort: r.SCTPPort, Profile: p.profile}
	for _, f := range r.Fingerprints {
		out.Fingerprints = append(out.Fingerprints, transport.Fingerprint{Hash: f.Hash, Value: f.Value})
	}
	return p.conn.SetRemote(out)
}

// take hands what a description changed to the two halves. Called with mu held: whom
// the ended tracks concern is told when it is not held any more.
func (p *peer) take(c jsep.Change) (ended []*incoming) {
	p.send.negotiated(c)
	return p.recv.negotiated(c)
}

func (p *peer) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	// An offer that was lost with the old connection has to be answered first.
	p.iceRestart, p.dirty, p.repeat = true, true, p.outstanding != 0
	p.wakeUp()
}

// RTP implements transport.Handler.
func (p *peer) RTP(_ *transport.Worker, pkt []byte, at time.Time) { p.recv.packet(pkt, at) }

// Drained implements transport.Handler.
func (p *peer) Drained(w *transport.Worker) { p.recv.drained(w.Batch()) }

// RTCP implements transport.Handler.
func (p *peer) RTCP(w *transport.Worker, b []byte, at time.Time) { p.feedback(b, at, w.Batch()) }

// feedback takes a compound packet of the client.
func (p *peer) feedback(b []byte, at time.Time, out sfu.Out) {
	defer p.send.budget.tick(at) // bad news do not wait
	if b = p.send.budget.reported(b, at); b == nil {
		return
	}
	pkts, err := rtcp.Unmarshal(b)
	if err != nil {
		return // a client's nonsense harms nobody
	}
	p.recv.reports(pkts, at)
	p.send.feedback(pkts, at, out)
}

// State implements transport.Handler.
func (p *peer) State(s transport.State) {
	if s == transport.Connected {
		p.send.connected()
	}
	p.s.gate.pass(func() { p.s.events.State(p.target, s.String()) })
}

// Opened implements transport.Handler.
func (p *peer) Opened(label string) {
	if label == labelReliable {
		p.out.opened(p.conn)
	}
}

// Message implements transport.Handler.
func (p *peer) Message(label string, _ bool, payload []byte) {
	p.s.gate.pass(func() { p.s.events.Data(label, payload) })
}

func (p *peer) tick(now time.Time, out *transport.Batch) {
	p.recv.tick(now, out)
	p.send.tick(now, out)
	if again := p.send.budget.probe(now, out); again > 0 {
		select {
		case p.probing <- again:
		default: // it is at it
		}
	}
}

// writeRTCP sends reports; what is lost of them is made good by the next.
func (p *peer) writeRTCP(out *transport.Batch, pkts ...rtcp.Packet) {
	if len(pkts) == 0 {
		return
	}
	if b, err := rtcp.Marshal(pkts); err == nil {
		_ = p.conn.WriteRTCP(out, b)
	}
}

func (p *peer) close() {
	p.mu.Lock()
	first := !p.closed
	p.closed = true
	p.mu.Unlock()
	if first {
		close(p.done)
	}
	p.send.close()
	p.conn.Close()
	p.recv.close()
	p.tasks.Wait()
}

var _ sfu.Out = (*transport.Batch)(nil)
