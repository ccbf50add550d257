package flow

import "time"

// FirstLength is the length of a datagram that is taken to fit every path: IPv6
// asks for packets of 1280 (RFC 8200 section 5), and tunnels take some of that.
const FirstLength = 1200

// lengths are tried from the longest: Ethernet with IPv4, the same with IPv6, PPPoE
// and tunnels of WireGuard and of cloud providers. Each is the length of a
// datagram, without 28 or 48 bytes of headers.
var lengths = [...]int{1472, 1452, 1424, 1392, 1352, 1252}

// MaxLength is the longest datagram there is.
const MaxLength = 1472

const (
	// tries is how often a length is tried: losing three in a row by chance takes a
	// path on which nothing works.
	tries = 3
	// tryAgain is how often a path is tried again for more.
	tryAgain = 10 * time.Minute
	// tryWait is how long an answer is waited for, beyond a round trip.
	tryWait = 50 * time.Millisecond
	// hole is how many long datagrams in a row are lost when the path has become
	// narrower; by chance at 20 % loss once in a million.
	hole = 8
)

// Length finds the longest datagram that a path takes (RFC 8899). The zero value
// begins at FirstLength.
type Length struct {
	found  int // longest that arrived
	at     int // index in lengths of the one that is tried
	tried  int
	number uint64 // datagram of the try that is under way
	sent   time.Time
	flying bool
	done   time.Time // when all were tried; zero: not yet
	gone   int       // long datagrams lost in a row
}

// Limit is the longest datagram to send.
func (l *Length) Limit() int { return max(l.found, FirstLength) }

// Done reports whether the first search has ended.
func (l *Length) Done() bool { return !l.done.IsZero() }

// Try returns the length of a datagram to try now, 0 for none.
func (l *Length) Try(now time.Time, rtt time.Duration) int {
	if l.flying && now.Sub(l.sent) > rtt+rtt/2+tryWait {
		l.flying = false
		if l.tried++; l.tried >= tries {
			l.at, l.tried = l.at+1, 0
		}
	}
	if l.Done() && now.Sub(l.done) >= tryAgain {
		l.at, l.tried, l.done = 0, 0, time.Time{}
	}
	if l.flying || l.Done() {
		return 0
	}
	if l.at >= len(lengths) || lengths[l.at] <= l.found {
		l.done = now
		return 0
	}
	return lengths[l.at]
}

// Tried says under which number the try left.
func (l *Length) Tried(n uint64, now time.Time) { l.number, l.sent, l.flying = n, now, true }

// Heard takes what became of a datagram.
func (l *Length) Heard(n uint64, length int, arrived bool, now time.Time) {
	if l.flying && n == l.number {
		if arrived {
			l.found, l.flying, l.done = lengths[l.at], false, now
		}
		return
	}
	switch {
	case length <= FirstLength:
	case arrived:
		l.gone = 0
	default:
		if l.gone++; l.gone >= hole {
			*l = Length{}
		}
	}
}
