// Package router decides which node serves an attendee, which origin is a room's
// home and which one records it, and says by which rule each candidate was
// ranked or refused.
//
// It is a pure core: candidates, an attendee's whereabouts and `now` go in, a
// Placement comes out. It performs no I/O, reads no clock and remembers nothing.
// It never widens what residency.Gate permits: load, distance and failure only
// order the nodes that the gate has let through.
package router

import (
	"math"
	"net/netip"
	"time"

	"github.com/golang/geo/s2"

	"github.com/domicile/domicile/residency"
)

// Point is a place on Earth in degrees. The zero Point means that the place is
// not stated (the real one is open sea off Ghana, where no node stands).
type Point struct {
	Lat float64 `json:"lat"` // -90 to 90, north is positive
	Lon float64 `json:"lon"` // -180 to 180, east is positive
}

// Stated reports whether the point says a place that exists.
func (p Point) Stated() bool {
	return p != Point{} && p.Lat >= -90 && p.Lat <= 90 && p.Lon >= -180 && p.Lon <= 180
}

// earthKm is the mean radius of the Earth (IUGG R1). The sphere errs by at most
// 0.6 % against the ellipsoid, far less than GeoIP does.
const earthKm = 6371.0

// unknownKm is what a distance costs that nobody knows: half the way around the
// Earth, so that a node which states no place comes after all that do.
const unknownKm = math.Pi * earthKm

// Km returns the great-circle distance in kilometres, or -1 if either place is
// not stated.
func (p Point) Km(q Point) float64 {
	if !p.Stated() || !q.Stated() {
		return -1
	}
	a, b := s2.LatLngFromDegrees(p.Lat, p.Lon), s2.LatLngFromDegrees(q.Lat, q.Lon)
	return a.Distance(b).Radians() * earthKm
}

// Attendee is what is known of where an attendee is.
type Attendee struct {
	Country residency.Country
	At      Point  // zero if only the country is known
	Known   bool   // the country is known
	Source  string // how: "geoip", or why not: "private address"

	// Addr is compared with the networks of overrides and gets into no answer.
	// The zero Addr is in none of them.
	Addr netip.Addr `json:"-"`

	// Trips are round trips from the attendee to nodes, measured. Of a node that
	// is not in it, the distance tells an estimate.
	Trips map[residency.NodeName]Trip `json:"-"`
}

// Candidate is a node that might serve, as this node sees it now.
type Candidate struct {
	Node      residency.Node
	At        Point
	Load      float64 // 0 idle to 1 saturated
	Attendees int
	Capacity  int // attendees the node takes at most; 0 states no limit
	URL       string
	Epoch     residency.Epoch
	// Contradiction says why the node is not believed to be where its
	// certificate says; empty if it is.
	Contradiction string
	// NoEvidence says why the node could not prove what it does; empty if it could, or
	// if nobody knows. Of a room's home it is left out: nodes that know different
	// things of each other would name different homes.
	NoEvidence string
	Local      bool // the node that asks
	Up         bool // false: known, but not answering or draining
}

// Fallback says what an attendee of unknown whereabouts is taken for.
type Fallback string

// The fallbacks.
const (
	// FallbackOrigin sends the attendee to an origin inside the zones and does not
	// count it as outside of them. It is the default.
	FallbackOrigin Fallback = "origin"
	// FallbackLocal takes the attendee to be where the asking node is. It is for
	// meshes reached over private addresses (a VPN, a test bed): whoever can
	// reach an edge outside the zone then counts as being outside too.
	FallbackLocal Fallback = "local"
)

// Room is what placement knows of a room. It is keyed on the tenant, not on where
// attendees are (R2).
type Room struct {
	Name   string
	Tenant string // empty is none
	Policy string // empty is the tenant's or the bundle's default
}

// ask begins a question to the gate about the room.
func (r Room) ask(now time.Time) residency.Request {
	return residency.Request{Room: r.Name, Tenant: r.Tenant, Policy: r.Policy, Now: now}
}

// Carrier is a node that carries a room, with how many it serves of it.
type Carrier struct {
	Node      residency.NodeName
	Attendees int
}

// Question asks which node an attendee should use for a room.
type Question struct {
	Room       Room
	Attendee   Attendee
	Candidates []Candidate
	Unknown    Fallback // empty is FallbackOrigin
	Now        time.Time

	// Carriers are the nodes that carry the room now, as far as it is known.
	Carriers []Carrier
	// Between is the round trip between two nodes. It must be as long as back,
	// and answer the same as long as Place runs. Nil, or an answer of which
	// nothing is known: the distance tells an estimate.
	Between func(a, b residency.NodeName) Trip
	// Before is the node that served the same identity in the room lately, "" if none.
	Before residency.NodeName
	// Rules are the operator's; nil is DefaultRules.
	Rules *Rules
}

// Ranked is one candidate with the place it got and the grounds.
type Ranked struct {
	Node       residency.NodeName `json:"node"`
	Country    residency.Country  `json:"country"`
	DistanceKm float64            `json:"distance_km"` // -1 if unknown
	Load       float64            `json:"load"`
	Score      float64            `json:"score"`           // lower is better; milliseconds for Place, the sum of Terms; a hash for Home
	Terms      []Term             `json:"terms,omitempty"` // of those who may serve
	Allowed    bool               `json:"allowed"`
	Rule       string             `json:"rule"`   // the rule that ranked it behind the one before, or refused it
	Reason     string             `json:"reason"` // one sentence for people
	URL        string             `json:"url"`
}

// Placement is an answer with its grounds. The candidates that may serve come
// first, best first; the refused ones follow, nearest first.
type Placement struct {
	Chosen *Ranked  `json:"chosen"` // nil: nobody may serve
	Rule   string   `json:"rule"`
	Reason string   `json:"reason"`         // for the attendee
	Hint   string   `json:"hint,omitempty"` // for the operator: what would mend it
	Ranked []Ranked `json:"ranked"`
}

// Node returns the chosen node's name, "" if there is none.
func (p Placement) Node() residency.NodeName {
	if p.Chosen == nil {
		return ""
	}
	return p.Chosen.Node
}

// The rules of this package, beside the gate's own (residency.Rule…), in the
// order in which they are asked.
const (
	RuleDown         = "down"          // the node does not answer or is draining
	RuleFull         = "full"          // the node has as many attendees as it takes
	RuleExcluded     = "excluded"      // an override of the operator keeps the attendee off the node
	RulePinned       = "pinned"        // an override of the operator keeps the attendee on other nodes
	RuleOverload     = "overload"      // behind every node that has more than its reserve free
	RuleLimit        = "limit"         // behind every node within the operator's limits
	RuleSameCountry  = "same-country"  // place unknown: nodes in the attendee's country first
	RuleOrigin       = "origin"        // place unknown: origins before edges
	RuleNearest      = "nearest"       // the least sum of terms, thanks to the distance
	RuleDistance     = "distance"      // behind because it is farther away
	RuleMeasured     = "measured"      // ahead or behind by round trips that were measured
	RuleLoad         = "load"          // behind because it is busier
	RuleRoom         = "room"          // ahead or behind by the way to the others in the room
	RuleCarries      = "carries"       // ahead because it carries the room already
	RuleOpen         = "open"          // behind because it would have to be opened for the room
	RuleStay         = "stay"          // ahead because the attendee was there before
	RuleMove         = "move"          // behind because the attendee was on another
	RulePrefer       = "prefer"        // ahead or behind by an override of the operator
	RuleTie          = "tie"           // equal in all; a hash of room and node decides
	RuleHome         = "home"          // the room's home
	RuleNotHome      = "not-home"      // behind the room's home
	RuleHash         = "hash"          // the highest weighted hash of room and node
	RuleOnly         = "only"          // the one node that may
	RuleNoRecording  = "no-recording"  // the policy forbids recording
	RuleNoCandidates = "no-candidates" // no node is known at all
	RuleNobody       = "nobody"        // every node was refused
)
