package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtp"
	"github.com/pion/stun/v3"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/stream"
)

// listenTCP serves ICE-TCP on loopback as the front door would.
func listenTCP(t testing.TB, change ...func(*Config)) *Engine {
	t.Helper()
	return listenTCPAt(t, "127.0.0.1:0", change...)
}

func listenTCPAt(t testing.TB, at string, change ...func(*Config)) *Engine {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	e := listen(t, append(change, func(c *Config) { c.TCP = []netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()} })...)
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			serving.Go(func() { _ = e.ServeTCP(stream.New(c)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return e
}

// onlyTCP leaves a client no other way.
func onlyTCP(s *webrtc.SettingEngine) {
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeTCP4})
	s.SetICETCPMux(nil)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
}

// TestMediaOverTCPAlone has a client send and receive through an ICE-TCP stream.
func TestMediaOverTCPAlone(t *testing.T) {
	e := listenTCP(t)
	s := connect(t, e, ConnConfig{}, onlyTCP)
	p := s.conn.way()
	if p == nil || p.tunnel == nil {
		t.Fatal("the client did not come over TCP")
	}
	defer s.publish("up")()
	got := s.events.await(t, "media", func(ev event) bool { return ev.what == "rtp" })
	var h rtp.Packet
	if err := h.Unmarshal(got.payload); err != nil || string(h.Payload) != "up" {
		t.Fatalf("media came as %q: %v", got.payload, err)
	}
	out, err := s.conn.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	done := make(chan struct{})
	var sending sync.WaitGroup
	defer sending.Wait()
	defer close(done)
	sending.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for seq := uint16(1); ; seq++ {
			b := e.Batch()
			_ = out.Write(b, packet(ourSSRC, seq, []byte("down")))
			e.Release(b)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	select {
	case tr := <-s.remote:
		back, _, err := tr.ReadRTP()
		if err != nil || string(back.Payload) != "down" {
			t.Errorf("the client got %v, %v", back, err)
		}
	case <-time.After(patience):
		t.Fatal("nothing reached the client")
	}
}

// tcpAgent is a client of ICE-TCP that knows nothing but checks.
type tcpAgent struct {
	t    testing.TB
	conn *net.TCPConn
}

func dialTCP(t testing.TB, e *Engine) *tcpAgent {
	t.Helper()
	c, err := net.Dial("tcp", (*e.tcp.Load())[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &tcpAgent{t, c.(*net.TCPConn)}
}

func frame(b []byte) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...) }

func (a *tcpAgent) send(b []byte) {
	a.t.Helper()
	if _, err := a.conn.Write(b); err != nil {
		a.t.Fatal(err)
	}
}

func (a *tcpAgent) read() []byte {
	a.t.Helper()
	var head [2]byte
	if _, err := io.ReadFull(a.conn, head[:]); err != nil {
		a.t.Fatalf("no frame: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(a.conn, b); err != nil {
		a.t.Fatalf("no whole frame: %v", err)
	}
	return b
}

func (a *tcpAgent) check(l Local, more ...stun.Setter) *stun.Message {
	a.t.Helper()
	m := request(a.t, l.Ufrag, l.Pwd, more...)
	a.send(frame(m.Raw))
	var reply stun.Message
	if err := stun.Decode(a.read(), &reply); err != nil {
		a.t.Fatal(err)
	}
	if reply.TransactionID != m.TransactionID {
		a.t.Fatal("the answer is to another check")
	}
	return &reply
}

// ended waits until the node has closed the stream, and tells whether it had sent
// anything before.
func (a *tcpAgent) ended() (sent int) {
	a.t.Helper()
	b, err := io.ReadAll(a.conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		a.t.Fatal("the stream stays open")
	}
	return len(b)
}

func TestChecksOverTCP(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) { checkOverTCP(t, listenTCPAt(t, at)) })
	}
}

func checkOverTCP(t *testing.T, e *Engine) {
	c, a := newConn(t, e), dialTCP(t, e)
	reply := a.check(c.Local(), useCandidate)
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(reply); err != nil || mapped.String() != a.conn.LocalAddr().String() {
		t.Errorf("the check is told %v, want %v: %v", mapped, a.conn.LocalAddr(), err)
	}
	if p := c.way(); p == nil || p.tunnel == nil {
		t.Error("the stream was not chosen")
	}
	a.send(frame(request(t, c.Local().Ufrag, "wrong").Raw))
	a.send(frame(request(t, "nobody", c.Local().Pwd).Raw))
	a.check(c.Local()) // fails if another was answered
	udp := newAgent(t, e)
	udp.check(c.Local(), useCandidate)
	if got := c.sendsTo(); got != udp.addr() {
		t.Errorf("sends to %v, want %v", got, udp.addr())
	}
	a.check(c.Local(), useCandidate) // and back
	if p := c.way(); p.tunnel == nil {
		t.Error("the stream was not chosen again")
	}
	a.conn.Close()
	waitFor(t, "the end of the stream", func() bool { return e.Stats().Paths == 1 })
	if c.way() != nil {
		t.Error("the connection sends to a stream that is closed")
	}
}

// waitFor looks until something has become so, which nobody reports.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !is(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestHostileStreams end, cost a counted drop, and get nothing back.
func TestHostileStreams(t *testing.T) {
	e := listenTCP(t)
	c := newConn(t, e)
	good := frame(request(t, c.Local().Ufrag, c.Local().Pwd).Raw)
	for _, h := range []struct {
		name string
		b    string
		drop Drop
	}{
		{"65535 bytes", "\xff\xff" + strings.Repeat("x", 1<<17), DropBadFrame},
		{"one more than a datagram", string(binary.BigEndian.AppendUint16(nil, maxDatagram+1)), DropBadFrame},
		{"text", "GET / HTTP/1.1\r\nHost: node.example\r\n\r\n", DropBadFrame},
		{"garbage after nothing", "\x00\x00\x00\x00\x00\x02\x3f\x00\xf0\x00", DropBadFrame},
		{"garbage after a good check", string(good) + "\xf0\x00", DropBadFrame},
	} {
		t.Run(h.name, func(t *testing.T) {
			before := e.Stats().Drops[h.drop.String()]
			a := dialTCP(t, e)
			_, _ = a.conn.Write([]byte(h.b)) // the node may have closed in the middle of it
			if sent := a.ended(); sent > 0 && !strings.HasPrefix(h.b, string(good)) {
				t.Errorf("%d bytes came back", sent)
			}
			if n := e.Stats().Drops[h.drop.String()] - before; n != 1 {
				t.Errorf("%d drops, want 1", n)
			}
		})
	}
	a := dialTCP(t, e)
	a.send(good[:7])
	if err := a.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if sent := a.ended(); sent > 0 {
		t.Errorf("%d bytes came back for a frame that was cut", sent)
	}
	last := dialTCP(t, e)
	last.send([]byte{0, 0, 0, 0}) // nothing, twice
	last.check(c.Local())
	waitFor(t, "the end of the others", func() bool { return e.Stats().Paths == 1 })
}

// TestStreamsHaveAWatch that is looked at, since time passes on the kernel's clock.
func TestStreamsHaveAWatch(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	proved := 0
	w := watch{conn: stream.New(near), proved: func() { proved++ }}
	w.restart(proveWithin)
	first := w.moved
	w.heard(false)
	if w.moved != first || proved != 0 {
		t.Error("a stream without a check gets more time")
	}
	w.heard(true)
	if w.moved == first || proved != 1 {
		t.Errorf("a check moves the deadline and is told once, not %d times", proved)
	}
	second := w.moved
	w.heard(true)
	if w.moved != second {
		t.Error("the deadline is moved for every packet")
	}
	w.moved = w.moved.Add(-2 * time.Second)
	w.heard(true)
	if w.moved.Before(second) || proved != 1 {
		t.Error("the deadline stands still")
	}
	third := w.moved
	w.heard(false)
	if w.moved == third || w.stands {
		t.Error("a stream whose connection has ended keeps its time")
	}
	fourth := w.moved
	w.heard(false)
	if w.moved != fourth {
		t.Error("a stream whose connection has ended gets more time")
	}
}

// TestSilentStreamsAreCut with a deadline that has come.
func TestSilentStreamsAreCut(t *testing.T) {
	e := listen(t)
	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	s := stream.New(near)
	served := make(chan error, 1)
	go func() { served <- e.ServeTCP(s) }()
	waitFor(t, "the stream", func() bool { e.mu.RLock(); defer e.mu.RUnlock(); return len(e.streams) == 1 })
	_ = s.SetReadDeadline(time.Unix(1, 0)) // as it is after ten seconds
	if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ServeTCP: %v, want a deadline", err)
	}
	if _, err := io.ReadAll(far); err != nil {
		t.Errorf("the client sees %v, want the end", err)
	}
}

func tcpPair() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	near, err = l.Accept()
	return near, far, err
}

// TestStreamsWithoutAProofAreBounded by their source, and those that proved
// themselves do not count.
func TestStreamsWithoutAProofAreBounded(t *testing.T) {
	s := sources{by: make(map[netip.Prefix]int)}
	mine, neighbour, far := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.1")
	var leaves []func()
	for i := range maxUnprovedFrom {
		leave, ok := s.enter([]netip.Addr{mine, neighbour}[i%2])
		if !ok {
			t.Fatalf("stream %d is refused", i)
		}
		leaves = append(leaves, leave)
	}
	if _, ok := s.enter(mine); ok {
		t.Error("one too many of a network is taken")
	}
	if _, ok := s.enter(far); !ok {
		t.Error("one of elsewhere is refused")
	}
	leaves[0]()
	leaves[0]() // counts once
	if _, ok := s.enter(mine); !ok {
		t.Error("the place of one that left is not free")
	}
	if _, ok := s.enter(mine); ok {
		t.Error("one place was freed twice")
	}
	e := listenTCP(t)
	c := newConn(t, e)
	a := dialTCP(t, e)
	a.check(c.Local())
	waitFor(t, "the proof", func() bool { e.unproved.mu.Lock(); defer e.unproved.mu.Unlock(); return e.unproved.all == 0 })
	e.unproved.mu.Lock()
	e.unproved.all = maxUnproved
	e.unproved.mu.Unlock()
	if sent := dialTCP(t, e).ended(); sent > 0 || e.Stats().Drops[DropUnproved.String()] != 1 {
		t.Errorf("%d bytes, drops %v, want one refused stream", sent, e.Stats().Drops)
	}
	a.check(c.Local())
}

// TestTheEngineEndsItsStreams when it is closed.
func TestTheEngineEndsItsStreams(t *testing.T) {
	e := listenTCP(t)
	c, a := newConn(t, e), dialTCP(t, e)
	a.check(c.Local())
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	a.ended()
	dialTCP(t, e).ended()
}

// TestTCPCandidates stand behind those of UDP, and between the two kinds of relayed
// candidates of browsers.
func TestTCPCandidates(t *testing.T) {
	e := listen(t, func(c *Config) {
		c.PublicIPs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
		c.TCP = []netip.AddrPort{netip.MustParseAddrPort("[::]:443")}
	})
	var got []string
	for _, c := range newConn(t, e).Local().Candidates {
		if c.TCP {
			got = append(got, c.String())
		}
	}
	want := []string{"2 1 tcp 33554431 192.0.2.1 443 typ host tcptype passive", "3 1 tcp 33554430 2001:db8::1 443 typ host tcptype passive"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %v, want %v", got, want)
	}
	const relayedUDP, relayedTCP = 2 << 24, 1<<24 | 65534<<8 | 255
	for i := range 300 {
		if p := tcpPriority(i); p >= relayedUDP || p <= relayedTCP {
			t.Errorf("priority %d of candidate %d does not lie between %d and %d", p, i, relayedTCP, relayedUDP)
		}
	}
	e.SetTCP(nil)
	if n := len(newConn(t, e).Local().Candidates); n != 1 {
		t.Errorf("%d candidates without TCP, want 1", n)
	}
}
