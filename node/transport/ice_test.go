package transport

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// agent is a client that knows nothing but checks.
type agent struct {
	t    testing.TB
	sock *net.UDPConn
}

func newAgent(t testing.TB, e *Engine) *agent {
	t.Helper()
	sock, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.MediaAddrs()[0]))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	return &agent{t, sock}
}

func (a *agent) addr() netip.AddrPort { return a.sock.LocalAddr().(*net.UDPAddr).AddrPort() }

func (a *agent) send(b []byte) {
	a.t.Helper()
	if _, err := a.sock.Write(b); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) read() []byte {
	a.t.Helper()
	if err := a.sock.SetReadDeadline(time.Now().Add(patience)); err != nil {
		a.t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := a.sock.Read(b)
	if err != nil {
		a.t.Fatalf("no answer: %v", err)
	}
	return b[:n]
}

// request is a check with more attributes before its integrity.
func request(t testing.TB, ufrag, pwd string, more ...stun.Setter) *stun.Message {
	t.Helper()
	setters := append([]stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(ufrag + ":them")}, more...)
	m, err := stun.Build(append(setters, stun.NewShortTermIntegrity(pwd), stun.Fingerprint)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// attribute is one without a meaning of its own.
type attribute stun.AttrType

func (a attribute) AddTo(m *stun.Message) error {
	m.Add(stun.AttrType(a), []byte{0, 0, 0, 0, 0, 0, 0, 1})
	return nil
}

const useCandidate = attribute(stun.AttrUseCandidate)

// check sends one and returns the answer, which must be to this one.
func (a *agent) check(l Local, more ...stun.Setter) *stun.Message {
	a.t.Helper()
	m := request(a.t, l.Ufrag, l.Pwd, more...)
	a.send(m.Raw)
	var reply stun.Message
	if err := stun.Decode(a.read(), &reply); err != nil {
		a.t.Fatal(err)
	}
	if reply.TransactionID != m.TransactionID {
		a.t.Fatal("the answer is to another check")
	}
	if err := reply.Check(stun.NewShortTermIntegrity(l.Pwd), stun.Fingerprint); err != nil {
		a.t.Fatalf("answer: %v", err)
	}
	return &reply
}

func newConn(t testing.TB, e *Engine) *Conn {
	t.Helper()
	c, err := e.NewConn(newRecorder(), ConnConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (c *Conn) sendsTo() netip.AddrPort {
	if p := c.way(); p != nil {
		return p.name.addrPort()
	}
	return netip.AddrPort{}
}

func TestChecksAreAnswered(t *testing.T) {
	e := listen(t)
	c, a := newConn(t, e), newAgent(t, e)
	reply := a.check(c.Local())
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(reply); err != nil || mapped.String() != a.addr().String() || reply.Type != stun.BindingSuccess {
		t.Errorf("answer %v maps to %v (%v), want success and %v", reply, mapped, err, a.addr())
	}
	if got := c.sendsTo(); got != a.addr() {
		t.Errorf("sends to %v, want %v", got, a.addr())
	}
}

// TestForgedChecksGetNoAnswer: whoever sends them may not be where he says.
func TestForgedChecksGetNoAnswer(t *testing.T) {
	e := listen(t)
	c, a := newConn(t, e), newAgent(t, e)
	l := c.Local()
	good := request(t, l.Ufrag, l.Pwd).Raw
	changed := func(at int) []byte {
		b := append([]byte(nil), good...)
		b[at] ^= 1
		return b
	}
	bare, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(l.Ufrag+":them"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stun.Build(stun.TransactionID, stun.BindingSuccess, stun.NewUsername(l.Ufrag+":them"), stun.NewShortTermIntegrity(l.Pwd))
	if err != nil {
		t.Fatal(err)
	}
	forged := []struct {
		name string
		b    []byte
		why  Drop
	}{
		{"for nobody", request(t, "nobody", l.Pwd).Raw, DropNoUfrag},
		{"wrong password", request(t, l.Ufrag, "wrong").Raw, DropIntegrity},
		{"changed", changed(30), DropBadCheck}, // its fingerprint no longer fits
		{"no integrity", bare.Raw, DropBadCheck},
		{"no user name", request(t, "", l.Pwd).Raw, DropBadCheck},
		{"an answer", answer.Raw, DropBadCheck},
		{"cut", good[:40], DropBadCheck},
		{"no cookie", changed(4), DropBadCheck},
		{"RTP", packet(1, 1, []byte("media")), DropNoPath},
		{"DTLS", []byte{22, 0xfe, 0xfd, 0}, DropNoPath},
		{"ZRTP", []byte{16, 0, 0, 0}, DropUnknown},
		{"one byte", []byte{128}, DropUnknown},
		{"long", append(packet(1, 1, nil), make([]byte, maxDatagram)...), DropTooLong},
	}
	want := make(map[string]uint64)
	for _, f := range forged {
		a.send(f.b)
		want[f.why.String()]++
	}
	a.check(l) // fails if another was answered
	got := e.Stats().Drops
	for why, n := range want {
		if got[why] != n {
			t.Errorf("%d drops for %s, want %d", got[why], why, n)
		}
	}
}

// TestWhatIntegrityDoesNotCoverIsNotBelieved: somebody on the way could add it.
func TestWhatIntegrityDoesNotCoverIsNotBelieved(t *testing.T) {
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("us:them"),
		stun.NewShortTermIntegrity("pwd"), useCandidate, attribute(stun.AttrICEControlled), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := readCheck(m)
	if !ok || c.nominate || c.controlled || string(c.ufrag) != "us" {
		t.Errorf("got %+v, %v, want a check for us that nominates nothing", c, ok)
	}
}

func TestClientsThatThinkWeControlChangeRoles(t *testing.T) {
	e := listen(t)
	c, a := newConn(t, e), newAgent(t, e)
	reply := a.check(c.Local(), attribute(stun.AttrICEControlled))
	var code stun.ErrorCodeAttribute
	if err := code.GetFrom(reply); err != nil || code.Code != stun.CodeRoleConflict {
		t.Errorf("got %v, %v, want %d", code, err, stun.CodeRoleConflict)
	}
	if e.Stats().Paths != 0 {
		t.Error("the check made a path all the same")
	}
	reply = a.check(c.Local(), attribute(0x7ffe))
	if err := code.GetFrom(reply); err != nil || code.Code != stun.CodeUnknownAttribute {
		t.Errorf("got %v, %v, want %d", code, err, stun.CodeUnknownAttribute)
	}
}

func TestTheLastNominationCounts(t *testing.T) {
	e := listen(t)
	c, first, second := newConn(t, e), newAgent(t, e), newAgent(t, e)
	for i, step := range []struct {
		by   *agent
		more []stun.Setter
		want *agent
	}{
		{first, nil, first},
		{second, nil, first},
		{second, []stun.Setter{useCandidate}, second},
		{first, nil, second},
		{first, []stun.Setter{useCandidate}, first},
	} {
		step.by.check(c.Local(), step.more...)
		if got := c.sendsTo(); got != step.want.addr() {
			t.Fatalf("step %d: sends to %v, want %v", i, got, step.want.addr())
		}
	}
}

func TestRestart(t *testing.T) {
	e := listen(t)
	c, before, after := newConn(t, e), newAgent(t, e), newAgent(t, e)
	old := c.Local()
	before.check(old, useCandidate)
	fresh := c.Restart()
	if fresh.Ufrag == old.Ufrag || fresh.Pwd == old.Pwd {
		t.Fatal("credentials stay the same")
	}
	before.check(old, useCandidate) // the client has not heard of it yet
	after.check(fresh)
	if got := c.sendsTo(); got != before.addr() {
		t.Errorf("sends to %v before the new path is nominated, want %v", got, before.addr())
	}
	after.check(fresh, useCandidate)
	if got := c.sendsTo(); got != after.addr() || e.Stats().Paths != 1 {
		t.Errorf("sends to %v of %d paths, want %v alone", got, e.Stats().Paths, after.addr())
	}
	before.send(request(t, old.Ufrag, old.Pwd).Raw)
	after.check(fresh)
	before.check(fresh) // fails if the old credentials were answered
	if n := e.Stats().Drops[DropNoUfrag.String()]; n != 1 {
		t.Errorf("%d checks with old credentials dropped, want 1", n)
	}
}

func TestRestartsAndPathsAreBounded(t *testing.T) {
	e := listen(t)
	c, chosen := newConn(t, e), newAgent(t, e)
	chosen.check(c.Local(), useCandidate)
	for range 2 * maxPaths {
		newAgent(t, e).check(c.Local())
	}
	if n := e.Stats().Paths; n != maxPaths {
		t.Errorf("%d paths, want %d", n, maxPaths)
	}
	if got := c.sendsTo(); got != chosen.addr() {
		t.Errorf("sends to %v, want %v", got, chosen.addr())
	}
	for range 100 {
		c.Restart()
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if n := len(e.ufrags); n > maxOutgoing+1 {
		t.Errorf("%d credentials, want %d", n, maxOutgoing+1)
	}
}

// clock is one that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ns.Store(time.Now().UnixNano())
	return c
}
func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func TestALivingPathCannotBeTaken(t *testing.T) {
	clock := newClock()
	e := listen(t, func(c *Config) { c.Now = clock.now })
	mine, other, a := newConn(t, e), newConn(t, e), newAgent(t, e)
	a.check(mine.Local(), useCandidate)
	l := other.Local()
	a.send(request(t, l.Ufrag, l.Pwd, useCandidate).Raw)
	a.check(mine.Local()) // fails if the other was answered
	if n := e.Stats().Drops[DropPathTaken.String()]; n != 1 || other.way() != nil {
		t.Fatalf("%d checks dropped, want 1", n)
	}
	clock.advance(takeoverAfter)
	a.check(l, useCandidate)
	if mine.way() != nil || other.sendsTo() != a.addr() {
		t.Error("a silent path was not given to who proved himself on it")
	}
}

func TestPathsThatTheClientLeftAreForgotten(t *testing.T) {
	clock := newClock()
	e := listen(t, func(c *Config) { c.Now = clock.now })
	c, chosen, left := newConn(t, e), newAgent(t, e), newAgent(t, e)
	if err := c.SetRemote(Remote{Setup: "actpass", Fingerprints: []Fingerprint{{"sha-256", "AB:CD"}}}); err != nil {
		t.Fatal(err)
	}
	chosen.check(c.Local(), useCandidate)
	left.check(c.Local())
	clock.advance(pathLife - time.Second)
	chosen.check(c.Local())
	c.tick(clock.now())
	if n := e.Stats().Paths; n != 2 {
		t.Errorf("%d paths, want 2", n)
	}
	clock.advance(2 * time.Second)
	c.tick(clock.now())
	if n := e.Stats().Paths; n != 1 || c.sendsTo() != chosen.addr() {
		t.Errorf("%d paths, want the selected one", n)
	}
}

func TestClosedConnectionsAreForgotten(t *testing.T) {
	e := listen(t)
	c, a := newConn(t, e), newAgent(t, e)
	l := c.Local()
	a.check(l)
	c.Restart()
	c.Close()
	if s := e.Stats(); s.Paths != 0 || s.Conns != 0 || len(e.ufrags) != 0 {
		t.Errorf("left: %d paths, %d connections, %d credentials", s.Paths, s.Conns, len(e.ufrags))
	}
	next := newConn(t, e)
	a.send(request(t, l.Ufrag, l.Pwd).Raw)
	a.check(next.Local()) // fails if the closed one answered
}

func TestHostCandidates(t *testing.T) {
	addrs := func(s ...string) (as []netip.Addr) {
		for _, a := range s {
			as = append(as, netip.MustParseAddr(a))
		}
		return as
	}
	bound := func(s ...string) (as []netip.AddrPort) {
		for _, a := range s {
			as = append(as, netip.MustParseAddrPort(a))
		}
		return as
	}
	own := addrs("10.0.0.1", "2001:db8::1", "127.0.0.1")
	for _, c := range []struct {
		name   string
		bound  []netip.AddrPort
		public []netip.Addr
		want   string
	}{
		{"bound", bound("10.0.0.1:7", "[2001:db8::1]:7"), nil, "10.0.0.1 7,2001:db8::1 7"},
		{"replaced", bound("10.0.0.1:7"), addrs("192.0.2.1"), "192.0.2.1 7"},
		{"replaced by family", bound("10.0.0.1:7", "[2001:db8::1]:7"), addrs("192.0.2.1"), "192.0.2.1 7,2001:db8::1 7"},
		{"all of IPv4", bound("0.0.0.0:7"), nil, "10.0.0.1 7,127.0.0.1 7"},
		{"all", bound("[::]:7"), nil, "10.0.0.1 7,2001:db8::1 7,127.0.0.1 7"},
		{"all, replaced", bound("0.0.0.0:7"), addrs("192.0.2.1", "192.0.2.2"), "192.0.2.1 7,192.0.2.2 7"},
		{"the same twice", bound("10.0.0.1:7", "10.0.0.2:7"), addrs("192.0.2.1"), "192.0.2.1 7"},
	} {
		var got []string
		for i, f := range hostCandidates(c.bound, c.public, own) {
			fields := strings.Fields(f.String())
			got = append(got, fields[4]+" "+fields[5])
			if i > 0 && f.Priority >= hostPriority(i-1) {
				t.Errorf("%s: priorities do not fall", c.name)
			}
		}
		if strings.Join(got, ",") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
	c := Candidate{Foundation: "1", Priority: hostPriority(0), Addr: netip.MustParseAddrPort("192.0.2.1:7882")}
	if got, want := c.String(), "1 1 udp 2130706431 192.0.2.1 7882 typ host"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSocketNames(t *testing.T) {
	for _, s := range []string{"192.0.2.1:7882", "[2001:db8::1]:1"} {
		a := netip.MustParseAddrPort(s)
		n := nameOf(a)
		if got := n.addrPort(); got != a {
			t.Errorf("%s comes back as %v", s, got)
		}
	}
}
