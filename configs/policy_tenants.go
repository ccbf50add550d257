package configs

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/domicile/domicile/residency"
)

// tenantEntry is a customer of the platform. Tokens name it by the API key that
// signed them.
type tenantEntry struct {
	// Policy is that of its rooms that name none.
	Policy string `yaml:"policy,required"`
	// Policies are what its rooms may ask for beside that. Without them, nothing.
	Policies []string `yaml:"policies" empty:"leave the key out to allow no other policy"`
	// APIKeys are the names of its keys; the secrets are in the files of the nodes.
	APIKeys []string `yaml:"api_keys,required" empty:"name the keys with which the tenant's tokens are signed"`
	// Controller is who decides about the data of the tenant's rooms and answers
	// its attendees: name and town.
	Controller string `yaml:"controller,required"`
}

// maxKeyName bounds the name of an API key, in bytes.
const maxKeyName = 128

func (d *document) tenants(f *policyFile) (tenants []residency.Tenant) {
	keys := map[string]string{} // whose a key is
	for _, name := range slices.Sorted(maps.Keys(f.Tenants)) {
		e, path := f.Tenants[name], join("tenants", name)
		if !validName(name) {
			d.faultKey(path, Fault{Message: "not a tenant's name", Allowed: nameForm})
		}
		d.tenantPolicy(join(path, "policy"), e.Policy, f)
		for i, p := range e.Policies {
			at := join(join(path, "policies"), strconv.Itoa(i))
			d.tenantPolicy(at, p, f)
			if p == e.Policy {
				d.faultf(at, "the tenant has this policy already")
			}
		}
		once(d, join(path, "policies"), e.Policies)
		for i, key := range e.APIKeys {
			at := join(join(path, "api_keys"), strconv.Itoa(i))
			if key == "" || len(key) > maxKeyName || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				d.fault(at, Fault{Message: "not the name of an API key", Allowed: "1 to 128 bytes without spaces"})
			}
			if other, ok := keys[key]; ok {
				d.fault(at, Fault{Message: "the key belongs to tenant " + strconv.Quote(other) + " already", Hint: "a token acts for one tenant: give each tenant keys of its own"})
			}
			keys[key] = name
		}
		if d.has(join(path, "controller")) && strings.TrimSpace(e.Controller) == "" {
			d.faultf(join(path, "controller"), "the controller is empty")
		}
		tenants = append(tenants, residency.Tenant{Name: name, Policy: e.Policy, Policies: e.Policies, APIKeys: e.APIKeys, Controller: e.Controller})
	}
	return tenants
}

func (d *document) tenantPolicy(path, name string, f *policyFile) {
	if _, ok := f.Policies[name]; !ok && d.has(path) && len(f.Policies) > 0 {
		d.fault(path, Fault{Message: "unknown policy", Allowed: sortedKeys(f.Policies)})
	}
}

// enoughOrigins wants two origins of the register in every zone of every policy,
// for everybody who may have the policy: with one, its failure ends the meetings
// and there is nothing that may take them over. Without a register nobody knows
// what there is, and nothing is asked.
//
// It counts countries and roles. Who runs a node is not in the register.
func (d *document) enoughOrigins(b *residency.Bundle) {
	if len(b.Nodes) == 0 {
		return
	}
	for _, name := range b.Names() {
		if p := b.Policies[name]; !p.SingleOrigin {
			d.policyOrigins(b, p)
		}
	}
}

// minOrigins is the fewest origins that a zone has without an explicit word.
const minOrigins = 2

func (d *document) policyOrigins(b *residency.Bundle, p *residency.Policy) {
	seen := map[string]bool{}
	for _, class := range residency.Classes() {
		zone := p.Zone(class)
		if seen[zone.Name] {
			continue
		}
		seen[zone.Name] = true
		if n, whose := fewestOrigins(b, p, zone); n < minOrigins {
			d.fault(join("policies", p.Name), Fault{
				Message: "the register has " + count(n) + " in zone " + strconv.Quote(zone.Name) + whose,
				Hint:    "list another with `roles: [origin]`; if nothing is to take over when an origin fails, say `few_origins: accepted`",
			})
			return
		}
	}
}

// fewestOrigins counts the origins in a zone for whoever has the fewest of them.
func fewestOrigins(b *residency.Bundle, p *residency.Policy, zone residency.Zone) (n int, whose string) {
	var origins []residency.Registered
	for _, node := range b.Nodes {
		if slices.Contains(node.Roles, residency.RoleOrigin) && zone.Contains(node.Country) {
			origins = append(origins, node)
		}
	}
	n = len(origins)
	for _, tenant := range havers(b, p) {
		serving := 0
		for _, node := range origins {
			if ok, _ := node.Serves(tenant); ok {
				serving++
			}
		}
		if serving < n {
			n, whose = serving, " for rooms of no tenant"
			if tenant != "" {
				whose = " for tenant " + strconv.Quote(tenant)
			}
		}
		if n == 0 {
			break
		}
	}
	return n, whose
}

// havers lists the tenants that may have a policy, "" standing for none. Rooms of
// no tenant may ask for every policy; of one that tenants have, they are thought
// of only if it is the default.
func havers(b *residency.Bundle, p *residency.Policy) (tenants []string) {
	for _, t := range b.Tenants {
		if t.May(p.Name) {
			tenants = append(tenants, t.Name)
		}
	}
	if len(tenants) == 0 || b.Default == p.Name {
		tenants = append(tenants, "")
	}
	return tenants
}

func count(n int) string {
	switch n {
	case 0:
		return "no origin"
	case 1:
		return "one origin"
	}
	return strconv.Itoa(n) + " origins"
}
