package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/domicile/domicile/node/stream"
)

// stunHead is the start of a STUN Binding request.
const stunHead = "\x00\x01\x00\x00" + magicCookie

// echoLine answers the first bytes of a connection with name and these bytes.
func echoLine(name string) func(*stream.Conn) {
	return func(c *stream.Conn) {
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s %x", name, b[:n])
		c.Read(b) // until the peer or the front closes
	}
}

// start runs a front on loopback until the test ends.
func start(t *testing.T, change func(*Config)) *Front {
	t.Helper()
	cfg := Config{
		Listen:      netip.MustParseAddrPort("127.0.0.1:0"),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return testPair(t), nil },
		HTTP:        http.HandlerFunc(describe),
		TURN:        echoLine("turn"),
		ICE:         echoLine("ice"),
	}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := f.conns.len(); n != 0 {
			t.Errorf("%d connections open after Run", n)
		}
		if open, pending := f.ledger.Count(); open != 0 || pending != 0 {
			t.Errorf("%d connections, %d of them half-open, counted after Run", open, pending)
		}
	})
	return f
}

func describe(w http.ResponseWriter, r *http.Request) {
	alpn := "none"
	if r.TLS != nil {
		alpn = fmt.Sprintf("%q %x", r.TLS.NegotiatedProtocol, r.TLS.Version)
	}
	fmt.Fprintf(w, "%s tls=%s", r.Proto, alpn)
}

func clientTLS(t *testing.T, alpn ...string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(testPair(t).Leaf)
	return &tls.Config{RootCAs: roots, ServerName: "node.test", NextProtos: alpn}
}

func dialTLS(t *testing.T, f *Front, cfg *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", f.Addr().String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func dialTCP(t *testing.T, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// say writes and returns what comes back in one read, "closed" for nothing.
func say(t *testing.T, c net.Conn, s string) string {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 256)
	n, err := c.Read(b)
	if n == 0 {
		if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
			t.Fatal("neither an answer nor a close")
		}
		return "closed"
	}
	return string(b[:n])
}

func get(t *testing.T, tr *http.Transport, url string) string {
	t.Helper()
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestHTTPOverTLSKeepsTheTLSConnection(t *testing.T) {
	f := start(t, nil)
	url := "https://" + f.Addr().String()
	if got, want := get(t, &http.Transport{TLSClientConfig: clientTLS(t), ForceAttemptHTTP2: true}, url), `HTTP/2.0 tls="h2" 304`; got != want {
		t.Errorf("over HTTP/2: %q, want %q", got, want)
	}
	if got, want := get(t, &http.Transport{TLSClientConfig: clientTLS(t, "http/1.1")}, url), `HTTP/1.1 tls="http/1.1" 304`; got != want {
		t.Errorf("over HTTP/1.1: %q, want %q", got, want)
	}
}

func TestRoutes(t *testing.T) {
	f := start(t, nil)
	overTLS := func(alpn ...string) func(*testing.T) net.Conn {
		return func(t *testing.T) net.Conn { return dialTLS(t, f, clientTLS(t, alpn...)) }
	}
	inClear := func(t *testing.T) net.Conn { return dialTCP(t, f.Addr()) }
	tests := []struct {
		name string
		dial func(*testing.T) net.Conn
		send string
		want string // start of the answer
	}{
		{"stun.turn", overTLS("stun.turn"), stunHead, "turn 00010000" + "2112a442"},
		{"no ALPN, STUN inside: what Chromium does for turns", overTLS(), stunHead, "turn 000100002112a442"},
		{"no ALPN, framed STUN inside", overTLS(), "\x00\x14" + stunHead, "ice 0014000100002112a442"},
		{"no ALPN, HTTP inside", overTLS(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200"},
		{"no ALPN, nonsense inside", overTLS(), "nonsense", "closed"},
		{"TURN in clear", inClear, stunHead, "turn 000100002112a442"},
		{"ICE-TCP", inClear, "\x00\x14" + stunHead, "ice 0014000100002112a442"},
		{"HTTP in clear", inClear, "GET /a?b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "HTTP/1.1 308 Permanent Redirect"},
		{"HTTP in clear for somebody else", inClear, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		{"nonsense in clear", inClear, "\xff\xff\xff\xff", "closed"},
		{"a broken ClientHello", inClear, "\x16\x03\x01\x00\x04\x00\x00\x00\x00", "\x15\x03\x01"}, // alert
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := say(t, tt.dial(t), tt.send); !strings.HasPrefix(got, tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPeekedHTTPHasItsTLSState(t *testing.T) {
	f := start(t, nil)
	c := dialTLS(t, f, clientTLS(t))
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if want := `HTTP/1.1 tls="" 304`; string(body) != want {
		t.Fatalf("got %q, want %q", body, want)
	}
}

func TestTLSBelow12IsRefused(t *testing.T) {
	f := start(t, nil)
	cfg := clientTLS(t)
	cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if c, err := tls.Dial("tcp", f.Addr().String(), cfg); err == nil {
		c.Close()
		t.Fatal("TLS 1.1 was accepted")
	}
}

// One byte at a time is how a hostile or a very unlucky client writes.
func TestBytesMayArriveOneByOne(t *testing.T) {
	f := start(t, nil)
	c := dialTCP(t, f.Addr())
	for i := range len(stunHead) - 1 {
		if _, err := c.Write([]byte{stunHead[i]}); err != nil {
			t.Fatal(err)
		}
	}
	if got := say(t, c, stunHead[len(stunHead)-1:]); !strings.HasPrefix(got, "turn 00010000") {
		t.Fatalf("got %q", got)
	}
}

func TestWebSocketLivesUntilShutdown(t *testing.T) {
	ended := make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	f, err := New(Config{
		Listen:      netip.MustParseAddrPort("127.0.0.1:0"),
		Plain:       netip.MustParseAddrPort("127.0.0.1:0"),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return testPair(t), nil },
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				ended <- err
				return
			}
			defer ws.CloseNow()
			ws.Write(r.Context(), websocket.MessageText, []byte("hello"))
			_, _, err = ws.Read(context.Background()) // hears of the shutdown by its connection alone
			ended <- err
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()

	tr := &http.Transport{TLSClientConfig: clientTLS(t)}
	defer tr.CloseIdleConnections()
	ws, _, err := websocket.Dial(context.Background(), "wss://"+f.Addr().String(), &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, msg, err := ws.Read(context.Background()); err != nil || string(msg) != "hello" {
		t.Fatalf("first message %q, %v", msg, err)
	}
	stop()
	if err := <-ended; err == nil {
		t.Error("the handler read a message after the shutdown")
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, _, err := ws.Read(context.Background()); err == nil {
		t.Error("the client's connection is open after the shutdown")
	}
}

func TestShutdownEndsTURNAndHalfOpenConnections(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	taken := make(chan struct{})
	f, err := New(Config{
		Listen:      netip.MustParseAddrPort("127.0.0.1:0"),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return testPair(t), nil },
		HTTP:        http.HandlerFunc(describe),
		TURN:        func(c *stream.Conn) { close(taken); io.Copy(io.Discard, c) },
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	half, turn := dialTCP(t, f.Addr()), dialTCP(t, f.Addr())
	io.WriteString(turn, stunHead)
	<-taken
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	for name, c := range map[string]net.Conn{"half-open": half, "TURN": turn} {
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s connection is open after the shutdown", name)
		}
	}
}

func TestRequestUnderWayFinishesWithinGrace(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	f, err := New(Config{
		Plain: netip.MustParseAddrPort("127.0.0.1:0"),
		Grace: time.Minute,
		HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(inside)
			<-release
			io.WriteString(w, "finished")
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	body := make(chan string, 1)
	go func() { body <- get(t, &http.Transport{}, "http://"+f.PlainAddr().String()) }()
	<-inside
	stop()
	close(release)
	if got := <-body; got != "finished" {
		t.Errorf("got %q", got)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestPlainServesWithoutTLS(t *testing.T) {
	f := start(t, func(c *Config) { c.Plain = netip.MustParseAddrPort("127.0.0.1:0") })
	if got, want := get(t, &http.Transport{}, "http://"+f.PlainAddr().String()), "HTTP/1.1 tls=none"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// lineWriter passes on what is written to it.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

func TestHandlerPanicIsLoggedWithoutAddress(t *testing.T) {
	lines := make(lineWriter, 8)
	f := start(t, func(c *Config) {
		c.Plain = netip.MustParseAddrPort("127.0.0.1:0")
		c.HTTP = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the matter") })
		c.Log = slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	c := dialTCP(t, f.PlainAddr())
	if got := say(t, c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); got != "closed" {
		t.Fatalf("got %q", got)
	}
	if s := <-lines; !strings.Contains(s, "the matter") || strings.Contains(s, c.LocalAddr().String()) {
		t.Fatalf("log %q: want the panic and no address", s)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	ok := Config{
		Listen:      netip.MustParseAddrPort("127.0.0.1:0"),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return testPair(t), nil },
		HTTP:        http.HandlerFunc(describe),
	}
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no address", func(c *Config) { c.Listen = netip.AddrPort{} }, "no address to listen on"},
		{"no certificate", func(c *Config) { c.Certificate = nil }, `listen "127.0.0.1:0": no certificate`},
		{"no handler", func(c *Config) { c.HTTP = nil }, "no HTTP handler"},
		{"plain on every address", func(c *Config) { c.Plain = netip.MustParseAddrPort("0.0.0.0:7880") }, `plain "0.0.0.0:7880": HTTP without TLS`},
		{"plain on a public address", func(c *Config) { c.Plain = netip.MustParseAddrPort("192.0.2.1:7880") }, "loopback address only"},
		{"negative budget", func(c *Config) { c.Budget = -time.Second }, "budget -1s"},
		{"address of nobody", func(c *Config) { c.Listen = netip.MustParseAddrPort("192.0.2.1:443") }, "listen https: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := ok
			tt.change(&cfg)
			f, err := New(cfg)
			if err == nil {
				f.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %q, want %q in it", err, tt.want)
			}
		})
	}
}
