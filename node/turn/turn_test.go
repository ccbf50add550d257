package turn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	pion "github.com/pion/turn/v5"

	"github.com/domicile/domicile/node/transport"
)

// selfSigned is a certificate for loopback.
func selfSigned(t testing.TB) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
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

// onEveryWay runs a test over each transport and family.
func onEveryWay(t *testing.T, change func(*Config), test func(t *testing.T, r *rig, way string)) {
	for _, way := range waysIn {
		t.Run(way, func(t *testing.T) { test(t, newRig(t, change), way) })
	}
}

// An attendee's way: allocation, permission, checks in indications, a channel.
func TestAttendeeReachesItsConnection(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		to, p, endpoint := r.session("ada"), r.dial(way, "ada"), r.endpoint(way)
		p.mustAllocate()
		if p.relayed.Addr() != endpoint.Addr() {
			t.Errorf("relayed address %s, want one at %s", p.relayed, endpoint.Addr())
		}
		if code := p.permit(endpoint); code != 0 {
			t.Fatalf("CreatePermission: %d", code)
		}
		p.mustReach(endpoint, 0, to)
		if code := p.bind(0x4000, endpoint); code != 0 {
			t.Fatalf("ChannelBind: %d", code)
		}
		for range 20 {
			p.mustReach(endpoint, 0x4000, to)
		}
		if s := r.server.Stats(); s.PacketsUp != 21 || s.PacketsDown != 21 || s.Allocations != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

// Two endpoints are two candidates: each answers for itself, with and without channel.
func TestEndpointsAnswerForThemselves(t *testing.T) {
	for _, way := range []string{"udp4", "tcp4"} {
		t.Run(way, func(t *testing.T) {
			r := newRig(t, nil)
			to, p := r.session("ada"), r.dial(way, "ada")
			p.mustAllocate()
			p.permit(r.media[0])
			for range 3 {
				p.mustReach(r.media[0], 0, to)
				p.mustReach(r.media[1], 0, to)
			}
			p.bind(0x4007, r.media[1])
			for range 3 {
				p.mustReach(r.media[0], 0, to)
				p.mustReach(r.media[1], 0x4007, to)
			}
			p.bind(0x4001, r.media[0])
			p.mustReach(r.media[0], 0x4001, to)
			p.mustReach(r.media[1], 0x4007, to)
		})
	}
}

// The public library's client, over all transports and families.
func TestPionClient(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		conn, err := r.connect(way)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		user, password := r.server.Credentials("ada", "blue", time.Minute)
		family := pion.RequestedAddressFamilyIPv4
		if way[3] == '6' {
			family = pion.RequestedAddressFamilyIPv6
		}
		client, err := pion.NewClient(&pion.ClientConfig{
			TURNServerAddr: conn.RemoteAddr().String(), Conn: packets(way, conn),
			Username: user, Password: password, RequestedAddressFamily: family,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := client.Listen(); err != nil {
			t.Fatal(err)
		}
		relayed, err := client.Allocate()
		if err != nil {
			t.Fatal(err)
		}
		defer relayed.Close()
		relayed.SetReadDeadline(time.Now().Add(patience))
		echoes(t, r, way, relayed)
	})
}

// packets is a connection as the client wants it.
func packets(way string, conn net.Conn) net.PacketConn {
	if way[:3] == "udp" {
		return datagrams{conn}
	}
	return pion.NewSTUNConn(conn)
}

// datagrams is a connected UDP socket that takes addresses and ignores them.
type datagrams struct{ net.Conn }

func (d datagrams) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := d.Read(b)
	return n, d.RemoteAddr(), err
}

func (d datagrams) WriteTo(b []byte, _ net.Addr) (int, error) { return d.Write(b) }

func echoes(t *testing.T, r *rig, way string, relayed net.PacketConn) {
	t.Helper()
	to, endpoint := r.session("ada"), net.UDPAddrFromAddrPort(r.endpoint(way))
	b := make([]byte, 2000)
	for i := range 50 { // the client binds a channel meanwhile
		q := check(to)
		if _, err := relayed.WriteTo(q.Raw, endpoint); err != nil {
			t.Fatal(err)
		}
		n, from, err := relayed.ReadFrom(b)
		if err != nil {
			t.Fatalf("check %d: %v", i, err)
		}
		m := &stun.Message{Raw: b[:n]}
		if err := m.Decode(); err != nil || m.TransactionID != q.TransactionID || from.String() != endpoint.String() {
			t.Fatalf("check %d: %v from %v, %v", i, m, from, err)
		}
	}
}

func TestBindingTellsTheAddress(t *testing.T) {
	onEveryWay(t, nil, func(t *testing.T, r *rig, way string) {
		p := r.dial(way, "ada")
		q := p.build(stun.BindingRequest)
		if err := p.write(q.Raw); err != nil {
			t.Fatal(err)
		}
		b, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		m := &stun.Message{Raw: b}
		if err := m.Decode(); err != nil {
			t.Fatal(err)
		}
		v, err := m.Get(stun.AttrXORMappedAddress)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAddress(v, m.TransactionID).String(); got != p.conn.LocalAddr().String() {
			t.Errorf("mapped address %s, want %s", got, p.conn.LocalAddr())
		}
	})
}

// A stream may come in any pieces.
func TestStreamInPieces(t *testing.T) {
	r := newRig(t, nil)
	to, p := r.session("ada"), r.dial("tcp4", "ada")
	p.mustAllocate()
	p.bind(0x4000, r.media[0])
	var want int
	var all []byte
	for i := range 30 {
		if i%3 == 0 {
			kind := stun.NewType(stun.MethodSend, stun.ClassIndication)
			all = append(all, p.build(kind, peer(r.media[0]), attribute{stun.AttrData, check(to).Raw}).Raw...)
		} else {
			all = append(all, p.channelData(0x4000, check(to).Raw)...)
		}
		want++
	}
	for step := 1; len(all) > 0; step = step*2%191 + 1 {
		n := min(step, len(all))
		if err := p.write(all[:n]); err != nil {
			t.Fatal(err)
		}
		all = all[n:]
	}
	for range want {
		b, err := p.receive()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unwrap(b, r.media[0], 0x4000); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseEndsStreamsAndRefusesNewOnes(t *testing.T) {
	r := newRig(t, nil)
	p, q := r.dial("tls4", "ada"), r.dial("udp4", "ada")
	p.mustAllocate()
	q.mustAllocate()
	r.server.Close()
	p.ended()
	if _, err := r.dial("tcp4", "ada").try(stun.MethodAllocate, udpTransport); err == nil {
		t.Error("an answer after Close")
	}
	if n := r.server.Stats().Allocations; n != 0 {
		t.Errorf("%d allocations after Close", n)
	}
}

func TestNewRefusesBadConfiguration(t *testing.T) {
	engine, err := transport.Listen(transport.Config{Media: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	tests := []struct {
		name string
		cfg  Config
		want string
	}{
		{"no engine", Config{}, "no engine"},
		{"short secret", Config{Engine: engine, Secret: []byte("short")}, "secret of 5 bytes"},
		{"negative bandwidth", Config{Engine: engine, Bandwidth: -1}, "below zero"},
		{"negative quota", Config{Engine: engine, MaxPerSession: -1}, "below one"},
		{"too many", Config{Engine: engine, MaxAllocations: 1 << 20}, "relayed addresses"},
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
