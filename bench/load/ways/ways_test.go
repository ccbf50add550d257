package ways

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"

	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var peer = netip.MustParseAddrPort("192.0.2.1:443")

// streamed is an open way over a stream whose other end the test holds.
func streamed(t *testing.T, k Kind) (*Conn, net.Conn) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close(); there.Close() })
	return &Conn{kind: k, peer: peer, conn: here, in: bufio.NewReaderSize(here, readAhead)}, there
}

func TestDatagramsInStreams(t *testing.T) {
	late, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodRefresh, stun.ClassSuccessResponse), stun.NewSoftware("abc"))
	if err != nil {
		t.Fatal(err)
	}
	for kind, wire := range map[Kind]string{
		ICETCP:  "\x00\x01a" + "\x00\x00" + "\x00\x05hello",
		TURNTCP: "\x40\x00\x00\x01a\x00\x00\x00" + string(late.Raw) + "\x40\x00\x00\x00" + "\x40\x00\x00\x05hello\x00\x00\x00",
	} {
		c, server := streamed(t, kind)
		go func() {
			for _, b := range []byte(wire) { // in pieces that are no frames
				if _, err := server.Write([]byte{b}); err != nil {
					return
				}
			}
			server.Close()
		}()
		for _, want := range []string{"a", "", "hello"} {
			if b, at, err := c.Read(); err != nil || string(b) != want || time.Since(at) > time.Minute {
				t.Errorf("%s: %q (%v), want %q", kind, b, err, want)
			}
		}
		if b, _, err := c.Read(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %q (%v) after the end", kind, b, err)
		}
	}
}

func TestWrittenFrames(t *testing.T) {
	for kind, want := range map[Kind]string{
		ICETCP:  "\x00\x05hello",
		TURNTLS: "\x40\x00\x00\x05hello\x00\x00\x00",
	} {
		c, server := streamed(t, kind)
		got := make(chan []byte, 1)
		go func() {
			b := make([]byte, 100)
			n, _ := server.Read(b)
			got <- b[:n]
		}()
		if n, err := c.Write([]byte("hello")); n != 5 || err != nil {
			t.Errorf("%s: %d, %v", kind, n, err)
		}
		if b := <-got; !bytes.Equal(b, []byte(want)) {
			t.Errorf("%s: %q on the wire, want %q", kind, b, want)
		}
		if _, err := c.Write(make([]byte, maxDatagram+1)); err == nil {
			t.Errorf("%s: a datagram of %d bytes was sent", kind, maxDatagram+1)
		}
	}
}

// A server that says no, and one that goes away.
func TestRefusedAllocations(t *testing.T) {
	for name, answer := range map[string]func(req *stun.Message) []byte{
		"486": func(req *stun.Message) []byte {
			m := stun.MustBuild(req, stun.NewType(stun.MethodAllocate, stun.ClassErrorResponse), stun.CodeAllocQuotaReached)
			return m.Raw
		},
		"not good": func(req *stun.Message) []byte {
			m := stun.MustBuild(req, stun.NewType(stun.MethodAllocate, stun.ClassErrorResponse), stun.CodeUnauthorized,
				stun.NewRealm("r"), stun.NewNonce("n"))
			return m.Raw
		},
		"EOF": func(*stun.Message) []byte { return nil },
	} {
		c, server := streamed(t, TURNTCP)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer server.Close()
			for {
				b := make([]byte, 2000)
				n, err := server.Read(b)
				if err != nil {
					return
				}
				req := &stun.Message{Raw: b[:n]}
				if err := req.Decode(); err != nil {
					return
				}
				out := answer(req)
				if out == nil {
					return
				}
				server.Write(out)
			}
		}()
		err := (&talk{Conn: c, user: "u", password: "p"}).allocate(peer)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want an error with %q", err, name)
		}
		c.Close()
		<-done
	}
}
