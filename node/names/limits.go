package names

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// perNetwork and burst bound the whole answers to one network over UDP: more
	// than any resolver asks for a name that it may remember, and so little that the
	// server is no use for flooding somebody else.
	perNetwork, burst = 50, 100

	// inAll bounds whole answers over UDP to everybody, so that made-up sources
	// cannot have one bucket each.
	inAll = 20_000

	// maxNetworks bounds the networks that are remembered; two generations of them.
	maxNetworks = 1 << 14
	generation  = time.Minute
)

// limits counts what leaves over UDP for each network.
type limits struct {
	mu       sync.Mutex
	all      *rate.Limiter
	now, old map[netip.Prefix]*rate.Limiter
	turned   time.Time
}

func newLimits() *limits {
	return &limits{all: rate.NewLimiter(inAll, inAll), now: map[netip.Prefix]*rate.Limiter{}}
}

// allow reports whether a network may have another whole answer.
func (l *limits) allow(a netip.Addr, now time.Time) bool {
	bits := scope6
	if a.Is4() {
		bits = scope4
	}
	network, err := a.Prefix(bits)
	if err != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucket(network, now).AllowN(now, 1) && l.all.AllowN(now, 1)
}

func (l *limits) bucket(network netip.Prefix, now time.Time) *rate.Limiter {
	if b := l.now[network]; b != nil {
		return b
	}
	if len(l.now) >= maxNetworks || now.Sub(l.turned) >= generation {
		l.old, l.now, l.turned = l.now, map[netip.Prefix]*rate.Limiter{}, now
	}
	b := l.old[network]
	if b == nil {
		b = rate.NewLimiter(perNetwork, burst)
	}
	l.now[network] = b
	return b
}
