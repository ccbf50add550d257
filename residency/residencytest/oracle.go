package residencytest

import (
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// Facts are what is true of one piece of data that a node gives away, takes or
// keeps, seen from the node whose promise it is.
type Facts struct {
	Bundle *residency.Bundle // that the node goes by

	Tenant string // of the room
	Policy string // of the room, as it was made; empty: it named none
	Class  residency.Class
	QA     bool // the chat is a question or an answer
	Store  bool // the peer keeps it

	// Place is where the peer keeps it, if not on its own disk.
	Place residency.Place

	Peer         residency.Node // at the other end, or the node itself
	PeerEpoch    residency.Epoch
	Outside      bool // somebody from outside the media zone is connected through the peer
	Contradicted bool // the peer is not where its certificate says, as far as anybody can tell
	Unprovable   bool // no evidence can be written

	Now time.Time // by the node's clock
}

// The countries of the worlds. earth has those that exist, eea the members of
// the European Economic Area among them.
var (
	earth = []residency.Country{"DE", "FR", "PL", "AT", "NO", "IS", "CH", "GB", "US", "RU"}
	eea   = map[residency.Country]bool{"DE": true, "FR": true, "PL": true, "AT": true, "NO": true, "IS": true}
)

var classes = strings.Fields("media signalling chat chat_offline metadata recording transcript export telemetry")

func exists(c residency.Country) bool {
	for _, e := range earth {
		if e == c {
			return true
		}
	}
	return false
}

func listed[T comparable](list []T, x T) bool {
	for _, l := range list {
		if l == x {
			return true
		}
	}
	return false
}

// named is in the list and on Earth.
func named(list []residency.Country, c residency.Country) bool { return exists(c) && listed(list, c) }

// promise is one thing that a platform promises; kept reports whether these
// facts keep it.
type promise struct {
	breach string
	of     subject
	kept   func(f *Facts, p *residency.Policy, z residency.Zone) bool
}

// subject says what a promise is about: the data and the policies, a node of the mesh,
// or a place on Earth and who runs it.
type subject int

const (
	data subject = iota
	node
	place
)

// promises are asked one by one and in no particular order: a leak is whatever
// breaks any of them.
var promises = []promise{
	{"the policies have ended", data, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		return f.Bundle.Expires.IsZero() || f.Now.Before(f.Bundle.Expires)
	}},
	{"the class is none", data, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		for _, c := range classes {
			if string(f.Class) == c {
				return true
			}
		}
		return false
	}},
	{"the node has no valid certificate", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		return f.Peer.Name != "" && !f.Peer.NotBefore.After(f.Now) && f.Peer.NotAfter.After(f.Now)
	}},
	{"the certificate is revoked", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		for _, s := range f.Bundle.Revoked {
			if strings.ToUpper(s) == strings.ToUpper(f.Peer.Serial) {
				return false
			}
		}
		return true
	}},
	{"the register does not list the node so (R20)", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		e, any := entry(f)
		if !any || e == nil {
			return !any
		}
		for _, role := range f.Peer.Roles {
			if len(e.Roles) > 0 && !listed(e.Roles, role) {
				return false
			}
		}
		return e.Country == f.Peer.Country
	}},
	{"the node serves other tenants (R2)", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		e, _ := entry(f)
		return e == nil || len(e.Tenants) == 0 || listed(e.Tenants, f.Tenant)
	}},
	{"the node goes by other policies", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool { return f.PeerEpoch == f.Bundle.Epoch }},
	{"nobody believes where the node is", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		if !f.Contradicted {
			return true
		}
		for _, o := range f.Bundle.Overrides {
			if o.Node == f.Peer.Name && o.Until.After(f.Now) {
				return true
			}
		}
		return false
	}},
	{"it could not be proved afterwards", data, func(f *Facts, p *residency.Policy, _ residency.Zone) bool {
		return !f.Unprovable || p.Evidence == "off"
	}},
	{"the policy does not record", data, func(f *Facts, p *residency.Policy, _ residency.Zone) bool {
		return f.Class != "recording" || p.Recording.Allowed
	}},
	{"live data is kept (R7)", data, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		return !f.Store || f.Class != "media" && f.Class != "signalling"
	}},
	{"chat is kept that nobody switched on (R10)", data, func(f *Facts, p *residency.Policy, _ residency.Zone) bool {
		return !f.Store || f.Class != "chat" || f.QA && p.QALog || !f.QA && p.ChatLog
	}},
	{"something is kept on a node that is no origin (R1)", node, func(f *Facts, _ *residency.Policy, _ residency.Zone) bool {
		return !f.Store || listed(f.Peer.Roles, "origin")
	}},
	{"the country is not in the zone of the class (R1, R3, R4, R5, R6)", place, func(f *Facts, p *residency.Policy, z residency.Zone) bool {
		if !exists(f.Peer.Country) {
			return false
		}
		return z.Anywhere || listed(z.Countries, f.Peer.Country) || edge(f, p)
	}},
	{"the operator or its parent is not one of those promised (R21)", place, func(f *Facts, _ *residency.Policy, z residency.Zone) bool {
		n := f.Peer
		return (len(z.Operators) == 0 || listed(z.Operators, n.Operator)) &&
			(len(z.OperatorCountries) == 0 || named(z.OperatorCountries, n.OperatorCountry)) &&
			(len(z.ParentCountries) == 0 || named(z.ParentCountries, n.ParentCountry)) &&
			(len(z.ExcludedParentCountries) == 0 || exists(n.ParentCountry) && !listed(z.ExcludedParentCountries, n.ParentCountry))
	}},
	{"no transfer to this third country has a basis today (R22)", place, func(f *Facts, p *residency.Policy, _ residency.Zone) bool {
		if !p.TransferRequired || eea[f.Peer.Country] {
			return true
		}
		for _, b := range p.Transfers {
			if named(b.Countries, f.Peer.Country) && !b.From.After(f.Now) && (b.Until.IsZero() || b.Until.After(f.Now)) {
				return true
			}
		}
		return false
	}},
}

// edge is R3: an edge outside carries what is live, keeps nothing, and only for
// those who are outside and connected through it.
func edge(f *Facts, p *residency.Policy) bool {
	live := f.Class == "media" || f.Class == "signalling" || f.Class == "chat"
	return p.EdgeOutside && live && !f.Store && f.Outside && listed(f.Peer.Roles, "edge")
}

// entry is the first that the register has of the peer; any reports whether
// there is a register.
func entry(f *Facts) (e *residency.Registered, any bool) {
	for i := range f.Bundle.Nodes {
		if f.Bundle.Nodes[i].Name == f.Peer.Name {
			return &f.Bundle.Nodes[i], true
		}
	}
	return nil, len(f.Bundle.Nodes) > 0
}

// PolicyOf is the policy that binds a room, nil if it may have none.
func PolicyOf(b *residency.Bundle, tenant, policy string) *residency.Policy {
	if b == nil || b.Epoch == 0 {
		return nil
	}
	if tenant != "" {
		var t *residency.Tenant
		for i := range b.Tenants {
			if b.Tenants[i].Name == tenant && t == nil {
				t = &b.Tenants[i]
			}
		}
		if t == nil {
			return nil
		}
		if policy == "" {
			policy = t.Policy
		}
		if policy != t.Policy && !listed(t.Policies, policy) {
			return nil
		}
	}
	if policy == "" {
		policy = b.Default
	}
	return b.Policies[policy]
}

// Outside reports whether a country is known to lie outside a room's media zone.
func Outside(b *residency.Bundle, tenant, policy string, c residency.Country) bool {
	p := PolicyOf(b, tenant, policy)
	if p == nil || c == "" {
		return false
	}
	z := p.Zones["media"]
	return !(exists(c) && (z.Anywhere || listed(z.Countries, c)))
}

// Against lists the promises that are broken if this happens; none: it may.
func Against(f Facts) (broken []string) {
	broken = asked(f, data, node, place)
	if f.Store && f.Place != (residency.Place{}) {
		at := f
		at.Peer, at.Outside = placed(f.Place), false
		for _, b := range asked(at, place) {
			broken = append(broken, "where it keeps it: "+b)
		}
	}
	return broken
}

// placed is a place as if it were a node.
func placed(p residency.Place) residency.Node {
	return residency.Node{Name: "place", Country: p.Country, Operator: p.Operator, OperatorCountry: p.OperatorCountry, Parent: p.Parent, ParentCountry: p.ParentCountry}
}

// Handing lists the promises that are broken if somebody outside of the mesh, who is
// there, is given this.
func Handing(f Facts, there residency.Place) []string {
	f.Peer, f.Store, f.Outside = placed(there), true, false
	return asked(f, data, place)
}

func asked(f Facts, about ...subject) (broken []string) {
	p := PolicyOf(f.Bundle, f.Tenant, f.Policy)
	if p == nil {
		return []string{"there is no policy for this room"}
	}
	for _, x := range promises {
		if listed(about, x.of) && !x.kept(&f, p, p.Zones[f.Class]) {
			broken = append(broken, x.breach)
		}
	}
	return broken
}
