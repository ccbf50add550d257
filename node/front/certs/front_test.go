package certs_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/domicile/domicile/node/front"
	"github.com/domicile/domicile/node/front/certs"
	"github.com/domicile/domicile/node/front/certs/certstest"
	"github.com/domicile/domicile/node/stream"
)

// client is somebody whose datagrams come to the test's socket.
type client struct{ addr netip.AddrPort }

func (c client) AddrPort() netip.AddrPort { return c.addr }

// datagrams is a UDP port for HTTP/3.
func datagrams(t *testing.T) (*front.Datagrams[client], netip.AddrPort) {
	t.Helper()
	sock, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := sock.LocalAddr().(*net.UDPAddr).AddrPort()
	d := front.NewDatagrams(addr, func(to client, b []byte) { sock.WriteToUDPAddrPort(b, to.addr) })
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 2048)
		for {
			n, from, err := sock.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			d.Deliver(client{from}, b[:n])
		}
	})
	t.Cleanup(func() { sock.Close(); reading.Wait() })
	return d, addr
}

// Through the real front door, by each kind of challenge: the authority gets in,
// and then HTTPS, TURN over TLS and HTTP/3 show the one certificate that it issued.
func TestFrontDoor(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, outcome string
		noPlain       bool
	}{
		{"http-01", "redirect", false},
		{"tls-alpn-01", "acme_challenge", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := tt.name + ".front.example.org"
			ready := make(chan struct{})
			var keeper *certs.Keeper
			quic, udp := datagrams(t)
			any := netip.MustParseAddrPort("127.0.0.1:0")
			door, err := front.New(front.Config{
				Listen: any, Redirect: any, QUIC: quic, Names: []string{name},
				Certificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return keeper.Get(h) },
				Challenge: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { keeper.HTTP(next).ServeHTTP(w, r) })
				},
				HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "page") }),
				TURN: func(c *stream.Conn) { io.WriteString(c, "turn\n") },
			})
			if err != nil {
				t.Fatal(err)
			}
			authority := certstest.Start(t, door.RedirectAddr().Port(), door.Addr().Port(), certstest.Options{NoPlain: tt.noPlain})
			// The keeper waits when the certificate is there.
			after := func(time.Duration) <-chan time.Time { close(ready); return nil }
			keeper, err = certs.FromACME(certs.ACMEConfig{Directory: authority.Directory, Roots: authority.Roots,
				Names: []string{name}, Dir: t.TempDir(), Clock: certs.Clock{After: after}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { door.Run(ctx) })
			running.Go(func() { keeper.Run(ctx, certs.At{Plain: door.RedirectAddr(), TLS: door.Addr()}) })
			t.Cleanup(func() { stop(); running.Wait() })
			<-ready

			believe := &tls.Config{RootCAs: authority.Issued, ServerName: name}
			for proto, tr := range map[string]http.RoundTripper{
				"https://" + door.Addr().String(): &http.Transport{TLSClientConfig: believe.Clone(), ForceAttemptHTTP2: true, DisableKeepAlives: true},
				"https://" + udp.String():         &http3.Transport{TLSClientConfig: believe.Clone()},
			} {
				resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Get(proto)
				if err != nil {
					t.Fatalf("%s: %v; state %+v", proto, err, keeper.State())
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(b) != "page" {
					t.Errorf("%s: got %q", proto, b)
				}
				if c, ok := tr.(io.Closer); ok {
					c.Close()
				}
			}
			conn, err := tls.Dial("tcp", door.Addr().String(), believe)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// A Binding request (RFC 8489): type, length, cookie, transaction.
			fmt.Fprintf(conn, "\x00\x01\x00\x00\x21\x12\xa4\x42%s", "transaction.")
			if line, err := bufio.NewReader(conn).ReadString('\n'); line != "turn\n" {
				t.Errorf("TURN over TLS: got %q, %v", line, err)
			}
			if got := door.Stats().Outcomes; got[tt.outcome] == 0 {
				t.Errorf("the authority did not come by %s: %v", tt.outcome, got)
			}
		})
	}
}
