package router

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/domicile/domicile/residency"
)

// Place ranks the candidates for an attendee and chooses the first that may
// serve. A candidate must be permitted by the gate to handle both the room's
// signalling and its media, then be up, have room, and not be excluded by the
// operator; only then is it scored, for the whole room: see the terms. An edge
// outside the media zone is permitted only to an attendee who is known to be
// outside of it too; what was measured of round trips never says where anybody is.
func Place(g *residency.Gate, q Question) Placement {
	where := locate(g, q)
	scoring := newScoring(q, where)
	entries := make([]*entry, 0, len(q.Candidates))
	for _, c := range q.Candidates {
		entries = append(entries, place(g, q, scoring, c))
	}
	ranked := rank(entries, scoring.chain())
	p := Placement{Ranked: ranked}
	if len(ranked) == 0 || !ranked[0].Allowed {
		return nobody(p, "carry this room for you")
	}
	p.Ranked[0].Rule, p.Ranked[0].Reason = scoring.winner(entries)
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
	if policy, err := g.Bundle().PolicyFor(q.Room.Tenant, q.Room.Policy); err == nil && known {
		w.outside = !policy.Zone(residency.ClassMedia).Contains(w.country)
	}
	return w
}

// place judges one candidate.
func place(g *residency.Gate, q Question, s *scoring, c Candidate) *entry {
	s.rules.bound(&c)
	e := newEntry(q.Room.Name, c, s.w.at.Km(c.At))
	e.inPlace = c.Node.Country != "" && c.Node.Country == s.w.country
	e.originAt = c.Node.Has(residency.RoleOrigin)
	ask := q.Room.ask(q.Now)
	ask.OutsideParticipant = s.w.outside
	signalling, media := ask, ask
	signalling.Class, media.Class = residency.ClassSignalling, residency.ClassMedia
	// The gate first: a node that may not serve is refused for that reason even
	// when it is down as well.
	if e.permitted(g, signalling, media) && e.available(true) {
		s.wanted(e)
	}
	if e.out.Allowed {
		s.score(e)
	}
	return e
}

// chain is the order among those who may serve.
func (s *scoring) chain() []ordering {
	chain := []ordering{
		named(RuleOverload, textOverload, first(func(e *entry) bool { return !s.crowded(e) })),
		named(RuleLimit, "beyond the operator's limits; used only when no other permitted node is left", first(func(e *entry) bool { return !s.beyond(e) })),
	}
	if !s.placed {
		chain = append(chain,
			named(RuleSameCountry, "not in your country, and nothing nearer is known of where you are", first(func(e *entry) bool { return e.inPlace })),
			named(RuleOrigin, "not an origin, and where you are is unknown", first(func(e *entry) bool { return e.originAt })))
	}
	return append(chain, byScore, byTie)
}

// byScore orders by the sum of the terms and names the one that put the later one
// behind most.
var byScore = ordering{
	cmp: func(a, b *entry) int { return cmp.Compare(a.out.Score, b.out.Score) },
	rule: func(before, after *entry) (string, string) {
		far, first := distance(after.out.DistanceKm), before.c.Node.Name
		switch deciding(before, after) {
		case TermYou:
			if before.trip.How == Estimated && after.trip.How == Estimated {
				return RuleDistance, fmt.Sprintf("%s, farther than %s", far, first)
			}
			return RuleMeasured, fmt.Sprintf("%s from you, more than %s (%s)", after.trip, first, before.trip)
		case TermRoom:
			return RuleRoom, fmt.Sprintf("%s, but farther from the others in the room than %s", far, first)
		case TermOpen:
			return RuleOpen, fmt.Sprintf("%s, but does not carry the room, which %s does", far, first)
		case TermMove:
			return RuleMove, fmt.Sprintf("%s, but you were on %s", far, first)
		case TermPrefer:
			return RulePrefer, fmt.Sprintf("%s, but override %q prefers others", far, after.prefers)
		}
		return RuleLoad, fmt.Sprintf("%s, but loaded %.0f %%", far, 100*after.load)
	},
}

// winner says why the first of the ranked was chosen: the rule that keeps the
// second behind it, and who would have been nearer but was refused.
func (s *scoring) winner(entries []*entry) (rule, reason string) {
	best, second := entries[0], runnerUp(entries)
	who := fmt.Sprintf("node %s in %s, %s,", best.c.Node.Name, best.c.Node.Country, distance(best.out.DistanceKm))
	if second == nil {
		rule, reason = RuleOnly, who+" is the only one that may serve you"
	} else {
		rule, reason = s.ahead(best, second, who)
	}
	return rule, reason + s.w.assumed + passedOver(best, entries)
}

// ahead says why the best comes before the second.
func (s *scoring) ahead(best, second *entry, who string) (rule, reason string) {
	_, o := compare(s.chain(), best, second)
	name, _ := o.rule(best, second)
	nearer := knownKm(second.out.DistanceKm) < knownKm(best.out.DistanceKm)
	term := deciding(best, second)
	switch {
	case name == RuleTie && s.placed:
		return RuleTie, who + " is as near as others; a hash of room and node decides"
	case name == RuleLimit:
		return RuleLimit, fmt.Sprintf("%s is chosen because node %s is beyond the operator's limits", who, second.c.Node.Name)
	case name == RuleOverload, name == RuleLoad:
		if nearer {
			return RuleLoad, who + " is chosen because nearer nodes are busier"
		}
		return RuleLoad, fmt.Sprintf("%s is chosen because node %s is busier", who, second.c.Node.Name)
	case name == RuleRoom:
		return RuleRoom, who + " is chosen because it is nearer to the others in the room"
	case name == RuleOpen:
		return RuleCarries, who + " is chosen because it carries this room already"
	case name == RuleMove:
		return RuleStay, who + " is chosen because you were on it before"
	case name == RulePrefer:
		return RulePrefer, fmt.Sprintf("%s is chosen because override %q prefers it", who, second.prefers)
	case !s.placed:
		return name, fmt.Sprintf("node %s in %s is chosen knowing %s", best.c.Node.Name, best.c.Node.Country, s.w.knowing())
	case term == TermYou && name == RuleMeasured:
		return RuleMeasured, fmt.Sprintf("%s is chosen by round trips to you: %s, and %s to node %s", who, best.trip, second.trip, second.c.Node.Name)
	}
	return RuleNearest, who + " is the nearest permitted node"
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
