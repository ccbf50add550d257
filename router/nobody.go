package router

import (
	"fmt"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
)

// mends says, for each rule that can refuse, what an attendee is told of it and
// what an operator can do, most useful first.
var mends = []struct{ rule, why, hint string }{
	{RuleFull, "full", "raise the capacity of a permitted node or add one"},
	{RuleDown, "not answering", "start a permitted node, or end its draining"},
	{RuleExcluded, "excluded by an override", "change the overrides in the routing file"},
	{RulePinned, "not among those that an override pins", "change the overrides in the routing file, or start a node that they name"},
	{residency.RuleEpoch, "on another version of the policies", "distribute the current policy bundle to every node"},
	{residency.RuleCertificate, "without a valid certificate", "renew the node certificates"},
	{residency.RuleRevoked, "revoked", "issue new certificates, or take the revocation out of the bundle"},
	{residency.RuleRegister, "not in the register", "list the nodes in the register of the policy bundle, as their certificates state them"},
	{residency.RuleQuarantine, "not believed to be where they say", "find out where these nodes are; an override in the policy bundle ends the quarantine"},
	{residency.RuleEvidence, "without a way to prove what happens", "mend what keeps evidence from being written"},
	{residency.RuleTransfer, "in a third country without a transfer basis in force", "state a transfer basis in the policy, or run a node in the EEA"},
	{residency.RuleTenant, "not there for this tenant", "run a node for the tenant inside its zone, or let the register's entry of one name it"},
	{residency.RuleBundleStale, "without a current policy", "issue and distribute a new policy bundle"},
	{residency.RuleNoBundle, "without a policy", "distribute a policy bundle to this node"},
	{residency.RuleNoPolicy, "without this room's policy", "name a policy that the bundle has"},
	{residency.RuleNotStored, "not to keep it by the room's policy", "use a room whose policy has this kept"},
	{residency.RuleStoreRole, "no origin", "run a node with the origin role inside the zone"},
	{residency.RuleQuarantine, "in quarantine, where they say they are being contradicted", "find out where the nodes are; put an override into the policies for those that are where they say"},
	{residency.RuleEdgeEmpty, "outside the room's zone", "run a node inside the zone of the room's policy"},
	{residency.RuleZone, "outside the room's zone", "run a node inside the zone of the room's policy"},
}

// nobody explains that every candidate was refused: to the attendee how many
// for what, to the operator what would mend the most promising ones.
func nobody(p Placement, what string) Placement {
	if len(p.Ranked) == 0 {
		p.Rule, p.Reason = RuleNoCandidates, fmt.Sprintf("no node is known that could %s", what)
		p.Hint = "start a node, or check that this one has joined the mesh"
		return p
	}
	p.Rule = RuleNobody
	var counts, hints []string
	seen := map[string]int{}
	for _, r := range p.Ranked {
		seen[r.Rule]++
	}
	for _, m := range mends {
		if n := seen[m.rule]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, m.why))
			hints = append(hints, m.hint)
		}
	}
	hints = slices.Compact(hints)
	p.Reason = fmt.Sprintf("no node may %s now: %s", what, strings.Join(counts, ", "))
	p.Hint = strings.Join(hints, "; or ")
	return p
}
