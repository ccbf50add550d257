package front

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// somewhere is a connection from an address of the test's choice.
type somewhere struct {
	net.Conn
	from net.Addr
}

func (s somewhere) RemoteAddr() net.Addr { return s.from }

func pipeFrom(f *Front, ip byte) net.Conn {
	near, far := net.Pipe()
	from := &net.TCPAddr{IP: net.IPv4(203, 0, 113, ip), Port: 4711}
	f.admit(somewhere{near, from}, f.route, func(g func()) { go g() })
	return far
}

// TestFloodOfOneSource (A8): a source that comes as fast as it can uses up its own
// share, half-open or not, and nobody else's.
func TestFloodOfOneSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := build(quiet(t))
		var held []net.Conn
		for range 10 * DefaultLimits.Burst {
			held = append(held, pipeFrom(f, 1))
		}
		synctest.Wait()
		if s := f.Stats(); s.Pending != DefaultLimits.PendingPerSource || s.Refused["pending_source"] == 0 {
			t.Errorf("%d half-open, refused %v; want the share of one source", s.Pending, s.Refused)
		}
		other := pipeFrom(f, 2)
		io.WriteString(other, stunHead)
		synctest.Wait()
		if n := f.Stats().Outcomes["turn"]; n != 1 {
			t.Errorf("another source does not get in: %v", f.Stats())
		}
		other.Close()
		for _, c := range held {
			c.Close()
		}
		synctest.Wait()
		// The same with connections that are well and gone at once: the rate counts.
		for range 2 * DefaultLimits.Burst {
			c := pipeFrom(f, 3)
			c.Close()
			synctest.Wait()
		}
		if n := f.Stats().Refused["rate"]; n < uint64(DefaultLimits.Burst)-1 {
			t.Errorf("%d refused for their rate, want about %d", n, DefaultLimits.Burst)
		}
	})
}

// TestSlowHandshakesHoldNobodyUp (A8): more handshakes are stuck than may be
// computed at once, and the next one is done at once.
func TestSlowHandshakesHoldNobodyUp(t *testing.T) {
	pair := testPair(t)
	synctest.Test(t, func(t *testing.T) {
		cfg := quiet(t)
		cfg.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair, nil }
		f := build(cfg)
		var stuck []net.Conn
		for range 20 * cap(f.turnstile) {
			c := pipeFrom(f, 1)
			go io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
			stuck = append(stuck, c)
		}
		synctest.Wait()
		begin := time.Now()
		c := tls.Client(pipeFrom(f, 2), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnTURN}})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("the handshake took %s", took)
		}
		c.Close()
		for _, s := range stuck {
			if took := closedAfter(s); took > f.cfg.Budget {
				t.Errorf("a stuck one lives for %s", took)
			}
		}
		synctest.Wait()
		if s := f.Stats(); s.Open != 0 || s.Pending != 0 || len(f.turnstile) != 0 {
			t.Errorf("left: %+v, %d in the turnstile", s, len(f.turnstile))
		}
	})
}

// TestHandshakesAreComputedFewAtATime and the others get their turn.
func TestHandshakesAreComputedFewAtATime(t *testing.T) {
	pair := testPair(t)
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Int32
		release := make(chan struct{})
		cfg := quiet(t)
		cfg.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			now.Add(1)
			<-release
			return pair, nil
		}
		f := build(cfg)
		var clients sync.WaitGroup
		for range 4 * cap(f.turnstile) {
			c := tls.Client(pipeFrom(f, 1), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnTURN}})
			clients.Go(func() {
				if err := c.Handshake(); err != nil {
					t.Error(err)
				}
				c.Close()
			})
		}
		synctest.Wait()
		if n := int(now.Load()); n != cap(f.turnstile) {
			t.Errorf("%d handshakes at once, want %d", n, cap(f.turnstile))
		}
		close(release)
		clients.Wait()
		synctest.Wait()
		if n := f.Stats().Open; n != 0 || int(now.Load()) != 4*cap(f.turnstile) {
			t.Errorf("%d left, %d of %d had their turn", n, now.Load(), 4*cap(f.turnstile))
		}
	})
}

// TestRapidReset (A8, CVE-2023-44487): streams that are reset as soon as they are
// opened do not pile up handlers, and who goes on with it is cut off.
func TestRapidReset(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	f := start(t, func(c *Config) {
		c.HTTP = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			<-release // a handler that does not look whether anybody still waits
		})
	})
	defer close(release)
	c := dialTLS(t, f, clientTLS(t, alpnHTTP2))
	io.WriteString(c, http2.ClientPreface)
	framer := http2.NewFramer(c, c)
	framer.WriteSettings()
	goAway := make(chan http2.ErrCode, 1)
	go func() {
		defer close(goAway)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				return
			}
			if g, ok := frame.(*http2.GoAwayFrame); ok {
				goAway <- g.ErrCode
				return
			}
		}
	}()
	head := encode("GET", "/")
	for i := range 100 * maxStreams {
		id := uint32(2*i + 1)
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head, EndStream: true, EndHeaders: true}) != nil ||
			framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	if code, ok := <-goAway; ok && code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("ended with %s", code)
	}
	if n := most.Load(); n > maxStreams || n == 0 {
		t.Errorf("%d handlers at once, want some and at most %d", n, maxStreams)
	}
}

func encode(method, path string) []byte {
	var b byteWriter
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "node.test"}, {":path", path}} {
		e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	return b
}

type byteWriter []byte

func (b *byteWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}

// TestHeadersAreBounded in size and in time, over HTTP/1.1.
func TestHeadersAreBounded(t *testing.T) {
	f := start(t, nil)
	c := dialTLS(t, f, clientTLS(t, alpnHTTP1))
	go func() {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nA: ")
		for b := make([]byte, 8<<10); ; {
			for i := range b {
				b[i] = 'a'
			}
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	b, _ := io.ReadAll(c)
	if got := string(b); len(got) < 12 || got[:12] != "HTTP/1.1 431" {
		t.Errorf("an endless header is answered with %.40q", got)
	}
}
