package certs

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		life, left time.Duration
		want       level
	}{
		{365 * day, 31 * day, fine},
		{365 * day, 30 * day, 30},
		{365 * day, 14*day + 1, 30},
		{365 * day, 14 * day, 14},
		{365 * day, 7 * day, 7},
		{365 * day, day, 1},
		{365 * day, 1, 1},
		{365 * day, 0, expired},
		{365 * day, -day, expired},
		{90 * day, 29 * day, fine}, // a third of its life: it is being renewed
		{90 * day, 14 * day, 14},
		{47 * day, 15 * day, fine},
		{47 * day, 14 * day, 14},
		{6 * day, 5 * day, fine},
		{6 * day, day, 1},
		{2 * day, time.Hour, fine}, // no threshold fits
		{2 * day, 0, expired},
	} {
		if got := levelOf(t0, t0.Add(tt.life), t0.Add(tt.life-tt.left)); got != tt.want {
			t.Errorf("of %s, %s left: %d, want %d", tt.life, tt.left, got, tt.want)
		}
	}
}

func TestNextTry(t *testing.T) {
	long := standing{now: t0.Add(day), notBefore: t0, notAfter: t0.Add(90 * day), fits: true}
	with := func(s standing, change func(*standing)) standing { change(&s); return s }
	failing := func(failures int, r Reason) standing {
		return standing{now: t0, failures: failures, reason: r, failedAt: t0}
	}
	for _, tt := range []struct {
		name string
		s    standing
		want time.Duration // after t0
	}{
		{"none yet", standing{now: t0}, 0},
		{"good", long, 60 * day},
		{"for other names", with(long, func(s *standing) { s.fits = false }), day},
		{"short", with(long, func(s *standing) { s.notAfter = t0.Add(6 * day) }), 3 * day},
		{"advised", with(long, func(s *standing) { s.windowStart, s.windowEnd, s.spread = t0.Add(40*day), t0.Add(50*day), 0.5 }), 45 * day},
		{"advised too late", with(long, func(s *standing) { s.windowStart, s.windowEnd, s.spread = t0.Add(88*day), t0.Add(95*day), 0.5 }), 75 * day},
		{"advised for the past, young", with(long, func(s *standing) {
			s.windowStart, s.windowEnd, s.obtained = t0.Add(-2*day), t0.Add(-day), t0
		}), minAge},
		{"advised nonsense", with(long, func(s *standing) { s.windowStart, s.windowEnd = t0.Add(2*day), t0.Add(day) }), 60 * day},
		{"away once", failing(1, Away), 30 * time.Second},
		{"away for long", failing(1000, Away), 10 * time.Minute},
		{"unreachable once", failing(1, Unreachable), 5 * time.Minute},
		{"unreachable for long", failing(1000, Unreachable), 6 * time.Hour},
		{"too many", failing(1, RateLimit), time.Hour},
		{"too many for long", failing(9, RateLimit), 6 * time.Hour},
		{"failed long before it is due", with(long, func(s *standing) { s.failures, s.reason, s.failedAt = 1, Away, t0 }), 60 * day},
	} {
		if got := nextTry(tt.s).Sub(t0); got != tt.want {
			t.Errorf("%s: after %s, want %s", tt.name, got, tt.want)
		}
	}
}

// Whatever the authority says and however often it fails: a good certificate is
// renewed before it ends, never in a loop, and a failure is never hammered on.
func TestNextTryAlways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := func(name string, most time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, name))
		}
		life := time.Hour + span("life", 400*day)
		s := standing{notBefore: t0, notAfter: t0.Add(life), fits: true, spread: rapid.Float64Range(0, 0.999).Draw(t, "spread")}
		s.now = t0.Add(span("now", life))
		if rapid.Bool().Draw(t, "obtained") {
			s.obtained = t0.Add(time.Hour)
		}
		if rapid.Bool().Draw(t, "advice") {
			s.windowStart = t0.Add(span("from", 800*day) - 200*day)
			s.windowEnd = s.windowStart.Add(span("for", 100*day) - 10*day)
		}
		at := nextTry(s)
		if s.obtained.IsZero() && at.After(s.notAfter.Add(-life/6)) {
			t.Fatalf("renewed at %s, so late in a life of %s", at.Sub(t0), life)
		}
		if !s.obtained.IsZero() && at.Before(s.obtained.Add(min(minAge, life/3))) {
			t.Fatalf("renewed %s after it was obtained", at.Sub(s.obtained))
		}
		s.failures = rapid.IntRange(1, 100).Draw(t, "failures")
		s.failedAt = s.now
		s.reason = rapid.SampledFrom([]Reason{Away, Storage, Unreachable, RateLimit, Other}).Draw(t, "reason")
		if again := nextTry(s); again.Before(s.now.Add(30*time.Second)) || again.Before(at) || again.Sub(s.now) > 6*time.Hour && again != at {
			t.Fatalf("after %d failures (%s) again after %s, due at %s", s.failures, s.reason, again.Sub(s.now), at.Sub(s.now))
		}
	})
}

func TestEveryReasonHasAHint(t *testing.T) {
	for _, r := range []Reason{Files, Away, Trust, Unreachable, DNSWrong, WrongAnswer, RateLimit, Account, Refused, Storage, Program, Other} {
		if r.Hint() == "" {
			t.Errorf("%s: no hint", r)
		}
	}
}
