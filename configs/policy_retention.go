package configs

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/domicile/domicile/residency"
)

// retentionSpan is how long something is kept, in hours; 0 is until it is erased.
type retentionSpan residency.Hours

// retentionSpans names a time for each kind.
type retentionSpans map[string]retentionSpan

// unlimited is the word for what is kept until somebody erases it.
const unlimited = "unlimited"

const retentionForm = "a number of hours, days, weeks or years, such as 36h, 90d, 8w or 2y, at most 100y; or " + unlimited

var (
	retentionPattern = regexp.MustCompile(`^([1-9][0-9]{0,6})([hdwy])$`)
	retentionUnits   = map[string]residency.Hours{"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}
)

func (r *retentionSpan) readScalar(s scalar) *Fault {
	if s.text == unlimited {
		*r = 0
		return nil
	}
	wrong := &Fault{Message: "cannot be read", Allowed: allowedFor(reflect.TypeFor[retentionSpan]())}
	parts := retentionPattern.FindStringSubmatch(s.text)
	if parts == nil {
		return wrong
	}
	n, err := strconv.ParseUint(parts[1], 10, 32)
	unit := retentionUnits[parts[2]]
	if err != nil || n > uint64(residency.MaxRetention/unit) {
		return wrong
	}
	*r = retentionSpan(residency.Hours(n) * unit)
	return nil
}

// withdrawalRule says whether what was recorded of somebody goes with their consent.
type withdrawalRule bool

const (
	withdrawalKeeps  = "keep"
	withdrawalErases = "erase"
)

func (r *withdrawalRule) readScalar(s scalar) *Fault {
	*r = s.text == withdrawalErases
	return oneOf(s, "unknown rule", []string{withdrawalKeeps, withdrawalErases})
}

// consentLogRule says whether no log is kept of who agreed to be recorded.
type consentLogRule bool

const (
	consentLogKept = "keep"
	consentLogNone = "none"
)

func (r *consentLogRule) readScalar(s scalar) *Fault {
	*r = s.text == consentLogNone
	return oneOf(s, "unknown rule", []string{consentLogKept, consentLogNone})
}

// retention makes what the policy says of each kind.
func (d *document) retention(path string, said retentionSpans) map[residency.Kept]residency.Hours {
	if len(said) == 0 {
		return nil
	}
	out := map[residency.Kept]residency.Hours{}
	for _, kind := range slices.Sorted(maps.Keys(said)) {
		k, hours := residency.Kept(kind), residency.Hours(said[kind])
		if !slices.Contains(residency.KeptKinds(), k) {
			d.faultKey(join(path, kind), Fault{Message: "nothing of this kind is kept", Allowed: keptNames()})
			continue
		}
		if least := residency.LeastRetention(k); hours > 0 && hours < least {
			d.fault(join(path, kind), Fault{Message: "too short", Allowed: spanText(least) + " or more; or " + unlimited})
		}
		out[k] = hours
	}
	return out
}

func keptNames() string {
	var names []string
	for _, k := range residency.KeptKinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// spanText is how a retention is written: in the largest unit that gives a whole number.
func spanText(h residency.Hours) string {
	if h == 0 {
		return unlimited
	}
	for _, unit := range []string{"y", "w", "d"} {
		if n := retentionUnits[unit]; h%n == 0 {
			return strconv.FormatUint(uint64(h/n), 10) + unit
		}
	}
	return strconv.FormatUint(uint64(h), 10) + "h"
}

func (w *policyWriter) retention(p *residency.Policy) {
	if len(p.Retention) == 0 {
		return
	}
	var words bytes.Buffer
	for _, k := range residency.KeptKinds() {
		if h, said := p.Retention[k]; said {
			fmt.Fprintf(&words, ", %s: %s", k, spanText(h))
		}
	}
	fmt.Fprintf(&w.policies, "    retention: {%s}\n", words.String()[2:])
}

func consentText(r residency.RecordingRule) (text string) {
	if r.EraseWithdrawn {
		text = ", withdrawal: " + withdrawalErases
	}
	if r.NoConsentLog {
		text += ", consent_log: " + consentLogNone
	}
	return text
}
