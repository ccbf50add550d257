package residencytest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// Noon is when every world begins.
var Noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// stations are where nodes stand; their first letters differ.
var stations = []struct {
	name    residency.NodeName
	country residency.Country
}{{"fra", "DE"}, {"par", "FR"}, {"waw", "PL"}, {"vie", "AT"}, {"osl", "NO"}, {"zrh", "CH"}, {"lon", "GB"}, {"nyc", "US"}, {"mos", "RU"}, {"kef", "IS"}}

// Policies and tenants have the same names in every world.
var (
	Policies = []string{"blue", "green", "red"}
	Tenants  = []string{"", "acme", "umbra"}
)

// Place draws where a store or a program stands that is not the mesh's own, whatever the
// operator has declared of it.
func Place(r Rand) residency.Place {
	return residency.Place{What: "store", Country: Pick[residency.Country](r, "DE", "DE", "FR", "PL", "CH", "US", ""),
		Operator: Pick(r, "own", "own", "other", ""), OperatorCountry: Pick[residency.Country](r, "DE", "DE", "DE", "CH", "US", ""),
		Parent: "parent", ParentCountry: Pick[residency.Country](r, "DE", "DE", "DE", "FR", "US", "", "XX")}
}

// Nodes draws n nodes, each with a certificate.
func Nodes(r Rand, n int) []residency.Node {
	var list []residency.Node
	order := r.Perm(len(stations))
	if r.Mild > 1 { // the first can be the home of most rooms, the second is an edge outside of most zones
		for at, want := range []int{r.IntN(3), 7} {
			i := slices.Index(order, want)
			order[at], order[i] = order[i], order[at]
		}
	}
	for k, i := range order[:n] {
		s := stations[i]
		node := residency.Node{Name: s.name, Country: s.country, Operator: Pick(r, "own", "own", "own", "other"),
			OperatorCountry: Pick[residency.Country](r, "DE", "DE", "CH", "US", s.country), Parent: "parent",
			ParentCountry: Pick[residency.Country](r, "DE", "DE", "FR", "US", s.country),
			Roles:         Pick(r, []residency.Role{"origin", "edge"}, []residency.Role{"edge"}, []residency.Role{"origin"}),
			Serial:        fmt.Sprintf("aB%02x%s", i, s.name)}
		if r.Mild > 1 {
			node.OperatorCountry, node.ParentCountry, node.Operator = "DE", "DE", "own"
			if k == 0 {
				node.Roles = []residency.Role{"origin", "edge"}
			} else if k == 1 {
				node.Roles = []residency.Role{"edge"}
			}
		}
		if r.odd(20) {
			node.Country = Pick[residency.Country](r, "", "XX", "eu", "UK")
		}
		if r.odd(20) {
			node.ParentCountry = Pick[residency.Country](r, "", "XX")
		}
		node.NotBefore, node.NotAfter = Noon.Add(-time.Hour), Noon.Add(time.Hour)
		switch r.IntN(10 * r.Mild) {
		case 0:
			node.NotAfter = Noon.Add(r.Between(0, 30*time.Second))
		case 1:
			node.NotBefore = Noon.Add(r.Between(0, 10*time.Second))
		}
		list = append(list, node)
	}
	return list
}

// zone draws a set of countries and, at times, conditions on who runs a node.
func zone(r Rand) residency.Zone {
	list := zones
	if r.Mild > 1 && !r.odd(2) {
		list = zones[:4]
	}
	z := Pick(r, list...)
	switch r.IntN(12 * r.Mild) {
	case 0:
		z.Operators = []string{"own"}
	case 1:
		z.OperatorCountries = []residency.Country{"DE", "CH"}
	case 2:
		z.ParentCountries = []residency.Country{"DE", "FR", "CH"}
	case 3, 4:
		z.ExcludedParentCountries = []residency.Country{"US"}
	}
	return z
}

// zones are what policies are made of, the usual ones first.
var zones = []residency.Zone{
	{Name: "eea", Countries: []residency.Country{"DE", "FR", "PL", "AT", "NO", "IS"}},
	{Name: "stored", Countries: []residency.Country{"FR", "DE", "PL"}},
	{Name: "eea", Countries: []residency.Country{"DE", "FR", "PL", "AT", "NO", "IS"}},
	{Name: "anywhere", Anywhere: true},
	{Name: "dach", Countries: []residency.Country{"DE", "AT", "CH"}},
	{Name: "ru", Countries: []residency.Country{"RU"}},
	{Name: "odd", Countries: []residency.Country{"DE", "", "XX", "US"}},
	{Name: "nobody"},
}

// encryption draws what a policy says about it. Where everything has to be
// encrypted, nothing is recorded or kept: that is for a few.
func encryption(r Rand) residency.E2EERule {
	switch r.IntN(10) {
	case 0, 1:
		return residency.E2EERequired
	case 2:
		return residency.E2EEOff
	}
	return residency.E2EEAllowed
}

// policy draws a policy: a zone for what is live, one for what is kept, and now
// and then one that is different for a single class.
func policy(r Rand, name string) *residency.Policy {
	live, kept := zone(r), zone(r)
	p := &residency.Policy{Name: name, Zones: map[residency.Class]residency.Zone{}, EdgeOutside: r.In(2),
		Recording: residency.RecordingRule{Allowed: r.In(2), Notice: !r.In(4), Consent: r.In(3)}, ChatLog: r.In(3), QALog: r.In(3),
		E2EE: encryption(r), Evidence: Pick[residency.EvidenceRule](r, "required", "off"), TransferRequired: r.odd(3), SingleOrigin: true}
	for _, c := range residency.Classes() {
		p.Zones[c] = kept
		if c == "media" || c == "signalling" || c == "chat" {
			p.Zones[c] = live
		}
		if r.odd(20) {
			p.Zones[c] = zone(r)
		}
	}
	if r.odd(30) {
		delete(p.Zones, Pick(r, residency.Classes()...))
	}
	for range r.IntN(3) {
		from := Noon.Add(r.Between(-time.Hour, 20*time.Second))
		b := residency.TransferBasis{Kind: residency.BasisClauses, Countries: []residency.Country{Pick(r, earth...), Pick(r, earth...)}, From: from, Reference: "contract"}
		if r.In(2) {
			b.Until = from.Add(r.Between(time.Second, 2*time.Hour))
		}
		p.Transfers = append(p.Transfers, b)
	}
	return p
}

// Bundle draws the policies of a world with these nodes.
func Bundle(r Rand, epoch residency.Epoch, nodes []residency.Node) *residency.Bundle {
	b := &residency.Bundle{Epoch: epoch, Issued: Noon.Add(-time.Hour), Default: Pick(r, Policies...), Policies: map[string]*residency.Policy{}}
	for _, name := range Policies {
		b.Policies[name] = policy(r, name)
	}
	if r.odd(8) {
		b.Expires = Noon.Add(r.Between(0, 40*time.Second))
	}
	for _, t := range Tenants[1:] {
		if !r.In(6) {
			b.Tenants = append(b.Tenants, residency.Tenant{Name: t, Policy: Pick(r, Policies...), Policies: Policies[:r.IntN(3)]})
		}
	}
	for _, n := range nodes {
		if r.odd(12) {
			b.Revoked = append(b.Revoked, Pick(r, strings.ToLower(n.Serial), strings.ToUpper(n.Serial)))
		}
		if r.In(3) {
			b.Overrides = append(b.Overrides, residency.Override{Node: n.Name, Reason: "seen", Until: Pick(r, time.Time{}, Noon.Add(r.Between(-time.Minute, time.Minute)))})
		}
	}
	if r.In(3) {
		b.Nodes = register(r, nodes)
	}
	return b
}

// register draws a register that is right for most nodes.
func register(r Rand, nodes []residency.Node) (list []residency.Registered) {
	for _, n := range nodes {
		e := residency.Registered{Name: n.Name, Country: n.Country}
		switch r.IntN(12 * r.Mild) {
		case 0:
			continue
		case 1:
			e.Country = Pick(r, earth...)
		case 2:
			e.Roles = []residency.Role{Pick[residency.Role](r, "origin", "edge")}
		case 3, 4:
			e.Tenants = Tenants[1+r.IntN(2):][:1]
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		list = append(list, residency.Registered{Name: "nowhere", Country: "DE"})
	}
	return list
}

// Next draws the next version of a bundle: one thing or two are different.
func Next(r Rand, old *residency.Bundle, nodes []residency.Node) *residency.Bundle {
	b := *old
	b.Epoch += residency.Epoch(1 + r.IntN(2))
	b.Policies = maps.Clone(old.Policies)
	b.Revoked, b.Nodes, b.Tenants, b.Overrides = slices.Clone(old.Revoked), slices.Clone(old.Nodes), slices.Clone(old.Tenants), slices.Clone(old.Overrides)
	if !b.Expires.IsZero() && r.In(2) {
		b.Expires = time.Time{}
	}
	for range 1 + r.IntN(2) {
		switch r.IntN(10) {
		case 9:
			p := *b.Policies[Pick(r, Policies...)]
			p.E2EE, p.ChatLog, p.QALog = encryption(r), r.In(2), r.In(2)
			p.Recording.Notice, p.Recording.Consent = !r.In(4), r.In(2)
			b.Policies[p.Name] = &p
		case 0:
			b.Revoked = append(b.Revoked, strings.ToUpper(Pick(r, nodes...).Serial))
		case 1:
			b.Revoked = nil
		case 2:
			b.Nodes = Pick(r, nil, register(r, nodes))
		case 3:
			b.Default = Pick(r, Policies...)
		case 4:
			b.Tenants = b.Tenants[:r.IntN(len(b.Tenants)+1)]
		case 5:
			b.Overrides = nil
		case 6:
			p := *b.Policies[Pick(r, Policies...)]
			p.EdgeOutside = !p.EdgeOutside
			b.Policies[p.Name] = &p
		default:
			name := Pick(r, Policies...)
			b.Policies[name] = policy(r, name)
		}
	}
	return &b
}

// Country draws where an attendee is; "" is unknown.
func Country(r Rand) residency.Country {
	if r.In(10) {
		return ""
	}
	return Pick(r, earth...)
}
