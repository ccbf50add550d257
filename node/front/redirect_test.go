package front

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func TestRedirect(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Redirect = netip.MustParseAddrPort("127.0.0.1:0")
		c.Names = []string{"Node.test", "203.0.113.5", "2001:db8::5"}
	})
	elsewhere := start(t, func(c *Config) { c.Names, c.PublicPort = []string{"node.test"}, 7443 })
	for _, c := range []struct {
		name, request string
		want          string // Location, or none
	}{
		{"a name", "GET /r/a?b=c HTTP/1.1\r\nHost: node.test\r\n\r\n", "https://node.test/r/a?b=c"},
		{"its port", "GET / HTTP/1.1\r\nHost: NODE.test:80\r\n\r\n", "https://node.test/"},
		{"the address of the connection", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "https://127.0.0.1/"},
		{"a public address", "GET / HTTP/1.1\r\nHost: 203.0.113.5\r\n\r\n", "https://203.0.113.5/"},
		{"a public address of IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::5]:80\r\n\r\n", "https://[2001:db8::5]/"},
		{"two slashes stay a path", "GET //evil.test/ HTTP/1.1\r\nHost: node.test\r\n\r\n", "https://node.test//evil.test/"},
		{"POST", "POST /api HTTP/1.1\r\nHost: node.test\r\nContent-Length: 2\r\n\r\n{}", "https://node.test/api"},
		{"another name", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", ""},
		{"another address", "GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n", ""},
		{"a name that begins alike", "GET / HTTP/1.1\r\nHost: node.test.evil.test\r\n\r\n", ""},
		{"a user's name", "GET / HTTP/1.1\r\nHost: node.test@evil.test\r\n\r\n", ""},
		{"absolute form", "GET http://evil.test/ HTTP/1.1\r\nHost: node.test\r\n\r\n", ""},
		{"no host", "GET / HTTP/1.0\r\n\r\n", ""},
		{"everything", "OPTIONS * HTTP/1.1\r\nHost: node.test\r\n\r\n", ""},
		{"a tunnel", "CONNECT evil.test:443 HTTP/1.1\r\nHost: node.test\r\n\r\n", ""},
		{"a line in the path", "GET /a\rLocation:b HTTP/1.1\r\nHost: node.test\r\n\r\n", ""},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n", ""},
		{"a large header", "GET / HTTP/1.1\r\nHost: node.test\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for port, addr := range map[string]netip.AddrPort{"TLS": f.Addr(), "redirect": f.RedirectAddr()} {
				conn := dialTCP(t, addr)
				go io.WriteString(conn, c.request)
				r := bufio.NewReader(conn)
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("port %s: %v", port, err)
				}
				if got := resp.Header.Get("Location"); got != c.want {
					t.Errorf("port %s: sent to %q, want %q", port, got, c.want)
				}
				if ok := resp.StatusCode == http.StatusPermanentRedirect; ok != (c.want != "") {
					t.Errorf("port %s: status %d", port, resp.StatusCode)
				}
				io.Copy(io.Discard, resp.Body)
				if _, err := r.ReadByte(); err == nil {
					t.Errorf("port %s: the connection goes on", port)
				}
			}
		})
	}
	if got := say(t, dialTCP(t, elsewhere.Addr()), "GET / HTTP/1.1\r\nHost: node.test\r\n\r\n"); !strings.Contains(got, "https://node.test:7443/\r\n") {
		t.Errorf("with another public port: %q", got)
	}
}

func TestChallengeStandsInFrontOfTheRedirect(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Redirect = netip.MustParseAddrPort("127.0.0.1:0")
		c.Challenge = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/.well-known/acme-challenge/token" {
					next.ServeHTTP(w, r)
					return
				}
				fmt.Fprint(w, "authorization")
			})
		}
	})
	base := "http://" + f.RedirectAddr().String()
	if got := get(t, &http.Transport{}, base+"/.well-known/acme-challenge/token"); got != "authorization" {
		t.Errorf("got %q", got)
	}
	if got := say(t, dialTCP(t, f.RedirectAddr()), "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 308") {
		t.Errorf("got %q", got)
	}
}

// TestChallengeByALPN ends after the handshake (RFC 8737 section 3).
func TestChallengeByALPN(t *testing.T) {
	f := start(t, nil)
	c := dialTLS(t, f, clientTLS(t, alpnACME))
	if p := c.ConnectionState().NegotiatedProtocol; p != alpnACME {
		t.Fatalf("negotiated %q", p)
	}
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("read %q, %v; want the end", b, err)
	}
	if n := f.Stats().Outcomes["acme_challenge"]; n != 1 {
		t.Errorf("counted %d times", n)
	}
}
