package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// patience bounds what takes milliseconds, on a machine that does much else.
const patience = time.Minute

func listen(t testing.TB, change ...func(*Config)) *Engine {
	t.Helper()
	cfg := Config{Media: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}}
	for _, c := range change {
		c(&cfg)
	}
	e, err := Listen(cfg)
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

// event is one call of a Handler.
type event struct {
	what    string // rtp, rtcp, drained, state, opened, message
	payload []byte
	label   string
	binary  bool
	state   State
}

// recorder is a Handler that keeps what it was told.
type recorder struct {
	mu     sync.Mutex
	events []event
	more   chan struct{}
	onRTP  func(w *Worker, pkt []byte)
}

func newRecorder() *recorder { return &recorder{more: make(chan struct{}, 1)} }

func (r *recorder) add(e event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *recorder) RTP(w *Worker, pkt []byte, _ time.Time) {
	if r.onRTP != nil {
		r.onRTP(w, pkt)
	}
	r.add(event{what: "rtp", payload: append([]byte(nil), pkt...)})
}

func (r *recorder) RTCP(_ *Worker, pkt []byte, _ time.Time) {
	r.add(event{what: "rtcp", payload: append([]byte(nil), pkt...)})
}
func (r *recorder) Drained(*Worker)     { r.add(event{what: "drained"}) }
func (r *recorder) State(s State)       { r.add(event{what: "state", state: s}) }
func (r *recorder) Opened(label string) { r.add(event{what: "opened", label: label}) }
func (r *recorder) Message(label string, binary bool, payload []byte) {
	r.add(event{what: "message", label: label, binary: binary, payload: payload})
}

// await returns the first event that fits, among those to come and those that came.
func (r *recorder) await(t testing.TB, what string, fits func(event) bool) event {
	t.Helper()
	deadline := time.After(patience)
	for seen := 0; ; {
		r.mu.Lock()
		for ; seen < len(r.events); seen++ {
			if e := r.events[seen]; fits(e) {
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-deadline:
			t.Fatalf("no %s within %v; came: %v", what, patience, r.summary())
		}
	}
}

func (r *recorder) summary() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.events {
		if e.what == "state" {
			all = append(all, e.state.String())
		} else if len(all) == 0 || all[len(all)-1] != e.what {
			all = append(all, e.what)
		}
	}
	return all
}

func (r *recorder) awaitState(t testing.TB, s State) {
	t.Helper()
	r.await(t, s.String(), func(e event) bool { return e.what == "state" && e.state == s })
}

// states are those that were told, in order.
func (r *recorder) states() []State {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []State
	for _, e := range r.events {
		if e.what == "state" {
			all = append(all, e.state)
		}
	}
	return all
}

// newPeer returns a pion client on loopback.
func newPeer(t testing.TB, change ...func(*webrtc.SettingEngine)) *webrtc.PeerConnection {
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetIPFilter(func(ip net.IP) bool { return ip.IsLoopback() && ip.To4() != nil })
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	for _, c := range change {
		c(&s)
	}
	m := &webrtc.MediaEngine{}
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(m)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

// ourSSRC is the stream that answers announce.
const ourSSRC = 0x11223344

// offer makes the client's description and what it says to a Conn.
func offer(t testing.TB, pc *webrtc.PeerConnection, options *webrtc.OfferOptions) (*sdp.SessionDescription, Remote) {
	t.Helper()
	o, err := pc.CreateOffer(options)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(o); err != nil {
		t.Fatal(err)
	}
	<-gathered
	var d sdp.SessionDescription
	if err := d.UnmarshalString(pc.LocalDescription().SDP); err != nil {
		t.Fatal(err)
	}
	return &d, remoteOf(t, &d)
}

func remoteOf(t testing.TB, d *sdp.SessionDescription) Remote {
	t.Helper()
	var r Remote
	for _, m := range d.MediaDescriptions {
		get := func(key string) string {
			if v, ok := m.Attribute(key); ok {
				return v
			}
			v, _ := d.Attribute(key)
			return v
		}
		hash, value, _ := strings.Cut(get("fingerprint"), " ")
		r.Ufrag, r.Pwd, r.Setup = get("ice-ufrag"), get("ice-pwd"), get("setup")
		r.Fingerprints = []Fingerprint{{Hash: hash, Value: value}}
		if m.MediaName.Media == "application" {
			r.SCTPPort = 5000
		}
	}
	return r
}

// answer gives the client a description of ours.
func answer(t testing.TB, pc *webrtc.PeerConnection, offered *sdp.SessionDescription, e *Engine, l Local, setup string) {
	t.Helper()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0\r\no=- 1 %d IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite", time.Now().UnixNano())
	bundle, _ := offered.Attribute("group")
	line("a=group:%s", bundle)
	for _, m := range offered.MediaDescriptions {
		line("m=%s\r\nc=IN IP4 0.0.0.0", m.MediaName.String())
		line("a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:%s\r\na=setup:%s", l.Ufrag, l.Pwd, e.Fingerprint(), setup)
		for _, a := range m.Attributes {
			switch a.Key {
			case "mid", "rtpmap", "fmtp", "rtcp-fb", "extmap", "rtcp-mux", "sendrecv", "sctp-port", "rid", "simulcast":
				line("%s", strings.TrimSuffix("a="+a.Key+":"+a.Value, ":"))
			}
		}
		if m.MediaName.Media != "application" {
			line("a=ssrc:%d cname:node\r\na=ssrc:%d msid:stream track", ourSSRC, ourSSRC)
		}
		for _, c := range l.Candidates {
			line("a=candidate:%s", c)
		}
		line("a=end-of-candidates")
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: b.String()}); err != nil {
		t.Fatalf("%v\n%s", err, b.String())
	}
}

// session is a client and its Conn.
type session struct {
	engine *Engine
	conn   *Conn
	events *recorder
	pc     *webrtc.PeerConnection
	track  *webrtc.TrackLocalStaticRTP // the client's
	remote chan *webrtc.TrackRemote    // ours, at the client
	up     chan struct{}               // closed when the client is connected
}

// connect has a client offer a track and data channels and waits until all stands.
func connect(t testing.TB, e *Engine, cfg ConnConfig, change ...func(*webrtc.SettingEngine)) *session {
	t.Helper()
	s := begin(t, e, cfg, change...)
	s.events.awaitState(t, Connected)
	select {
	case <-s.up: // the client's side of the handshake takes a moment longer
	case <-time.After(patience):
		t.Fatal("the client is not connected")
	}
	return s
}

func begin(t testing.TB, e *Engine, cfg ConnConfig, change ...func(*webrtc.SettingEngine)) *session {
	t.Helper()
	s := &session{engine: e, events: newRecorder(), pc: newPeer(t, change...), remote: make(chan *webrtc.TrackRemote, 1), up: make(chan struct{})}
	up := sync.OnceFunc(func() { close(s.up) })
	s.pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			up()
		}
	})
	var err error
	s.track, err = webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "camera")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.pc.AddTrack(s.track); err != nil {
		t.Fatal(err)
	}
	s.pc.OnTrack(func(tr *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { s.remote <- tr })
	if s.conn, err = e.NewConn(s.events, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.conn.Close)
	if _, err := s.pc.CreateDataChannel("_reliable", nil); err != nil {
		t.Fatal(err)
	}
	d, r := offer(t, s.pc, nil)
	if err := s.conn.SetRemote(r); err != nil {
		t.Fatal(err)
	}
	answer(t, s.pc, d, e, s.conn.Local(), "passive")
	return s
}

// publish has the client send packets until stop: it drops what comes before its
// own side of the handshake is through.
func (s *session) publish(payload string) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		for seq := uint16(100); ; seq++ {
			_ = s.track.WriteRTP(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq}, Payload: []byte(payload)})
			select {
			case <-done:
				return
			case <-t.C:
			}
		}
	})
	return sync.OnceFunc(func() { close(done); running.Wait() })
}
