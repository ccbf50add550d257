package residency

import (
	"fmt"
	"strings"
)

// hint says what would work instead of what a rule refused.
func (q *question) hint(rule string) string {
	if q.placed {
		return "keep it in a " + q.Place.What + " " + q.zone.describe() + ", on a transfer basis if that is a third country"
	}
	switch rule {
	case RuleNoBundle:
		return "give the node a signed policy file"
	case RuleBundleStale:
		return "sign and apply a newer policy bundle"
	case RuleNoPolicy:
		return "name one of the bundle's policies and data classes"
	case RuleCertificate, RuleRevoked:
		return "renew the node's certificate"
	case RuleRegister:
		return "list the node in the register as its certificate states it, or issue it another certificate"
	case RuleEpoch:
		return "apply the newest policy bundle on both nodes"
	case RuleQuarantine:
		return "mend the node's certificate or move the node; if the operator knows that it is there, an override in the policy says so"
	case RuleTenant:
		return q.tenantHint()
	case RuleEvidence:
		return "mend what keeps evidence from being written; a policy with evidence: off does without"
	case RuleNotStored:
		return "use a policy that has this kept"
	case RuleStoreRole:
		return "store on an origin inside the zone"
	case RuleZone, RuleEdgeEmpty:
		return "use a node " + q.zone.describe()
	case RuleTransfer:
		return "state a transfer basis in force for " + q.Peer.Country.String() + ", or use a node in the EEA"
	}
	return ""
}

func (q *question) tenantHint() string {
	t, ok := q.gate.tenants[q.Tenant]
	switch {
	case !ok && q.Tenant != "":
		return "add the tenant to the policy bundle"
	case ok && !t.May(q.Policy):
		return "ask for " + strings.Join(append([]string{t.Policy}, t.Policies...), " or ")
	}
	return "use a node whose register entry names no tenants, or this one"
}

// maxNamed bounds how many countries a sentence lists.
const maxNamed = 6

// describe says in words where a zone's nodes are and who runs them.
func (z Zone) describe() string {
	text := "in zone " + fmt.Sprintf("%q", z.Name)
	switch {
	case z.Anywhere:
		text += " (any known country)"
	case len(z.Countries) > maxNamed:
		text += fmt.Sprintf(" (%d countries)", len(z.Countries))
	case len(z.Countries) > 0:
		text += " (" + list(z.Countries) + ")"
	default:
		text += ", which has no country: mend the policy"
	}
	if len(z.Operators) > 0 {
		text += " run by " + strings.Join(z.Operators, " or ")
	}
	if len(z.OperatorCountries) > 0 && len(z.OperatorCountries) <= maxNamed {
		text += ", of an operator in " + list(z.OperatorCountries)
	}
	if len(z.ParentCountries) > 0 && len(z.ParentCountries) <= maxNamed {
		text += ", under a parent in " + list(z.ParentCountries)
	}
	if len(z.ExcludedParentCountries) > 0 && len(z.ExcludedParentCountries) <= maxNamed {
		text += ", under no parent in " + list(z.ExcludedParentCountries)
	}
	return text
}

func list(countries []Country) string {
	texts := make([]string, len(countries))
	for i, c := range countries {
		texts[i] = string(c)
	}
	return strings.Join(texts, ", ")
}
