package probe

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var loopback = netip.MustParseAddr("127.0.0.1")

// site is an HTTPS server on loopback whose certificate is for 127.0.0.1 and
// example.com.
func site(t *testing.T, h http.HandlerFunc) (*httptest.Server, Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	cfg := at(s.Listener.Addr())
	cfg.Roots = x509.NewCertPool()
	cfg.Roots.AddCert(s.Certificate())
	return s, cfg
}

// at is a look at an address; nothing listens where plain HTTP should redirect.
func at(a net.Addr) Config {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	l.Close()
	return Config{Host: loopback.String(), Port: netip.MustParseAddrPort(a.String()).Port(), Timeout: 2 * time.Second,
		RedirectPort: netip.MustParseAddrPort(l.Addr().String()).Port()}
}

// named gives the host a name.
func named(cfg Config, name string) Config {
	cfg.Host = name
	cfg.Resolve = func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{loopback}, nil }
	return cfg
}

func node(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/api/node":
		fmt.Fprint(w, `{"name":"fra","country":"DE","version":"1","reach_test":true}`)
	default:
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"error":{"code":"busy","message":"too many connection tests from your network"}}`)
	}
}

func expect(t *testing.T, r Report, over Over, want map[Way]Outcome, words ...string) {
	t.Helper()
	for _, x := range r.Results {
		if o, ok := want[x.Way]; ok && x.Over == over && x.Outcome != o {
			t.Errorf("%s over %s: %s (%s), want %s", x.Way, over, x.Outcome, x.Detail, o)
		}
	}
	var b bytes.Buffer
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, w := range words {
		if !strings.Contains(b.String(), w) {
			t.Errorf("nothing is said about %q:\n%s", w, b.String())
		}
	}
}

func TestCertificates(t *testing.T) {
	_, good := site(t, node)
	all := map[Way]Outcome{TCP: Works, TLS: Certificate, HTTP1: Works, HTTP2: Works}
	expect(t, Run(t.Context(), good), IPv4, map[Way]Outcome{TCP: Works, TLS: Works, HTTP1: Works, HTTP2: Works, WebSocket: Limited, DirectUDP: Limited},
		"node fra in DE, version 1", "too many connection tests", "Does not work from here: WebSocket (IPv4)")

	wrong := named(good, "meet.example.org")
	expect(t, Run(t.Context(), wrong), IPv4, all, "the certificate is for example.com", "not for meet.example.org", "127.0.0.1")
	unknown := good
	unknown.Roots = x509.NewCertPool()
	expect(t, Run(t.Context(), unknown), IPv4, all, "nobody here knows who issued the certificate", "--ca")
	late := good
	late.Now = func() time.Time { return time.Now().AddDate(200, 0, 0) }
	expect(t, Run(t.Context(), late), IPv4, all, "the certificate ended on", "renew it")
	early := good
	early.Now = func() time.Time { return time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC) }
	expect(t, Run(t.Context(), early), IPv4, all, "is valid from", "clocks")
}

func TestSomethingElseAnswers(t *testing.T) {
	_, cfg := site(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "other/1")
		fmt.Fprint(w, "hello")
	})
	expect(t, Run(t.Context(), cfg), IPv4, map[Way]Outcome{TLS: Works, HTTP1: NotDomicile, WebSocket: Untested, DirectUDP: Untested},
		"not a Domicile node", "from other/1", "no Domicile node was found")

	plain := httptest.NewServer(http.HandlerFunc(node))
	defer plain.Close()
	expect(t, Run(t.Context(), at(plain.Listener.Addr())), IPv4, map[Way]Outcome{TCP: Works, TLS: NotDomicile}, "does not speak TLS")
}

// serve takes connections on loopback until the end of the test.
func serve(t *testing.T, each func(net.Conn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go each(c)
		}
	}()
	return l.Addr()
}

func TestCutAndSilent(t *testing.T) {
	cut := serve(t, func(c net.Conn) {
		c.Read(make([]byte, 1)) //nolint:errcheck // whatever comes
		c.Close()
	})
	expect(t, Run(t.Context(), at(cut)), IPv4, map[Way]Outcome{TCP: Works, TLS: Cut}, "cut during the TLS handshake")
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c); c.Close() }) //nolint:errcheck // until the end
	cfg := at(silent)
	cfg.Timeout = 200 * time.Millisecond
	expect(t, Run(t.Context(), cfg), IPv4, map[Way]Outcome{TCP: Works, TLS: Filtered}, "nothing answers in TLS")
}

func TestTestsSwitchedOff(t *testing.T) {
	_, cfg := site(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"name":"fra","country":"DE","reach_test":false}`)
	})
	r := Run(t.Context(), cfg)
	expect(t, r, IPv4, map[Way]Outcome{HTTP1: Works, WebSocket: Untested, DirectUDP: Untested, TURNTLS: Untested}, "page.reach_test", "Could not be tested")
	if r.OK {
		t.Error("all is well, and nothing was tested")
	}
}

// A proxy that connects, one that does not, one that wants a password.
func TestProxy(t *testing.T) {
	_, good := site(t, node)
	answer := "HTTP/1.1 200 OK\r\n\r\n"
	proxy := serve(t, func(c net.Conn) {
		defer c.Close()
		var head [4096]byte
		n, err := c.Read(head[:])
		if err != nil {
			return
		}
		line, _, _ := strings.Cut(string(head[:n]), "\r\n")
		status := answer
		if !strings.Contains(string(head[:n]), "Proxy-Authorization: Basic dTpw") {
			status = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
		}
		io.WriteString(c, status) //nolint:errcheck // the client sees it
		if status != "HTTP/1.1 200 OK\r\n\r\n" {
			return
		}
		to, err := net.Dial("tcp", strings.Fields(line)[1])
		if err != nil {
			return
		}
		defer to.Close()
		go func() { io.Copy(to, c); to.Close() }() //nolint:errcheck // until either end closes
		io.Copy(c, to)                             //nolint:errcheck // likewise
	})
	// Without the proxy the name leads nowhere: proxies resolve names themselves.
	cfg := named(good, "127.0.0.1")
	cfg.Proxy = &url.URL{Scheme: "http", Host: proxy.String(), User: url.UserPassword("u", "p")}
	r := Run(t.Context(), cfg)
	expect(t, r, Proxy, map[Way]Outcome{TCP: Works, TLS: Works, HTTP1: Works, HTTP2: Works, WebSocket: Limited, TURNTLS: Limited})
	for _, x := range r.Results {
		if x.Required != (x.Over == Proxy) && x.Outcome != NotOffered {
			t.Errorf("%s over %s counts: %v", x.Way, x.Over, x.Required)
		}
	}
	cfg.Proxy = &url.URL{Scheme: "http", Host: proxy.String()}
	expect(t, Run(t.Context(), cfg), Proxy, map[Way]Outcome{TCP: Refused, TLS: Untested}, "user name and a password")
	answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
	cfg.Proxy.User = url.UserPassword("u", "p")
	expect(t, Run(t.Context(), cfg), Proxy, map[Way]Outcome{TCP: Refused}, "403 Forbidden", "have the proxy allow CONNECT")
	gone := at(proxy)
	cfg.Proxy = &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", gone.RedirectPort)}
	expect(t, Run(t.Context(), cfg), Proxy, map[Way]Outcome{TCP: Closed}, "the proxy itself cannot be reached")
}

// A machine without IPv6 says nothing about the node's.
func TestNoRoute(t *testing.T) {
	_, cfg := site(t, node)
	p := &prober{cfg: cfg.withDefaults()}
	six := &lane{over: IPv6, addr: netip.MustParseAddr("2001:db8::5"), dial: func(context.Context, string, uint16) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	}}
	p.web(t.Context(), six)
	p.tell(Result{Way: HTTP1, Over: IPv4, Outcome: Works})
	r := Report{Results: p.sorted()}
	r.judge()
	expect(t, r, IPv6, map[Way]Outcome{TCP: NoRoute, TLS: NoRoute, HTTP1: NoRoute, WebSocket: NoRoute}, "this machine has no way out over IPv6")
	if !r.OK {
		t.Error("what this machine lacks counts against the node")
	}
}

// Which address is at fault is seen from what the name leads to.
func TestJudgeAddress(t *testing.T) {
	p := &prober{}
	silent := fail(Filtered, "")
	for _, tt := range []struct {
		target    netip.Addr
		announced netip.AddrPort
		err       error
		want      Outcome
	}{
		{public, behind, silent, Private},
		{public, behind, nil, ""},
		{public, media, silent, Filtered},
		{netip.MustParseAddr("10.0.0.9"), behind, silent, Filtered}, // both in one network
		{netip.Addr{}, behind, silent, Private},                     // through a proxy nobody knows
	} {
		r := Result{}
		p.judgeAddress(&lane{over: IPv4, addr: tt.target}, DirectUDP, offered{candidates: []candidate{{false, tt.announced}}}, &r, tt.err)
		if r.Outcome != tt.want || r.announced != tt.announced {
			t.Errorf("%s announced at %s: %q", tt.announced, tt.target, r.Outcome)
		}
	}
}

// What answers may be anybody: nothing of it reaches the terminal as it is, and
// nothing is endless.
func TestHostileNode(t *testing.T) {
	long := strings.Repeat("x", 2*maxAnswer)
	for name, h := range map[string]http.HandlerFunc{
		"escapes": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Server", "a\x1b[2Jb")
			if r.URL.Path == "/api/node" {
				fmt.Fprint(w, `{"name":"fra\u001b[2J","country":"D\nE","version":"\u0007","reach_test":true}`)
				return
			}
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":{"message":"no\u001b]0;title\u0007\nIPv4  direct UDP  works"}}`)
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long) }, //nolint:errcheck // it may be cut
		"an answer that is none": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/node" {
				node(w, r)
				return
			}
			fmt.Fprint(w, `{"answer":"v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host","ice_servers":[{"urls":["turn:127.0.0.1:9?transport=udp","turns:127.0.0.1:9","javascript:x"]}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, cfg := site(t, h)
			cfg.Timeout = 500 * time.Millisecond
			r := Run(t.Context(), cfg)
			var b bytes.Buffer
			if err := r.Print(&b); err != nil {
				t.Fatal(err)
			}
			if r.OK || strings.ContainsFunc(b.String(), func(c rune) bool { return c < ' ' && c != '\n' }) || b.Len() > 20_000 {
				t.Errorf("ok %v, %d bytes:\n%q", r.OK, b.Len(), b.String())
			}
			if strings.Contains(b.String(), "\nIPv4  direct UDP  works") {
				t.Error("the node writes lines of its own")
			}
		})
	}
}
