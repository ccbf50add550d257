package residency

import (
	"fmt"
	"slices"
	"strings"
)

// Tenant is a customer of the platform. Its API keys name it, so whoever holds a
// token acts for one tenant; its rooms are served under its own policies.
type Tenant struct {
	Name       string
	Policy     string   // the policy of its rooms that name none
	Policies   []string // what its rooms may ask for beside that
	APIKeys    []string // names of keys, never secrets
	Controller string   // who answers for the data of its attendees (R19)
}

// May reports whether the tenant's rooms may have the policy.
func (t Tenant) May(policy string) bool {
	return policy == t.Policy || slices.Contains(t.Policies, policy)
}

// Tenant finds a tenant by name.
func (b *Bundle) Tenant(name string) (Tenant, bool) {
	if b == nil {
		return Tenant{}, false
	}
	i := slices.IndexFunc(b.Tenants, func(t Tenant) bool { return t.Name == name })
	if i < 0 {
		return Tenant{}, false
	}
	return b.Tenants[i], true
}

// TenantOf returns the name of the tenant to which an API key belongs, "" if it
// is nobody's: then it is the platform's own, whose rooms belong to no tenant.
func (b *Bundle) TenantOf(apiKey string) string {
	if b == nil {
		return ""
	}
	for _, t := range b.Tenants {
		if slices.Contains(t.APIKeys, apiKey) {
			return t.Name
		}
	}
	return ""
}

// PolicyFor returns the policy of a tenant's room ("" is no tenant) that asks
// for the named one ("" asks for none).
func (b *Bundle) PolicyFor(tenant, name string) (*Policy, error) {
	if tenant == "" || b == nil {
		return b.Policy(name)
	}
	t, ok := b.Tenant(tenant)
	if !ok {
		return nil, fmt.Errorf("tenant %q: not in the bundle of epoch %d", tenant, b.Epoch)
	}
	return b.policyOf(t, name)
}

func (b *Bundle) policyOf(t Tenant, name string) (*Policy, error) {
	if name == "" {
		name = t.Policy
	}
	if !t.May(name) {
		return nil, fmt.Errorf("policy %q: tenant %q may have %s", name, t.Name, strings.Join(append([]string{t.Policy}, t.Policies...), ", "))
	}
	return b.Policy(name)
}
