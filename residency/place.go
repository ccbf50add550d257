package residency

import "fmt"

// Place is where the bytes that a node keeps lie, if not with the node itself: a
// database or an object store, which somebody else may run. The operator's word in
// the node's configuration is all that is known of it, so it can only narrow what the
// gate allows: the node must be permitted, and the place too. The zero Place is the
// node's own disk. What a Place does not state is unknown, and meets no condition.
type Place struct {
	What            string // "database", "object store": for sentences
	Country         Country
	Operator        string
	OperatorCountry Country
	Parent          string // the operator's ultimate parent; the operator itself if it has none
	ParentCountry   Country
}

// of is the place as zones look at it: like the node whose it is, where it lies.
func (p Place) of(peer NodeName) Node {
	return Node{Name: NodeName(fmt.Sprintf("%s's %s", peer, p.What)), Country: p.Country,
		Operator: p.Operator, OperatorCountry: p.OperatorCountry, Parent: p.Parent, ParentCountry: p.ParentCountry}
}

// keptInZone asks of the place where the peer would keep the class what inZone and
// transferable ask of the peer. No edge rule widens it.
func (q *question) keptInZone() (rule, why string) {
	if !q.Store || q.Place == (Place{}) {
		return "", ""
	}
	q.placed = true
	at := q.Place.of(q.Peer.Name)
	if ok, where := q.zone.Admits(at); !ok {
		return RuleZone, fmt.Sprintf("%s for %s (policy %q)", where, q.Class, q.policy.Name)
	}
	return q.mayGoTo(at)
}
