package router

import (
	"fmt"

	"github.com/domicile/domicile/residency"
)

// Millis is a round trip in milliseconds, or what counts like one.
type Millis float64

// Trip is what is known of a round trip.
type Trip struct {
	MS     Millis
	Spread Millis // by how much it may be longer, if it was not measured
	How    Source
}

// Source is how a round trip is known.
type Source string

// The sources, the best first. A better one stands in place of a worse one, never
// beside it.
const (
	Measured    Source = "measured"    // heartbeats of a link, an attendee's probes or connection
	Coordinates Source = "coordinates" // network coordinates that nodes keep from their gossip
	Estimated   Source = "estimated"   // from the distance
	Unknown     Source = ""
)

// Estimates follow from the distance. Light in fibre takes 1 ms of round trip for
// 100 km, and no path is straight: most that people use take between one and two
// times that. The estimate is the middle, the spread its half. What is counted is
// the upper end, 0.02 ms/km, so that a node of which something was measured comes
// before one of which it is only supposed.
const (
	perKm       = 0.015
	perKmSpread = 0.005
	// accessMS is the line between an attendee and the first router that counts: a
	// few ms by cable, some ten by radio. It is the same for every node and only
	// matters against what was measured.
	accessMS     = 5
	accessSpread = 5
	// longest is the longest round trip that is believed: longer ones count like it.
	longest = 2000
)

// Overland is the estimate for a distance between nodes, -1 if it is unknown.
func Overland(km float64) Trip {
	km = knownKm(km)
	return Trip{MS: Millis(perKm * km), Spread: Millis(perKmSpread * km), How: Estimated}
}

// fromHome is the estimate for an attendee at a distance of a node.
func fromHome(km float64) Trip {
	t := Overland(km)
	return Trip{MS: t.MS + accessMS, Spread: t.Spread + accessSpread, How: Estimated}
}

// sane reports whether the trip says anything.
func (t Trip) sane() bool { return t.How != Unknown && t.MS >= 0 && t.Spread >= 0 }

// bound cuts what is longer than anybody believes.
func (t Trip) bound() Trip {
	t.MS, t.Spread = min(t.MS, longest), min(t.Spread, longest)
	return t
}

// upper is the longest that the trip may be: what counts.
func (t Trip) upper() Millis { return t.MS + t.Spread }

// String says the trip in words.
func (t Trip) String() string {
	if t.Spread > 0 {
		return fmt.Sprintf("%.0f to %.0f ms %s", t.MS-min(t.Spread, t.MS), t.upper(), t.How)
	}
	return fmt.Sprintf("%.0f ms %s", t.MS, t.How)
}

// trip is the round trip between an attendee and a candidate.
func (q Question) trip(c Candidate, km float64) Trip {
	if t := q.Attendee.Trips[c.Node.Name]; t.sane() {
		return t.bound()
	}
	return fromHome(km).bound()
}

// between is the round trip between a candidate and another node.
func (q Question) between(c Candidate, other residency.NodeName, at Point) Trip {
	if c.Node.Name == other {
		return Trip{How: Measured}
	}
	if q.Between != nil {
		if t := q.Between(c.Node.Name, other); t.sane() {
			return t.bound()
		}
	}
	return Overland(c.At.Km(at)).bound()
}
