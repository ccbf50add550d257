package rtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/domicile/domicile/node/rtc/jsep"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

const (
	// maxMessage is the largest data message taken, in bytes: LiveKit's clients
	// split above 15 KiB, and 64 KiB is what every SCTP stack can take.
	maxMessage = 64 << 10
	// maxCandidate bounds a candidate of the client, in bytes of JSON.
	maxCandidate = 1024
	// defaultMaxTracks bounds what one participant publishes.
	defaultMaxTracks = 32
)

var errClosed = errors.New("session is closed")

// Target names a session's connection; the numbers are LiveKit's.
type Target int

// The two connections of a session. A single one is the publisher.
const (
	TargetPublisher  Target = 0
	TargetSubscriber Target = 1
)

func (t Target) String() string {
	if t == TargetPublisher {
		return "publisher"
	}
	return "subscriber"
}

// Incoming is a track whose media arrives for the first time.
type Incoming struct {
	CID        string // the track id of its msid
	StreamID   string
	MID        string
	Kind       sfu.Kind
	Codec      sfu.Codec
	RIDs       []string       // simulcast streams as offered; empty: one stream
	Extensions sfu.Extensions // header extensions in its packets
	SVC        bool           // one stream may hold several spatial layers
	// REDPayloadType is that of redundant audio, of which packets of another type
	// have none (sfu.UpTrackConfig). 0 for other codecs.
	REDPayloadType uint8
}

// Events is told what happens in a session. Calls come from several goroutines,
// must not block for long, and must not call Close of the session.
type Events interface {
	// State is "connecting", "connected", "disconnected", "failed" or "closed".
	State(t Target, state string)
	// Publish returns the UpTrack to feed, or nil to ignore the track.
	Publish(in Incoming) *sfu.UpTrack
	// Unpublish says that no more media comes for the track.
	Unpublish(up *sfu.UpTrack)
	// Data has a message from the client. payload may be kept.
	Data(label string, payload []byte)
	// Offer has a description that the client is to answer, and which track each
	// of its media sections carries, by MID.
	Offer(sdp string, id uint32, tracks map[string]string)
	// Sections asks the client of a single connection for a new offer with so many
	// more media sections; it may be none.
	Sections(audio, video int)
	// StreamState says that a track is paused for want of bandwidth, or goes on.
	StreamState(d *sfu.DownTrack, paused bool)
	// Unsupported says that the client cannot decode the track's codec: nothing of
	// it is sent.
	Unsupported(d *sfu.DownTrack)
}

// SessionConfig bounds a session.
type SessionConfig struct {
	// Owner names whose session it is to tunnels that belong to somebody: through
	// those of others it cannot be reached.
	Owner string
	// MaxTracks is how many tracks the client may publish at a time; further
	// ones are ignored. 0: 32.
	MaxTracks int
	// PionClient says that the client is pion, as LiveKit's Go SDK is. It hears
	// nothing on a media section that was unused in two offers in a row, so for it
	// sections are not used again, and a session can be sent 511 tracks in all.
	// Leave it false for browsers and phones.
	PionClient bool
	// Single says that one connection, which the client offers, carries all.
	Single bool
	// NoPause says that the client cannot cope with a picture that pauses for want of
	// bandwidth: it gets the smallest instead.
	NoPause bool
	// NoData says that the client has no use for data channels: what is sent to it
	// is dropped.
	NoData bool
}

// Answer answers a client's offer.
type Answer struct {
	SDP    string
	Tracks map[string]string // which track each media section carries, by MID
}

// Session is one client's connections. All methods may be called from any
// goroutine.
type Session struct {
	engine *Engine // static, like events and cfg
	events Events
	cfg    SessionConfig
	gate   gate
	turn   int // with which sessions it has its ticks

	mu     sync.Mutex // guards the connections while they are made
	pub    *peer
	sub    *peer // the same as pub where there is one connection
	held   int   // calls of Together under way
	closed bool
}

// NewSession returns a session without connections; they are made when the
// client offers, and by StartSubscriber.
func (e *Engine) NewSession(events Events, cfg SessionConfig) (*Session, error) {
	if events == nil {
		return nil, errors.New("make session: nobody to tell events to")
	}
	if cfg.MaxTracks == 0 {
		cfg.MaxTracks = defaultMaxTracks
	}
	s := &Session{engine: e, events: events, cfg: cfg}
	e.add(s)
	return s, nil
}

// Publish answers an offer of the client. An offer that cannot be used is an
// error and leaves everything as it was.
func (s *Session) Publish(offer string, _ uint32) (Answer, error) {
	p, err := s.publisher()
	if err != nil {
		return Answer{}, fmt.Errorf("answer publisher: %w", err)
	}
	a, err := p.answer(offer)
	if err != nil {
		return Answer{}, fmt.Errorf("answer publisher: %w", err)
	}
	return a, nil
}

// Adopted is what a session knows of its client's connection with another node.
type Adopted struct {
	// Description is the last one that the client had of that node; it says in which
	// section each track was sent.
	Description string
	Channels    []Resumed
	// Streams are the client's, by the track id of its msid: a browser names a stream
	// in its packets until a first report has come back, and not again.
	Streams map[string][]Stream
	// Profile is how SRTP was sealed. Where it is known we begin the handshake.
	Profile Profile
}

// Profile is how the client's SRTP is sealed, 0 while it is not.
func (s *Session) Profile() Profile {
	if pub, _ := s.peers(); pub != nil {
		return pub.conn.Profile()
	}
	return 0
}

// Depart drives the client off its paths to this node: it has been told of another.
func (s *Session) Depart() {
	if pub, _ := s.peers(); pub != nil {
		pub.conn.Depart()
	}
}

// Stream is one SSRC that a client sends: a layer of a track, or what repairs it.
type Stream struct {
	SSRC  uint32    `json:"ssrc"`
	Layer sfu.Layer `json:"layer,omitempty"`
}

// Streams are the streams of each published track, in order, and how often that has
// changed. While it has not changed since seen, there is nothing to be told.
func (s *Session) Streams(seen uint64) (streams map[sfu.TrackID][]Stream, changes uint64) {
	if pub, _ := s.peers(); pub != nil {
		return pub.recv.list(seen)
	}
	return nil, seen
}

// Profile is how SRTP is sealed.
type Profile = transport.Profile

// Resumed is a data channel that the client has open already.
type Resumed = transport.Resumed

// Adopt has a session whose one connection the client offers go on where another
// node's ended. The client's offer comes next; it restarts ICE, and since our
// fingerprint is another one the client does the DTLS handshake anew.
func (s *Session) Adopt(from Adopted) error {
	p, err := s.publisher()
	if err == nil {
		err = p.conn.Resume(from.Channels)
	}
	if err == nil {
		p.recv.adopt(from.Streams)
		if from.Profile != 0 {
			p.mu.Lock()
			p.profile = from.Profile
			p.neg.Lead()
			p.mu.Unlock()
		}
	}
	if err == nil && from.Description != "" {
		var seats map[string]jsep.Seat
		if seats, err = jsep.Seats(from.Description); err == nil {
			p.mu.Lock()
			p.neg.Seat(seats)
			p.mu.Unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("adopt session: %w", err)
	}
	return nil
}

// Prefer asks the client to publish a track, named by the track id of its msid, in
// a codec, as far as it offers that one. It counts from the next answer on.
func (s *Session) Prefer(cid, mime string) error {
	p, err := s.publisher()
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		err = p.neg.Prefer(cid, mime)
	}
	if err != nil {
		return fmt.Errorf("prefer %q: %w", mime, err)
	}
	return nil
}

// publisher returns the connection that the client offers; the first call makes it.
func (s *Session) publisher() (*peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.pub != nil {
		return s.pub, nil
	}
	p, err := s.newPeer(TargetPublisher)
	if err != nil {
		return nil, err
	}
	s.pub = p
	if s.cfg.Single {
		s.sub = p
	}
	return p, nil
}

// StartSubscriber makes the connection that sends to the client, and its first
// offer, with the data channels. A second call does nothing. Where the client's
// own connection carries all, there is no offer: tracks wait for the client's.
func (s *Session) StartSubscriber() error {
	if s.cfg.Single {
		if _, err := s.publisher(); err != nil {
			return fmt.Errorf("start subscriber: %w", err)
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("start subscriber: %w", errClosed)
	}
	if s.sub != nil {
		return nil
	}
	p, err := s.newPeer(TargetSubscriber)
	if err != nil {
		return fmt.Errorf("start subscriber: %w", err)
	}
	s.sub = p
	p.change()
	return nil
}

// subscriber returns the connection that sends to the client.
func (s *Session) subscriber() (*peer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, errClosed
	case s.sub == nil:
		return nil, errors.New("subscriber is not started")
	}
	return s.sub, nil
}

// Answer takes the client's answer to the offer with the id; 0, from clients
// that do not echo it, means the last offer.
func (s *Session) Answer(sdp string, id uint32) error {
	p, err := s.subscriber()
	if err == nil && s.cfg.Single {
		err = errors.New("no offer waits for one")
	}
	if err == nil {
		err = p.answered(sdp, id)
	}
	if err != nil {
		return fmt.Errorf("take answer of subscriber: %w", err)
	}
	return nil
}

// Together puts all that f changes into one negotiation: somebody who joins gets
// everything with the first offer, not a round trip later.
func (s *Session) Together(f func()) {
	s.hold(1)
	defer s.hold(-1)
	f()
}

func (s *Session) hold(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held += n
	if s.held > 0 {
		return
	}
	for _, p := range []*peer{s.pub, s.sub} {
		if p != nil {
			p.wakeUp()
		}
	}
}

func (s *Session) holding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held > 0
}

// Subscription is a track that a client is to receive.
type Subscription struct {
	Up *sfu.UpTrack
	// StreamID names the stream in which the client gets it, "owner|stream"; in a
	// media section that had another track before, the track's own id takes the
	// place of the stream.
	StreamID string
	TrackID  string
	Screen   bool // a shared screen, which comes before cameras
	Stereo   bool // the two channels of the sound differ
}

// Subscribe sends a track to the client; the DownTrack begins when the client has
// answered. Call Unsubscribe to end it.
func (s *Session) Subscribe(sub Subscription) (*sfu.DownTrack, error) {
	p, err := s.subscriber()
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", sub.TrackID, err)
	}
	d, err := p.subscribe(sub)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", sub.TrackID, err)
	}
	return d, nil
}

// Unsubscribe ends what Subscribe began. When it returns, nothing more is sent.
func (s *Session) Unsubscribe(d *sfu.DownTrack) error {
	p, err := s.subscriber()
	if err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return p.unsubscribe(d)
}

// SetPriority says how much more important than others a track is to the client;
// greater is more.
func (s *Session) SetPriority(d *sfu.DownTrack, priority int) {
	if p, err := s.subscriber(); err == nil {
		p.send.prioritize(d, priority)
	}
}

// LimitBandwidth bounds what is taken for the client's bandwidth, in bit/s; 0 ends
// that. It is for clients that test themselves.
func (s *Session) LimitBandwidth(limit float64) {
	if p, err := s.subscriber(); err == nil {
		p.send.budget.bound(limit)
	}
}

// SendData sends a message to the client. Lossy data that the client does not
// take fast enough is dropped and counted; reliable data gets an error, since
// the client is then too far behind to be waited for.
func (s *Session) SendData(reliable bool, payload []byte) error {
	if s.cfg.NoData {
		return nil
	}
	if len(payload) > maxMessage {
		return fmt.Errorf("send data: %d bytes, at most %d are sent", len(payload), maxMessage)
	}
	p, err := s.subscriber()
	if err == nil {
		err = p.out.send(p.conn, reliable, payload)
	}
	if err != nil {
		return fmt.Errorf("send data: %w", err)
	}
	return nil
}

// AddCandidate checks a candidate of the client. It needs no more than that: the
// node answers connectivity checks and sends none (ICE lite), and learns the
// client's addresses from them.
func (s *Session) AddCandidate(t Target, initJSON string) error {
	if t != TargetPublisher && t != TargetSubscriber {
		return fmt.Errorf("add candidate: no target %d", t)
	}
	if len(initJSON) > maxCandidate {
		return fmt.Errorf("add candidate: %d bytes, at most %d are taken", len(initJSON), maxCandidate)
	}
	var init struct {
		Candidate string `json:"candidate"` // RTCIceCandidateInit
	}
	if err := json.Unmarshal([]byte(initJSON), &init); err != nil {
		return fmt.Errorf("add candidate: %w", err)
	}
	return nil
}

// RestartICE makes a new offer with new credentials for the subscriber, after
// the client changed networks. The publisher's restart is the client's to offer.
func (s *Session) RestartICE(t Target) error {
	if t != TargetSubscriber || s.cfg.Single {
		return fmt.Errorf("restart ICE of %s: only the client can offer it", t)
	}
	p, err := s.subscriber()
	if err != nil {
		return fmt.Errorf("restart ICE of %s: %w", t, err)
	}
	p.restart()
	return nil
}

// tick does what is due because time has passed.
func (s *Session) tick(now time.Time, out *transport.Batch) {
	pub, sub := s.peers()
	if pub != nil {
		pub.tick(now, out)
	}
	if sub != nil && sub != pub {
		sub.tick(now, out)
	}
}

func (s *Session) peers() (pub, sub *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pub, s.sub
}

// Close ends the connections and returns when no event will come any more. It
// must not be called from an event.
func (s *Session) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.engine.remove(s)
	pub, sub := s.peers()
	if pub != nil {
		pub.close()
	}
	if sub != nil && sub != pub {
		sub.close()
	}
	s.gate.shut()
}

// gate lets events through until it is shut.
type gate struct {
	mu     sync.RWMutex // held for reading during an event
	closed bool
}

func (g *gate) pass(event func()) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if !g.closed {
		event()
	}
}

// shut returns when no event is under way.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}
