// Package register makes the register of processors: who runs which node in
// which country, what each may do with which data under which policy, and on
// what ground data goes to third countries (requirements R19 and R20).
//
// It is made from the signed policies and the nodes' certificates, by asking the
// gate that decides in the running mesh, so it cannot say anything else than
// what happens. It names operators, nodes and tenants, never attendees; it
// performs no I/O and reads no clock.
package register

import (
	"cmp"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
)

// Entry is a node as the mesh knows it: its certificate, and what contradicts
// that, if anything does.
type Entry struct {
	Node          residency.Node
	Contradiction string
}

// Register is the register at one moment.
type Register struct {
	Made    time.Time       `json:"made"`
	Epoch   residency.Epoch `json:"epoch"`  // of the policies
	Issued  time.Time       `json:"issued"` // the policies
	Expires time.Time       `json:"expires,omitzero"`
	Default string          `json:"default_policy"`
	Closed  bool            `json:"closed"` // the policies list the nodes: no other can join

	Processors []Processor `json:"processors"`
	Policies   []Policy    `json:"policies"`
	Tenants    []Tenant    `json:"tenants"`

	// Missing are nodes that the policies list and that have shown no certificate:
	// they handle nothing.
	Missing []Missing `json:"missing"`
}

// Processor is an operator of nodes.
type Processor struct {
	Name          string            `json:"name"`
	Country       residency.Country `json:"country"`
	Parent        string            `json:"parent"` // the ultimate parent; itself if it has none
	ParentCountry residency.Country `json:"parent_country"`
	Nodes         []Node            `json:"nodes"`
}

// Node is a processor's node.
type Node struct {
	Name        residency.NodeName `json:"name"`
	Country     residency.Country  `json:"country"`
	Third       bool               `json:"third_country"` // outside the EEA
	Roles       []residency.Role   `json:"roles"`
	Serial      string             `json:"certificate"`
	From        time.Time          `json:"valid_from"`
	Until       time.Time          `json:"valid_until"`
	Tenants     []string           `json:"tenants,omitempty"` // it serves these alone
	Refused     string             `json:"refused,omitempty"` // why it gets nothing at all
	RefusedRule string             `json:"refused_rule,omitempty"`
	Uses        []Use              `json:"uses"`
}

// Use is what a node may do under one policy.
type Use struct {
	Policy  string            `json:"policy"`
	Stores  []residency.Class `json:"stores"`
	Handles []residency.Class `json:"handles"` // passes on, and keeps nothing
	// Outside are the classes that it handles only while somebody from outside the
	// zone is connected to it.
	Outside   []residency.Class `json:"outside_participants_only"`
	Transfers []Basis           `json:"transfers"` // in force, for the node's country
}

// Policy is what the rooms of a policy are promised.
type Policy struct {
	Name      string  `json:"name"`
	Title     string  `json:"title"`
	Recording string  `json:"recording"` // "no", "yes", "notice" or "consent"
	ChatLog   bool    `json:"chat_log"`
	QALog     bool    `json:"qa_log"`
	Required  bool    `json:"transfer_basis_required"`
	Transfers []Basis `json:"transfers"` // all that are stated
}

// Basis is a ground on which data goes to third countries.
type Basis struct {
	Kind      string              `json:"kind"`
	Countries []residency.Country `json:"countries"`
	From      time.Time           `json:"from"`
	Until     time.Time           `json:"until,omitzero"`
	Reference string              `json:"reference"`
	InForce   bool                `json:"in_force"`
}

// Tenant is a customer, for whose attendees the processors work.
type Tenant struct {
	Name       string   `json:"name"`
	Controller string   `json:"controller"` // who answers to the attendees; empty: not stated
	Policies   []string `json:"policies"`
}

// Missing is a node that is listed and not there.
type Missing struct {
	Name    residency.NodeName `json:"name"`
	Country residency.Country  `json:"country"`
}

// Make makes the register of a gate's policies and the nodes that are known.
func Make(gate *residency.Gate, nodes []Entry, now time.Time) Register {
	r := Register{Made: now.UTC(), Epoch: gate.Epoch(), Processors: []Processor{}, Policies: []Policy{}, Tenants: []Tenant{}, Missing: []Missing{}}
	b := gate.Bundle()
	if b == nil {
		return r
	}
	r.Issued, r.Expires, r.Default, r.Closed = b.Issued, b.Expires, b.Default, len(b.Nodes) > 0
	for _, name := range b.Names() {
		r.Policies = append(r.Policies, policyOf(b.Policies[name], now))
	}
	for _, t := range b.Tenants {
		policies := append([]string{t.Policy}, t.Policies...)
		r.Tenants = append(r.Tenants, Tenant{Name: t.Name, Controller: t.Controller, Policies: policies})
	}
	known := map[residency.NodeName]bool{}
	for _, e := range nodes {
		known[e.Node.Name] = true
		r.add(e.Node, nodeOf(gate, e, now))
	}
	for _, n := range b.Nodes {
		if !known[n.Name] {
			r.Missing = append(r.Missing, Missing{n.Name, n.Country})
		}
	}
	r.sort()
	return r
}

// add puts a node below its operator. Operators of one name with other parents
// or countries are others.
func (r *Register) add(n residency.Node, entry Node) {
	p := Processor{Name: n.Operator, Country: n.OperatorCountry, Parent: n.Parent, ParentCountry: n.ParentCountry}
	i := slices.IndexFunc(r.Processors, func(o Processor) bool {
		return o.Name == p.Name && o.Country == p.Country && o.Parent == p.Parent && o.ParentCountry == p.ParentCountry
	})
	if i < 0 {
		i, r.Processors = len(r.Processors), append(r.Processors, p)
	}
	r.Processors[i].Nodes = append(r.Processors[i].Nodes, entry)
}

// sort makes the register the same whoever makes it.
func (r *Register) sort() {
	slices.SortFunc(r.Processors, func(a, b Processor) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Country, b.Country), cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.ParentCountry, b.ParentCountry))
	})
	for _, p := range r.Processors {
		slices.SortFunc(p.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	}
	slices.SortFunc(r.Tenants, func(a, b Tenant) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Missing, func(a, b Missing) int { return cmp.Compare(a.Name, b.Name) })
}

func policyOf(p *residency.Policy, now time.Time) Policy {
	out := Policy{Name: p.Name, Title: p.Title, Recording: "no", ChatLog: p.ChatLog, QALog: p.QALog, Required: p.TransferRequired, Transfers: []Basis{}}
	switch rule := p.Recording; {
	case rule.Allowed && rule.Consent:
		out.Recording = "consent"
	case rule.Allowed && rule.Notice:
		out.Recording = "notice"
	case rule.Allowed:
		out.Recording = "yes"
	}
	for _, t := range p.Transfers {
		out.Transfers = append(out.Transfers, basisOf(t, now))
	}
	return out
}

func basisOf(t residency.TransferBasis, now time.Time) Basis {
	return Basis{Kind: t.Kind, Countries: t.Countries, From: t.From, Until: t.Until, Reference: t.Reference, InForce: t.InForce(now)}
}

func nodeOf(gate *residency.Gate, e Entry, now time.Time) Node {
	n, b := e.Node, gate.Bundle()
	out := Node{Name: n.Name, Country: n.Country, Third: n.Country.Third(), Roles: n.Roles, Serial: n.Serial,
		From: n.NotBefore.UTC(), Until: n.NotAfter.UTC(), Uses: []Use{}}
	if i := slices.IndexFunc(b.Nodes, func(r residency.Registered) bool { return r.Name == n.Name }); i >= 0 {
		out.Tenants = b.Nodes[i].Tenants
	}
	for _, name := range b.Names() {
		use, refused := useOf(gate, b.Policies[name], e, out.Tenants, now)
		if refused.Rule != "" {
			out.Refused, out.RefusedRule, out.Uses = refused.Reason, refused.Rule, []Use{}
			return out
		}
		if len(use.Stores)+len(use.Handles)+len(use.Outside) > 0 {
			out.Uses = append(out.Uses, use)
		}
	}
	return out
}

// everything are the rules that refuse a node whatever is asked.
var everything = []string{residency.RuleNoBundle, residency.RuleBundleStale, residency.RuleCertificate,
	residency.RuleRevoked, residency.RuleRegister, residency.RuleQuarantine}

// useOf asks the gate about each class. A verdict is returned if it refuses the
// node altogether.
func useOf(gate *residency.Gate, p *residency.Policy, e Entry, tenants []string, now time.Time) (Use, residency.Verdict) {
	u := Use{Policy: p.Name, Stores: []residency.Class{}, Handles: []residency.Class{}, Outside: []residency.Class{}, Transfers: []Basis{}}
	for _, c := range residency.Classes() {
		ask := residency.Request{Tenant: tenantFor(gate.Bundle(), p.Name, tenants), Policy: p.Name, Class: c, Peer: e.Node,
			PeerEpoch: gate.Epoch(), Contradiction: e.Contradiction, Now: now}
		store, outside := ask, ask
		store.Store, outside.OutsideParticipant = true, true
		switch v := gate.Decide(ask); {
		case slices.Contains(everything, v.Rule):
			return u, v
		case v.Allow && gate.Decide(store).Allow:
			u.Stores = append(u.Stores, c)
		case v.Allow:
			u.Handles = append(u.Handles, c)
		case gate.Decide(outside).Allow:
			u.Outside = append(u.Outside, c)
		}
	}
	for _, t := range p.Transfers {
		if e.Node.Country.Third() && t.InForce(now) && slices.Contains(t.Countries, e.Node.Country) {
			u.Transfers = append(u.Transfers, basisOf(t, now))
		}
	}
	return u, residency.Verdict{}
}

// tenantFor is a tenant for whose rooms the node is asked: of those it serves
// alone, one that may have the policy. Others it serves with or without a tenant.
func tenantFor(b *residency.Bundle, policy string, tenants []string) string {
	for _, name := range tenants {
		if t, ok := b.Tenant(name); ok && t.May(policy) {
			return name
		}
	}
	return ""
}
