package front

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/pires/go-proxyproto"

	"github.com/domicile/domicile/node/stream"
)

// proxyHeader is what a balancer writes for a client.
func proxyHeader(t testing.TB, client string) string {
	t.Helper()
	src := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(client))
	b, err := proxyproto.HeaderProxyFromAddrs(2, src, &net.TCPAddr{IP: net.ParseIP("192.0.2.80"), Port: 443}).Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func proxied(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

func TestProxyNamesTheClient(t *testing.T) {
	for _, client := range []string{"203.0.113.9:4711", "[2001:db8::9]:4711"} {
		f := start(t, func(c *Config) {
			proxied(c)
			c.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
		})
		tr := &http.Transport{TLSClientConfig: clientTLS(t), Dial: func(_, addr string) (net.Conn, error) {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				_, err = io.WriteString(c, proxyHeader(t, client))
			}
			return c, err
		}}
		if got := get(t, tr, "https://"+f.Addr().String()); got != client {
			t.Errorf("the handler sees %q, want %q", got, client)
		}
	}
}

func TestProxyHeaderIsRequiredFromTheTrusted(t *testing.T) {
	f := start(t, proxied)
	for name, first := range map[string]string{
		"none":                        "\x16\x03\x01\x00\x10\x00\x00\x00\x00",
		"HTTP":                        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"TURN":                        stunHead,
		"version 1":                   "PROXY TCP4 203.0.113.9 192.0.2.80 4711 443\r\n" + stunHead,
		"cut signature":               "\r\n\r\n\x00\r\nQUIX\n",
		"datagrams":                   string(proxyproto.SIGV2) + "\x21\x12\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x50\x12\x67\x01\xbb",
		"Unix":                        string(proxyproto.SIGV2) + "\x21\x31\x00\xd8" + strings.Repeat("a", 216),
		"nobody":                      string(proxyproto.SIGV2) + "\x21\x00\x00\x00",
		"too long":                    string(proxyproto.SIGV2) + "\x21\x11\xff\xff",
		"too short for its addresses": string(proxyproto.SIGV2) + "\x21\x11\x00\x04\x01\x02\x03\x04",
		"version 3":                   string(proxyproto.SIGV2) + "\x31\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x50\x12\x67\x01\xbb",
	} {
		before := f.Stats().Outcomes["proxy_header"]
		c := dialTCP(t, f.Addr())
		io.WriteString(c, first)
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%s: answered with %q", name, b)
		}
		if n := f.Stats().Outcomes["proxy_header"] - before; n != 1 {
			t.Errorf("%s: counted %d times", name, n)
		}
	}
}

// TestProxyHeaderFromOthersIsGarbage or anybody could claim any address.
func TestProxyHeaderFromOthersIsGarbage(t *testing.T) {
	f := start(t, func(c *Config) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	if got := say(t, dialTCP(t, f.Addr()), proxyHeader(t, "203.0.113.9:4711")+stunHead); got != "closed" {
		t.Errorf("got %q", got)
	}
	if got := say(t, dialTCP(t, f.Addr()), stunHead); !strings.HasPrefix(got, "turn") {
		t.Errorf("without a header: %q", got)
	}
	if s := f.Stats(); s.Outcomes["garbage"] != 1 || s.Outcomes["turn"] != 1 {
		t.Errorf("outcomes %v", s.Outcomes)
	}
}

// TestTURNKnowsTheClient behind a proxy: quotas are by address.
func TestTURNKnowsTheClient(t *testing.T) {
	f := start(t, func(c *Config) {
		proxied(c)
		c.TURN = func(s *stream.Conn) { fmt.Fprint(s, s.RemoteAddr()) }
	})
	if got := say(t, dialTCP(t, f.Addr()), proxyHeader(t, "203.0.113.9:4711")+stunHead); got != "203.0.113.9:4711" {
		t.Errorf("in clear: %q", got)
	}
	c := dialTCP(t, f.Addr())
	io.WriteString(c, proxyHeader(t, "203.0.113.9:4711"))
	if got := say(t, tls.Client(c, clientTLS(t, alpnTURN)), stunHead); got != "203.0.113.9:4711" {
		t.Errorf("over TLS: %q", got)
	}
}

// TestProxyLooksWhetherWeLive with a header of its own, LOCAL.
func TestProxyLooksWhetherWeLive(t *testing.T) {
	f := start(t, proxied)
	if got := say(t, dialTCP(t, f.Addr()), string(proxyproto.SIGV2)+"\x20\x00\x00\x00"+stunHead); !strings.HasPrefix(got, "turn") {
		t.Errorf("got %q", got)
	}
}

// TestLimitsAreTheClients and not the balancer's.
func TestLimitsAreTheClients(t *testing.T) {
	f := start(t, func(c *Config) {
		proxied(c)
		c.Limits = DefaultLimits
		c.Limits.OpenPerSource = 1
	})
	open := func(client string) string { return say(t, dialTCP(t, f.Addr()), proxyHeader(t, client)+stunHead) }
	for _, client := range []string{"203.0.113.1:1", "203.0.113.2:1"} {
		if got := open(client); !strings.HasPrefix(got, "turn") {
			t.Errorf("%s: %q", client, got)
		}
	}
	if got := open("203.0.113.1:2"); got != "closed" {
		t.Errorf("the second of one client: %q", got)
	}
	if n := f.Stats().Refused["open_source"]; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

// FuzzProxyHeader: never a byte too many is read, however the bytes arrive, and
// what is taken names a client.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte(proxyHeader(f, "203.0.113.9:4711") + "rest"))
	f.Add([]byte(proxyHeader(f, "[2001:db8::9]:4711") + "rest"))
	f.Add([]byte("PROXY TCP4 203.0.113.9 192.0.2.80 4711 443\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := bytes.NewReader(b)
		addr, err := readProxyHeader(whole)
		slow := bytes.NewReader(b)
		addr2, err2 := readProxyHeader(iotest.OneByteReader(slow))
		if (err == nil) != (err2 == nil) || fmt.Sprint(addr) != fmt.Sprint(addr2) {
			t.Fatalf("at once %v, %v; byte by byte %v, %v", addr, err, addr2, err2)
		}
		if err != nil {
			return
		}
		if length := proxyFixed + int(b[14])<<8 + int(b[15]); len(b)-whole.Len() != length || slow.Len() != whole.Len() {
			t.Fatalf("%d bytes read, the header has %d", len(b)-whole.Len(), length)
		}
		if addr != nil && !addrOf(addr).IsValid() {
			t.Fatalf("a client without an address: %v", addr)
		}
	})
}
