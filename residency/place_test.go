package residency

import (
	"strings"
	"testing"
	"time"
)

// TestPlace asks the gate about databases of a node that may keep the class itself.
func TestPlace(t *testing.T) {
	in := func(c Country) Place {
		return Place{What: "database", Country: c, Operator: "Acme", OperatorCountry: "DE", Parent: "Acme", ParentCountry: "DE"}
	}
	american, unknown := in("DE"), in("DE")
	american.ParentCountry, unknown.ParentCountry = "US", ""
	noUS := testBundle()
	p := *noUS.Policies[noUS.Default]
	p.Zones = map[Class]Zone{ClassMetadata: {Name: "own", Countries: []Country{"DE", "CH", "US"}, ExcludedParentCountries: []Country{"US"}}}
	p.TransferRequired, p.Transfers = true, []TransferBasis{{Kind: BasisAdequacy, Countries: []Country{"CH"}, From: now.Add(-time.Hour), Until: now.Add(time.Minute)}}
	noUS.Policies = map[string]*Policy{p.Name: &p}
	for _, c := range []struct {
		name  string
		place Place
		rule  string
		why   string
	}{
		{"the node's own disk", Place{}, RuleZone, ""},
		{"in the zone", in("DE"), RuleZone, ""},
		{"outside the zone", in("FR"), RuleZone, "node fra's database is in FR, outside zone"},
		{"in a country nobody named", in(""), RuleZone, "its country is unknown"},
		{"under an excluded parent", american, RuleZone, "zone \"own\" excludes"},
		{"under an unknown parent", unknown, RuleZone, "ultimate parent is unknown"},
		{"in a third country with a basis", in("CH"), RuleZone, ""},
		{"in a third country without", in("US"), RuleTransfer, "node fra's database is in the third country US"},
	} {
		permit, v := NewGate(noUS).Permit(Request{Room: "r", Class: ClassMetadata, Store: true, Place: c.place,
			Peer: node("fra", "DE", RoleOrigin), PeerEpoch: noUS.Epoch, Now: now})
		if v.Allow != (c.why == "") || v.Rule != c.rule || !strings.Contains(v.Reason, c.why) || v.Allow == (v.Hint != "") {
			t.Errorf("%s: %+v, want %s %q", c.name, v, c.rule, c.why)
		}
		disk := Disk{Node: "fra", Class: ClassMetadata, Epoch: func() Epoch { return noUS.Epoch }, Now: func() time.Time { return now }, Place: c.place}
		if err := disk.Admit(permit, "r"); (err == nil) != v.Allow {
			t.Errorf("%s: the disk says %v", c.name, err)
		}
		if c.place.Country == "CH" && !v.Until.Equal(now.Add(time.Minute)) {
			t.Errorf("%s: until %v, which the basis does not last", c.name, v.Until)
		}
		if disk.Place = in("DK"); disk.Admit(permit, "r") == nil {
			t.Errorf("%s: a database in another country takes the permit", c.name)
		}
		if disk.Place = (Place{}); v.Allow && disk.Admit(permit, "r") != nil {
			t.Errorf("%s: the node's own disk refuses the permit", c.name)
		}
	}
}
