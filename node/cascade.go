package node

import (
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// What the plans of tracks are told of other nodes; see node/room's plan.

// roundTrip is how far two nodes are from each other: as placement knows it, else by
// the distance.
func (n *Node) roundTrip(a, b residency.NodeName) (time.Duration, bool) {
	t := n.between(a, b)
	if t.How == router.Unknown {
		from, to := n.at(a), n.at(b)
		if !from.Stated() || !to.Stated() {
			return 0, false
		}
		t = router.Overland(from.Km(to))
	}
	return time.Duration(float64(t.MS+t.Spread) * float64(time.Millisecond)), true
}

// at is where a node says it is.
func (n *Node) at(name residency.NodeName) router.Point {
	if name == n.self().Name {
		return n.cfg.At
	}
	if n.mesh == nil {
		return router.Point{}
	}
	m, _ := n.mesh.Snapshot().Member(name)
	return m.At
}

// loadOf is the share of another node's capacity in use; one that drains is full.
func (n *Node) loadOf(name residency.NodeName) float64 {
	if n.mesh == nil {
		return 0
	}
	m, ok := n.mesh.Snapshot().Member(name)
	if !ok {
		return 1
	}
	return m.Load
}
