package names

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/domicile/domicile/internal/freeport"
	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// serve runs a server on loopback and returns its address.
func serve(t *testing.T, z *Zone) (*Server, string) {
	t.Helper()
	port, err := freeport.Find() // the kernel's choice for TCP may be taken for UDP
	if err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	streams, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(z, packets, streams, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, at
}

func exchange(t *testing.T, network, addr string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 10 * time.Second}
	a, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestServer(t *testing.T) {
	s, addr := serve(t, testZone())
	for _, network := range []string{"udp", "tcp"} {
		a := exchange(t, network, addr, ask("meet.example.org", dns.TypeA, "192.0.2.0/24"))
		if len(a.Answer) != 2 || a.Answer[0].(*dns.A).A.String() != "203.0.113.1" || !a.Authoritative {
			t.Errorf("%s: %v", network, a)
		}
	}
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, junk := range [][]byte{{}, {1}, make([]byte, 12), make([]byte, 1400)} {
		if _, err := conn.Write(junk); err != nil {
			t.Fatal(err)
		}
	}
	if a := exchange(t, "udp", addr, ask("waw.meet.example.org", dns.TypeA, "")); len(a.Answer) != 1 {
		t.Errorf("after junk: %v", a)
	}
	if n := s.Counts()[Answered]; n != 3 {
		t.Errorf("%d answered", n)
	}
}

// TestServerIsNoAmplifier asks far more than a resolver would: what is beyond the
// bound gets no more bytes than the question had, and who comes over TCP is answered.
func TestServerIsNoAmplifier(t *testing.T) {
	s, addr := serve(t, testZone())
	c := dns.Client{Net: "udp", Timeout: 10 * time.Second}
	conn, err := c.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q := ask("meet.example.org", dns.TypeA, "")
	var last *dns.Msg
	for range 4 * burst {
		if last, _, err = c.ExchangeWithConn(q, conn); err != nil {
			t.Fatal(err)
		}
		if last.Truncated {
			break
		}
	}
	if !last.Truncated || last.Len() > q.Len() {
		t.Errorf("after a flood, %d bytes for %d: %v", last.Len(), q.Len(), last)
	}
	if s.Counts()[Limited] == 0 {
		t.Error("nothing was counted as limited")
	}
	if a := exchange(t, "tcp", addr, q); len(a.Answer) != 2 {
		t.Errorf("over TCP: %v", a)
	}
}

// TestLimits: a network has its burst and its rate, another one its own, and those
// that are made up share what leaves in all.
func TestLimits(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := newLimits()
	count := func(a netip.Addr, n int) (allowed int) {
		for range n {
			if l.allow(a, now) {
				allowed++
			}
		}
		return allowed
	}
	if n := count(netip.MustParseAddr("192.0.2.1"), 1000); n != burst {
		t.Errorf("%d at once", n)
	}
	if n := count(netip.MustParseAddr("192.0.2.99"), 10); n != 0 {
		t.Errorf("%d from the same network", n)
	}
	if n := count(netip.MustParseAddr("198.51.100.1"), 10); n != 10 {
		t.Errorf("%d from another network", n)
	}
	now = now.Add(time.Second)
	if n := count(netip.MustParseAddr("192.0.2.1"), 1000); n != perNetwork {
		t.Errorf("%d a second later", n)
	}
	total := 0
	for i := range 3 * maxNetworks {
		total += count(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
		total += count(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 1)
	}
	if total > inAll || len(l.now)+len(l.old) > 2*maxNetworks {
		t.Errorf("%d answers to made-up networks, %d remembered", total, len(l.now)+len(l.old))
	}
}

func TestHealth(t *testing.T) {
	a, b := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	nodes := []Node{{"fra", []netip.Addr{a}}, {"waw", []netip.Addr{b}}}
	var h Health
	h.Note(a, false)
	if got := h.Well(nodes); len(got) != 2 {
		t.Errorf("one lost check: %v", got)
	}
	h.Note(a, false)
	if got := h.Well(nodes); len(got) != 1 || got[0].Name != "waw" {
		t.Errorf("two in a row: %v", got)
	}
	h.Note(b, false)
	h.Note(b, false)
	if got := h.Well(nodes); len(got) != 2 {
		t.Errorf("nobody answers: %v", got)
	}
	h.Note(a, true)
	if got := h.Well(nodes); len(got) != 1 || got[0].Name != "fra" {
		t.Errorf("one is back: %v", got)
	}
	h.Keep([]netip.Addr{a})
	if got := h.Down(); len(got) != 0 {
		t.Errorf("remembers %v", got)
	}
}

// TestTheServerEnds whichever of its sockets fails first.
func TestTheServerEnds(t *testing.T) {
	streams, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	streams.Close()
	s := NewServer(testZone(), packets, streams, slog.New(slog.DiscardHandler))
	if err := s.Run(t.Context()); err == nil {
		t.Error("ended without an error")
	}
}
