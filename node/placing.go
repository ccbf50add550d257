package node

import (
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// seat is what placement knows of an attendee's room as it lives now.
type seat struct {
	carriers []router.Carrier
	before   residency.NodeName // where the same identity is, or was a moment ago
}

// seatHere is what this node itself knows; nothing of a room that it is not in.
func (n *Node) seatHere(name, identity string) (s seat) {
	r := n.rooms.get(name)
	if r == nil {
		return s
	}
	snap := r.Snapshot()
	s.carriers = carriers(snap.Nodes)
	if identity != "" {
		s.before, _ = snap.Where(identity)
	}
	return s
}

// carriers are the nodes of a roster that the room's media goes to. A recorder
// counts like a person.
func carriers(list []room.Presence) (out []router.Carrier) {
	for _, p := range list {
		people := p.Participants
		if p.Recorder {
			people++
		}
		if people > 0 {
			out = append(out, router.Carrier{Node: p.Node, Attendees: people})
		}
	}
	return out
}

// place ranks the nodes for an attendee of a room.
func (n *Node) place(rec room.Record, a router.Attendee, s seat) router.Placement {
	return router.Place(n.gate(), n.question(rec, a, s))
}

// question is everything that placement decides by.
func (n *Node) question(rec room.Record, a router.Attendee, s seat) router.Question {
	list := n.candidates()
	for i := range list {
		if list[i].Local { // what others can prove they find out themselves
			list[i].NoEvidence = n.noEvidenceOf(rec.Name)
		}
	}
	return router.Question{Room: routed(rec), Attendee: a, Candidates: list, Unknown: n.cfg.Geo.Unknown, Now: n.now(),
		Carriers: s.carriers, Before: s.before, Between: n.between, Rules: n.routing.rules.Load()}
}

// between is the round trip between two nodes: as a link of this node measures it,
// else by the network coordinates from gossip.
func (n *Node) between(a, b residency.NodeName) router.Trip {
	if self := n.self().Name; a == self || b == self {
		other := a
		if a == self {
			other = b
		}
		if l := n.link(other); l != nil && l.RTT() > 0 {
			return router.Trip{MS: inMillis(l.RTT()), How: router.Measured}
		}
	}
	if n.mesh == nil {
		return router.Trip{}
	}
	rtt, spread, ok := n.mesh.Between(a, b)
	if !ok {
		return router.Trip{}
	}
	return router.Trip{MS: inMillis(rtt), Spread: inMillis(spread), How: router.Coordinates}
}

func inMillis(d time.Duration) router.Millis { return router.Millis(d.Seconds() * 1e3) }
