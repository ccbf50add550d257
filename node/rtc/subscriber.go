package rtc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

// subscriber is the peer connection on which the client receives.
//
// The client answers one offer at a time. What changes meanwhile goes into the
// next offer, so that fifty tracks that come together cost one or two rounds.
// A worker makes the offers; mu is not held while events are told.
type subscriber struct {
	s     *Session // static, like wake and done
	wake  chan struct{}
	done  chan struct{}
	downs atomic.Pointer[[]*sfu.DownTrack] // immutable, replaced under mu

	mu          sync.Mutex // guards the rest, and orders changes of pc
	pc          *webrtc.PeerConnection
	closed      bool
	dirty       bool   // pc changed since the last offer
	iceRestart  bool   // the next offer restarts ICE
	outstanding uint32 // id of the offer that waits for its answer, or 0
	lastID      uint32
	repeat      bool // the outstanding offer is to be told again
	senders     map[*sfu.DownTrack]*sender
	idle        []*webrtc.RTPTransceiver // sections without a sender in the last offer
	free        []*webrtc.RTPTransceiver // those that can be used again, as the client agreed
	out         outbox
	tasks       sync.WaitGroup // the worker and the RTCP readers; grows under mu while not closed
}

func newSubscriber(s *Session) *subscriber {
	b := &subscriber{
		s: s, wake: make(chan struct{}, 1), done: make(chan struct{}),
		senders: make(map[*sfu.DownTrack]*sender),
	}
	b.downs.Store(new([]*sfu.DownTrack))
	return b
}

func (b *subscriber) downTracks() []*sfu.DownTrack { return *b.downs.Load() }

func (b *subscriber) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("start subscriber: %w", errClosed)
	}
	if b.pc != nil {
		return nil
	}
	pc, err := b.s.engine.receivers.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return fmt.Errorf("start subscriber: %w", err)
	}
	b.s.watch(TargetSubscriber, pc)
	if err := b.out.make(pc); err != nil {
		return errors.Join(fmt.Errorf("start subscriber: %w", err), pc.Close())
	}
	b.out.reliable.OnOpen(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.out.opened()
	})
	b.s.receiveData(b.out.reliable)
	b.s.receiveData(b.out.lossy)
	b.pc = pc
	b.tasks.Add(1)
	go b.run()
	b.change()
	return nil
}

// change asks for an offer. Called with mu held.
func (b *subscriber) change() {
	b.dirty = true
	select {
	case b.wake <- struct{}{}:
	default: // awake already
	}
}

// run makes offers until the session closes.
func (b *subscriber) run() {
	defer b.tasks.Done()
	for {
		select {
		case <-b.done:
			return
		case <-b.wake:
			b.offer()
		}
	}
}

// offer tells the client what changed, unless an answer is due first.
func (b *subscriber) offer() {
	b.mu.Lock()
	sdp, id, err := b.nextOffer()
	b.mu.Unlock()
	switch {
	case err != nil:
		b.s.engine.log.Error("offer to subscriber failed", "err", err)
		b.s.gate.pass(func() { b.s.events.State(TargetSubscriber, webrtc.PeerConnectionStateFailed.String()) })
	case id != 0:
		b.s.gate.pass(func() { b.s.events.Offer(sdp, id) })
	}
}

// nextOffer returns id 0 if there is none to be told now.
func (b *subscriber) nextOffer() (sdp string, id uint32, err error) {
	switch {
	case b.closed:
		return "", 0, nil
	case b.outstanding != 0 && b.repeat:
		b.repeat = false
		return b.pc.LocalDescription().SDP, b.outstanding, nil
	case b.outstanding != 0 || !b.dirty:
		return "", 0, nil
	}
	b.dirty = false
	offer, err := b.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: b.iceRestart})
	if err != nil {
		return "", 0, fmt.Errorf("create offer: %w", err)
	}
	b.iceRestart = false
	done := webrtc.GatheringCompletePromise(b.pc)
	if err := b.pc.SetLocalDescription(offer); err != nil {
		return "", 0, fmt.Errorf("apply offer: %w", err)
	}
	gathered(done)
	b.idle = b.sections(func(t *webrtc.RTPTransceiver) bool { return t.Sender() == nil })
	b.lastID++
	b.outstanding = b.lastID
	return b.pc.LocalDescription().SDP, b.outstanding, nil
}

func (b *subscriber) answer(sdp string, id uint32) error {
	if _, err := parseSDP(sdp); err != nil {
		return fmt.Errorf("take answer of subscriber: %w", err)
	}
	bound, err := b.apply(sdp, id)
	for _, snd := range bound {
		snd.start()
	}
	if err != nil {
		return fmt.Errorf("take answer of subscriber: %w", err)
	}
	return nil
}

// apply hands the answer to pion and returns the senders that it made ready.
func (b *subscriber) apply(sdp string, id uint32) (bound []*sender, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, errClosed
	case b.outstanding == 0:
		return nil, errors.New("no offer waits for one")
	case id != 0 && id != b.outstanding:
		return nil, fmt.Errorf("it is for offer %d, offer %d waits", id, b.outstanding)
	}
	err = b.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: sdp})
	if err != nil {
		return nil, err
	}
	b.outstanding, b.repeat = 0, false
	if !b.s.cfg.PionClient {
		b.free = b.idle
	}
	if b.dirty {
		b.change()
	}
	for _, snd := range b.senders {
		if snd.becameBound() {
			bound = append(bound, snd)
		}
	}
	return bound, nil
}

func (b *subscriber) restart() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.pc == nil {
		return fmt.Errorf("restart ICE of subscriber: %w", errClosed)
	}
	// An offer that was lost with the old connection has to be answered first.
	b.iceRestart, b.repeat = true, b.outstanding != 0
	b.change()
	return nil
}

func (b *subscriber) subscribe(up *sfu.UpTrack, streamID, trackID string) (*sfu.DownTrack, error) {
	snd := newSender(b, up, streamID, trackID)
	if err := b.add(snd); err != nil {
		snd.down.Close()
		return nil, fmt.Errorf("subscribe to %q: %w", trackID, err)
	}
	return snd.down, nil
}

// add puts a sender into the next offer.
func (b *subscriber) add(snd *sender) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errClosed
	}
	if b.pc == nil {
		return errors.New("subscriber is not started")
	}
	if err := b.section(snd); err != nil {
		return err
	}
	b.senders[snd.down] = snd
	b.publishDowns()
	b.tasks.Add(1)
	go func() {
		defer b.tasks.Done()
		snd.readFeedback()
	}()
	b.change()
	return nil
}

// section gives the sender a media section that prefers its codec, a free one or
// a new one.
func (b *subscriber) section(snd *sender) error {
	err := b.place(snd)
	if err != nil {
		return err
	}
	// What the client took from the first offer: pion refuses preferences for more.
	codecs, ok := preferred(snd.up.Codec(), snd.rtp.GetParameters().Codecs)
	if !ok {
		err = fmt.Errorf("client does not take %q", snd.up.Codec().MimeType)
	}
	for _, t := range b.sections(func(t *webrtc.RTPTransceiver) bool { return ok && t.Sender() == snd.rtp }) {
		err = t.SetCodecPreferences(codecs)
	}
	if err != nil {
		return errors.Join(err, b.pc.RemoveTrack(snd.rtp))
	}
	return nil
}

// place makes the RTPSender. It is a new one in a free section too: an SSRC never
// carries two tracks, whose packets could meet under one SRTP nonce.
func (b *subscriber) place(snd *sender) (err error) {
	i := slices.IndexFunc(b.free, func(t *webrtc.RTPTransceiver) bool { return t.Kind() == snd.Kind() })
	if i >= 0 {
		b.free = slices.Delete(b.free, i, i+1)
		snd.streamID = ownStream(snd.streamID, snd.trackID)
		snd.rtp, err = b.pc.AddTrack(snd) // into the first free section of the kind: that one
		return err
	}
	if err := b.room(); err != nil {
		return err
	}
	t, err := b.pc.AddTransceiverFromTrack(snd, webrtc.RTPTransceiverInit{
		Direction: webrtc.RTPTransceiverDirectionSendonly,
	})
	if err != nil {
		return err
	}
	snd.rtp = t.Sender()
	return nil
}

// ownStream names the track in its stream, "owner|track", also where it was to
// share one with others. A browser goes on calling a section's track by the id
// of the first one in it; clients then find the new one by its stream alone.
func ownStream(streamID, trackID string) string {
	owner, _, _ := strings.Cut(streamID, "|")
	return owner + "|" + trackID
}

// room refuses a description that clients would refuse.
func (b *subscriber) room() error {
	if len(b.pc.GetTransceivers()) >= maxSDPMedia-1 { // one is for data
		return fmt.Errorf("all %d media sections are used", maxSDPMedia-1)
	}
	return nil
}

func (b *subscriber) sections(which func(*webrtc.RTPTransceiver) bool) []*webrtc.RTPTransceiver {
	return slices.DeleteFunc(slices.Clone(b.pc.GetTransceivers()), func(t *webrtc.RTPTransceiver) bool { return !which(t) })
}

func (b *subscriber) publishDowns() {
	downs := make([]*sfu.DownTrack, 0, len(b.senders))
	for d := range b.senders {
		downs = append(downs, d)
	}
	b.downs.Store(&downs)
}

func (b *subscriber) unsubscribe(d *sfu.DownTrack) error {
	snd := b.take(d)
	if snd == nil {
		return errors.New("unsubscribe: no such track in this session")
	}
	d.Close() // not under mu: it tells the track's owner
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	if err := b.pc.RemoveTrack(snd.rtp); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	b.change()
	return nil
}

func (b *subscriber) take(d *sfu.DownTrack) *sender {
	b.mu.Lock()
	defer b.mu.Unlock()
	snd := b.senders[d]
	delete(b.senders, d)
	b.publishDowns()
	return snd
}

func (b *subscriber) send(reliable bool, payload []byte) error {
	if len(payload) > maxMessage {
		return fmt.Errorf("send data: %d bytes, at most %d are sent", len(payload), maxMessage)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.pc == nil {
		return fmt.Errorf("send data: %w", errClosed)
	}
	send := b.out.sendLossy
	if reliable {
		send = b.out.sendReliable
	}
	if err := send(payload); err != nil {
		return fmt.Errorf("send data: %w", err)
	}
	return nil
}

func (b *subscriber) close() {
	b.mu.Lock()
	first := !b.closed
	b.closed = true
	pc := b.pc
	b.mu.Unlock()
	if first {
		close(b.done)
	}
	for _, d := range slices.Clone(b.downTracks()) {
		d.Close()
	}
	if pc != nil {
		_ = pc.GracefulClose() // nothing is left to be lost
	}
	b.tasks.Wait()
}
