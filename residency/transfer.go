package residency

import (
	"fmt"
	"slices"
	"time"
)

// The kinds of transfer basis (chapter V of Regulation (EU) 2016/679).
const (
	BasisAdequacy    = "adequacy"                     // article 45
	BasisClauses     = "standard-contractual-clauses" // article 46(2)(c) and (d)
	BasisBindingRule = "binding-corporate-rules"      // article 47
	BasisDerogation  = "derogation"                   // article 49
)

// TransferKinds lists the kinds of transfer basis.
func TransferKinds() []string {
	return []string{BasisAdequacy, BasisClauses, BasisBindingRule, BasisDerogation}
}

// TransferBasis is a ground on which data may go to third countries, from a day
// on and, unless Until is zero, before another.
type TransferBasis struct {
	Kind        string
	Countries   []Country
	From, Until time.Time
	Reference   string // the decision or contract, in words that find it again
}

// InForce reports whether the basis holds at now.
func (t TransferBasis) InForce(now time.Time) bool {
	return !now.Before(t.From) && (t.Until.IsZero() || now.Before(t.Until))
}

// Third reports whether a country is a third country: outside the EEA, to whose
// members Regulation (EU) 2016/679 applies. So is a country that is unknown.
func (c Country) Third() bool {
	return !slices.Contains(world().zones["EEA"], c)
}

// transferEnd says when the last basis for a country that is in force now ends;
// zero if one has no end.
func transferEnd(all []TransferBasis, c Country, now time.Time) (until time.Time, ok bool) {
	for _, t := range all {
		if !t.InForce(now) || !contains(t.Countries, c) {
			continue
		}
		if t.Until.IsZero() {
			return time.Time{}, true
		}
		if ok = true; t.Until.After(until) {
			until = t.Until
		}
	}
	return until, ok
}

// noTransfer says in words why no basis for a country is in force.
func noTransfer(all []TransferBasis, c Country, now time.Time) string {
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	why := "for which there is no transfer basis"
	for _, t := range all {
		switch {
		case !contains(t.Countries, c):
		case now.Before(t.From):
			why = fmt.Sprintf("for which the transfer basis %q begins on %s", t.Reference, day(t.From))
		default:
			return fmt.Sprintf("for which the transfer basis %q ended on %s", t.Reference, day(t.Until))
		}
	}
	return why
}
