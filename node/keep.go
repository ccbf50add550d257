package node

import (
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// What this node keeps of rooms: each place on its disk takes the permit that the
// gate gives this node about itself, and nothing else opens it.

// disk is where this node keeps a class.
func (n *Node) disk(c residency.Class) residency.Disk {
	return residency.Disk{Node: n.cfg.Self.Name, Class: c, Epoch: func() residency.Epoch { return n.gate().Epoch() }, Now: n.now}
}

// shelf is disk for what goes to the place that the configuration names for the
// class, if it names one.
func (n *Node) shelf(c residency.Class) residency.Disk {
	d := n.disk(c)
	d.Place = n.cfg.Places[c]
	return d
}

// keeping begins the question whether a class of a room may be kept.
func keeping(rec room.Record, c residency.Class) residency.Request {
	return residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Class: c}
}

// keep asks the gate whether this node may keep what the question names. That
// there will be evidence of it is for the caller to say.
func (n *Node) keep(q residency.Request) (residency.Permit, residency.Verdict) {
	self, gate := n.self(), n.gate()
	q.Peer, q.PeerEpoch, q.Contradiction = self, gate.Epoch(), n.contradiction(self.Name)
	q.Store, q.Place, q.Now = true, n.cfg.Places[q.Class], n.now()
	return gate.Permit(q)
}

// tell asks the gate whether this node may put a class of a room together for
// somebody who may have it; nothing is kept.
func (n *Node) tell(q residency.Request) (residency.Permit, residency.Verdict) {
	self, gate := n.self(), n.gate()
	q.Peer, q.PeerEpoch, q.Contradiction, q.Now = self, gate.Epoch(), n.contradiction(self.Name), n.now()
	return gate.Permit(q)
}
