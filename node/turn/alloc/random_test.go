package alloc

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// oracle knows what may be, from events and from who did what.
type oracle struct {
	t        *testing.T
	limits   Limits
	live     map[*Allocation]bool
	refresh  map[*Allocation]time.Time // the last that was granted
	channels map[*Allocation]map[netip.AddrPort]uint16
	permits  map[*Allocation]map[netip.Addr]time.Time
	revoked  map[Session]time.Time
	log      []string
}

func (o *oracle) fail(format string, a ...any) {
	o.t.Helper()
	last := o.log[max(0, len(o.log)-20):]
	o.t.Fatalf(format+"\nafter %q", append(a, last)...)
}

// learn takes events in; who caused them, if it was a request.
func (o *oracle) learn(w *world, events []Event, c *client, honest bool) {
	for _, e := range events {
		a := e.Allocation
		if c != nil && (!honest || a.Flow != c.flow) {
			o.fail("%v of %s, caused by %s", e.Kind, a.Flow.Client, c.name)
		}
		switch e.Kind {
		case Opened:
			o.opened(w, a, c)
		case Bound:
			if e.Peer != endpoint4 && e.Peer != second4 && e.Peer != endpoint6 {
				o.fail("bound to %s", e.Peer)
			}
			for p, n := range o.channels[a] {
				if p == e.Peer || n == e.Number {
					o.fail("%#x to %s while %#x is to %s", e.Number, e.Peer, n, p)
				}
			}
			o.channels[a][e.Peer] = e.Number
		case Unbound:
			delete(o.channels[a], e.Peer)
		case Lapsed:
			delete(o.permits[a], e.Peer.Addr())
		case Ended:
			if !o.live[a] {
				o.fail("ended twice: %s", a.Flow.Client)
			}
			delete(o.live, a)
		}
	}
	o.count()
}

func (o *oracle) opened(w *world, a *Allocation, c *client) {
	if at, ok := o.revoked[a.Session]; ok && !w.x.claims.Issued.After(at) {
		o.fail("opened after its session was revoked")
	}
	if !w.now.Before(w.x.claims.Expires) {
		o.fail("opened with expired credentials")
	}
	for b := range o.live {
		if b.Relayed == a.Relayed || b.Flow == a.Flow {
			o.fail("%s is given twice", a.Relayed)
		}
	}
	o.live[a], o.refresh[a] = true, w.now
	o.channels[a], o.permits[a] = map[netip.AddrPort]uint16{}, map[netip.Addr]time.Time{}
	_ = c
}

func (o *oracle) count() {
	sessions, sources := map[Session]int{}, map[netip.Prefix]int{}
	for a := range o.live {
		sessions[a.Session]++
		sources[a.Flow.Source()]++
		if sessions[a.Session] > o.limits.PerSession || sources[a.Flow.Source()] > o.limits.PerSource {
			o.fail("beyond a quota")
		}
	}
	if len(o.live) > o.limits.PerNode {
		o.fail("beyond the node's quota")
	}
}

// clock checks what may be left after a tick.
func (o *oracle) clock(w *world) {
	for a := range o.live {
		if w.now.Sub(o.refresh[a]) >= Lifetime {
			o.fail("%s outlives its lifetime", a.Flow.Client)
		}
		for addr, at := range o.permits[a] {
			if w.now.Sub(at) >= PermissionLife {
				o.fail("permission for %s outlives its lifetime", addr)
			}
		}
	}
}

// TestRandomSequences has many clients do anything at all, honest and not, while
// time passes and participants are removed.
func TestRandomSequences(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { wander(t, rand.New(rand.NewPCG(seed, 4))) })
	}
}

func wander(t *testing.T, rnd *rand.Rand) {
	limits := Limits{PerNode: 2 + rnd.IntN(12), PerSession: 1 + rnd.IntN(4), PerSource: 1 + rnd.IntN(6)}
	w := newWorld(t, limits)
	o := &oracle{t: t, limits: limits, live: map[*Allocation]bool{}, refresh: map[*Allocation]time.Time{},
		channels: map[*Allocation]map[netip.AddrPort]uint16{}, permits: map[*Allocation]map[netip.Addr]time.Time{}, revoked: map[Session]time.Time{}}
	var clients []*client
	for i := range 16 {
		f := Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i % 4)}), uint16(1000+i)), Server: endpoint4, Stream: uint64(i % 3)}
		c := w.join(fmt.Sprint("p", i%5), f)
		clients = append(clients, c)
	}
	for range 1500 {
		step(w, o, rnd, clients[rnd.IntN(len(clients))])
	}
	for i := range 5 { // all are removed: nothing is left
		o.learn(w, w.table.Revoke(w.creds.Session(fmt.Sprint("p", i), "blue"), w.now), nil, true)
	}
	if len(o.live) != 0 || w.table.Len() != 0 || len(w.table.relayed) != 0 || len(w.table.sources) != 0 || len(w.table.sessions) != 0 {
		o.fail("%d allocations are left, %d in the table", len(o.live), w.table.Len())
	}
}

// step does one thing.
func step(w *world, o *oracle, rnd *rand.Rand, c *client) {
	peers := []netip.AddrPort{endpoint4, second4, endpoint6, netip.MustParseAddrPort("10.0.0.1:443"), netip.AddrPortFrom(endpoint4.Addr(), uint16(rnd.Uint32()))}
	p := peers[rnd.IntN(len(peers))]
	honest := true
	restore := func() {}
	if rnd.IntN(8) == 0 { // another's password
		honest = false
		password := c.password
		c.password, restore = "wrong", func() { c.password = password }
	}
	n := rnd.IntN(100)
	o.log = append(o.log, fmt.Sprintf("%d %s %s honest=%v", n, c.name, p, honest))
	var a answer
	switch {
	case n < 35:
		attrs := []stun.Setter{viaUDP}
		if rnd.IntN(3) == 0 {
			attrs = append(attrs, setter{attrRequestedFamily, []byte{familyIPv6, 0, 0, 0}})
		}
		a = c.ask(stun.MethodAllocate, attrs...)
	case n < 45:
		a = o.refreshed(w, c, rnd)
	case n < 60:
		a = c.permit(p)
		o.permitted(w, c, a, p)
	case n < 72:
		a = c.bind(uint16(MinChannel-2+rnd.IntN(6)), p)
		o.permitted(w, c, a, p)
	case n < 85:
		o.sent(w, c, c.send(p, "x"), p)
		restore()
		return
	case n < 90:
		w.now = w.now.Add(time.Duration(rnd.IntN(400)) * time.Second)
		o.learn(w, w.table.Tick(w.now), nil, true)
		o.clock(w)
	case n < 93:
		s := w.creds.Session(c.name, "blue")
		o.revoked[s] = w.now
		o.learn(w, w.table.Revoke(s, w.now), nil, true)
		for a := range o.live {
			if a.Session == s {
				o.fail("alive after its session was revoked")
			}
		}
		w.now = w.now.Add(time.Microsecond)
	case n < 96:
		restore()
		restore = func() {}
		c.user, c.password = w.creds.Issue(w.creds.Session(c.name, "blue"), w.now, 10*time.Minute)
	case n < 98:
		o.learn(w, w.table.Close(c.flow), nil, true)
	default:
		raw := c.build(stun.NewType(stun.Method(rnd.IntN(16)), stun.MessageClass(rnd.IntN(4))), peer(p))
		for range rnd.IntN(3) {
			raw[rnd.IntN(len(raw))] ^= byte(1 << rnd.IntN(8))
		}
		a = w.give(c.flow, raw)
		honest = true // it may be whole by chance
	}
	o.learn(w, a.events, c, honest)
	if !honest && a.m != nil && a.code == 0 {
		o.fail("%s was granted something with another's password", c.name)
	}
	restore()
}

func (o *oracle) of(c *client) *Allocation {
	for a := range o.live {
		if a.Flow == c.flow {
			return a
		}
	}
	return nil
}

func (o *oracle) refreshed(w *world, c *client, rnd *rand.Rand) answer {
	seconds := uint32(rnd.IntN(3) * 600)
	a := c.ask(stun.MethodRefresh, lifetime(seconds))
	if got := o.of(c); a.code == 0 && seconds > 0 {
		if got == nil {
			o.fail("refreshed what is not there")
		}
		o.refresh[got] = w.now
	}
	return a
}

func (o *oracle) permitted(w *world, c *client, a answer, p netip.AddrPort) {
	if a.code != 0 {
		return
	}
	got := o.of(c)
	if got == nil || (p.Addr() != endpoint4.Addr() && p.Addr() != endpoint6.Addr()) {
		o.fail("permission for %s", p)
	}
	o.permits[got][p.Addr()] = w.now
}

func (o *oracle) sent(w *world, c *client, a answer, p netip.AddrPort) {
	got := o.of(c)
	want := got != nil && (p == endpoint4 || p == second4 || p == endpoint6) && !o.permits[got][p.Addr()].IsZero()
	if (a.why == Granted) != want {
		o.fail("data to %s: %s, want granted: %v", p, a.why, want)
	}
	_ = w
}

// BenchmarkTick is how long the table is busy each second with 8192 allocations
// of which none runs out.
func BenchmarkTick(b *testing.B) {
	w := newWorld(b, Limits{PerNode: 8192, PerSession: 8192, PerSource: 8192})
	for i := range 8192 {
		c := w.join("ada", udp("198.51.100.7:4000"))
		c.flow.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 0, byte(i >> 8), byte(i)}), 4000)
		c.mustAllocate()
		c.bind(MinChannel, endpoint4)
	}
	for b.Loop() {
		w.table.Tick(w.now)
	}
}
