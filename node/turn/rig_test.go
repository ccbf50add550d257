package turn

import (
	"bytes"
	"crypto/md5"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"github.com/domicile/domicile/node/stream"
	"github.com/domicile/domicile/node/transport"
)

// patience bounds every wait of these tests; nothing waits for it to pass.
const patience = 20 * time.Second

// testClock is a clock that tests move.
type testClock struct {
	mu sync.Mutex
	at time.Time
}

func newTestClock() *testClock {
	return &testClock{at: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rig is a media engine on loopback with a TURN server before it, reached over
// UDP, TCP and TLS, of both families.
type rig struct {
	t      testing.TB
	engine *transport.Engine
	server *Server
	clock  *testClock
	tcp    map[string]string // address by "tcp4", "tls6" …
	roots  *tls.Config
	media  []netip.AddrPort // the endpoints: two of IPv4, one of IPv6
}

// door is all that reaches the media sockets and is TURN.
type door struct{ *Server }

func (door) QUIC(transport.Tuple, []byte) {}

// waysIn are the transports of TURN, with the family of the client's address.
var waysIn = []string{"udp4", "tcp4", "tls4", "udp6", "tcp6", "tls6"}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	any4, any6 := netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")
	engine, err := transport.Listen(transport.Config{Media: []netip.AddrPort{any4, any4, any6}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, engine: engine, clock: newTestClock(), tcp: map[string]string{}, media: engine.MediaAddrs()}
	cfg := Config{Engine: engine, Secret: []byte("0123456789abcdef"), Now: r.clock.now}
	if change != nil {
		change(&cfg)
	}
	if r.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	engine.SetDoor(door{r.server})
	stop := r.listen()
	t.Cleanup(func() {
		r.server.Close()
		stop()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
		if s := r.server.Stats(); s.Streams != 0 || s.Allocations != 0 {
			t.Errorf("after Close: %d streams, %d allocations", s.Streams, s.Allocations)
		}
	})
	return r
}

// listen opens TCP and TLS listeners of both families.
func (r *rig) listen() (stop func()) {
	pair, roots := selfSigned(r.t)
	r.roots = &tls.Config{RootCAs: roots}
	var running sync.WaitGroup
	var listeners []net.Listener
	for _, family := range []string{"4", "6"} {
		host := map[string]string{"4": "127.0.0.1:0", "6": "[::1]:0"}[family]
		for _, kind := range []string{"tcp", "tls"} {
			l, err := net.Listen("tcp", host)
			if err != nil {
				r.t.Fatal(err)
			}
			listeners = append(listeners, l)
			r.tcp[kind+family] = l.Addr().String()
			cfg := &tls.Config{Certificates: []tls.Certificate{*pair}, DynamicRecordSizingDisabled: true}
			running.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					running.Go(func() { r.serve(conn, kind == "tls", cfg) })
				}
			})
		}
	}
	return func() {
		for _, l := range listeners {
			l.Close()
		}
		running.Wait()
	}
}

// serve is what the front door does.
func (r *rig) serve(conn net.Conn, secure bool, cfg *tls.Config) {
	base := stream.New(conn)
	defer conn.Close()
	if !secure {
		r.server.ServeStream(base)
		return
	}
	tc := tls.Server(base, cfg)
	if tc.Handshake() == nil {
		r.server.ServeStream(stream.Over(tc, base))
	}
}

// endpoint is the first media endpoint of the family of a way in.
func (r *rig) endpoint(way string) netip.AddrPort {
	if way[3] == '6' {
		return r.media[2]
	}
	return r.media[0]
}

// listener is a connection's handler that nobody tells anything.
type listener struct{}

func (listener) RTP(*transport.Worker, []byte, time.Time)  {}
func (listener) RTCP(*transport.Worker, []byte, time.Time) {}
func (listener) Drained(*transport.Worker)                 {}
func (listener) State(transport.State)                     {}
func (listener) Opened(string)                             {}
func (listener) Message(string, bool, []byte)              {}

// session is a participant's media connection in room "blue".
func (r *rig) session(participant string) transport.Local {
	r.t.Helper()
	c, err := r.engine.NewConn(listener{}, transport.ConnConfig{Owner: r.server.Owner(participant, "blue")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c.Local()
}

// probe is a TURN client that does what it is told, honest or not.
type probe struct {
	t                  testing.TB
	rig                *rig
	way                string
	conn               net.Conn
	buf                []byte
	username, password string
	nonce              stun.Nonce
	realm              stun.Realm
	relayed            netip.AddrPort
}

// dial connects with credentials of a participant in room "blue".
func (r *rig) dial(way, participant string) *probe {
	u, p := r.server.Credentials(participant, "blue", time.Minute)
	return r.dialWith(way, u, p)
}

func (r *rig) dialWith(way, username, password string) *probe {
	r.t.Helper()
	conn, err := r.connect(way)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &probe{t: r.t, rig: r, way: way, conn: conn, username: username, password: password}
}

func (r *rig) connect(way string) (net.Conn, error) {
	switch way[:3] {
	case "udp":
		return net.Dial("udp", r.endpoint(way).String())
	case "tls":
		return tls.Dial("tcp", r.tcp[way], r.roots)
	}
	return net.Dial("tcp", r.tcp[way])
}

// build makes a message; it is authenticated as soon as the nonce is known.
func (p *probe) build(kind stun.MessageType, attrs ...stun.Setter) *stun.Message {
	p.t.Helper()
	setters := append([]stun.Setter{stun.TransactionID, kind}, attrs...)
	if len(p.nonce) > 0 && kind.Class == stun.ClassRequest {
		key := md5.Sum([]byte(p.username + ":" + p.realm.String() + ":" + p.password))
		setters = append(setters, stun.NewUsername(p.username), p.realm, p.nonce, stun.MessageIntegrity(key[:]))
	}
	m, err := stun.Build(setters...)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func (p *probe) write(b []byte) error {
	_, err := p.conn.Write(b)
	return err
}

var errClosed = errors.New("the server closed the connection")

// receive reads the next message, STUN or ChannelData.
func (p *probe) receive() ([]byte, error) {
	if p.way[:3] == "udp" {
		b := make([]byte, 4096)
		n, err := p.conn.Read(b)
		return b[:n], err
	}
	for {
		body, total, err := frame(p.buf)
		if err != nil {
			return nil, err
		}
		if total > 0 {
			b := bytes.Clone(p.buf[:body])
			p.buf = p.buf[total:]
			return b, nil
		}
		b := make([]byte, 4096)
		n, err := p.conn.Read(b)
		if err != nil {
			return nil, errors.Join(errClosed, err)
		}
		p.buf = append(p.buf, b[:n]...)
	}
}

// ask sends a request and returns the code of the answer, 0 for success.
func (p *probe) ask(method stun.Method, attrs ...stun.Setter) int {
	p.t.Helper()
	code, err := p.try(method, attrs...)
	if err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
	return code
}

func (p *probe) try(method stun.Method, attrs ...stun.Setter) (int, error) {
	p.t.Helper()
	q := p.build(stun.NewType(method, stun.ClassRequest), attrs...)
	if err := p.write(q.Raw); err != nil {
		return 0, errors.Join(errClosed, err)
	}
	for {
		b, err := p.receive()
		if err != nil {
			return 0, err
		}
		m := &stun.Message{Raw: b}
		if b[0] >= 0x40 || m.Decode() != nil || m.TransactionID != q.TransactionID {
			continue // data of before
		}
		return p.learn(m), nil
	}
}

// learn reads the answer to a request.
func (p *probe) learn(m *stun.Message) int {
	if m.Type.Class == stun.ClassSuccessResponse {
		if v, err := m.Get(stun.AttrXORRelayedAddress); err == nil {
			p.relayed = readAddress(v, m.TransactionID)
		}
		return 0
	}
	var code stun.ErrorCodeAttribute
	if code.GetFrom(m) != nil {
		return -1
	}
	if code.Code == stun.CodeUnauthorized || code.Code == stun.CodeStaleNonce {
		p.nonce.GetFrom(m)
		p.realm.GetFrom(m)
	}
	return int(code.Code)
}

// attribute is a raw STUN attribute.
type attribute struct {
	kind  stun.AttrType
	value []byte
}

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(a.kind, a.value)
	return nil
}

var udpTransport = attribute{stun.AttrRequestedTransport, []byte{17, 0, 0, 0}}

// family asks for the family of the way in.
func (p *probe) family() stun.Setter {
	f := byte(1)
	if p.way[3] == '6' {
		f = 2
	}
	return attribute{stun.AttrRequestedAddressFamily, []byte{f, 0, 0, 0}}
}

// allocate goes through the challenge and allocates.
func (p *probe) allocate(attrs ...stun.Setter) int {
	p.t.Helper()
	attrs = append([]stun.Setter{udpTransport, p.family()}, attrs...)
	if len(p.nonce) == 0 {
		if code := p.ask(stun.MethodAllocate, attrs...); code != 401 {
			p.t.Fatalf("Allocate without credentials: %d, want 401", code)
		}
	}
	return p.ask(stun.MethodAllocate, attrs...)
}

func (p *probe) mustAllocate() {
	p.t.Helper()
	if code := p.allocate(); code != 0 {
		p.t.Fatalf("Allocate: %d", code)
	}
}

const cookie = 0x2112A442

// peer writes an address as it is spelled: also IPv6 that means IPv4.
type peer netip.AddrPort

func (a peer) AddTo(m *stun.Message) error {
	raw := netip.AddrPort(a).Addr().AsSlice()
	value := []byte{0, 1}
	if len(raw) == 16 {
		value[1] = 2
	}
	value = binary.BigEndian.AppendUint16(value, netip.AddrPort(a).Port()^cookie>>16)
	key := append(binary.BigEndian.AppendUint32(nil, cookie), m.TransactionID[:]...)
	for i, b := range raw {
		value = append(value, b^key[i])
	}
	m.Add(stun.AttrXORPeerAddress, value)
	return nil
}

func readAddress(v []byte, id [stun.TransactionIDSize]byte) netip.AddrPort {
	key := append(binary.BigEndian.AppendUint32(nil, cookie), id[:]...)
	ip := bytes.Clone(v[4:])
	for i := range ip {
		ip[i] ^= key[i]
	}
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(v[2:])^cookie>>16)
}

func (p *probe) permit(a netip.AddrPort) int {
	p.t.Helper()
	return p.ask(stun.MethodCreatePermission, peer(a))
}

func (p *probe) bind(channel uint16, a netip.AddrPort) int {
	p.t.Helper()
	return p.ask(stun.MethodChannelBind, number(channel), peer(a))
}

func number(channel uint16) stun.Setter {
	return attribute{stun.AttrChannelNumber, append(binary.BigEndian.AppendUint16(nil, channel), 0, 0)}
}

// indicate sends data in a Send indication.
func (p *probe) indicate(a netip.AddrPort, data []byte) {
	p.t.Helper()
	kind := stun.NewType(stun.MethodSend, stun.ClassIndication)
	if err := p.write(p.build(kind, peer(a), attribute{stun.AttrData, data}).Raw); err != nil {
		p.t.Fatalf("Send: %v", err)
	}
}

// channelData wraps data for a channel.
func (p *probe) channelData(channel uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, channel)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	b = append(b, data...)
	if p.way[:3] != "udp" {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// check is an ICE check for a connection.
func check(to transport.Local) *stun.Message {
	return stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername(to.Ufrag+":peer"),
		attribute{stun.AttrICEControlling, make([]byte, 8)}, attribute{stun.AttrPriority, make([]byte, 4)},
		stun.NewShortTermIntegrity(to.Pwd), stun.Fingerprint)
}

// reaches sends a check to an endpoint, in a channel if it has a number, and
// waits for the answer: what was sent before has been dealt with by then. The
// answer has to say that it came from the relayed address, and has to come from
// the endpoint or through the channel.
func (p *probe) reaches(endpoint netip.AddrPort, channel uint16, to transport.Local) error {
	p.t.Helper()
	q := check(to)
	if channel == 0 {
		p.indicate(endpoint, q.Raw)
	} else if err := p.write(p.channelData(channel, q.Raw)); err != nil {
		return err
	}
	b, err := p.receive()
	if err != nil {
		return err
	}
	inner, err := unwrap(b, endpoint, channel)
	if err != nil {
		return err
	}
	m := &stun.Message{Raw: inner}
	if err := m.Decode(); err != nil {
		return err
	}
	v, err := m.Get(stun.AttrXORMappedAddress)
	if err != nil || m.TransactionID != q.TransactionID || m.Type != stun.BindingSuccess {
		return fmt.Errorf("answer %v", m)
	}
	if from := readAddress(v, m.TransactionID); from != p.relayed {
		return fmt.Errorf("the check came from %s, want the relayed address %s", from, p.relayed)
	}
	return nil
}

func unwrap(b []byte, endpoint netip.AddrPort, channel uint16) ([]byte, error) {
	if channel != 0 {
		if len(b) < 4 || binary.BigEndian.Uint16(b) != channel {
			return nil, fmt.Errorf("%d bytes, not of channel %#x", len(b), channel)
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		return b[4 : 4+n], nil
	}
	m := &stun.Message{Raw: b}
	if err := m.Decode(); err != nil {
		return nil, err
	}
	data, err := m.Get(stun.AttrData)
	if err != nil {
		return nil, fmt.Errorf("no data in %v", m)
	}
	from, err := m.Get(stun.AttrXORPeerAddress)
	if err != nil || readAddress(from, m.TransactionID) != endpoint {
		return nil, fmt.Errorf("data from %v, want %s", from, endpoint)
	}
	return data, nil
}

func (p *probe) mustReach(endpoint netip.AddrPort, channel uint16, to transport.Local) {
	p.t.Helper()
	if err := p.reaches(endpoint, channel, to); err != nil {
		p.t.Fatalf("through %#x to %s: %v", channel, endpoint, err)
	}
}

// ended waits for the end of a stream.
func (p *probe) ended() {
	p.t.Helper()
	for {
		if _, err := p.receive(); err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				p.t.Fatal("the stream stays open")
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, errClosed) {
				p.t.Fatal(err)
			}
			return
		}
	}
}
