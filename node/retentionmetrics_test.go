package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/domicile/domicile/residency/retention"
)

// TestSweepTally counts a sweep in which something goes, something fails and something is
// in use, and one after it in which all goes.
func TestSweepTally(t *testing.T) {
	t0 := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	due := func(id, rule string, after time.Duration) retention.Verdict {
		return retention.Verdict{Object: retention.Object{ID: id}, Erase: true, Rule: rule, Due: t0.Add(after)}
	}
	a, b, c := due("a", retention.RuleRetention, time.Hour), due("b", retention.RuleErasure, 3*time.Hour), due("c", retention.RuleErasure, 2*time.Hour)
	now := t0.Add(10 * time.Hour)
	said := func(s *sweepTally) string {
		return fmt.Sprint(s.erased, " failed ", s.failed, " left ", s.left, " for ", s.overdue(now))
	}
	var s sweepTally
	s.begins(now)
	s.went([]gone{{Verdict: a}})
	s.stays([]retention.Verdict{a, b}, []gone{{Verdict: a}}, true)
	s.stays([]retention.Verdict{c}, nil, false)
	if got, want := said(&s), "map[retention:1] failed 1 left 2 for 8h0m0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s.begins(now)
	s.went([]gone{{Verdict: b}, {Verdict: c}})
	s.stays([]retention.Verdict{b, c}, []gone{{Verdict: b}, {Verdict: c}}, false)
	if got, want := said(&s), "map[erasure:2 retention:1] failed 1 left 0 for 0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
