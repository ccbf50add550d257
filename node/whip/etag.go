package whip

import "strings"

// precondition is what an If-Match header asks for (RFC 9110, section 13.1.1).
type precondition int

const (
	missing precondition = iota // no header: 428
	stale                       // names other ICE sessions: 412
	current                     // names this ICE session
	anyTag                      // "*"
)

// ifMatch compares the header's values with the entity tag of the ICE session.
// Only strong tags match. Some clients send the asterisk in quotes, as the
// RFC's own examples do.
func ifMatch(headers []string, tag string) precondition {
	found := missing
	for _, value := range strings.Split(strings.Join(headers, ","), ",") {
		switch value = strings.TrimSpace(value); value {
		case "":
		case "*", `"*"`:
			return anyTag
		case tag:
			found = current
		default:
			found = max(found, stale)
		}
	}
	return found
}
