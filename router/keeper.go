package router

import (
	"time"

	"github.com/domicile/domicile/residency"
)

// Keeper names the origin that keeps what a room has stored of a class beside
// its record, its chat for example: its home if the gate permits that, otherwise
// the next in the order of draws. ask says whose room, policy and class it is.
func Keeper(g *residency.Gate, ask residency.Request, candidates []Candidate, now time.Time) Placement {
	ask.Store, ask.Now = true, now
	home := ask
	home.Class = residency.ClassMetadata
	entries := make([]*entry, 0, len(candidates))
	for _, c := range candidates {
		e := newEntry(ask.Room, c, -1)
		e.out.Score = -e.draw
		e.home = g.Decide(asking(home, c)).Allow // the home is the first of those by draw
		if e.permitted(g, ask) {
			e.available(false)
		}
		entries = append(entries, e)
	}
	p := Placement{Ranked: rank(entries, []ordering{byHome, byDraw, byTie})}
	if len(p.Ranked) == 0 || !p.Ranked[0].Allowed {
		return nobody(p, "keep the room's "+string(ask.Class))
	}
	return choose(p, "keeps the room's "+string(ask.Class))
}

// asking is a request about a candidate.
func asking(r residency.Request, c Candidate) residency.Request {
	r.Peer, r.PeerEpoch, r.Contradiction = c.Node, c.Epoch, c.Contradiction
	return r
}
