package rtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

const (
	// maxPacket is the largest datagram taken, in bytes.
	maxPacket = 1600
	// maxMessage is the largest data message taken, in bytes: LiveKit's clients
	// split above 15 KiB, and 64 KiB is what every SCTP stack can take.
	maxMessage = 64 << 10
	// defaultMaxTracks bounds what one participant publishes.
	defaultMaxTracks = 32
	// gatherWait bounds the wait for our own candidates. The sockets are bound,
	// so gathering is a matter of microseconds.
	gatherWait = 500 * time.Millisecond
)

var errClosed = errors.New("session is closed")

// Target names a session's peer connection; the numbers are LiveKit's.
type Target int

// The two peer connections of a session.
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
	CID      string // the track id of its msid
	StreamID string
	MID      string
	Kind     sfu.Kind
	Codec    sfu.Codec
	RIDs     []string // simulcast streams as offered; empty: one stream
}

// Events is told what happens in a session. Calls come from several goroutines,
// must not block for long, and must not call Close of the session.
type Events interface {
	// Candidate has an ICE candidate for the client (JSON of RTCIceCandidateInit).
	Candidate(t Target, init string)
	// State is "connecting", "connected", "disconnected", "failed" or "closed".
	State(t Target, state string)
	// Publish returns the UpTrack to feed, or nil to ignore the track.
	Publish(in Incoming) *sfu.UpTrack
	// Unpublish says that no more media comes for the track.
	Unpublish(up *sfu.UpTrack)
	// Data has a message from the client. payload may be kept.
	Data(label string, payload []byte)
	// Offer has a description that the client is to answer.
	Offer(sdp string, id uint32)
}

// SessionConfig bounds a session.
type SessionConfig struct {
	// MaxTracks is how many tracks the client may publish at a time; further
	// ones are ignored. 0: 32.
	MaxTracks int
	// PionClient says that the client is pion, as LiveKit's Go SDK is. It hears
	// nothing on a media section that was unused in two offers in a row, so for it
	// sections are not used again, and a session can be sent 511 tracks in all.
	// Leave it false for browsers and phones.
	PionClient bool
}

// Session is one client's pair of peer connections. All methods may be called
// from any goroutine.
type Session struct {
	engine *Engine // static, like events and cfg
	events Events
	cfg    SessionConfig
	pub    *publisher
	sub    *subscriber
	gate   gate
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
	s.pub = &publisher{s: s, incoming: make(map[incomingKey]*incoming)}
	s.sub = newSubscriber(s)
	return s, nil
}

// Publish answers an offer of the client. The id is echoed by the caller.
func (s *Session) Publish(offerSDP string, _ uint32) (answerSDP string, err error) {
	return s.pub.answer(offerSDP)
}

// StartSubscriber makes the connection that sends to the client, and its first
// offer, with the data channels. A second call does nothing.
func (s *Session) StartSubscriber() error { return s.sub.start() }

// Subscribe sends a track to the client under a stream and track id; the
// DownTrack begins when the client has answered. Call Unsubscribe to end it.
// A stream id is "owner|stream"; in a media section that had another track before,
// the track's own id takes the place of the stream.
func (s *Session) Subscribe(up *sfu.UpTrack, streamID, trackID string) (*sfu.DownTrack, error) {
	return s.sub.subscribe(up, streamID, trackID)
}

// Unsubscribe ends what Subscribe began. When it returns, nothing more is sent.
func (s *Session) Unsubscribe(d *sfu.DownTrack) error { return s.sub.unsubscribe(d) }

// Answer takes the client's answer to the offer with the id; 0, from clients
// that do not echo it, means the last offer.
func (s *Session) Answer(sdp string, id uint32) error { return s.sub.answer(sdp, id) }

// SendData sends a message to the client. Lossy data that the client does not
// take fast enough is dropped and counted; reliable data gets an error, since
// the client is then too far behind to be waited for.
func (s *Session) SendData(reliable bool, payload []byte) error {
	return s.sub.send(reliable, payload)
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
	var init webrtc.ICECandidateInit
	if err := json.Unmarshal([]byte(initJSON), &init); err != nil {
		return fmt.Errorf("add candidate: %w", err)
	}
	return nil
}

// RestartICE makes a new offer with new credentials for the subscriber, after
// the client changed networks. The publisher's restart is the client's to offer.
func (s *Session) RestartICE(t Target) error {
	if t != TargetSubscriber {
		return fmt.Errorf("restart ICE of %s: only the client can offer it", t)
	}
	return s.sub.restart()
}

// Tick is called by the owner about every 100 ms.
func (s *Session) Tick(now time.Time) {
	var out sfu.Scratch
	for _, d := range s.sub.downTracks() {
		d.Tick(now, &out)
	}
}

// Close ends both connections and returns when no event will come any more. It
// must not be called from an event.
func (s *Session) Close() {
	s.pub.close()
	s.sub.close()
	s.gate.shut()
}

// gate lets events through until it is shut. pion calls its handlers from
// goroutines that outlive a connection's Close.
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

// watch passes a connection's candidates and states on.
func (s *Session) watch(t Target, pc *webrtc.PeerConnection) {
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			return
		}
		if init, err := json.Marshal(c.ToJSON()); err == nil {
			s.gate.pass(func() { s.events.Candidate(t, string(init)) })
		}
	})
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		s.gate.pass(func() { s.events.State(t, state.String()) })
	})
}

// gathered waits until a local description holds our candidates.
func gathered(done <-chan struct{}) {
	t := time.NewTimer(gatherWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C: // the rest are told one by one
	}
}
