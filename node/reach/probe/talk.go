package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
)

// channelLabel is a channel that every session of a node has.
const channelLabel = "_reliable"

// talk is a WebRTC connection with one data channel whose packets will go
// through one carrier. The carrier comes late: TURN credentials come with the
// answer, and belong to this connection alone.
type talk struct {
	pc     *webrtc.PeerConnection
	dc     *webrtc.DataChannel
	socket *socket
	local  webrtc.SessionDescription
	offer  string // local, as text
	answer string // the node's

	offered offered // with the answer

	open   chan struct{}
	failed chan struct{}
	echo   chan []byte
}

func dialogue() (*talk, error) {
	t := &talk{socket: &socket{}, open: make(chan struct{}), failed: make(chan struct{}), echo: make(chan []byte, pings)}
	var s webrtc.SettingEngine
	s.LoggerFactory = quiet()
	s.SetICEUDPMux(t.socket)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	t.pc = pc
	if err := t.prepare(); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *talk) prepare() (err error) {
	var failed sync.Once
	t.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateFailed || s == webrtc.PeerConnectionStateClosed {
			failed.Do(func() { close(t.failed) })
		}
	})
	if t.dc, err = t.pc.CreateDataChannel(channelLabel, nil); err != nil {
		return err
	}
	t.dc.OnOpen(func() { close(t.open) })
	t.dc.OnMessage(func(m webrtc.DataChannelMessage) {
		select {
		case t.echo <- m.Data:
		default: // more than was asked for
		}
	})
	if t.local, err = t.pc.CreateOffer(nil); err != nil {
		return err
	}
	t.offer = t.local.SDP
	return nil
}

func (t *talk) close() {
	_ = t.pc.GracefulClose() // it has nothing to say any more
	t.socket.Close()
}

// over connects through a carrier and measures round trips.
func (t *talk) over(ctx context.Context, c *carrier) (Millis, error) {
	t.socket.set(c)
	if err := t.pc.SetLocalDescription(t.local); err != nil {
		return 0, err
	}
	answer := webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: only(t.answer, c)}
	if err := t.pc.SetRemoteDescription(answer); err != nil {
		return 0, fail(NotDomicile, "the node's answer cannot be used: %v", err)
	}
	if err := t.wait(ctx, c); err != nil {
		return 0, err
	}
	return roundTrips(func(b []byte) error {
		if err := t.dc.Send(b); err != nil {
			return err
		}
		select {
		case <-t.echo:
			return nil
		case <-t.failed:
			return fail(Cut, "the connection broke")
		case <-ctx.Done():
			return fail(Stuck, "the connection stands, but nothing comes back over it")
		}
	})
}

// refusedWait is how long something may still come after the network has said
// that nobody is there: one such message can be old, or forged.
const refusedWait = time.Second

// wait returns when the channel is open, or cannot be.
func (t *talk) wait(ctx context.Context, c *carrier) error {
	refused := c.refused
	var enough <-chan time.Time
	for {
		select {
		case <-t.open:
			return nil
		case <-refused:
			refused, enough = nil, time.After(refusedWait)
		case <-enough:
			if c.heard.Load() == 0 {
				return fail(Closed, "")
			}
		case <-t.failed:
			return silence(c, Cut, "the connection broke before it stood")
		case <-ctx.Done():
			return silence(c, Stuck, "connectivity checks are answered, but no connection comes of it")
		}
	}
}

// silence is the failure of a carrier, whether something was heard or not.
func silence(c *carrier, o Outcome, words string) error {
	if c.heard.Load() == 0 {
		return c.mute
	}
	return fail(o, "%s", words)
}

// only is an answer whose one candidate is the carrier's end.
func only(sdp string, c *carrier) string {
	var b strings.Builder
	done := false
	for line := range strings.Lines(sdp) {
		if strings.HasPrefix(line, "a=candidate:") {
			if !done {
				fmt.Fprintf(&b, "a=candidate:1 1 udp 2130706431 %s %d typ host\r\n", c.peer.IP, c.peer.Port)
			}
			done = true
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// secured shakes hands on a connection as a browser does for turns: URLs.
func (p *prober) secured(ctx context.Context, raw net.Conn, host string) (net.Conn, error) {
	cfg := p.tlsConfig()
	cfg.ServerName, cfg.InsecureSkipVerify = host, false
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// socket is what ICE sends and receives through: the one carrier.
type socket struct {
	mu     sync.Mutex
	c      *carrier
	closed bool
}

var errNoCarrier = errors.New("no way in is open")

func (s *socket) set(c *carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c = c
	if s.closed {
		c.Close()
	}
}

// GetConn implements ice.UDPMux.
func (s *socket) GetConn(string, net.Addr) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		return nil, errNoCarrier
	}
	return s.c, nil
}

// GetListenAddresses implements ice.UDPMux.
func (s *socket) GetListenAddresses() []net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		return nil
	}
	return []net.Addr{s.c.LocalAddr()}
}

// RemoveConnByUfrag implements ice.UDPMux.
func (s *socket) RemoveConnByUfrag(string) {}

// Close implements ice.UDPMux.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil || s.closed {
		s.closed = true
		return nil
	}
	s.closed = true
	return s.c.Close()
}
