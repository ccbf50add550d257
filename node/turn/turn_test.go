package turn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pion "github.com/pion/turn/v4"

	"github.com/domicile/domicile/node/front"
)

// selfSigned is a certificate for 127.0.0.1.
func selfSigned(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, roots
}

// frontFor opens a front door before the relay.
func frontFor(t *testing.T, s *Server) (addr string, roots *x509.CertPool) {
	t.Helper()
	pair, roots := selfSigned(t)
	f, err := front.New(front.Config{
		Listen:      netip.MustParseAddrPort("127.0.0.1:0"),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair, nil },
		HTTP:        http.NotFoundHandler(),
		TURN:        s.ServeConn,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f.Addr().String(), roots
}

// The whole way: a client that speaks only TLS to the one port, with ALPN and as
// Chromium does it without, meets the media endpoint.
func TestEchoThroughTheFrontDoor(t *testing.T) {
	for _, alpn := range [][]string{nil, {"stun.turn"}} {
		t.Run(fmt.Sprintf("ALPN %q", alpn), func(t *testing.T) {
			r := newRig(t, nil)
			addr, roots := frontFor(t, r.server)
			conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, NextProtos: alpn})
			if err != nil {
				t.Fatal(err)
			}
			relayed, closeClient := allocateWithPion(t, r, conn)
			defer closeClient()
			if ip := relayed.LocalAddr().(*net.UDPAddr).IP.String(); ip != r.endpoint.Addr().String() {
				t.Errorf("relayed address at %s, want that of the endpoint", ip)
			}
			buf := make([]byte, 2000)
			for i := range 200 {
				// All paddings, up to a full packet. pion's client does not see
				// ChannelData of up to 4 bytes before something follows it.
				msg := strings.Repeat(string(rune('a'+i%26)), 5+i*7)
				if _, err := relayed.WriteTo([]byte(msg), net.UDPAddrFromAddrPort(r.endpoint)); err != nil {
					t.Fatal(err)
				}
				n, from, err := relayed.ReadFrom(buf)
				if err != nil || string(buf[:n]) != msg || from.String() != r.endpoint.String() {
					t.Fatalf("packet %d: %d bytes from %v, %v; %+v", i, n, from, err, r.server.Stats())
				}
			}
			if s := r.server.Stats(); s.Up != 200 || s.Down != 200 || s.Allocations != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func allocateWithPion(t *testing.T, r *rig, conn net.Conn) (relayed net.PacketConn, done func()) {
	t.Helper()
	username, password := r.server.Credentials("ada", "blue", time.Minute)
	client, err := pion.NewClient(&pion.ClientConfig{
		TURNServerAddr: conn.RemoteAddr().String(), Conn: pion.NewSTUNConn(conn),
		Username: username, Password: password, LoggerFactory: silence{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err = client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	relayed.SetReadDeadline(time.Now().Add(20 * time.Second))
	return relayed, func() { relayed.Close(); client.Close(); conn.Close() }
}

// A node behind a NAT advertises one address and listens on another.
func TestAdvertisedAddressIsTranslated(t *testing.T) {
	advertised := netip.MustParseAddrPort("203.0.113.7:5000")
	r := newRig(t, nil)
	peers, err := newPeerTable([]Peer{{Advertised: advertised, Local: r.endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	r.server.peers = peers
	p := r.dial("ada")
	p.mustAllocate()
	if code := p.permit(r.endpoint); code != 403 {
		t.Errorf("permission for the inner address: %d, want 403", code)
	}
	if code := p.permit(advertised); code != 0 {
		t.Fatalf("permission for the advertised address: %d", code)
	}
	p.roundTrip(advertised, "through")
}

// A8: a connection without an allocation has ten seconds, whatever it sends.
func TestConnectionWithoutAllocationIsClosed(t *testing.T) {
	tests := []struct {
		name  string
		speak func(net.Conn)
	}{
		{"says nothing", func(net.Conn) {}},
		{"stops inside a message", func(c net.Conn) { c.Write([]byte("\x00\x03\x00\x08\x21\x12")) }},
		{"a byte every second", func(c net.Conn) {
			for _, b := range []byte("\x00\x03\x00\x08\x21\x12") {
				c.Write([]byte{b})
				time.Sleep(time.Second) // the bubble's clock
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := New(Config{Peers: []Peer{{Advertised: netip.MustParseAddrPort("127.0.0.1:5000")}}})
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				near, far := net.Pipe()
				go s.ServeConn(near)
				tt.speak(far)
				io.Copy(io.Discard, far)
				if took := time.Since(begin); took != 10*time.Second {
					t.Errorf("closed after %s, want 10s", took)
				}
				s.Close()
			})
		})
	}
}

func TestCloseEndsConnectionsAndRefusesNewOnes(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	r.server.Close()
	if _, err := p.receive(); err == nil {
		t.Error("a message after Close")
	}
	if _, err := r.dial("ada").try(0x003, udpTransport); err == nil {
		t.Error("an answer after Close")
	}
}

func TestUserNameNamesNobody(t *testing.T) {
	r := newRig(t, nil)
	u, p := r.server.Credentials("ada.lovelace@example.org", "board meeting", time.Minute)
	for _, leak := range []string{"ada", "lovelace", "board", "example"} {
		if strings.Contains(u+p, leak) {
			t.Errorf("credentials %q %q contain %q", u, p, leak)
		}
	}
	// The boundary between room and participant counts.
	a, b := tagOf(r.server.creds, "bc", "a"), tagOf(r.server.creds, "c", "ab")
	if a == b {
		t.Error("one tag for two sessions")
	}
}

func TestCredentialsLiveAtMostMaxTTL(t *testing.T) {
	clock := newTestClock()
	c := newCredentials([]byte("secret"))
	for _, ttl := range []time.Duration{-time.Second, 0, MaxTTL + time.Second, 24 * time.Hour} {
		u, _ := c.issue(tag{}, clock.now(), ttl)
		who, err := parse(u)
		if err != nil {
			t.Fatal(err)
		}
		if got := who.expires.Sub(clock.now()); got != MaxTTL {
			t.Errorf("ttl %s: lives %s, want %s", ttl, got, MaxTTL)
		}
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	peer := func(a string) []Peer { return []Peer{{Advertised: netip.MustParseAddrPort(a)}} }
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"no peers", Config{}, "no peers"},
		{"every address", Config{Peers: peer("0.0.0.0:5000")}, `peer "0.0.0.0:5000"`},
		{"no port", Config{Peers: peer("192.0.2.1:0")}, `peer "192.0.2.1:0"`},
		{"IPv6", Config{Peers: peer("[2001:db8::1]:5000")}, `peer "[2001:db8::1]:5000"`},
		{"IPv4 in IPv6", Config{Peers: peer("[::ffff:192.0.2.1]:5000")}, "want the IPv4 address"},
		{"multicast", Config{Peers: peer("224.0.0.1:5000")}, `peer "224.0.0.1:5000"`},
		{"twice", Config{Peers: append(peer("192.0.2.1:5000"), peer("192.0.2.1:5000")...)}, "named twice"},
		{"short secret", Config{Peers: peer("192.0.2.1:5000"), Secret: []byte("short")}, "secret of 5 bytes"},
		{"negative bound", Config{Peers: peer("192.0.2.1:5000"), Bandwidth: -1}, "below zero"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}
