package reach

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound the tests of a node. A test costs about as much as a join: a DTLS
// handshake, a millisecond of a core.
type Limits struct {
	// AtOnce bounds the sessions of a node, AtOnceFrom those of one source: an IPv4
	// address or an IPv6 /64. A tester opens one for each way in, up to six, and
	// several people of an office test when their network is at fault. Default 64
	// and 16.
	AtOnce, AtOnceFrom int
	// Every is how often one source may open a session, Burst how many it may open
	// before that counts. Default 2 s and 32: four tests by the page.
	Every time.Duration
	Burst int
	// Life is how long a session lives. Default: the constant Life.
	Life time.Duration
}

func (l Limits) withDefaults() Limits {
	if l.AtOnce == 0 {
		l.AtOnce = 64
	}
	if l.AtOnceFrom == 0 {
		l.AtOnceFrom = 16
	}
	if l.Every == 0 {
		l.Every = 2 * time.Second
	}
	if l.Burst == 0 {
		l.Burst = 32
	}
	if l.Life == 0 {
		l.Life = Life
	}
	return l
}

// maxSources bounds the sources that are remembered, some 200 bytes each. Who
// comes when so many others were here within the last minute is turned away.
const maxSources = 8192

// Cause says why a test does not take place.
type Cause int

// The causes.
const (
	Unusable   Cause = iota // the offer is none
	SourceBusy              // too many from there
	NodeBusy                // too many at all
)

// Denial is why a test does not take place.
type Denial struct {
	Cause      Cause
	Message    string
	RetryAfter time.Duration // 0: it does not say
}

// Error returns the message.
func (d *Denial) Error() string { return d.Message }

func deny(c Cause, format string, a ...any) *Denial {
	return &Denial{Cause: c, Message: fmt.Sprintf(format, a...)}
}

// desk decides who may test. It reads no clock.
type desk struct {
	limits  Limits
	places  map[string]place         // by session
	sources map[netip.Prefix]*source // those that are here, or were lately
}

type place struct {
	from  netip.Prefix
	until time.Time
}

type source struct {
	here  int // sessions at the moment
	pace  *rate.Limiter
	since time.Time // when it last opened one
}

func newDesk(l Limits) *desk {
	return &desk{limits: l.withDefaults(), places: map[string]place{}, sources: map[netip.Prefix]*source{}}
}

// sourceOf is whom an address stands for: a household has one IPv4 address, or
// an IPv6 /64.
func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // fails for no address at all, which is a source like others
	return p
}

// admit gives a place. It has to be left again.
func (d *desk) admit(addr netip.Addr, now time.Time) (id string, err error) {
	from := sourceOf(addr)
	s := d.sources[from]
	switch {
	case len(d.places) >= d.limits.AtOnce:
		return "", retry(deny(NodeBusy, "%d connection tests are under way at this node, which is all it takes", len(d.places)), 5*time.Second)
	case s == nil && !d.room(now):
		return "", retry(deny(NodeBusy, "too many networks have tested this node in the last minute"), time.Minute)
	case s == nil:
		s = &source{pace: rate.NewLimiter(rate.Every(d.limits.Every), d.limits.Burst)}
		d.sources[from] = s
	case s.here >= d.limits.AtOnceFrom:
		return "", retry(deny(SourceBusy, "%d connection tests from your network are under way", s.here), 5*time.Second)
	}
	if !s.pace.AllowN(now, 1) {
		return "", retry(deny(SourceBusy, "too many connection tests from your network"), d.limits.Every)
	}
	s.here++
	s.since = now
	id = rand.Text()
	d.places[id] = place{from, now.Add(d.limits.Life)}
	return id, nil
}

func retry(d *Denial, after time.Duration) *Denial {
	d.RetryAfter = after
	return d
}

// room reports whether one more source can be remembered, and forgets those
// whose limit is as if they had never been here.
func (d *desk) room(now time.Time) bool {
	if len(d.sources) < maxSources {
		return true
	}
	for p, s := range d.sources {
		if s.here == 0 && s.pace.TokensAt(now) >= float64(d.limits.Burst) {
			delete(d.sources, p)
		}
	}
	return len(d.sources) < maxSources
}

// leave gives a place back; a second time it does nothing.
func (d *desk) leave(id string) {
	p, ok := d.places[id]
	if !ok {
		return
	}
	delete(d.places, id)
	d.sources[p.from].here--
}

// due lists the sessions whose time is over.
func (d *desk) due(now time.Time) (ids []string) {
	for id, p := range d.places {
		if !now.Before(p.until) {
			ids = append(ids, id)
		}
	}
	return ids
}
