package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/domicile/domicile/residency/retention"
)

var (
	descErased      = prometheus.NewDesc("domicile_erased_total", "Things that were erased on this origin, by the rule why.", []string{"rule"}, nil)
	descEraseFailed = prometheus.NewDesc("domicile_erase_failures_total", "Attempts to erase something that failed; they are made again.", nil, nil)
	descSweepHeld   = prometheus.NewDesc("domicile_sweep_held", "Things that would have to go and are kept by a legal hold, at the last sweep.", nil, nil)
	descSweepLeft   = prometheus.NewDesc("domicile_sweep_overdue", "Things that had to go and were still there after the last sweep.", nil, nil)
	descSweepOldest = prometheus.NewDesc("domicile_sweep_oldest_overdue_seconds", "For how long the oldest of them has had to go.", nil, nil)
	descSweepAt     = prometheus.NewDesc("domicile_sweep_last_timestamp_seconds", "When the disk was last looked at for what has to go.", nil, nil)
	descSweepOwed   = prometheus.NewDesc("domicile_sweep_receipts_owed", "Erasures whose receipts are not in the log yet.", nil, nil)
)

// erasureRules are why things go.
var erasureRules = []string{retention.RuleErasure, retention.RuleWithdrawal, retention.RuleRetention}

// sweepTally is what became of what had to go.
type sweepTally struct {
	erased map[string]uint64 // by rule, since the start
	failed uint64            // attempts, likewise

	// Of the last sweep.
	held, left int
	oldest     time.Time // from when the oldest of those that are left had to go; zero: none is
	at         time.Time
}

// begins counts the last sweep anew.
func (s *sweepTally) begins(now time.Time) { s.held, s.left, s.oldest, s.at = 0, 0, time.Time{}, now }

// went counts what is gone.
func (s *sweepTally) went(list []gone) {
	if s.erased == nil {
		s.erased = map[string]uint64{}
	}
	for _, g := range list {
		s.erased[g.Rule]++
	}
}

// stays counts what of the things that are due did not go. What is in use for a moment
// has not failed.
func (s *sweepTally) stays(due []retention.Verdict, list []gone, failed bool) {
	for _, v := range due {
		if isGone(list, v) {
			continue
		}
		s.left++
		if failed {
			s.failed++
		}
		if s.oldest.IsZero() || v.Due.Before(s.oldest) {
			s.oldest = v.Due
		}
	}
}

// overdue is for how long the oldest thing that is left has had to go.
func (s *sweepTally) overdue(now time.Time) time.Duration {
	if s.oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.oldest))
}

func describeRetention(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descErased, descEraseFailed, descSweepHeld, descSweepLeft, descSweepOldest, descSweepAt, descSweepOwed} {
		ch <- d
	}
}

// collectRetention hands out what an origin has erased; a node that is none keeps nothing.
func (n *Node) collectRetention(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	k := &n.retaining
	if k.book == nil {
		return
	}
	owed := len(k.owed.Notes())
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, rule := range erasureRules {
		count(descErased, k.tally.erased[rule], rule)
	}
	count(descEraseFailed, k.tally.failed)
	gauge(descSweepHeld, float64(k.tally.held))
	gauge(descSweepLeft, float64(k.tally.left))
	gauge(descSweepOldest, k.tally.overdue(n.now()).Seconds())
	if !k.tally.at.IsZero() {
		gauge(descSweepAt, float64(k.tally.at.Unix()))
	}
	gauge(descSweepOwed, float64(owed))
}
