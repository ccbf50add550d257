package admission

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var begin = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func from(s string) netip.Prefix { return Source(netip.MustParseAddr(s)) }

// wide refuses nobody.
var wide = Limits{Open: 1000, OpenPerSource: 1000, Pending: 1000, PendingPerSource: 1000, Rate: 1000, Burst: 1000}

func TestSource(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true}, // the same host on a dual-stack socket
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::ffff:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		if same := from(c.a) == from(c.b); same != c.same {
			t.Errorf("%s and %s are one source: %v, want %v", c.a, c.b, same, c.same)
		}
	}
	if Source(netip.Addr{}) != (netip.Prefix{}) {
		t.Error("no address is a source of its own")
	}
}

// TestEachBound is met by the connection that comes after it, and by no other.
func TestEachBound(t *testing.T) {
	const a, b = "192.0.2.1", "192.0.2.2"
	for _, c := range []struct {
		name    string
		limit   func(*Limits)
		settled bool // those that came before are no longer half-open
		comes   string
		want    Verdict
	}{
		{"open", func(l *Limits) { l.Open = 2 }, true, b, Open},
		{"open of a source", func(l *Limits) { l.OpenPerSource = 2 }, true, a, OpenSource},
		{"open of another", func(l *Limits) { l.OpenPerSource = 2 }, true, b, Admitted},
		{"half-open", func(l *Limits) { l.Pending = 2 }, false, b, Pending},
		{"settled", func(l *Limits) { l.Pending = 2 }, true, b, Admitted},
		{"half-open of a source", func(l *Limits) { l.PendingPerSource = 2 }, false, a, PendingSource},
		{"half-open of another", func(l *Limits) { l.PendingPerSource = 2 }, false, b, Admitted},
		{"fast", func(l *Limits) { l.Burst = 2 }, true, a, Rate},
		{"another is fast", func(l *Limits) { l.Burst = 2 }, true, b, Admitted},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := wide
			c.limit(&limits)
			l := NewLedger(limits)
			for range 2 {
				k, v := l.Enter(from(a), begin)
				if v != Admitted {
					t.Fatalf("refused before the bound: %s", v)
				}
				if c.settled {
					k.Settle()
				}
			}
			if _, v := l.Enter(from(c.comes), begin); v != c.want {
				t.Errorf("%s, want %s", v, c.want)
			}
		})
	}
}

func TestRateComesBack(t *testing.T) {
	limits := wide
	limits.Rate, limits.Burst = 10, 3
	l := NewLedger(limits)
	for i, c := range []struct {
		after time.Duration
		want  Verdict
	}{
		{0, Admitted}, {0, Admitted}, {0, Admitted}, {0, Rate},
		{50 * time.Millisecond, Rate},
		{100 * time.Millisecond, Admitted}, {100 * time.Millisecond, Rate},
		{time.Hour, Admitted}, {time.Hour, Admitted}, {time.Hour, Admitted}, {time.Hour, Rate},
	} {
		if k, v := l.Enter(from("192.0.2.1"), begin.Add(c.after)); v != c.want {
			t.Errorf("%d: after %s %s, want %s", i, c.after, v, c.want)
		} else if k != nil {
			k.Leave() // the rate counts those that left, too
		}
	}
}

func TestUnnamed(t *testing.T) {
	limits := wide
	limits.OpenPerSource = 1
	l := NewLedger(limits)
	var named []*Ticket
	for i, client := range []string{"192.0.2.1", "192.0.2.2"} {
		k, v := l.EnterUnnamed()
		if v != Admitted {
			t.Fatalf("connection %d of the proxy: %s", i, v)
		}
		if v := k.Name(from(client), begin); v != Admitted {
			t.Fatalf("%s through the proxy: %s", client, v)
		}
		named = append(named, k)
	}
	k, _ := l.EnterUnnamed()
	if v := k.Name(from("192.0.2.1"), begin); v != OpenSource {
		t.Errorf("a second one of a client through the proxy: %s, want %s", v, OpenSource)
	}
	k.Leave()
	for _, k := range named {
		k.Leave()
	}
	if open, pending := l.Count(); open != 0 || pending != 0 {
		t.Errorf("%d open, %d pending, want none", open, pending)
	}
}

// TestSourcesAreForgotten so that a flood from many addresses fills no memory.
func TestSourcesAreForgotten(t *testing.T) {
	limits := wide
	limits.Open, limits.Pending = 3*maxSources, 3*maxSources
	l := NewLedger(limits)
	addr := netip.MustParseAddr("10.0.0.0")
	var kept []*Ticket
	for i := range 2 * maxSources {
		addr = addr.Next()
		k, v := l.Enter(Source(addr), begin)
		switch {
		case v != Admitted && i < maxSources:
			t.Fatalf("%s: %s", addr, v)
		case v == Admitted:
			kept = append(kept, k)
		}
	}
	if n := len(l.sources); n > maxSources {
		t.Errorf("%d sources remembered, want at most %d", n, maxSources)
	}
	for _, k := range kept {
		k.Leave()
	}
	if _, v := l.Enter(from("192.0.2.1"), begin.Add(time.Minute)); v != Admitted {
		t.Errorf("a minute after the flood: %s", v)
	}
	if n := len(l.sources); n != 1 {
		t.Errorf("%d sources remembered a minute after the flood, want 1", n)
	}
}

// oracle is a ledger that keeps all that ever happened and counts it anew.
type oracle struct {
	limits  Limits
	tickets []*entry
}

type entry struct {
	ticket        *Ticket
	src           netip.Prefix
	settled, left bool
}

func (o *oracle) count(ok func(*entry) bool) int {
	n := 0
	for _, e := range o.tickets {
		if !e.left && ok(e) {
			n++
		}
	}
	return n
}

// want leaves the rate out: it has a test of its own.
func (o *oracle) want(src netip.Prefix) Verdict {
	pending := func(e *entry) bool { return !e.settled }
	switch {
	case o.count(func(*entry) bool { return true }) >= o.limits.Open:
		return Open
	case o.count(pending) >= o.limits.Pending:
		return Pending
	case o.count(func(e *entry) bool { return e.src == src }) >= o.limits.OpenPerSource:
		return OpenSource
	case o.count(func(e *entry) bool { return e.src == src && pending(e) }) >= o.limits.PendingPerSource:
		return PendingSource
	}
	return Admitted
}

func TestLedgerAgainstOracle(t *testing.T) {
	sources := []netip.Prefix{from("192.0.2.1"), from("192.0.2.2"), from("2001:db8::1"), {}}
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{Rate: 1e9, Burst: 1 << 20,
			Open: rapid.IntRange(1, 12).Draw(t, "open"), OpenPerSource: rapid.IntRange(1, 6).Draw(t, "open per source"),
			Pending: rapid.IntRange(1, 8).Draw(t, "pending"), PendingPerSource: rapid.IntRange(1, 4).Draw(t, "pending per source")}
		l, o := NewLedger(limits), &oracle{limits: limits}
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for i := range 300 {
			switch n := len(o.tickets); rnd.IntN(4) {
			case 0, 1:
				src := sources[rnd.IntN(len(sources))]
				want := o.want(src)
				k, v := l.Enter(src, begin.Add(time.Duration(i)*time.Second))
				if v != want {
					t.Fatalf("step %d: %s, want %s", i, v, want)
				}
				if k != nil {
					o.tickets = append(o.tickets, &entry{ticket: k, src: src})
				}
			case 2:
				if n > 0 {
					e := o.tickets[rnd.IntN(n)]
					e.ticket.Settle()
					e.settled = true
				}
			case 3:
				if n > 0 {
					e := o.tickets[rnd.IntN(n)]
					e.ticket.Leave()
					e.left, e.settled = true, true
				}
			}
		}
		open, pending := l.Count()
		if want := o.count(func(*entry) bool { return true }); open != want {
			t.Fatalf("%d open, want %d", open, want)
		}
		if want := o.count(func(e *entry) bool { return !e.settled }); pending != want {
			t.Fatalf("%d pending, want %d", pending, want)
		}
	})
}
