package configs

import (
	"slices"
	"strconv"
	"strings"

	"github.com/domicile/domicile/residency"
)

// nodeEntry is a node of the register.
type nodeEntry struct {
	Name    residency.NodeName `yaml:"name,required"`
	Country country            `yaml:"country,required"`
	// Roles are what the node may be used for: origin, edge or both. Without
	// them its certificate alone says so, and it is not counted as an origin.
	Roles []role `yaml:"roles" empty:"leave the key out to leave the roles to the certificate"`
	// Tenants are those whose rooms the node serves, and no others.
	Tenants []string `yaml:"tenants" empty:"leave the key out to serve every tenant"`
}

// role is what a node may be used for.
type role residency.Role

func (r *role) readScalar(s scalar) *Fault {
	*r = role(s.text)
	return oneOf(s, "unknown role", residency.Roles())
}

// overrideEntry is the operator's word that a node is where its certificate says.
type overrideEntry struct {
	Node residency.NodeName `yaml:"node,required"`
	// Reason says how the operator knows.
	Reason string `yaml:"reason,required"`
	// Until is when it ends; it has to be looked at again before.
	Until moment `yaml:"until,required"`
}

func (d *document) register(f *policyFile) (nodes []residency.Registered) {
	first := map[residency.NodeName]place{}
	for i, n := range f.Nodes {
		path := join("nodes", strconv.Itoa(i))
		name := join(path, "name")
		if !d.has(name) {
			continue
		}
		if _, err := residency.ParseNodeName(string(n.Name)); err != nil {
			d.fault(name, Fault{Message: "not a node name", Allowed: nameForm})
		}
		if before, ok := first[n.Name]; ok {
			d.faultf(name, "two nodes of one name, the first in line %d", before.line)
		} else {
			first[n.Name] = d.places[name]
		}
		entry := residency.Registered{Name: n.Name, Country: residency.Country(n.Country), Tenants: n.Tenants}
		for _, r := range n.Roles {
			entry.Roles = append(entry.Roles, residency.Role(r))
		}
		once(d, join(path, "roles"), entry.Roles)
		once(d, join(path, "tenants"), entry.Tenants)
		for j, t := range n.Tenants {
			if _, ok := f.Tenants[t]; !ok {
				d.fault(join(join(path, "tenants"), strconv.Itoa(j)), Fault{Message: "unknown tenant", Allowed: sortedKeys(f.Tenants)})
			}
		}
		nodes = append(nodes, entry)
	}
	return nodes
}

func (d *document) overrides(f *policyFile, b *residency.Bundle) {
	var names []residency.NodeName
	for i, o := range f.Overrides {
		path := join("overrides", strconv.Itoa(i))
		node := join(path, "node")
		known := slices.ContainsFunc(b.Nodes, func(r residency.Registered) bool { return r.Name == o.Node })
		if _, err := residency.ParseNodeName(string(o.Node)); err != nil && d.has(node) {
			d.fault(node, Fault{Message: "not a node name", Allowed: nameForm})
		} else if len(b.Nodes) > 0 && !known && d.has(node) {
			d.faultf(node, "the register has no such node")
		}
		if d.has(join(path, "reason")) && strings.TrimSpace(o.Reason) == "" {
			d.fault(join(path, "reason"), Fault{Message: "the reason is empty", Hint: "say how you know that the node is there: whoever checks the policy reads it"})
		}
		if until := o.Until.time(); d.has(join(path, "until")) && !b.Issued.IsZero() && !until.IsZero() && !b.Issued.Before(until) {
			d.faultf(join(path, "until"), "the override has ended before the bundle was issued")
		}
		if slices.Contains(names, o.Node) && d.has(node) {
			d.faultf(node, "two overrides of one node")
		}
		names = append(names, o.Node)
		b.Overrides = append(b.Overrides, residency.Override{Node: o.Node, Reason: o.Reason, Until: o.Until.time()})
	}
}

// once reports the second of two equal entries of a list.
func once[S ~string](d *document, path string, list []S) {
	for i, s := range list {
		if slices.Contains(list[:i], s) {
			d.faultf(join(path, strconv.Itoa(i)), "it stands in the list already")
		}
	}
}
