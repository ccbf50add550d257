package router

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/domicile/domicile/residency"
)

// Place ranks the candidates for an attendee and chooses the first that may
// serve. A candidate must be up, have room and be permitted by the gate to
// handle both the room's signalling and its media; only then is it ordered by
// overload, distance and load. An edge outside the media zone is permitted only
// to an attendee who is known to be outside of it too.
func Place(g *residency.Gate, q Question) Placement {
	where := locate(g, q)
	entries := make([]*entry, 0, len(q.Candidates))
	for _, c := range q.Candidates {
		entries = append(entries, place(g, q, where, c))
	}
	ranked := rank(entries, placeChain(where))
	p := Placement{Ranked: ranked}
	if len(ranked) == 0 || !ranked[0].Allowed {
		return nobody(p, "carry this room for you")
	}
	p.Ranked[0].Rule, p.Ranked[0].Reason = winner(where, entries)
	p.Chosen = &p.Ranked[0]
	p.Rule, p.Reason = p.Chosen.Rule, p.Chosen.Reason
	return p
}

// whereabouts is an attendee after the fallback was applied.
type whereabouts struct {
	country residency.Country
	at      Point
	outside bool   // known to be outside the policy's media zone
	source  string // why the place is unknown
	assumed string // what the fallback took the place to be, for reasons
}

// locate applies the fallback and says whether the attendee is outside the media
// zone. Whatever is unknown is not outside.
func locate(g *residency.Gate, q Question) whereabouts {
	w := whereabouts{source: q.Attendee.Source}
	known := q.Attendee.Known && q.Attendee.Country.Known()
	if known {
		w.country, w.at = q.Attendee.Country, q.Attendee.At
	} else if i := slices.IndexFunc(q.Candidates, func(c Candidate) bool { return c.Local }); i >= 0 && q.Unknown == FallbackLocal {
		local := q.Candidates[i]
		w.country, w.at, known = local.Node.Country, local.At, local.Node.Country.Known()
		w.assumed = fmt.Sprintf("; %s, so you are taken to be where node %s is", orUnknown(w.source), local.Node.Name)
	}
	if policy, err := g.Bundle().Policy(q.Policy); err == nil && known {
		w.outside = !policy.Zone(residency.ClassMedia).Contains(w.country)
	}
	return w
}

// place judges one candidate.
func place(g *residency.Gate, q Question, w whereabouts, c Candidate) *entry {
	e := newEntry(q.Room, c, w.at.Km(c.At))
	e.inPlace = c.Node.Country != "" && c.Node.Country == w.country
	e.originAt = c.Node.Has(residency.RoleOrigin)
	e.out.Score = fullLoadKm * e.load * e.load
	if w.at.Stated() {
		e.out.Score += knownKm(e.out.DistanceKm)
	}
	ask := residency.Request{Room: q.Room, Policy: q.Policy, OutsideParticipant: w.outside, Now: q.Now}
	signalling, media := ask, ask
	signalling.Class, media.Class = residency.ClassSignalling, residency.ClassMedia
	// The gate first: a node that may not serve is refused for that reason even
	// when it is down as well.
	if e.permitted(g, signalling, media) {
		e.available(true)
	}
	return e
}

// placeChain is the order among those who may serve.
func placeChain(w whereabouts) []ordering {
	chain := []ordering{byOverload}
	if !w.at.Stated() {
		chain = append(chain,
			named(RuleSameCountry, "not in your country, and nothing nearer is known of where you are", first(func(e *entry) bool { return e.inPlace })),
			named(RuleOrigin, "not an origin, and where you are is unknown", first(func(e *entry) bool { return e.originAt })))
	}
	return append(chain, byScore, byTie)
}

// byScore orders by distance and load together and names whichever of the two
// put the later one behind.
var byScore = ordering{
	cmp: func(a, b *entry) int { return cmp.Compare(a.out.Score, b.out.Score) },
	rule: func(before, after *entry) (string, string) {
		if knownKm(after.out.DistanceKm) > knownKm(before.out.DistanceKm) {
			return RuleDistance, fmt.Sprintf("%s, farther than %s", distance(after.out.DistanceKm), before.c.Node.Name)
		}
		return RuleLoad, fmt.Sprintf("%s, but loaded %.0f %%", distance(after.out.DistanceKm), 100*after.load)
	},
}

// winner says why the first of the ranked was chosen: the rule that keeps the
// second behind it, and who would have been nearer but was refused.
func winner(w whereabouts, entries []*entry) (rule, reason string) {
	best, second := entries[0], runnerUp(entries)
	who := fmt.Sprintf("node %s in %s, %s,", best.c.Node.Name, best.c.Node.Country, distance(best.out.DistanceKm))
	switch {
	case second == nil:
		rule, reason = RuleOnly, who+" is the only one that may serve you"
	case !w.at.Stated():
		_, o := compare(placeChain(w), best, second)
		rule, _ = o.rule(best, second)
		reason = fmt.Sprintf("node %s in %s is chosen knowing %s", best.c.Node.Name, best.c.Node.Country, w.knowing())
	case knownKm(second.out.DistanceKm) < knownKm(best.out.DistanceKm):
		rule, reason = RuleLoad, who+" is chosen because nearer nodes are busier"
	case second.out.Score == best.out.Score:
		rule, reason = RuleTie, who+" is as near as others; a hash of room and node decides"
	default:
		rule, reason = RuleNearest, who+" is the nearest permitted node"
	}
	return rule, reason + w.assumed + passedOver(best, entries)
}

// knowing says how little is known of an attendee without a place.
func (w whereabouts) knowing() string {
	if w.country != "" {
		return fmt.Sprintf("only your country, %s", w.country)
	}
	return fmt.Sprintf("nothing of where you are (%s)", orUnknown(w.source))
}

// runnerUp returns the second of those who may serve.
func runnerUp(entries []*entry) *entry {
	if len(entries) > 1 && entries[1].out.Allowed {
		return entries[1]
	}
	return nil
}

// passedOver names the nearest refused node if it is nearer than the chosen one.
func passedOver(best *entry, entries []*entry) string {
	for _, e := range entries {
		if !e.out.Allowed && knownKm(e.out.DistanceKm) < knownKm(best.out.DistanceKm) {
			return fmt.Sprintf("; nearer, but refused: %s", e.out.Reason)
		}
	}
	return ""
}

// distance says a distance in words.
func distance(km float64) string {
	if km < 0 {
		return "at an unknown distance"
	}
	return fmt.Sprintf("%.0f km away", km)
}

// orUnknown never leaves a source empty.
func orUnknown(source string) string {
	if source == "" {
		return "no location is known for the address"
	}
	return source
}
