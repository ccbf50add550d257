package node

import (
	"fmt"
	"slices"
	"sync"

	"github.com/domicile/domicile/control/membership"
	"github.com/domicile/domicile/residency"
)

// ruleOriginAway refuses to make a room while an origin that may have its
// record cannot be asked.
const ruleOriginAway = "origin-away"

// knownOrigins remembers the other origins that have been part of the mesh
// since this node started: what they have stored they have when they are away too.
type knownOrigins struct {
	mu    sync.Mutex
	nodes map[residency.NodeName]residency.Node
}

// see notes the origins among the members.
func (k *knownOrigins) see(members []membership.Member, self residency.NodeName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range members {
		if m.Node.Name == self || !m.Node.Has(residency.RoleOrigin) {
			continue
		}
		if k.nodes == nil {
			k.nodes = map[residency.NodeName]residency.Node{}
		}
		k.nodes[m.Node.Name] = m.Node
	}
}

// away names the origins that are known, not members, and still count.
func (k *knownOrigins) away(member, counts func(residency.Node) bool) (names []residency.NodeName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, o := range k.nodes {
		if !member(o) && counts(o) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// allAsked refuses while an origin is away. It may hold the record of a room of
// any name, under a narrower policy than the one a new room would get; failover
// never widens a zone. An origin counts until its certificate ends or is revoked,
// and unless it serves other tenants alone.
func (n *Node) allAsked(tenant string) error {
	all := n.origins.away(
		n.isMember,
		func(o residency.Node) bool {
			return o.ValidAt(n.now()) && !n.gate().Bundle().Revokes(o.Serial) && n.gate().Serves(o.Name, tenant)
		})
	if len(all) == 0 {
		return nil
	}
	away := all[0]
	return &Refusal{Code: CodeRefused, Rule: ruleOriginAway,
		Message: fmt.Sprintf("no room can be opened now: node %s is away, and it may have a room of this name with a policy of its own", away),
		Hint:    fmt.Sprintf("try again when node %s is back; its operator can retire it by revoking its certificate", away)}
}
