package router

import (
	"cmp"
	"fmt"
	"time"

	"github.com/domicile/domicile/residency"
)

// Home names the origin that writes the room's own record: the highest weighted
// rendezvous draw over the origins that are up and that the gate permits to
// store the room's metadata and to receive its signalling, for the room's nodes
// tell their home who is there; each weighted with its capacity. Every node that
// knows the same candidates gets the same answer, whoever asks; a node that
// comes or goes moves only the rooms that it wins or had.
func Home(g *residency.Gate, room Room, candidates []Candidate, now time.Time) Placement {
	ask := room.ask(now)
	signalling := ask
	signalling.Class = residency.ClassSignalling
	ask.Class, ask.Store = residency.ClassMetadata, true
	entries := make([]*entry, 0, len(candidates))
	for _, c := range candidates {
		e := newEntry(room.Name, c, -1)
		e.out.Score = -e.draw
		if e.permitted(g, ask, signalling) {
			e.available(false)
		}
		entries = append(entries, e)
	}
	p := Placement{Ranked: rank(entries, []ordering{byDraw, byTie})}
	if len(p.Ranked) == 0 || !p.Ranked[0].Allowed {
		return nobody(p, "keep this room's record")
	}
	return choose(p, "keeps the room's record")
}

// RecordingNode names the origin that records the room: its home if that may
// store recordings and receive the media, otherwise the next in the order of
// draws. Overloaded origins come last.
func RecordingNode(g *residency.Gate, room Room, candidates []Candidate, now time.Time) Placement {
	if pol, err := g.Bundle().PolicyFor(room.Tenant, room.Policy); err == nil && !pol.Recording.Allowed {
		return Placement{Ranked: []Ranked{}, Rule: RuleNoRecording,
			Reason: fmt.Sprintf("policy %q does not allow this room to be recorded", pol.Name),
			Hint:   "use a room whose policy allows recording"}
	}
	home := Home(g, room, candidates, now).Node()
	store, media := room.ask(now), room.ask(now)
	store.Class, store.Store = residency.ClassRecording, true
	media.Class = residency.ClassMedia
	entries := make([]*entry, 0, len(candidates))
	for _, c := range candidates {
		e := newEntry(room.Name, c, -1)
		e.out.Score, e.home = -e.draw, c.Node.Name == home
		if e.permitted(g, media, store) {
			e.available(false)
		}
		entries = append(entries, e)
	}
	p := Placement{Ranked: rank(entries, []ordering{byOverload, byHome, byDraw, byTie})}
	if len(p.Ranked) == 0 || !p.Ranked[0].Allowed {
		return nobody(p, "record this room")
	}
	if p.Ranked[0].Node != home {
		return choose(p, "records the room in place of its home")
	}
	p = choose(p, "records the room")
	p.Rule, p.Reason = RuleHome, fmt.Sprintf("node %s in %s records the room: it is its home", p.Chosen.Node, p.Chosen.Country)
	p.Chosen.Rule, p.Chosen.Reason = p.Rule, p.Reason
	return p
}

// byHome puts the room's home first.
var byHome = named(RuleNotHome, "not the room's home", first(func(e *entry) bool { return e.home }))

// byDraw orders by weighted rendezvous draw, highest first.
var byDraw = named(RuleHash, "a lower hash of room and node", func(a, b *entry) int {
	return cmp.Compare(b.draw, a.draw)
})

// choose makes the first of the ranked the answer of Home or RecordingNode.
func choose(p Placement, does string) Placement {
	p.Chosen = &p.Ranked[0]
	p.Rule = RuleHash
	why := "it has the highest hash of room and node"
	if len(p.Ranked) == 1 || !p.Ranked[1].Allowed {
		p.Rule, why = RuleOnly, "no other may"
	}
	p.Reason = fmt.Sprintf("node %s in %s %s: %s", p.Chosen.Node, p.Chosen.Country, does, why)
	p.Chosen.Rule, p.Chosen.Reason = p.Rule, p.Reason
	return p
}
