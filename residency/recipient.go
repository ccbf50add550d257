package residency

import (
	"fmt"
	"strings"
)

// Recipient is somebody outside of the mesh to whom data of a room would be handed: a
// customer's program that is told of what happens, a store of their own. No certificate
// states where they are; the operator's configuration does, or nothing.
type Recipient struct {
	Name            string  // for people: a host, a bucket
	Country         Country // the zero value is unknown and lies in no zone
	Operator        string
	OperatorCountry Country
	Parent          string
	ParentCountry   Country
}

// Hand answers whether the class of the request's room may be handed to a recipient.
// The request's peer, and what goes with one, is not looked at. It opens no link:
// links want a Permit, and a recipient gets none.
//
// What a policy has nobody keep is handed to nobody: a recipient is outside of what the
// policy can hold to anything.
func (g *Gate) Hand(r Request, to Recipient) Verdict {
	r.Peer = Node{Name: NodeName(to.Name), Country: to.Country, Operator: to.Operator, OperatorCountry: to.OperatorCountry,
		Parent: to.Parent, ParentCountry: to.ParentCountry, Roles: []Role{RoleOrigin}}
	r.Store, r.Contradiction = true, ""
	q := question{Request: r, gate: g}
	v := Verdict{Tenant: r.Tenant, Policy: r.Policy, Class: r.Class, Peer: r.Peer.Name, Epoch: g.Epoch()}
	for _, rule := range handing {
		if v.Rule, v.Reason = rule(&q); v.Rule != "" {
			break
		}
	}
	if q.policy != nil {
		v.Policy = q.policy.Name
	}
	if v.Allow = v.Rule == ""; v.Allow {
		v.Rule, v.Reason = RuleZone, fmt.Sprintf("%s is in %s, inside zone %q for %s", to.Name, to.Country, q.zone.Name, r.Class)
		return v
	}
	if v.Rule == RuleZone && !to.Country.Known() {
		v.Hint = "nothing declares where it is; keep what is recorded on the room's origins, and export it from there"
	}
	v.Reason = strings.Replace(v.Reason, "node "+to.Name, to.Name, 1)
	return v
}

// handing are the rules that are asked of a recipient.
var handing = []func(*question) (rule, why string){
	(*question).bundleInForce,
	(*question).policyKnown,
	(*question).canBeProved,
	(*question).mayBeKept,
	(*question).handedInZone,
	(*question).transferable,
}

// handedInZone is inZone without the edge rule, which is for nodes.
func (q *question) handedInZone() (rule, why string) {
	if ok, why := q.zone.Admits(q.Peer); !ok {
		return RuleZone, fmt.Sprintf("%s for %s (policy %q)", why, q.Class, q.policy.Name)
	}
	return "", ""
}
