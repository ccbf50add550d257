package turn

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"github.com/domicile/domicile/node/stream"
	"github.com/domicile/domicile/node/transport"
)

// sink is a connection that keeps what is written.
type sink struct {
	net.Conn
	written bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error)      { return s.written.Write(b) }
func (s *sink) Close() error                     { return nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// fed is a stream's client that tests feed by hand.
func fed(t testing.TB, engine *transport.Engine) (*client, *sink) {
	clock := newTestClock()
	s, err := New(Config{Engine: engine, Secret: []byte("0123456789abcdef"), Now: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	out := &sink{}
	c := s.client(stream.New(out), netip.MustParseAddrPort("198.51.100.7:4000"), netip.MustParseAddrPort("203.0.113.1:443"))
	return c, out
}

// feed hands bytes over in pieces of a size, as far as the client takes them.
func (c *client) feed(b []byte, size int) error {
	for len(b) > 0 {
		n := copy(c.buf[c.have:], b[:min(size, len(b))])
		c.have += n
		b = b[n:]
		if err := c.frames(); err != nil {
			return err
		}
	}
	return nil
}

// settle gives a client an allocation with a channel to each endpoint.
func settle(t testing.TB, c *client, out *sink) {
	p := &probe{t: t, way: "tcp4"}
	p.username, p.password = c.server.Credentials("ada", "blue", time.Minute)
	ask := func(method stun.Method, attrs ...stun.Setter) {
		if err := c.feed(p.build(stun.NewType(method, stun.ClassRequest), attrs...).Raw, largeBuffer); err != nil {
			t.Fatal(err)
		}
	}
	ask(stun.MethodAllocate, udpTransport)
	m := &stun.Message{Raw: slices.Clone(out.written.Bytes())}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	p.learn(m)
	ask(stun.MethodAllocate, udpTransport)
	for i, e := range c.server.endpoints { // from here on the stream writes when it can
		ask(stun.MethodChannelBind, number(uint16(0x4000+i)), peer(e))
	}
	if carrier := c.carrier.Load(); carrier == nil || len(carrier.all()) != len(c.server.endpoints) {
		t.Fatal("no allocation")
	}
}

// FuzzStream feeds whatever may come over a stream, before and after an
// allocation, whole and byte by byte: it may not panic, and has to come to the
// same.
func FuzzStream(f *testing.F) {
	engine, err := transport.Listen(transport.Config{Media: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { engine.Close() })
	f.Add([]byte("\x40\x00\x00\x01x\x00\x00\x00\x40\x01\x00\x00"))
	f.Add(slices.Concat(stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw, []byte("\x40\x00\x00\x02ab\x00\x00\x4F\xFF\x00\x00")))
	for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodSend, stun.MethodRefresh} {
		f.Add(stun.MustBuild(stun.TransactionID, stun.NewType(method, stun.ClassRequest), udpTransport).Raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, settled := range []bool{false, true} {
			var results []string
			for _, size := range []int{1, 7, largeBuffer} {
				c, out := fed(t, engine)
				if settled {
					settle(t, c, out)
				}
				err := c.feed(b, size)
				if c.have >= maxFrame && err == nil {
					t.Fatalf("%d bytes wait for the end of a message", c.have)
				}
				results = append(results, fmt.Sprint(err, c.server.Stats().Messages))
				c.server.Close()
			}
			if results[0] != results[1] || results[1] != results[2] {
				t.Fatalf("byte by byte, by sevens and whole: %q", results)
			}
		}
	})
}
