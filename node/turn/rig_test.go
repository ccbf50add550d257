package turn

import (
	"bufio"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

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

// rig is a relay on loopback with an echo for a media endpoint.
type rig struct {
	t        *testing.T
	server   *Server
	clock    *testClock
	endpoint netip.AddrPort // the media endpoint; echoes
	listener net.Listener
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, clock: newTestClock(), endpoint: echo(t)}
	cfg := Config{
		Peers:  []Peer{{Advertised: r.endpoint}},
		Secret: []byte("0123456789abcdef"),
		Now:    r.clock.now,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { r.server.ServeConn(conn) })
		}
	})
	t.Cleanup(func() {
		r.listener.Close()
		r.server.Close()
		running.Wait()
		if s := r.server.Stats(); s.Connections != 0 || s.Allocations != 0 {
			t.Errorf("after Close: %d connections, %d allocations", s.Connections, s.Allocations)
		}
	})
	return r
}

// echo is a UDP socket on loopback that sends back what it gets.
func echo(t *testing.T) netip.AddrPort {
	c := listenUDP(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		for {
			n, src, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(b[:n], src)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// probe is a TURN client that does what it is told, honest or not.
type probe struct {
	t                  *testing.T
	conn               net.Conn
	in                 *bufio.Reader
	username, password string
	nonce              stun.Nonce
	realm              stun.Realm
}

// dial connects with credentials of a participant in room "blue".
func (r *rig) dial(participant string) *probe {
	u, p := r.server.Credentials(participant, "blue", time.Minute)
	return r.dialWith(u, p)
}

func (r *rig) dialWith(username, password string) *probe {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &probe{t: r.t, conn: conn, in: bufio.NewReader(conn), username: username, password: password}
}

// send writes a message; it is authenticated as soon as the nonce is known.
func (p *probe) send(kind stun.MessageType, attrs ...stun.Setter) error {
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
	_, err = p.conn.Write(m.Raw)
	return err
}

var errClosed = errors.New("the relay closed the connection")

// receive reads the next message; ChannelData is wrapped in a Data attribute.
func (p *probe) receive() (*stun.Message, error) {
	b := make([]byte, 2000)
	n, err := readFrame(p.in, b)
	if err != nil {
		return nil, errors.Join(errClosed, err)
	}
	if b[0] >= 0x40 {
		return &stun.Message{Attributes: stun.Attributes{{Type: stun.AttrData, Value: b[4:n]}}}, nil
	}
	m := &stun.Message{Raw: b[:n]}
	return m, m.Decode()
}

// ask sends a request and returns its error code, 0 for success, -1 for an error
// response without code.
func (p *probe) ask(method stun.Method, attrs ...stun.Setter) int {
	p.t.Helper()
	code, err := p.try(method, attrs...)
	if err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
	return code
}

func (p *probe) try(method stun.Method, attrs ...stun.Setter) (int, error) {
	if err := p.send(stun.NewType(method, stun.ClassRequest), attrs...); err != nil {
		return 0, errors.Join(errClosed, err)
	}
	m, err := p.receive()
	if err != nil {
		return 0, err
	}
	if m.Type.Class == stun.ClassSuccessResponse {
		return 0, nil
	}
	var code stun.ErrorCodeAttribute
	if code.GetFrom(m) != nil {
		return -1, nil
	}
	if code.Code == stun.CodeUnauthorized || code.Code == stun.CodeStaleNonce {
		p.nonce.GetFrom(m)
		p.realm.GetFrom(m)
	}
	return int(code.Code), nil
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

// allocate goes through the 401 and allocates.
func (p *probe) allocate(attrs ...stun.Setter) int {
	p.t.Helper()
	attrs = append([]stun.Setter{udpTransport}, attrs...)
	if code := p.ask(stun.MethodAllocate, attrs...); code != 401 {
		p.t.Fatalf("Allocate without credentials: %d, want 401", code)
	}
	return p.ask(stun.MethodAllocate, attrs...)
}

func (p *probe) mustAllocate() {
	p.t.Helper()
	if code := p.allocate(); code != 0 {
		p.t.Fatalf("Allocate: %d", code)
	}
}

// rawPeerAttr writes IPv6 as it is, also what net.IP would take for IPv4.
func rawPeerAttr(a netip.AddrPort) stun.Setter {
	return setterFunc(func(m *stun.Message) error {
		raw := a.Addr().AsSlice()
		value := []byte{0, 1}
		if len(raw) == 16 {
			value[1] = 2
		}
		value = binary.BigEndian.AppendUint16(value, a.Port()^cookie>>16)
		key := append(binary.BigEndian.AppendUint32(nil, cookie), m.TransactionID[:]...)
		for i, b := range raw {
			value = append(value, b^key[i])
		}
		m.Add(stun.AttrXORPeerAddress, value)
		return nil
	})
}

type setterFunc func(*stun.Message) error

func (f setterFunc) AddTo(m *stun.Message) error { return f(m) }

func (p *probe) permit(a netip.AddrPort) int {
	p.t.Helper()
	return p.ask(stun.MethodCreatePermission, rawPeerAttr(a))
}

func (p *probe) bind(channel uint16, a netip.AddrPort) int {
	p.t.Helper()
	number := attribute{stun.AttrChannelNumber, binary.BigEndian.AppendUint16(nil, channel)}
	number.value = append(number.value, 0, 0)
	return p.ask(stun.MethodChannelBind, number, rawPeerAttr(a))
}

// indicate sends data in a Send indication.
func (p *probe) indicate(a netip.AddrPort, data string) {
	p.t.Helper()
	kind := stun.NewType(stun.MethodSend, stun.ClassIndication)
	if err := p.send(kind, rawPeerAttr(a), attribute{stun.AttrData, []byte(data)}); err != nil {
		p.t.Fatalf("Send: %v", err)
	}
}

// roundTrip sends data to the endpoint and waits for its echo: what was sent
// before has been dealt with by then.
func (p *probe) roundTrip(endpoint netip.AddrPort, data string) {
	p.t.Helper()
	p.indicate(endpoint, data)
	m, err := p.receive()
	if err != nil {
		p.t.Fatalf("no echo of %q: %v", data, err)
	}
	if got, _ := m.Get(stun.AttrData); string(got) != data {
		p.t.Fatalf("echo %q, want %q", got, data)
	}
}
