package turn

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// specials are addresses by which relays have been talked into reaching hosts
// of their own network (A1).
var specials = []string{
	"127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1",
	"10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
	"198.18.0.1", "192.0.0.1", "192.0.0.170", "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
	"192.0.2.1", "198.51.100.1", "203.0.113.1", "8.8.8.8",
	"::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
	"2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "100::1", "2001:db8::1",
}

// everywhere is what an open relay would have for its peers: the control of
// the attack tests. Packets end at the victim, so that no other socket of this
// machine gets any; those to the endpoint arrive there.
type everywhere struct{ victim, endpoint netip.AddrPort }

func (everywhere) permits(netip.Addr) bool { return true }

func (e everywhere) to(a netip.AddrPort) (netip.AddrPort, bool) {
	if a == e.endpoint {
		return a, true
	}
	return e.victim, true
}

func (everywhere) from(a netip.AddrPort) (*net.UDPAddr, bool) {
	return net.UDPAddrFromAddrPort(a), true
}

// openRelay opens the relay and returns the victim.
func openRelay(r *rig) *net.UDPConn {
	victim := listenUDP(r.t)
	r.server.peers = everywhere{victim.LocalAddr().(*net.UDPAddr).AddrPort(), r.endpoint}
	return victim
}

func at(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// A1: nothing but the endpoint's own address is granted, whatever its spelling.
func TestSpecialAddressesAreOutOfReach(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	channel := uint16(0x4000)
	for _, ip := range specials {
		target := at(ip, r.endpoint.Port())
		own := target == r.endpoint
		want := 403
		if own {
			want = 0
		}
		if code := p.permit(target); code != want {
			t.Errorf("CreatePermission %s: %d, want %d", ip, code, want)
		}
		if code := p.bind(channel, target); code != want {
			t.Errorf("ChannelBind %s: %d, want %d", ip, code, want)
		}
		channel++
		if !own {
			p.indicate(target, "attack")
		}
	}
	// A forbidden address hidden behind a permitted one.
	if code := p.ask(stun.MethodCreatePermission, rawPeerAttr(r.endpoint), rawPeerAttr(at("10.0.0.1", 1))); code != 403 {
		t.Errorf("CreatePermission for two: %d, want 403", code)
	}
	p.permit(r.endpoint)               // grants 127.0.0.1, if it was lost
	p.roundTrip(r.endpoint, "barrier") // the indications before it are dealt with
	if out := r.server.Stats().Up; out != 1 {
		t.Errorf("%d packets went out, want the one to the endpoint", out)
	}
}

func TestSpecialAddressesControl(t *testing.T) {
	r := newRig(t, nil)
	victim := openRelay(r)
	p := r.dial("ada")
	p.mustAllocate()
	target := at("10.0.0.1", 22)
	if code := p.permit(target); code != 0 {
		t.Fatalf("an open relay refuses: %d", code)
	}
	p.indicate(target, "attack")
	if got := string(read(t, victim)); got != "attack" {
		t.Fatalf("the victim of an open relay got %q", got)
	}
}

func read(t *testing.T, c *net.UDPConn) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 2000)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// sweep sends to every port of the endpoint's address and returns how many
// packets left the relay.
func sweep(r *rig) uint64 {
	p := r.dial("ada")
	p.mustAllocate()
	if code := p.permit(r.endpoint); code != 0 {
		r.t.Fatalf("CreatePermission for the endpoint: %d", code)
	}
	before := r.server.Stats().Up
	for port := 1; port <= 0xFFFF; port++ {
		if a := at("127.0.0.1", uint16(port)); a != r.endpoint {
			p.indicate(a, "sweep")
		}
	}
	p.roundTrip(r.endpoint, "barrier")
	return r.server.Stats().Up - before
}

// A2: of all ports at the endpoint's address only its own is reachable.
func TestPortSweepReachesOnlyTheEndpoint(t *testing.T) {
	r := newRig(t, nil)
	victim := listenUDP(t)
	if out := sweep(r); out != 1 {
		t.Errorf("%d packets left the relay, want the one to the endpoint", out)
	}
	if s := r.server.Stats(); s.NotPeer != 0xFFFF-1 {
		t.Errorf("%d packets dropped as not to a peer, want %d", s.NotPeer, 0xFFFF-1)
	}
	// The packets were handed to the kernel before the barrier, loopback is immediate.
	victim.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := victim.Read(make([]byte, 2000)); err == nil {
		t.Errorf("a socket beside the endpoint got %d bytes", n)
	}
}

func TestPortSweepControl(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Bandwidth = 1 << 30 })
	victim := openRelay(r)
	if out := sweep(r); out != 0xFFFF {
		t.Errorf("%d packets left an open relay, want every one", out)
	}
	if got := string(read(t, victim)); got != "sweep" {
		t.Errorf("the victim of an open relay got %q", got)
	}
}

// A2: channels are bound to no other port of the endpoint's address.
func TestChannelBindChecksThePort(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	for _, port := range []uint16{0, 1, 22, 53, 443, r.endpoint.Port() - 1, r.endpoint.Port() + 1, 65535} {
		if code := p.bind(0x4001, at("127.0.0.1", port)); code != 403 {
			t.Errorf("ChannelBind to port %d: %d, want 403", port, code)
		}
	}
	if code := p.bind(0x4001, r.endpoint); code != 0 {
		t.Errorf("ChannelBind to the endpoint: %d", code)
	}
}

// The other direction: a stranger who knows the relayed address is not heard.
func TestStrangersAreNotHeard(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	p.permit(r.endpoint)
	stranger := listenUDP(t) // the same address as the endpoint, another port
	var relayed net.Addr
	r.server.mu.Lock()
	for c := range r.server.clients {
		relayed = c.socket.Load().LocalAddr()
	}
	r.server.mu.Unlock()
	if _, err := stranger.WriteTo([]byte("stranger"), relayed); err != nil {
		t.Fatal(err)
	}
	p.roundTrip(r.endpoint, "barrier") // the next message is this one, not the stranger's
	if s := r.server.Stats(); s.NotFromPeer != 1 || s.Down != 1 {
		t.Errorf("stats %+v: want one packet from a stranger, one passed down", s)
	}
}

// A3: no TCP, no IPv6, no port of one's choice, no reservation.
func TestAllocationsOfOtherKindsAreRefused(t *testing.T) {
	tests := []struct {
		name  string
		attrs []stun.Setter
		want  int
	}{
		{"TCP", []stun.Setter{attribute{stun.AttrRequestedTransport, []byte{6, 0, 0, 0}}}, 442},
		{"UDP, then TCP", []stun.Setter{udpTransport, attribute{stun.AttrRequestedTransport, []byte{6, 0, 0, 0}}}, 442},
		{"EVEN-PORT", []stun.Setter{udpTransport, attribute{stun.AttrEvenPort, []byte{0}}}, 508},
		{"EVEN-PORT with reservation", []stun.Setter{udpTransport, attribute{stun.AttrEvenPort, []byte{0x80}}}, 508},
		{"RESERVATION-TOKEN", []stun.Setter{udpTransport, attribute{stun.AttrReservationToken, make([]byte, 8)}}, 508},
		{"IPv6", []stun.Setter{udpTransport, attribute{attrRequestedFamily, []byte{2, 0, 0, 0}}}, 440},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, nil)
			p := r.dial("ada")
			p.ask(stun.MethodAllocate, udpTransport) // for the nonce
			if code := p.ask(stun.MethodAllocate, tt.attrs...); code != tt.want {
				t.Errorf("Allocate: %d, want %d", code, tt.want)
			}
			if s := r.server.Stats(); s.Allocated != 0 {
				t.Errorf("%d allocations", s.Allocated)
			}
			// The refusal leaves the connection as it was.
			if code := p.ask(stun.MethodAllocate, udpTransport); code != 0 {
				t.Errorf("plain Allocate afterwards: %d", code)
			}
		})
	}
}

// RFC 6062: Connect and ConnectionBind are not even answered.
func TestConnectIsNotServed(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	p.permit(r.endpoint)
	for _, m := range []stun.Method{stun.MethodConnect, stun.MethodConnectionBind} {
		if err := p.send(stun.NewType(m, stun.ClassRequest), rawPeerAttr(r.endpoint)); err != nil {
			t.Fatal(err)
		}
	}
	p.roundTrip(r.endpoint, "barrier")
	if s := r.server.Stats(); s.Refused != 2 {
		t.Errorf("%d messages refused, want 2", s.Refused)
	}
}

// A5: what credentials are not good for.
func TestCredentialsAreBound(t *testing.T) {
	r := newRig(t, nil)
	tests := []struct {
		name  string
		creds func() (string, string)
	}{
		{"expired", func() (string, string) {
			u, p := r.server.Credentials("ada", "blue", time.Minute)
			r.clock.advance(time.Minute)
			return u, p
		}},
		{"another room's password", func() (string, string) {
			u, _ := r.server.Credentials("ada", "blue", time.Minute)
			_, p := r.server.Credentials("ada", "green", time.Minute)
			return u, p
		}},
		{"another participant's password", func() (string, string) {
			u, _ := r.server.Credentials("ada", "blue", time.Minute)
			_, p := r.server.Credentials("bob", "blue", time.Minute)
			return u, p
		}},
		{"a later expiry written in", func() (string, string) {
			u, p := r.server.Credentials("ada", "blue", time.Minute)
			return "z" + u, p
		}},
		{"not a user name of ours", func() (string, string) { return "1700000000:ada", "x" }},
		{"no user name", func() (string, string) { return "", "" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := r.dialWith(tt.creds())
			if code := p.allocate(); code != 400 {
				t.Errorf("Allocate: %d, want 400", code)
			}
		})
	}
	if s := r.server.Stats(); s.Allocated != 0 {
		t.Errorf("%d allocations", s.Allocated)
	}
}

// A meeting may be longer than its credentials.
func TestAllocationOutlivesItsCredentials(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	r.clock.advance(2 * MaxTTL)
	if code := p.ask(stun.MethodRefresh); code != 0 {
		t.Errorf("Refresh: %d", code)
	}
	if code := p.permit(r.endpoint); code != 0 {
		t.Errorf("CreatePermission: %d", code)
	}
	// Once given up it is gone: the credentials open no other.
	if code := p.ask(stun.MethodRefresh, attribute{stun.AttrLifetime, make([]byte, 4)}); code != 0 {
		t.Errorf("Refresh with lifetime 0: %d", code)
	}
	if code := p.ask(stun.MethodAllocate, udpTransport); code != 400 {
		t.Errorf("Allocate after the end of the credentials: %d, want 400", code)
	}
}

func TestAllocationBelongsToItsSession(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	p.mustAllocate()
	p.username, p.password = r.server.Credentials("bob", "blue", time.Minute)
	if code := p.permit(r.endpoint); code != 400 {
		t.Errorf("CreatePermission with another's credentials: %d, want 400", code)
	}
	p.username, p.password = r.server.Credentials("ada", "blue", time.Minute)
	if code := p.permit(r.endpoint); code != 0 {
		t.Errorf("CreatePermission with newer credentials: %d", code)
	}
}

// A5: removal ends the allocation within a second and voids the credentials.
func TestRevokeEndsTheAllocation(t *testing.T) {
	r := newRig(t, nil)
	ada, bob := r.dial("ada"), r.dial("bob")
	for _, p := range []*probe{ada, bob} {
		p.mustAllocate()
		p.permit(r.endpoint)
		p.roundTrip(r.endpoint, "before")
	}
	up := r.server.Stats().Up
	begin := time.Now()
	r.server.Revoke("ada", "blue")
	if _, err := ada.receive(); err == nil {
		t.Error("a message after the revocation")
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the connection was closed after %s", took)
	}
	if s := r.server.Stats(); s.Up != up {
		t.Errorf("%d packets relayed after the revocation", s.Up-up)
	}
	again := r.dialWith(ada.username, ada.password)
	if code := again.allocate(); code != 400 {
		t.Errorf("Allocate with revoked credentials: %d, want 400", code)
	}
	bob.roundTrip(r.endpoint, "after") // others notice nothing

	r.clock.advance(time.Millisecond)
	if code := r.dial("ada").allocate(); code != 0 {
		t.Errorf("Allocate with credentials made after the revocation: %d", code)
	}
	if code := r.dialWith(ada.username, ada.password).allocate(); code != 400 {
		t.Errorf("Allocate with the revoked ones, once more: %d, want 400", code)
	}
}

// A6: a nonce is worth nothing on another connection.
func TestNonceIsBoundToItsConnection(t *testing.T) {
	r := newRig(t, nil)
	p, thief := r.dial("ada"), r.dial("ada")
	p.ask(stun.MethodAllocate, udpTransport)
	thief.nonce, thief.realm = p.nonce, p.realm
	if code := thief.ask(stun.MethodAllocate, udpTransport); code != 438 {
		t.Errorf("Allocate with another connection's nonce: %d, want 438", code)
	}
}

// A7: what somebody without credentials gets out of a connection, at most.
func TestUnauthenticatedAnswersAreBounded(t *testing.T) {
	r := newRig(t, nil)
	p := r.dial("ada")
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest), udpTransport)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.conn.Write(bytes.Repeat(m.Raw, 100)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(p.in)
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		t.Fatal("the connection stays open")
	}
	sent := 100 * len(m.Raw)
	t.Logf("%d bytes for %d of 100 bare Allocates", len(got), sent)
	if len(got) == 0 || float64(len(got)) > 1.5*float64(sent) || len(got) > 1024 {
		t.Errorf("%d bytes for %d: want some, at most 1024 and 1.5 times as many", len(got), sent)
	}
}

// A8: one session cannot take what is there for all.
func TestAllocationsAreLimited(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxPerSession, c.MaxAllocations = 2, 3 })
	held := []*probe{r.dial("ada"), r.dial("ada")}
	for _, p := range held {
		p.mustAllocate()
	}
	if code := r.dial("ada").allocate(); code != 486 {
		t.Errorf("third of a session: %d, want 486", code)
	}
	if code := r.dial("bob").allocate(); code != 0 {
		t.Errorf("another session: %d", code)
	}
	if code := r.dial("cyd").allocate(); code != 486 {
		t.Errorf("beyond the node's bound: %d, want 486", code)
	}
	if code := held[0].ask(stun.MethodRefresh, attribute{stun.AttrLifetime, make([]byte, 4)}); code != 0 {
		t.Fatalf("giving up: %d", code)
	}
	if code := r.dial("ada").allocate(); code != 0 {
		t.Errorf("after one was given up: %d", code)
	}
	if s := r.server.Stats(); s.OverQuota != 2 || s.Allocations != 3 {
		t.Errorf("stats %+v", s)
	}
}

func TestBandwidthIsCapped(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Bandwidth = 1 })
	p := r.dial("ada")
	p.mustAllocate()
	p.permit(r.endpoint)
	data := string(make([]byte, 1000))
	for range 6 { // the burst of four frames holds six of these, in each direction
		p.roundTrip(r.endpoint, data)
	}
	for range 10 {
		p.indicate(r.endpoint, data)
	}
	p.permit(r.endpoint) // barrier
	if s := r.server.Stats(); s.Up != 6 || s.OverRate != 10 {
		t.Errorf("%d packets up, %d over the rate; want 6 and 10", s.Up, s.OverRate)
	}
}
