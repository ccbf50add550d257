package alloc

import (
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
	"192.0.2.1", "198.51.100.1", "203.0.113.2", "8.8.8.8",
	"::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1",
	"2002:7f00:1::", "2001:0:7f00:1::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "100::1", "2001:db8::2",
	"::ffff:203.0.113.1", "::203.0.113.1", "64:ff9b::cb00:7101", "2002:cb00:7101::",
}

// everywhere is what an open relay would have for its endpoints, but for the
// relayed addresses: the control.
type everywhere struct{ *Endpoints }

func (everywhere) permits(netip.Addr) bool   { return true }
func (everywhere) has(p netip.AddrPort) bool { return p.Port() < firstPort }

// reached counts by which methods somebody with an allocation gets to addresses
// that are none of ours.
func reached(t *testing.T, w *world) map[string]int {
	t.Helper()
	n := map[string]int{}
	for family, attr := range map[string]stun.Setter{
		"ipv4": setter{attrRequestedFamily, []byte{familyIPv4, 0, 0, 0}},
		"ipv6": setter{attrRequestedFamily, []byte{familyIPv6, 0, 0, 0}},
	} {
		c := w.join("ada-"+family, udp("198.51.100.7:4000"))
		c.flow.Client = netip.AddrPortFrom(c.flow.Client.Addr(), uint16(len(w.table.flows)+1))
		c.mustAllocate(attr)
		channel := uint16(MinChannel)
		for _, ip := range specials {
			target := netip.AddrPortFrom(netip.MustParseAddr(ip), endpoint4.Port())
			if c.permit(target).code == 0 {
				n["permit"]++
			}
			if c.bind(channel, target).code == 0 {
				n["bind"]++
			}
			if c.send(target, "attack").why == Granted {
				n["send"]++
			}
			if a := c.ask(stun.MethodConnect, peer(target)); a.why != NoMethod || a.code >= 0 {
				n["connect"]++
			}
			channel++
		}
	}
	return n
}

// A1: nothing but the own endpoints is reachable, by whatever method and
// whatever spelling.
func TestSpecialAddressesAreOutOfReach(t *testing.T) {
	if n := reached(t, newWorld(t, roomy)); len(n) != 0 {
		t.Errorf("reached: %v", n)
	}
}

func TestSpecialAddressesControl(t *testing.T) {
	w := newWorld(t, roomy)
	w.table.peers = everywhere{w.table.peers.(*Endpoints)}
	n := reached(t, w)
	if n["permit"] == 0 || n["bind"] == 0 || n["send"] == 0 {
		t.Errorf("an open relay reaches %v", n)
	}
}

// swept counts the ports of an address that data gets to.
func swept(t *testing.T, w *world, ip netip.Addr) (sent int) {
	t.Helper()
	c := w.join("ada", udp("198.51.100.7:4000"))
	c.mustAllocate()
	c.permit(endpoint4)
	c.permit(netip.AddrPortFrom(ip, 1))
	for port := 0; port <= 0xFFFF; port++ {
		if c.send(netip.AddrPortFrom(ip, uint16(port)), "sweep").why == Granted {
			sent++
		}
	}
	return sent
}

// bound counts those that a channel is bound to.
func bound(t *testing.T, w *world, ip netip.Addr) (n int) {
	t.Helper()
	c := w.join("ada", udp("198.51.100.7:4000"))
	c.mustAllocate()
	for port := 0; port <= 0xFFFF && n < 100; port++ { // of an open relay, a hundred will do
		if port%1000 == 0 {
			w.now = w.now.Add(time.Second) // at the rate that a source may ask
			c.ask(stun.MethodRefresh)
		}
		if c.bind(uint16(MinChannel+n), netip.AddrPortFrom(ip, uint16(port))).code == 0 {
			n++
		}
	}
	return n
}

// A2: of all ports at an endpoint's address only the endpoints' own are
// reachable, and none of another node.
func TestPortSweep(t *testing.T) {
	other := netip.MustParseAddr("203.0.113.2")
	if n := swept(t, newWorld(t, roomy), endpoint4.Addr()); n != 2 {
		t.Errorf("own address: data to %d ports, want the two endpoints", n)
	}
	if n := bound(t, newWorld(t, roomy), endpoint4.Addr()); n != 2 {
		t.Errorf("own address: channels to %d ports, want the two endpoints", n)
	}
	if n := swept(t, newWorld(t, roomy), other) + bound(t, newWorld(t, roomy), other); n != 0 {
		t.Errorf("another node: %d ports, want none", n)
	}
}

func TestPortSweepControl(t *testing.T) {
	open := func() *world {
		w := newWorld(t, roomy)
		w.table.peers = everywhere{w.table.peers.(*Endpoints)}
		return w
	}
	if n := swept(t, open(), endpoint4.Addr()); n < firstPort {
		t.Errorf("an open relay lets data to %d ports", n)
	}
	if n := bound(t, open(), endpoint4.Addr()); n < 100 {
		t.Errorf("an open relay binds channels to %d ports", n)
	}
}

// A forbidden address hidden behind a permitted one, or behind the seal.
func TestHiddenPeers(t *testing.T) {
	w := newWorld(t, roomy)
	c := w.join("ada", udp("198.51.100.7:4000"))
	c.mustAllocate()
	bad := netip.MustParseAddrPort("10.0.0.1:1")
	if a := c.ask(stun.MethodCreatePermission, peer(endpoint4), peer(bad)); a.code != 403 {
		t.Errorf("CreatePermission for both: %s", a)
	}
	if a := c.ask(stun.MethodChannelBind, number(0x4000), peer(endpoint4), peer(bad)); a.code != 400 {
		t.Errorf("ChannelBind to both: %s", a)
	}
	raw := c.build(stun.NewType(stun.MethodCreatePermission, stun.ClassRequest), peer(endpoint4))
	m := &stun.Message{Raw: raw}
	if err := m.Decode(); err != nil {
		t.Fatal(err)
	}
	addAddress(m, stun.AttrXORPeerAddress, bad) // behind MESSAGE-INTEGRITY
	if a := w.give(c.flow, m.Raw); a.code != 0 {
		t.Errorf("CreatePermission with a tail: %s", a)
	}
	if a := c.send(bad, "x"); a.why != NotToEndpoint {
		t.Errorf("data to what the tail named: %s", a)
	}
	kind := stun.NewType(stun.MethodSend, stun.ClassIndication)
	if a := w.give(c.flow, c.build(kind, peer(endpoint4), peer(bad), setter{stun.AttrData, nil})); a.why != Malformed {
		t.Errorf("data to both: %s", a)
	}
}

// refusals are the ways to come without a right (A5). Each returns the client
// and what it has to be told.
var refusals = []struct {
	name string
	make func(w *world) *client
	want Reason
}{
	{"expired", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		w.now = w.now.Add(10 * time.Minute)
		return c
	}, Expired},
	{"revoked", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		w.table.Revoke(w.creds.Session("ada", "blue"), w.now)
		return c
	}, Revoked},
	{"another room's password", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		_, c.password = w.creds.Issue(w.creds.Session("ada", "green"), w.now, time.Minute)
		return c
	}, BadIntegrity},
	{"another participant's password", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		c.password = w.join("bea", udp("198.51.100.8:4000")).password
		return c
	}, BadIntegrity},
	{"a later expiry written in", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		c.user = "z" + c.user
		return c
	}, BadIntegrity},
	{"not a user name of ours", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		c.user = "1700000000:ada"
		return c
	}, BadUser},
	{"no user name", func(w *world) *client {
		c := w.join("ada", udp("198.51.100.7:4000"))
		c.user, c.password = "", ""
		return c
	}, BadUser},
}

func TestCredentialsAreBound(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, roomy)
			if a := tt.make(w).allocate(); a.code != 401 || a.why != tt.want || w.table.Len() != 0 {
				t.Errorf("Allocate: %s, want 401 %s", a, tt.want)
			}
		})
	}
}

func TestCredentialsControl(t *testing.T) {
	for _, tt := range refusals[:2] {
		w := newWorld(t, roomy)
		w.table.trusting = true
		if a := tt.make(w).allocate(); a.code != 0 {
			t.Errorf("%s: a trusting table answers %s", tt.name, a)
		}
	}
}

// stolen is what an Allocate is told that has another flow's nonce (A6).
func stolen(w *world, change func(*Flow)) answer {
	c := w.join("ada", Flow{Client: netip.MustParseAddrPort("198.51.100.7:4000"), Server: endpoint4, Stream: 1})
	c.ask(stun.MethodAllocate, viaUDP)
	change(&c.flow)
	return c.ask(stun.MethodAllocate, viaUDP)
}

var otherFlows = map[string]func(*Flow){
	"address": func(f *Flow) { f.Client = netip.MustParseAddrPort("198.51.100.8:4000") },
	"port":    func(f *Flow) { f.Client = netip.MustParseAddrPort("198.51.100.7:4001") },
	"server":  func(f *Flow) { f.Server = second4 },
	"stream":  func(f *Flow) { f.Stream = 2 },
	"udp":     func(f *Flow) { f.Stream = 0 },
}

func TestNonceIsBoundToItsFlow(t *testing.T) {
	for name, change := range otherFlows {
		if a := stolen(newWorld(t, roomy), change); a.code != 438 {
			t.Errorf("a nonce from another %s: %s, want 438", name, a)
		}
		w := newWorld(t, roomy)
		w.guard.nonces.anyFlow = true
		if a := stolen(w, change); a.code != 0 {
			t.Errorf("control: a nonce for all, from another %s: %s", name, a)
		}
	}
	if a := stolen(newWorld(t, roomy), func(*Flow) {}); a.code != 0 {
		t.Errorf("the own nonce: %s", a)
	}
}

// strangers are messages of somebody without credentials (A7).
func strangers(w *world) map[string][]byte {
	c := w.join("ada", udp("198.51.100.7:4000"))
	kind := stun.NewType(stun.MethodAllocate, stun.ClassRequest)
	all := map[string][]byte{
		"bare Allocate":     c.build(kind, viaUDP),
		"shortest Allocate": c.build(kind),
		"Binding":           c.build(stun.BindingRequest),
		"Refresh":           c.build(stun.NewType(stun.MethodRefresh, stun.ClassRequest)),
		"seal alone":        c.build(kind, viaUDP, stun.NewShortTermIntegrity("x")),
		"response":          c.build(stun.BindingSuccess),
		"Connect":           c.build(stun.NewType(stun.MethodConnect, stun.ClassRequest)),
		"unknown":           c.build(kind, viaUDP, setter{stun.AttrType(0x7001), nil}),
	}
	c.nonce = []byte("0123456789abcdef")
	all["wrong nonce"] = c.build(kind, viaUDP)
	c.user, c.password = "", ""
	all["no user"] = c.build(kind)
	return all
}

// amplified is the worst ratio of bytes out to bytes in, headers counted.
func amplified(w *world) float64 {
	worst := 0.0
	for _, server := range []string{"198.51.100.7:4000", "[2001:db8:7::7]:4000"} {
		for _, raw := range strangers(w) {
			f := udp(server)
			a := w.give(f, raw)
			if a.code >= 0 {
				worst = max(worst, float64(len(a.raw)+headers(f))/float64(len(raw)+headers(f)))
			}
		}
	}
	return worst
}

func TestStrangersGetLittle(t *testing.T) {
	if r := amplified(newWorld(t, roomy)); r > 1.5 || r == 0 {
		t.Errorf("the worst answer has %.2f times the bytes of its question, want at most 1.5", r)
	}
	w := newWorld(t, roomy)
	w.guard.generous = true
	if r := amplified(w); r <= 1.5 {
		t.Errorf("control: the worst answer has %.2f times the bytes", r)
	}
}

// challenged counts the answers to a flood from one source.
func challenged(w *world, flood int) (answers int) {
	c := w.join("ada", udp("198.51.100.7:4000"))
	raw := c.build(stun.NewType(stun.MethodAllocate, stun.ClassRequest), viaUDP)
	for i := range flood {
		f := c.flow
		f.Client = netip.AddrPortFrom(f.Client.Addr(), uint16(i)) // from all ports
		if w.give(f, raw).code >= 0 {
			answers++
		}
	}
	return answers
}

func TestStrangersGetFewAnswers(t *testing.T) {
	w := newWorld(t, roomy)
	if n := challenged(w, 10000); n != challengesAtOnce {
		t.Errorf("%d answers at once, want %d", n, challengesAtOnce)
	}
	if a := w.join("bea", udp("198.51.100.8:4000")).allocate(); a.code != 0 {
		t.Errorf("somebody else meanwhile: %s", a)
	}
	w.now = w.now.Add(10 * time.Second)
	if n := challenged(w, 3000); n != 10*challengesPerSecond {
		t.Errorf("%d answers after ten seconds, want %d", n, 10*challengesPerSecond)
	}
	w = newWorld(t, roomy)
	w.guard.generous = true
	if n := challenged(w, 3000); n != 3000 {
		t.Errorf("control: %d answers to a flood of 3000", n)
	}
}

// A source that floods requests is not even looked at closely.
func TestFloodIsDroppedBeforeTheSeal(t *testing.T) {
	w := newWorld(t, roomy)
	c := w.join("ada", udp("198.51.100.7:4000"))
	c.mustAllocate()
	raw := c.build(stun.NewType(stun.MethodRefresh, stun.ClassRequest))
	counts := map[Reason]int{}
	for range 2 * requestsAtOnce {
		counts[w.give(c.flow, raw).why]++
	}
	if counts[Flooding] < requestsAtOnce || counts[Granted] == 0 {
		t.Errorf("%v", counts)
	}
}

// A8: channels do not pile up: an allocation has one for each endpoint at most.
func TestChannelFlood(t *testing.T) {
	w := newWorld(t, roomy)
	c := w.join("ada", udp("198.51.100.7:4000"))
	c.mustAllocate()
	for n := MinChannel; n <= MinChannel+2000; n++ {
		c.bind(uint16(n), endpoint4)
		c.bind(uint16(n+1), second4)
	}
	a := w.table.flows[c.flow]
	if len(a.channels) != 2 || len(a.permits) != 1 {
		t.Errorf("%d channels, %d permissions; want 2 and 1", len(a.channels), len(a.permits))
	}
}

// What strangers send is not remembered.
func TestStrangersLeaveNoTrace(t *testing.T) {
	w := newWorld(t, roomy)
	for i := range 20000 {
		f := udp("198.51.100.7:4000")
		f.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)
		for _, raw := range strangers(w) {
			w.give(f, raw)
			break
		}
	}
	if n := len(w.table.flows) + len(w.table.sources) + len(w.table.sessions) + len(w.table.revoked); n != 0 {
		t.Errorf("%d entries after strangers", n)
	}
}

// An allocation outlives its credentials, which then are worth nothing else.
func TestUserNameNamesNobody(t *testing.T) {
	c := NewCredentials([]byte("0123456789abcdef"))
	if c.Session("bc", "a") == c.Session("c", "ab") {
		t.Error("one session for two participants")
	}
	for _, ttl := range []time.Duration{-time.Second, 0, MaxTTL + time.Second, 24 * time.Hour} {
		now := time.Unix(1777777777, 0)
		u, _ := c.Issue(c.Session("ada", "blue"), now, ttl)
		if got, err := parse(u); err != nil || got.Expires.Sub(now) != MaxTTL {
			t.Errorf("ttl %s: lives %s, %v; want %s", ttl, got.Expires.Sub(now), err, MaxTTL)
		}
	}
}
