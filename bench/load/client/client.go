// Package client is an attendee for load tests: it speaks LiveKit's signalling
// (v0, two peer connections) over a WebSocket, publishes payloads of package
// media and counts what it receives.
//
// To its node it looks as a browser does: it negotiates retransmission and the
// usual header extensions, reports what it receives every second and, for
// congestion control, every 100 ms. It is cheap where a browser is not: received
// media is counted at the socket by its clear header, and one packet in
// Config.Sample is decrypted to measure how long it was on its way. It repairs
// nothing and decodes nothing.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/domicile/domicile/bench/load/media"
	"github.com/domicile/domicile/bench/load/ways"
)

// Times of a connection, as LiveKit's clients have them.
const (
	pingEvery   = 5 * time.Second
	reportEvery = time.Second
	// feedbackEvery is what Chromium settles at for a camera's rate; it varies it
	// from 50 to 250 ms so that feedback is a twentieth of what is received.
	feedbackEvery = 100 * time.Millisecond
	readLimit     = 8 << 20 // a join with a thousand participants
)

// Config says whom to join, and how.
type Config struct {
	URL       string // ws:// or wss://, without a path
	Token     string
	Subscribe bool
	Video     bool // publish a camera
	Sharp     bool // one of 2 Mbit/s
	Audio     bool // publish a microphone
	// Sample is how many received packets there are to one that is decrypted;
	// 0: 16. 1 decrypts all, as a browser does.
	Sample uint16
	// Canary is what the payload of each packet bears, 32 bytes at most: words to
	// look for where they must not be.
	Canary string
	// Stubborn clients go on when they are sent away, and when their signalling ends: what
	// they send then has to be refused.
	Stubborn bool
	// NoFeedback leaves out transport-wide feedback for congestion control, which
	// real clients give.
	NoFeedback bool
	// Way is how media is received; the node is told of no other.
	Way ways.Kind
	// TURN is another server than the node's own, as coturn is.
	TURN *Server
	// TLS is for signalling over wss://; nil: the machine's authorities.
	TLS *tls.Config
	// From is the only address of this machine that media comes from; zero: every one.
	// A way other than direct UDP has to have one where the node is not on loopback.
	From netip.Addr
	// KeyLog is told the secrets of media, for tests that look into what was captured
	// (SSLKEYLOGFILE's format). Those of signalling are TLS's own. Nil: nobody.
	KeyLog io.Writer
	// Latency is told how long a sampled packet was on its way, from several
	// goroutines; may be nil.
	Latency func(time.Duration)
}

// Client is one attendee. Join makes it, Close ends it.
type Client struct {
	// Static after Join.
	cfg     Config
	ws      *websocket.Conn
	ctx     context.Context
	cancel  context.CancelCauseFunc
	pub     *webrtc.PeerConnection // nil for who publishes nothing
	sub     *webrtc.PeerConnection
	in      *Inbound
	way     *ways.Conn // nil: a socket; set before candidates are gathered
	servers []Server   // that the node told of
	senders []*sender
	tasks   sync.WaitGroup

	// Owned by read, and by dial before it.
	nudging bool         // the subscriber's first answer is given
	message bytes.Buffer // the last that came

	sent      atomic.Uint64 // RTP packets published
	told      atomic.Uint64 // feedback packets for congestion control
	writes    sync.Mutex    // one signalling message at a time
	connected chan struct{} // closed when the publisher is
	once      sync.Once
}

// Join connects and returns once the node has greeted the client, and once it
// can publish if it is to. Received media may come before that or after.
func Join(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Sample == 0 {
		cfg.Sample = 16
	}
	c := &Client{cfg: cfg, in: newInbound(cfg.Sample), connected: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	if err := c.join(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("join %s: %w", cfg.URL, err)
	}
	return c, nil
}

func (c *Client) join(ctx context.Context) error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.dial(ctx); err != nil {
		return err
	}
	c.tasks.Go(c.read)
	c.tasks.Go(c.tend)
	if c.pub == nil {
		return nil
	}
	if err := c.publish(); err != nil {
		return err
	}
	select {
	case <-c.connected:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-ctx.Done():
		return fmt.Errorf("publisher is not connected: %w", ctx.Err())
	}
}

// connect makes the peer connections.
func (c *Client) connect() (err error) {
	own := c.ownAddress()
	if c.sub, err = newPeer(c.in, func() *ways.Conn { return c.way }, own, !c.cfg.NoFeedback, c.cfg.KeyLog); err != nil {
		return err
	}
	c.sub.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { c.receive(t) })
	if !c.cfg.Video && !c.cfg.Audio {
		return nil
	}
	if c.pub, err = newPeer(nil, nil, own, !c.cfg.NoFeedback, c.cfg.KeyLog); err != nil {
		return err
	}
	c.pub.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			c.once.Do(func() { close(c.connected) })
		case webrtc.PeerConnectionStateFailed:
			c.cancel(errors.New("publisher's connection failed"))
		}
	})
	return nil
}

// ownAddress says which addresses of this machine to use; nil: all.
func (c *Client) ownAddress() func(net.IP) bool {
	switch {
	case c.cfg.From.IsValid():
		return func(ip net.IP) bool { return ip.Equal(c.cfg.From.AsSlice()) }
	case isLoopback(c.cfg.URL):
		return net.IP.IsLoopback
	}
	return nil
}

func isLoopback(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// dial opens signalling and takes the greeting.
func (c *Client) dial(ctx context.Context) (err error) {
	q := url.Values{"access_token": {c.cfg.Token}, "protocol": {"16"}, "sdk": {"go"}, "version": {"2.16.0"}, "auto_subscribe": {"0"}}
	if c.cfg.Subscribe {
		q.Set("auto_subscribe", "1")
	}
	c.ws, _, err = websocket.Dial(ctx, strings.TrimSuffix(c.cfg.URL, "/")+"/rtc?"+q.Encode(), c.options())
	if err != nil {
		return fmt.Errorf("signalling refused: %w", withoutQuery(err))
	}
	c.ws.SetReadLimit(readLimit)
	m, err := c.recv(ctx)
	if err != nil {
		return err
	}
	if m.GetJoin() == nil {
		return fmt.Errorf("first message is %T, want a greeting", m.Message)
	}
	c.servers = serversOf(m.GetJoin().IceServers)
	return nil
}

func (c *Client) options() *websocket.DialOptions {
	if c.cfg.TLS == nil {
		return nil
	}
	return &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: c.cfg.TLS}}}
}

// withoutQuery keeps the token out of error messages.
func withoutQuery(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// recv returns the next message; one that the client has no use for is not
// decoded and comes empty: in a room of a thousand most of what is said is who
// came and went.
func (c *Client) recv(ctx context.Context) (*livekit.SignalResponse, error) {
	_, r, err := c.ws.Reader(ctx)
	if err == nil {
		c.message.Reset()
		_, err = c.message.ReadFrom(r)
	}
	if err != nil {
		return nil, fmt.Errorf("read signalling: %w", err)
	}
	m := &livekit.SignalResponse{}
	if number, _, n := protowire.ConsumeTag(c.message.Bytes()); n > 0 && !useful[number] {
		return m, nil
	}
	if err := proto.Unmarshal(c.message.Bytes(), m); err != nil {
		return nil, fmt.Errorf("read signalling: %w", err)
	}
	return m, nil
}

// useful are the field numbers of SignalResponse that the client looks at.
var useful = func() map[protowire.Number]bool {
	fields := (&livekit.SignalResponse{}).ProtoReflect().Descriptor().Fields()
	list := map[protowire.Number]bool{}
	for _, name := range []protoreflect.Name{"join", "answer", "offer", "trickle", "leave"} {
		list[fields.ByName(name).Number()] = true
	}
	return list
}()

func (c *Client) send(m *livekit.SignalRequest) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("send signalling: %w", err)
	}
	c.writes.Lock()
	defer c.writes.Unlock()
	if err := c.ws.Write(c.ctx, websocket.MessageBinary, b); err != nil {
		return fmt.Errorf("send signalling: %w", err)
	}
	return nil
}

// read follows signalling until the client ends.
func (c *Client) read() {
	for {
		m, err := c.recv(c.ctx)
		if err == nil {
			err = c.handle(m)
		}
		if err != nil {
			if !c.cfg.Stubborn {
				c.cancel(err)
			}
			return
		}
	}
}

func (c *Client) handle(m *livekit.SignalResponse) error {
	switch m := m.Message.(type) {
	case *livekit.SignalResponse_Offer:
		return c.answer(m.Offer)
	case *livekit.SignalResponse_Answer:
		c.tasks.Go(func() { nudge(c.ctx, c.pub) })
		return c.pub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.Answer.Sdp})
	case *livekit.SignalResponse_Trickle:
		return c.candidate(m.Trickle)
	case *livekit.SignalResponse_Leave:
		return fmt.Errorf("sent away: %s", m.Leave.Reason)
	}
	return nil
}

func (c *Client) answer(offer *livekit.SessionDescription) error {
	err := c.sub.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer.Sdp})
	if err != nil {
		return fmt.Errorf("take offer: %w", err)
	}
	answer, err := c.sub.CreateAnswer(nil)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := c.in.learn(answer.SDP); err != nil {
		return err
	}
	if err := c.openWay(offer.Sdp); err != nil {
		return err
	}
	if err := c.sub.SetLocalDescription(answer); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if !c.nudging {
		c.nudging = true
		c.tasks.Go(func() { nudge(c.ctx, c.sub) })
	}
	return c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Answer{
		Answer: &livekit.SessionDescription{Type: "answer", Sdp: answer.SDP, Id: offer.Id}}})
}

// candidate takes a candidate of a node that tells them one by one. The client's
// own are not told: nodes learn them from its checks.
func (c *Client) candidate(t *livekit.TrickleRequest) error {
	pc := c.sub
	if t.Target == livekit.SignalTarget_PUBLISHER {
		pc = c.pub
	}
	if pc == nil || pc.RemoteDescription() == nil {
		return nil // the description has them too
	}
	init, err := candidateInit(t.CandidateInit)
	if err != nil {
		return fmt.Errorf("take candidate: %w", err)
	}
	return pc.AddICECandidate(init)
}

// tend keeps the connection alive and reports what is received.
func (c *Client) tend() {
	// Clients that came at once do not report at once.
	if !pause(c.ctx, rand.N(feedbackEvery)) {
		return
	}
	ping, report, feedback := time.NewTicker(pingEvery), time.NewTicker(reportEvery), time.NewTicker(feedbackEvery)
	defer ping.Stop()
	defer report.Stop()
	defer feedback.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ping.C:
			m := &livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{Timestamp: time.Now().UnixMilli()}}}
			if err := c.send(m); err != nil {
				c.cancel(err)
			}
		case <-report.C:
			c.report()
		case <-feedback.C:
			if pkts := c.in.feedback(); len(pkts) > 0 && c.sub.WriteRTCP(pkts) == nil {
				c.told.Add(uint64(len(pkts)))
			}
		}
	}
}

// pause waits and reports whether the whole time passed.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// report sends a receiver report, as every receiver does.
func (c *Client) report() {
	for list := c.in.reports(); len(list) > 0; {
		n := min(len(list), 31) // what one packet holds
		_ = c.sub.WriteRTCP([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1, Reports: list[:n]}})
		list = list[n:]
	}
}

// receive times the sampled packets of a track; pion ends its goroutine.
func (c *Client) receive(t *webrtc.TrackRemote) {
	for {
		p, _, err := t.ReadRTP()
		if err != nil {
			return
		}
		sent, ok := media.ReadStamp(p.Payload)
		at, known := c.in.arrivedAt(p.SSRC, p.SequenceNumber)
		if ok && known && c.cfg.Latency != nil {
			c.cfg.Latency(at.Sub(sent))
		}
	}
}

// Inbound returns what the client received so far.
func (c *Client) Inbound() *Inbound { return c.in }

// Sent returns how many RTP packets the client published.
func (c *Client) Sent() uint64 { return c.sent.Load() }

// Feedback returns how many transport-wide feedback packets the client sent.
func (c *Client) Feedback() uint64 { return c.told.Load() }

// Err returns why the client ended, nil while it has not.
func (c *Client) Err() error { return context.Cause(c.ctx) }

// errClosed ends a client that is no longer needed.
var errClosed = errors.New("client was closed")

// Leave says that the client leaves; it sends and receives until Close.
func (c *Client) Leave() {
	_ = c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Leave{Leave: &livekit.LeaveRequest{}}})
}

// Close leaves and returns when all goroutines have ended.
func (c *Client) Close() {
	if c.ws != nil {
		c.Leave()
	}
	c.cancel(errClosed)
	if c.ws != nil {
		_ = c.ws.CloseNow()
	}
	for _, pc := range []*webrtc.PeerConnection{c.pub, c.sub} {
		if pc != nil {
			_ = pc.GracefulClose()
		}
	}
	c.tasks.Wait()
	if c.way != nil {
		_ = c.way.Close() // pion closed it, if it had come so far
	}
}
