package flow

import (
	"math"
	"time"
)

// Carriage is a way for media over a link.
type Carriage string

// The carriages.
const (
	QUIC Carriage = "quic" // datagrams and streams of the QUIC connection
	UDP  Carriage = "udp"  // datagrams of our own beside it
)

// Reason says why a carriage is used.
type Reason string

// The reasons.
const (
	Alone   Reason = "there is no other"
	Untried Reason = "not known yet whether udp passes"
	Silent  Reason = "udp does not pass"
	Worse   Reason = "udp loses what quic does not"
	Needed  Reason = "quic carries less than is needed at this loss and round trip"
	Cheaper Reason = "quic would do; udp repairs and costs less"
)

const (
	// silence is how long nothing may be heard of what was sent over UDP, in round
	// trips and at least; keep-alives are sent more often than that.
	silence      = 400 * time.Millisecond
	silentTrips  = 4
	silentFor    = 10                     // datagrams: all are lost once in 10^8 times on a path that loses 8 % each way
	silentSlack  = 50 * time.Millisecond  // beyond 1.5 round trips until one is heard of
	proveFor     = 300 * time.Millisecond // UDP is heard for so long before it is used,
	proveAgain   = 5 * time.Second        // and for so long once it has failed
	worseLoss    = 0.25                   // of what UDP carries: a network that chokes it,
	worseTimes   = 4                      // for QUIC loses so many times less,
	worseFor     = 2 * time.Second        // for so long
	neededMargin = 2                      // of Reno's rate: half of the time it has less
	segment      = 1200 * 8               // bits of a packet of QUIC
)

// Path is what a link has measured.
type Path struct {
	Offered  bool      // both ends have UDP
	HeardAt  time.Time // when something that was sent over UDP was last known to have arrived
	Unheard  int       // datagrams sent over UDP since, that should have been heard of: Unheard.Overdue
	RTT      time.Duration
	Loss     float64 // of QUIC's packets, 0 to 1
	LossUDP  float64 // of UDP's, before repairs
	Need     float64 // bit/s of media
	LengthOK bool    // how long datagrams may be is known
}

// Unheard is what was sent over UDP since something of it was heard. The zero value is
// nothing. When a link that had been idle begins, much is on its way at once and says
// nothing yet.
type Unheard struct {
	n  int
	at [silentFor]time.Time // of the first
}

// Sent takes note of a datagram.
func (u *Unheard) Sent(now time.Time) {
	if u.n < len(u.at) {
		u.at[u.n] = now
		u.n++
	}
}

// Heard forgets what was sent before something was heard.
func (u *Unheard) Heard() { u.n = 0 }

// Overdue is how many there are that should have been heard of by now, as far as matters.
func (u *Unheard) Overdue(now time.Time, rtt time.Duration) (n int) {
	for n < u.n && now.Sub(u.at[n]) > rtt*3/2+silentSlack {
		n++
	}
	return n
}

// Reno is what quic-go's congestion control carries, bit/s: 1.68 segments each
// round trip divided by the root of the loss.
func Reno(rtt time.Duration, loss float64) float64 {
	if loss <= 0 || rtt <= 0 {
		return math.Inf(1)
	}
	return 1.68 * segment / (rtt.Seconds() * math.Sqrt(loss))
}

// Choice chooses the carriage of a link. The zero value begins with QUIC. It fails
// to QUIC, never to nothing.
type Choice struct {
	use    bool
	why    Reason
	since  time.Time // UDP is heard without a pause since; zero: it is not
	failed bool
	worse  time.Time
	Moves  int // changes of the carriage
}

// Now chooses.
func (c *Choice) Now(p Path, now time.Time) (Carriage, Reason) {
	use, why := c.judge(p, now)
	if use != c.use {
		c.Moves++
		c.failed = c.failed || c.use
	}
	c.use, c.why = use, why
	if use {
		return UDP, why
	}
	return QUIC, why
}

func (c *Choice) judge(p Path, now time.Time) (bool, Reason) {
	if !p.Offered {
		c.since = time.Time{}
		return false, Alone
	}
	limit := max(silence, silentTrips*p.RTT)
	if p.HeardAt.IsZero() || now.Sub(p.HeardAt) > limit && p.Unheard >= silentFor {
		c.since = time.Time{}
		if p.HeardAt.IsZero() && !c.failed {
			return false, Untried
		}
		return false, Silent
	}
	if c.since.IsZero() {
		c.since = now
	}
	if c.bad(p, now) {
		c.since = now
		return false, Worse
	}
	proof := proveFor
	if c.failed {
		proof = proveAgain
	}
	switch {
	case !c.use && (now.Sub(c.since) < proof || !p.LengthOK):
		if c.why == Worse || c.why == Silent {
			return false, c.why
		}
		return false, Untried
	case Reno(p.RTT, p.Loss) < neededMargin*p.Need:
		return true, Needed
	}
	return true, Cheaper
}

// bad reports whether UDP has been worse for long: there are networks that choke it.
func (c *Choice) bad(p Path, now time.Time) bool {
	if !c.use || p.LossUDP < worseLoss || p.LossUDP < worseTimes*p.Loss {
		c.worse = time.Time{}
		return false
	}
	if c.worse.IsZero() {
		c.worse = now
	}
	return now.Sub(c.worse) >= worseFor
}
