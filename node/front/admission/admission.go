// Package admission decides whether one more connection may come in: it counts
// what is open and what is half-open, in all and for each source, and how fast
// one source comes. It says by which rule it refuses.
//
// It performs no I/O and reads no clock; what a connection speaks is not its
// affair, and it remembers nobody who has gone and kept to the rates.
package admission

import (
	"net/netip"
	"sync"
	"time"
)

// Limits are the bounds. A source is an IPv4 address or an IPv6 /64.
type Limits struct {
	Open, OpenPerSource       int // connections that exist, whatever they speak
	Pending, PendingPerSource int // of those, the ones that have not said who they are yet

	// Rate is how many connections a source may open in a second in the long
	// run, Burst how many at once after a pause.
	Rate  float64
	Burst int
}

// Verdict is what becomes of a connection, and by which rule.
type Verdict uint8

// The verdicts. All but Admitted refuse.
const (
	Admitted      Verdict = iota
	Open                  // the node is full
	OpenSource            // the source has its share
	Pending               // too many half-open ones
	PendingSource         // too many half-open ones of this source
	Rate                  // the source comes too fast
)

// Refusals are the verdicts that refuse.
var Refusals = []Verdict{Open, OpenSource, Pending, PendingSource, Rate}

func (v Verdict) String() string {
	return [...]string{"admitted", "open", "open_source", "pending", "pending_source", "rate"}[v]
}

const (
	// maxSources bounds the sources that are remembered, about 5 MiB. Who comes
	// when so many are known shares one entry with all others who do: a flood
	// from that many addresses is met by the bounds for the node.
	maxSources = 1 << 16

	// sweepEvery is how often sources that have gone are looked for, at most.
	sweepEvery = time.Second
)

// Ledger counts. It is safe for concurrent use.
type Ledger struct {
	limits   Limits
	interval time.Duration // between two connections at the rate

	mu      sync.Mutex // guards what follows
	open    int
	pending int
	sources map[netip.Prefix]*account
	others  account // of those that found no room in sources
	swept   time.Time
}

// account is what is known of a source. Its rate is kept as the time at which
// its connections so far would all have come, had they come at the rate (the
// generic cell rate algorithm).
type account struct {
	open, pending int
	due           time.Time
}

// NewLedger makes a ledger in which nobody is counted yet.
func NewLedger(l Limits) *Ledger {
	return &Ledger{limits: l, interval: time.Duration(float64(time.Second) / l.Rate), sources: map[netip.Prefix]*account{}}
}

// Source is what counts as one source: an IPv4 address, or an IPv6 /64, which is
// what one subscriber line has. What is no IP address is the zero prefix.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // fails for no valid address, and then is the zero prefix
	return p
}

// Enter counts a half-open connection in, or says why not; then there is no ticket.
func (l *Ledger) Enter(src netip.Prefix, now time.Time) (*Ticket, Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.node(); v != Admitted {
		return nil, v
	}
	t := &Ticket{ledger: l}
	if v := l.charge(t, src, now); v != Admitted {
		return nil, v
	}
	l.open++
	l.pending++
	return t, Admitted
}

// EnterUnnamed counts a connection in whose source is not known yet, because a
// proxy will name it: the proxy's own address has no share of its own.
func (l *Ledger) EnterUnnamed() (*Ticket, Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.node(); v != Admitted {
		return nil, v
	}
	l.open++
	l.pending++
	return &Ticket{ledger: l}, Admitted
}

func (l *Ledger) node() Verdict {
	switch {
	case l.open >= l.limits.Open:
		return Open
	case l.pending >= l.limits.Pending:
		return Pending
	}
	return Admitted
}

// charge counts a half-open connection to its source.
func (l *Ledger) charge(t *Ticket, src netip.Prefix, now time.Time) Verdict {
	a := l.account(src, now)
	due := a.due
	if due.Before(now) {
		due = now
	}
	switch {
	case a.open >= l.limits.OpenPerSource:
		return OpenSource
	case a.pending >= l.limits.PendingPerSource:
		return PendingSource
	case due.Sub(now) > time.Duration(l.limits.Burst-1)*l.interval:
		return Rate
	}
	a.due = due.Add(l.interval)
	a.open++
	a.pending++
	t.account = a
	return Admitted
}

func (l *Ledger) account(src netip.Prefix, now time.Time) *account {
	if a := l.sources[src]; a != nil {
		return a
	}
	if len(l.sources) >= maxSources {
		l.sweep(now)
	}
	if len(l.sources) >= maxSources {
		return &l.others
	}
	a := &account{}
	l.sources[src] = a
	// Those that are refused are remembered no longer than those that have gone.
	if now.Sub(l.swept) >= sweepEvery {
		l.sweep(now)
		l.sources[src] = a
	}
	return a
}

// sweep forgets the sources that have nothing open and owe no time.
func (l *Ledger) sweep(now time.Time) {
	if now.Sub(l.swept) < sweepEvery {
		return
	}
	l.swept = now
	for src, a := range l.sources {
		if a.open == 0 && !a.due.After(now) {
			delete(l.sources, src)
		}
	}
}

// Count returns how many connections are open, and how many of them half-open.
func (l *Ledger) Count() (open, pending int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.pending
}

// Ticket is a connection that was counted in. The ledger's mutex guards it.
type Ticket struct {
	ledger  *Ledger
	account *account // nil while its source is not named
	settled bool     // no longer half-open
	left    bool
}

// Name charges a connection of EnterUnnamed to its source. If it is refused it
// stays counted for the node until it leaves.
func (t *Ticket) Name(src netip.Prefix, now time.Time) Verdict {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	return t.ledger.charge(t, src, now)
}

// Settle ends a connection's time as a half-open one.
func (t *Ticket) Settle() {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	t.settle()
}

func (t *Ticket) settle() {
	if t.settled {
		return
	}
	t.settled = true
	t.ledger.pending--
	if t.account != nil {
		t.account.pending--
	}
}

// Leave counts a connection out. What comes after the first time does nothing.
func (t *Ticket) Leave() {
	t.ledger.mu.Lock()
	defer t.ledger.mu.Unlock()
	if t.left {
		return
	}
	t.settle()
	t.left = true
	t.ledger.open--
	if t.account != nil {
		t.account.open--
	}
}
