package node

import (
	"fmt"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// ruleOtherTenant refuses a token of one tenant for a room of another.
const ruleOtherTenant = "other-tenant"

// tenantOf names the tenant for which a token of this API key acts, "" for none.
func (n *Node) tenantOf(apiKey string) string { return n.gate().Bundle().TenantOf(apiKey) }

// ownedBy refuses a room to whoever acts for another tenant.
func (n *Node) ownedBy(rec room.Record, apiKey string) error {
	if rec.Tenant != n.tenantOf(apiKey) {
		return otherTenant(rec.Name)
	}
	return nil
}

// otherTenant does not say whose the room is.
func otherTenant(name string) error {
	return &Refusal{Code: CodeRefused, Rule: ruleOtherTenant,
		Message: fmt.Sprintf("room %q is not of the tenant for whom this token was issued", name),
		Hint:    "use another name for the room, or a token signed with the API key of the room's tenant"}
}

// mayHave refuses a room that its tenant could not have.
func (n *Node) mayHave(rec room.Record) error {
	b := n.gate().Bundle()
	t, ok := b.Tenant(rec.Tenant)
	switch {
	case rec.Tenant == "":
	case !ok:
		return &Refusal{Code: CodeForbidden, Rule: residency.RuleTenant,
			Message: fmt.Sprintf("tenant %q is not in the policy bundle of epoch %d", rec.Tenant, n.gate().Epoch())}
	case rec.Policy != "" && !t.May(rec.Policy):
		return &Refusal{Code: CodeForbidden, Rule: residency.RuleTenant, Policy: rec.Policy,
			Message: fmt.Sprintf("tenant %q may not have rooms of policy %q", t.Name, rec.Policy),
			Hint:    fmt.Sprintf("leave the policy out for %q, or ask for one that the tenant may have", t.Policy)}
	}
	if _, err := b.PolicyFor(rec.Tenant, rec.Policy); err != nil {
		return &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	return nil
}
