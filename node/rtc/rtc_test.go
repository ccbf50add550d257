package rtc

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/node/sfu"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// patience bounds every wait of these tests; nothing waits for it to pass.
const patience = 20 * time.Second

var loopback = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}

func newTestEngine(t *testing.T) *Engine {
	t.Helper()
	e, err := NewEngine(Config{Media: loopback})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// message is what a data channel carried.
type message struct{ label, text string }

// client is a participant: a session of the node, and real pion peers at the
// other end. It is the Events of its session.
type client struct {
	t       *testing.T
	session *Session
	pub     *webrtc.PeerConnection
	sub     *webrtc.PeerConnection
	negot   sync.Mutex // one negotiation of pub at a time
	offerID uint32

	published chan published
	ended     chan *sfu.UpTrack
	data      chan message // client to node
	received  chan message // node to client
	tracks    chan *webrtc.TrackRemote
	offers    chan uint32 // ids of offers that were answered
	states    chan string
	sections  chan [2]int // asked of a single connection
	refuse    bool        // Publish returns nil
	hold      bool        // offers are not answered
	held      chan string
}

type published struct {
	in Incoming
	up *sfu.UpTrack
}

func newClient(t *testing.T, e *Engine) *client {
	t.Helper()
	return newClientWith(t, e, SessionConfig{})
}

func newClientWith(t *testing.T, e *Engine, cfg SessionConfig) *client {
	t.Helper()
	c := &client{
		t: t, published: make(chan published, 64), ended: make(chan *sfu.UpTrack, 64),
		data: make(chan message, 64), received: make(chan message, 64),
		tracks: make(chan *webrtc.TrackRemote, 64), offers: make(chan uint32, 1024),
		states: make(chan string, 64), sections: make(chan [2]int, 64), held: make(chan string, 64),
	}
	var err error
	if c.session, err = e.NewSession(c, cfg); err != nil {
		t.Fatal(err)
	}
	c.pub, c.sub = newPeer(t), newPeer(t)
	c.sub.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { c.tracks <- tr })
	c.sub.OnDataChannel(func(dc *webrtc.DataChannel) {
		dc.OnMessage(func(m webrtc.DataChannelMessage) { c.received <- message{dc.Label(), string(m.Data)} })
	})
	t.Cleanup(func() {
		c.session.Close()
		for _, pc := range []*webrtc.PeerConnection{c.pub, c.sub} {
			if err := pc.GracefulClose(); err != nil {
				t.Error(err)
			}
		}
	})
	return c
}

// newPeer makes a browser's end, as near as pion comes to one.
func newPeer(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	r := &interceptor.Registry{}
	if err := webrtc.ConfigureTWCCHeaderExtensionSender(m, r); err != nil {
		t.Fatal(err)
	}
	if err := webrtc.RegisterDefaultInterceptors(m, r); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithInterceptorRegistry(r), webrtc.WithSettingEngine(s)).
		NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

func (c *client) State(tg Target, state string) { c.states <- tg.String() + " " + state }

func (c *client) Publish(in Incoming) *sfu.UpTrack {
	if c.refuse {
		c.published <- published{in: in}
		return nil
	}
	up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: sfu.TrackID(in.CID), Kind: in.Kind, Codec: in.Codec})
	c.published <- published{in, up}
	return up
}

func (c *client) Sections(audio, video int) { c.sections <- [2]int{audio, video} }

func (c *client) StreamState(*sfu.DownTrack, bool) {}

// Unsupported implements Events.
func (c *client) Unsupported(*sfu.DownTrack) {}

func (c *client) Unpublish(up *sfu.UpTrack) { c.ended <- up }

func (c *client) Data(label string, payload []byte) { c.data <- message{label, string(payload)} }

// Offer answers on a goroutine of its own, as a client over a network would.
func (c *client) Offer(sdp string, id uint32, _ map[string]string) {
	if c.hold {
		c.held <- sdp
		return
	}
	go c.answerOffer(sdp, id)
}

func (c *client) answerOffer(sdp string, id uint32) {
	err := c.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: sdp})
	if err != nil {
		return // closed
	}
	answer, err := c.sub.CreateAnswer(nil)
	if err != nil {
		return
	}
	done := webrtc.GatheringCompletePromise(c.sub)
	if err := c.sub.SetLocalDescription(answer); err != nil {
		return
	}
	<-done
	if err := c.session.Answer(c.sub.LocalDescription().SDP, id); err == nil {
		c.offers <- id
	}
}

// offer negotiates what the client publishes.
func (c *client) offer() {
	c.t.Helper()
	c.negot.Lock()
	defer c.negot.Unlock()
	c.offerID++
	offer, err := c.pub.CreateOffer(nil)
	if err != nil {
		c.t.Fatal(err)
	}
	done := webrtc.GatheringCompletePromise(c.pub)
	if err := c.pub.SetLocalDescription(offer); err != nil {
		c.t.Fatal(err)
	}
	<-done
	answer, err := c.session.Publish(c.pub.LocalDescription().SDP, c.offerID)
	if err != nil {
		c.t.Fatal(err)
	}
	err = c.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer.SDP})
	if err != nil {
		c.t.Fatal(err)
	}
}

// wait returns the next value of ch.
func wait[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// eventually asks again and again until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !yes(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// every runs f every interval until the test ends.
func every(t *testing.T, interval time.Duration, f func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				f()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
	})
}

// encoding is one stream that a client sends.
type encoding struct {
	track *webrtc.TrackLocalStaticRTP
	mu    sync.Mutex // guards the rest
	seq   uint16
	ts    uint32
	pid   uint16
	key   bool
	layer byte
	mid   func() string
}

func newVideoStream(t *testing.T, id, rid string, layer byte) *encoding {
	t.Helper()
	var opts []func(*webrtc.TrackLocalStaticRTP)
	if rid != "" {
		opts = append(opts, webrtc.WithRTPStreamID(rid))
	}
	track, err := webrtc.NewTrackLocalStaticRTP(
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}, id, "camera", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return &encoding{track: track, key: true, layer: layer, seq: 60000 + 1000*uint16(layer), pid: 100 * uint16(layer)}
}

// send writes a frame of one packet. ext adds what a browser adds.
func (s *encoding) send(ext func(*rtp.Packet)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frame := byte(1)
	if s.key {
		frame = 0
	}
	s.key = false
	p := &rtp.Packet{
		Header: rtp.Header{Version: 2, Marker: true, SequenceNumber: s.seq, Timestamp: s.ts},
		Payload: []byte{0x90, 0xe0, 0x80 | byte(s.pid>>8), byte(s.pid), byte(s.pid), 0x20, frame, s.layer,
			byte(s.seq >> 8), byte(s.seq)},
	}
	if ext != nil {
		ext(p)
	}
	s.seq++
	s.ts += 1800
	s.pid = (s.pid + 1) & 0x7fff
	_ = s.track.WriteRTP(p) // fails before the connection is up, as packets may
}

func (s *encoding) forceKey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = true
}

func countLines(sdp, prefix string) int {
	n := 0
	for line := range strings.Lines(sdp) {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}
