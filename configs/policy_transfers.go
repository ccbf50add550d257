package configs

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// transferEntry is a ground on which data may go to third countries.
type transferEntry struct {
	Kind transferKind `yaml:"kind,required"`
	// Countries are the third countries it is good for.
	Countries []countrySet `yaml:"countries,required" empty:"name the third countries it is good for"`
	// From is the first day on which it holds.
	From moment `yaml:"from,required"`
	// Until is the first day on which it holds no longer. Without it, it has no end.
	Until moment `yaml:"until"`
	// Reference says which decision or contract it is, so that it can be found again.
	Reference string `yaml:"reference,required"`
}

// transferKind is a kind of transfer basis.
type transferKind string

func (k *transferKind) readScalar(s scalar) *Fault {
	*k = transferKind(s.text)
	return oneOf(s, "unknown kind of transfer basis", residency.TransferKinds())
}

// transferRule says whether nodes in third countries need a basis.
type transferRule bool

const (
	transferRequired    = "required"
	transferNotRequired = "not-required"
)

func (r *transferRule) readScalar(s scalar) *Fault {
	*r = s.text == transferRequired
	return oneOf(s, "unknown rule", []string{transferRequired, transferNotRequired})
}

func (d *document) transfers(path string, e policyEntry) (all []residency.TransferBasis) {
	if d.has(join(path, "transfers")) && !bool(e.TransferBasis) {
		d.fault(join(path, "transfers"), Fault{Message: "nobody asks for these", Hint: "say `transfer_basis: required` too"})
	}
	for i, t := range e.Transfers {
		basis := residency.TransferBasis{Kind: string(t.Kind), Countries: flatten(t.Countries), From: t.From.time(), Until: t.Until.time(), Reference: t.Reference}
		d.checkTransfer(join(join(path, "transfers"), strconv.Itoa(i)), basis)
		all = append(all, basis)
	}
	return all
}

func (d *document) checkTransfer(path string, t residency.TransferBasis) {
	if !t.Until.IsZero() && !t.From.Before(t.Until) {
		d.faultf(join(path, "until"), "the basis ends before it begins")
	}
	if d.has(join(path, "reference")) && strings.TrimSpace(t.Reference) == "" {
		d.faultf(join(path, "reference"), "the reference is empty")
	}
	for _, c := range t.Countries {
		if !c.Third() {
			d.fault(join(path, "countries"), Fault{Message: c.String() + " is in the EEA and needs no transfer basis", Hint: "name third countries alone"})
		} else if t.Kind == residency.BasisAdequacy && !t.From.IsZero() {
			d.checkAdequacy(path, c, t)
		}
	}
}

// checkAdequacy holds a basis of that kind to the decisions there are.
func (d *document) checkAdequacy(path string, c residency.Country, t residency.TransferBasis) {
	decision, ok := residency.AdequacyOf(c, t.From)
	if !ok {
		_, asOf := residency.Adequacies()
		d.fault(join(path, "countries"), Fault{
			Message: fmt.Sprintf("no adequacy decision on %s is in force on %s", c, t.From.Format(time.DateOnly)),
			Hint:    fmt.Sprintf("decisions are known up to %s; there are other kinds: %s", asOf.Format(time.DateOnly), strings.Join(residency.TransferKinds(), ", ")),
		})
		return
	}
	if end := decision.Until; !end.IsZero() && (t.Until.IsZero() || end.Before(t.Until)) {
		where := join(path, "until")
		if !d.has(where) {
			where = join(path, "countries")
		}
		d.fault(where, Fault{
			Message: fmt.Sprintf("the adequacy decision on %s, %s, ends on %s", c, decision.Reference, end.Format(time.DateOnly)),
			Hint:    "say `until: " + end.Format(time.DateOnly) + "`, or an earlier day",
		})
	}
}

// transfersCover wants a basis for every third country that a zone names: one
// without could never be used. Of "anywhere" the bases say what is meant.
func (d *document) transfersCover(path string, p *residency.Policy) {
	if !p.TransferRequired {
		return
	}
	var missing []string
	for _, zone := range p.Zones {
		for _, c := range zone.Countries {
			covered := slices.ContainsFunc(p.Transfers, func(t residency.TransferBasis) bool { return slices.Contains(t.Countries, c) })
			if c.Third() && !covered {
				missing = append(missing, string(c))
			}
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		d.fault(join(path, "transfer_basis"), Fault{
			Message: "third countries in its zones without a transfer basis: " + strings.Join(slices.Compact(missing), ", "),
			Hint:    "state one in `transfers`, or take them out of the zones",
		})
	}
}
