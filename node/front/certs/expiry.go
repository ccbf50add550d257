package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"time"
)

const day = 24 * time.Hour

// level is how near a certificate's end is: the days of the threshold passed,
// expired, or fine.
type level int

const (
	fine    level = 1 << 30
	expired level = 0
)

// thresholds are the days before the end at which the log warns.
var thresholds = []level{1, 7, 14, 30}

// levelOf says how near the end of a certificate is. Of a short one the early
// thresholds are left out, since all of its life would be a warning: a threshold
// counts within the last third alone. That is also when others renew by ACME,
// so that a certificate of 90 days in good hands never warns.
func levelOf(notBefore, notAfter, now time.Time) level {
	left := notAfter.Sub(now)
	if left <= 0 {
		return expired
	}
	life := notAfter.Sub(notBefore)
	for _, days := range thresholds {
		if d := time.Duration(days) * day; left <= d && 3*d < life {
			return days
		}
	}
	return fine
}

// Ending says how near a certificate's end is at now: soon is whether a warning
// is due, days the threshold passed, 0 if it has ended.
func Ending(notBefore, notAfter, now time.Time) (days int, soon bool) {
	l := levelOf(notBefore, notAfter, now)
	return int(l), l != fine
}

// warned remembers what was said about which certificate.
type warned struct {
	about *held
	level level
}

// due reports whether something is to be said about h at now that was not said yet.
func (w *warned) due(h *held, now time.Time) (level, bool) {
	if w.about != h {
		*w = warned{about: h, level: fine}
	}
	l := levelOf(h.leaf().NotBefore, h.leaf().NotAfter, now)
	if h.selfMade {
		l = expired
	}
	if l >= w.level {
		return l, false
	}
	w.level = l
	return l, true
}

// standing is what is known when the next attempt at the authority is chosen.
type standing struct {
	now       time.Time
	notBefore time.Time // of the certificate in use; zero if browsers believe none
	notAfter  time.Time
	fits      bool      // it holds for every name
	obtained  time.Time // when it was got; zero if it was found at the start

	// What the authority recommends (RFC 9773); zero if it does not.
	windowStart, windowEnd time.Time
	spread                 float64 // where in the window, 0 to 1

	failures int // attempts since the last success
	reason   Reason
	failedAt time.Time
}

const (
	// minAge is what a certificate has to live before it is renewed, whatever
	// the authority recommends: a window in the past must not become a loop.
	// Let's Encrypt grants five certificates for the same names each week.
	minAge = 34 * time.Hour

	// shortLife is what counts as short-lived (Let's Encrypt's are 6 days): such
	// a certificate is renewed at half of its life instead of two thirds, so
	// that there is more than a day for attempts.
	shortLife = 10 * day
)

// nextTry says when the authority is to be asked for a certificate.
func nextTry(s standing) time.Time {
	at := s.renewAt()
	if s.failures == 0 {
		return at
	}
	if again := s.failedAt.Add(backoff(s.reason, s.failures)); again.After(at) {
		return again
	}
	return at
}

func (s standing) renewAt() time.Time {
	if s.notAfter.IsZero() || !s.fits {
		return s.now
	}
	life := s.notAfter.Sub(s.notBefore)
	at := s.notBefore.Add(life * 2 / 3)
	if life <= shortLife {
		at = s.notBefore.Add(life / 2)
	}
	if window := s.windowEnd.Sub(s.windowStart); window > 0 {
		at = s.windowStart.Add(time.Duration(s.spread * float64(window)))
		if last := s.notAfter.Add(-life / 6); at.After(last) {
			at = last
		}
	}
	if young := s.obtained.Add(min(minAge, life/3)); !s.obtained.IsZero() && at.Before(young) {
		return young
	}
	return at
}

// ladders are the waits after failed attempts; the last one repeats. A server
// that is away costs nothing to ask, and should be found soon when it is back.
// What the server refuses counts against limits (Let's Encrypt: five failed
// validations for a name in an hour), and takes a person to mend.
var ladders = map[bool][]time.Duration{
	true:  {30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute},
	false: {5 * time.Minute, 30 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour},
}

// rateLimited is the least wait after an authority has said "too many".
const rateLimited = time.Hour

func backoff(r Reason, failures int) time.Duration {
	ladder := ladders[r == Away || r == Storage]
	wait := ladder[min(failures, len(ladder))-1]
	if r == RateLimit {
		return max(wait, rateLimited)
	}
	return wait
}

// spreadOf places a certificate in its window: the same one always at the same
// place, others elsewhere, so that not everybody renews in the same minute.
func spreadOf(leaf *x509.Certificate) float64 {
	sum := sha256.Sum256(leaf.Raw)
	return float64(binary.BigEndian.Uint32(sum[:])) / (1 << 32)
}
