package alloc

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// The node of these tests: two endpoints of IPv4, one of IPv6.
var (
	endpoint4 = netip.MustParseAddrPort("203.0.113.1:443")
	second4   = netip.MustParseAddrPort("203.0.113.1:7882")
	endpoint6 = netip.MustParseAddrPort("[2001:db8::1]:443")
)

// world is a guard and a table with a clock that tests move.
type world struct {
	t     testing.TB
	now   time.Time
	creds *Credentials
	guard *Guard
	table *Table
	x     Exchange
	ids   uint32
}

func newWorld(t testing.TB, l Limits) *world {
	creds := NewCredentials([]byte("0123456789abcdef"))
	e, err := NewEndpoints([]netip.AddrPort{endpoint4, second4, endpoint6})
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), creds: creds,
		guard: NewGuard(creds, [32]byte{1}, maphash.MakeSeed()), table: NewTable(l, e),
	}
}

var roomy = Limits{PerNode: 1000, PerSession: 12, PerSource: 1000}

// client is one flow of somebody who knows credentials.
type client struct {
	w              *world
	name           string
	flow           Flow
	user, password string
	nonce          []byte
	last           [stun.TransactionIDSize]byte
}

// join gives a participant of room "blue" credentials and a flow.
func (w *world) join(name string, flow Flow) *client {
	c := &client{w: w, name: name, flow: flow}
	c.user, c.password = w.creds.Issue(w.creds.Session(name, "blue"), w.now, 10*time.Minute)
	return c
}

func udp(addr string) Flow {
	return Flow{Client: netip.MustParseAddrPort(addr), Server: endpoint4}
}

// answer is what became of a message.
type answer struct {
	why    Reason
	code   int // of the reply; 0: success; -1: there is none
	m      *stun.Message
	raw    []byte
	events []Event
}

// give hands a message to the state machine, as a shell does.
func (w *world) give(f Flow, raw []byte) answer {
	verdict, why := w.guard.Read(&w.x, w.now, f, raw)
	a := answer{why: why}
	switch verdict {
	case Request:
		a.why, a.events = w.table.Answer(&w.x, w.now)
		if a.why == Expired || a.why == Revoked {
			a.why = w.guard.Refuse(&w.x, w.now, a.why)
		}
	case Data:
		_, _, _, a.why = w.table.Permits(&w.x)
	}
	return a.read(w)
}

func (a answer) read(w *world) answer {
	a.raw = append([]byte(nil), w.x.Reply...)
	if w.x.Reply == nil {
		a.code = -1
		return a
	}
	a.m = &stun.Message{Raw: a.raw}
	if err := a.m.Decode(); err != nil {
		w.t.Fatalf("reply: %v", err)
	}
	var code stun.ErrorCodeAttribute
	if code.GetFrom(a.m) == nil {
		a.code = int(code.Code)
	}
	return a
}

// setter makes an attribute out of bytes.
type setter struct {
	kind  stun.AttrType
	value []byte
}

func (s setter) AddTo(m *stun.Message) error { m.Add(s.kind, s.value); return nil }

type peer netip.AddrPort

func (p peer) AddTo(m *stun.Message) error {
	addAddress(m, stun.AttrXORPeerAddress, netip.AddrPort(p))
	return nil
}

var viaUDP = setter{stun.AttrRequestedTransport, []byte{protocolUDP, 0, 0, 0}}

func lifetime(s uint32) setter {
	return setter{stun.AttrLifetime, binary.BigEndian.AppendUint32(nil, s)}
}

func number(n uint16) setter {
	return setter{stun.AttrChannelNumber, []byte{byte(n >> 8), byte(n), 0, 0}}
}

// build makes a message; with the nonce that the client has it is authenticated.
func (c *client) build(kind stun.MessageType, attrs ...stun.Setter) []byte {
	m := new(stun.Message)
	c.w.ids++
	binary.BigEndian.PutUint32(c.last[:], c.w.ids)
	m.TransactionID, m.Type = c.last, kind
	m.WriteHeader()
	if c.nonce != nil && kind.Class == stun.ClassRequest {
		key := stun.NewLongTermIntegrity(c.user, Realm, c.password)
		attrs = append(attrs, stun.NewUsername(c.user), stun.NewRealm(Realm), setter{stun.AttrNonce, c.nonce}, key)
	}
	for _, a := range attrs {
		if err := a.AddTo(m); err != nil {
			c.w.t.Fatal(err)
		}
	}
	return m.Raw
}

// ask sends a request and learns the nonce from the answer.
func (c *client) ask(method stun.Method, attrs ...stun.Setter) answer {
	return c.learn(c.w.give(c.flow, c.build(stun.NewType(method, stun.ClassRequest), attrs...)))
}

func (c *client) learn(a answer) answer {
	if a.m != nil {
		if nonce, err := a.m.Get(stun.AttrNonce); err == nil {
			c.nonce = append([]byte(nil), nonce...)
		}
	}
	return a
}

// allocate goes through the challenge.
func (c *client) allocate(attrs ...stun.Setter) answer {
	attrs = append([]stun.Setter{viaUDP}, attrs...)
	if c.nonce == nil {
		c.ask(stun.MethodAllocate, attrs...)
	}
	return c.ask(stun.MethodAllocate, attrs...)
}

func (c *client) mustAllocate(attrs ...stun.Setter) answer {
	c.w.t.Helper()
	a := c.allocate(attrs...)
	if a.code != 0 {
		c.w.t.Fatalf("%s: Allocate: %d %s", c.name, a.code, a.why)
	}
	return a
}

func (c *client) permit(p netip.AddrPort) answer {
	return c.ask(stun.MethodCreatePermission, peer(p))
}

func (c *client) bind(n uint16, p netip.AddrPort) answer {
	return c.ask(stun.MethodChannelBind, number(n), peer(p))
}

func (c *client) send(p netip.AddrPort, data string) answer {
	kind := stun.NewType(stun.MethodSend, stun.ClassIndication)
	return c.w.give(c.flow, c.build(kind, peer(p), setter{stun.AttrData, []byte(data)}))
}

// String is how a transcript shows an answer.
func (a answer) String() string {
	var b strings.Builder
	switch {
	case a.code < 0:
		fmt.Fprintf(&b, "silence: %s\n", a.why)
	case a.code > 0:
		fmt.Fprintf(&b, "%d %s\n", a.code, a.why)
	default:
		b.WriteString(a.why.String())
		for _, attr := range a.m.Attributes {
			b.WriteString(shown(a.m, attr))
		}
		b.WriteByte('\n')
	}
	b.WriteString(told(a.events))
	return b.String()
}

func shown(m *stun.Message, attr stun.RawAttribute) string {
	name := map[stun.AttrType]string{stun.AttrXORRelayedAddress: "relayed", stun.AttrXORMappedAddress: "mapped"}[attr.Type]
	if name != "" {
		addr, _ := readAddress(attr.Value, m.TransactionID)
		return fmt.Sprintf(" %s=%s", name, addr)
	}
	if attr.Type == stun.AttrLifetime {
		return fmt.Sprintf(" lifetime=%ds", binary.BigEndian.Uint32(attr.Value))
	}
	return ""
}

// told shows events.
func told(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		name := [...]string{"opened", "bound", "unbound", "lapsed", "ended"}[e.Kind]
		fmt.Fprintf(&b, "  %s: %s", e.Allocation.Flow.Client, name)
		switch e.Kind {
		case Bound:
			fmt.Fprintf(&b, " %#x to %s", e.Number, e.Peer)
		case Unbound:
			fmt.Fprintf(&b, " from %s, permitted: %v", e.Peer, e.Permitted)
		case Lapsed:
			fmt.Fprintf(&b, " %s", e.Peer.Addr())
		}
		b.WriteByte('\n')
	}
	return b.String()
}
