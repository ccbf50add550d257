package configs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/domicile/domicile/residency"
)

// TestPinnedCountryProfile holds the file to the arrangement (R2): its tenant and
// the country's nodes are bound to each other, and everybody else has the policy
// of the other profile.
func TestPinnedCountryProfile(t *testing.T) {
	b, err := ProfileBundle("tenant-pinned-country")
	if err != nil {
		t.Fatal(err)
	}
	other := mustProfile(t, "eu-origin-global-edge")
	if p, err := b.PolicyFor("", ""); err != nil || cmp.Diff(other, p) != "" {
		t.Errorf("the policy of everybody else: %v\n%s", err, cmp.Diff(other, p))
	}
	if p, err := b.PolicyFor(b.TenantOf("example-ru-key"), ""); err != nil || p.Name != "tenant-pinned-country" {
		t.Errorf("the tenant's policy: got %+v, %v", p, err)
	}
	if _, err := b.PolicyFor("example-ru", "eu-origin-global-edge"); err == nil {
		t.Error("the tenant may leave its country")
	}
	for _, n := range b.Nodes {
		if (n.Country == "RU") != slices.Equal(n.Tenants, []string{"example-ru"}) {
			t.Errorf("node %s in %s serves %v", n.Name, n.Country, n.Tenants)
		}
	}
}

// name draws what may be called so, words that YAML takes for other things among them.
func name(t *rapid.T, label string) string {
	return rapid.OneOf(rapid.SampledFrom([]string{"no", "1", "true", "null", "1e3", "0x1f", "yes"}), rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?`)).Draw(t, label)
}

func words(t *rapid.T, label string) string { return "W" + rapid.String().Draw(t, label) }

func someCountries(t *rapid.T, label string, from []residency.Country, least int) []residency.Country {
	return slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.SampledFrom(from), least, 40, rapid.ID).Draw(t, label)))
}

func drawMoment(t *rapid.T, label string) time.Time {
	return time.Unix(rapid.Int64Range(0, 250_000_000_000).Draw(t, label), rapid.Int64Range(0, 999_999_999).Draw(t, label+" ns")).UTC()
}

func drawZone(t *rapid.T, name string) residency.Zone {
	z := residency.Zone{Name: name, Anywhere: rapid.Bool().Draw(t, "anywhere")}
	if !z.Anywhere {
		z.Countries = someCountries(t, "countries", residency.Countries(), 1)
	}
	z.OperatorCountries = someCountries(t, "operators in", residency.Countries(), 0)
	if rapid.Bool().Draw(t, "excludes") {
		z.ExcludedParentCountries = someCountries(t, "excluded", residency.Countries(), 0)
	} else {
		z.ParentCountries = someCountries(t, "parents", residency.Countries(), 0)
	}
	for range rapid.IntRange(0, 2).Draw(t, "operators") {
		z.Operators = append(z.Operators, words(t, "operator"))
	}
	return z
}

func thirdCountries() []residency.Country {
	return slices.DeleteFunc(residency.Countries(), func(c residency.Country) bool { return !c.Third() })
}

func drawPolicy(t *rapid.T, name string, zones []residency.Zone) *residency.Policy {
	p := &residency.Policy{
		Name: name, Title: words(t, "title"), Description: rapid.String().Draw(t, "description"), Source: rapid.String().Draw(t, "source"),
		Zones: map[residency.Class]residency.Zone{}, QALog: rapid.Bool().Draw(t, "qa log"),
		E2EE:     rapid.SampledFrom(residency.E2EERules()).Draw(t, "e2ee"),
		Evidence: rapid.SampledFrom(residency.EvidenceRules()).Draw(t, "evidence"), SingleOrigin: rapid.Bool().Draw(t, "few origins"),
	}
	for _, c := range residency.Classes() {
		p.Zones[c] = rapid.SampledFrom(zones).Draw(t, "zone")
	}
	p.EdgeOutside = !p.Zone(residency.ClassMedia).Anywhere && rapid.Bool().Draw(t, "edge outside")
	if p.E2EE != residency.E2EERequired {
		p.ChatLog = rapid.Bool().Draw(t, "chat log")
		p.Recording = residency.RecordingRule{Allowed: rapid.Bool().Draw(t, "recording"), Notice: true, Consent: rapid.Bool().Draw(t, "consent")}
	}
	p.Recording.Always = p.Recording.Allowed && rapid.Bool().Draw(t, "always")
	p.Recording.EraseWithdrawn = p.Recording.Consent && rapid.Bool().Draw(t, "withdrawal")
	p.Recording.NoConsentLog = p.Recording.Consent && rapid.Bool().Draw(t, "no consent log")
	for _, k := range residency.KeptKinds() {
		if rapid.Bool().Draw(t, "has a retention") {
			if p.Retention == nil {
				p.Retention = map[residency.Kept]residency.Hours{}
			}
			p.Retention[k] = rapid.OneOf(rapid.Just(residency.Hours(0)), rapid.Custom(func(t *rapid.T) residency.Hours {
				return residency.Hours(rapid.Uint32Range(uint32(residency.LeastRetention(k)), uint32(residency.MaxRetention)).Draw(t, "hours"))
			})).Draw(t, "retention")
		}
	}
	if p.TransferRequired = rapid.Bool().Draw(t, "transfers"); p.TransferRequired {
		from := drawMoment(t, "from")
		p.Transfers = []residency.TransferBasis{{Kind: residency.BasisClauses, Countries: thirdCountries(), From: from, Reference: words(t, "reference")}}
		if rapid.Bool().Draw(t, "two bases") {
			p.Transfers = append(p.Transfers, residency.TransferBasis{Kind: residency.BasisDerogation, Countries: someCountries(t, "third countries", thirdCountries(), 1),
				From: from, Until: from.Add(time.Duration(rapid.Int64Range(1, 1<<60).Draw(t, "for"))), Reference: words(t, "reference")})
		}
	}
	return p
}

// drawBundle draws a bundle that a file may hold.
func drawBundle(t *rapid.T) *residency.Bundle {
	eea, _ := residency.NamedZone("EEA")
	adequate, _ := residency.NamedZone(residency.ZoneAdequate)
	zones := []residency.Zone{{Name: "EEA", Countries: eea}, {Name: residency.ZoneAdequate, Countries: adequate}}
	for i := range rapid.IntRange(0, 3).Draw(t, "zones") {
		zones = append(zones, drawZone(t, fmt.Sprintf("%s-%d", name(t, "zone"), i)))
	}
	b := &residency.Bundle{Epoch: residency.Epoch(rapid.Uint64Range(1, 1<<62).Draw(t, "epoch")), Policies: map[string]*residency.Policy{}}
	for range rapid.IntRange(1, 3).Draw(t, "policies") {
		p := drawPolicy(t, name(t, "policy"), zones)
		b.Policies[p.Name] = p
	}
	b.Default = rapid.SampledFrom(b.Names()).Draw(t, "default")
	if rapid.Bool().Draw(t, "dated") {
		b.Issued = drawMoment(t, "issued")
		b.Expires = b.Issued.Add(time.Duration(rapid.Int64Range(1, 1<<60).Draw(t, "expires")))
	}
	drawTenants(t, b)
	drawRegister(t, b)
	return b
}

func drawTenants(t *rapid.T, b *residency.Bundle) {
	for i := range rapid.IntRange(0, 3).Draw(t, "tenants") {
		tenant := residency.Tenant{Name: fmt.Sprintf("%d%s", i, name(t, "tenant")), Policy: rapid.SampledFrom(b.Names()).Draw(t, "its policy"), Controller: words(t, "controller")}
		for _, p := range b.Names() {
			if p != tenant.Policy && rapid.Bool().Draw(t, "may") {
				tenant.Policies = append(tenant.Policies, p)
			}
		}
		for k := range rapid.IntRange(1, 3).Draw(t, "keys") {
			tenant.APIKeys = append(tenant.APIKeys, fmt.Sprintf("%s-%d-%d", rapid.StringMatching(`[!-~]{1,8}`).Draw(t, "key"), i, k))
		}
		b.Tenants = append(b.Tenants, tenant)
	}
}

func drawRegister(t *rapid.T, b *residency.Bundle) {
	for i := range rapid.IntRange(0, 4).Draw(t, "nodes") {
		n := residency.Registered{Name: residency.NodeName(fmt.Sprintf("%s-%d", name(t, "node"), i)), Country: rapid.SampledFrom(residency.Countries()).Draw(t, "in")}
		n.Roles = rapid.SliceOfNDistinct(rapid.SampledFrom(residency.Roles()), 0, 2, rapid.ID).Draw(t, "roles")
		for _, tenant := range b.Tenants {
			if rapid.Bool().Draw(t, "serves") {
				n.Tenants = append(n.Tenants, tenant.Name)
			}
		}
		b.Nodes = append(b.Nodes, n)
		if rapid.Bool().Draw(t, "overridden") {
			o := residency.Override{Node: n.Name, Reason: words(t, "reason"), Until: drawMoment(t, "until")}
			if b.Issued.Before(o.Until) {
				b.Overrides = append(b.Overrides, o)
			}
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "revoked") {
		b.Revoked = append(b.Revoked, rapid.StringMatching(`[1-9a-f][0-9a-f]{0,39}`).Draw(t, "serial"))
	}
}

// fewOrigins counts again, zone by zone and tenant by tenant, whether the file
// has to say that few origins are accepted.
func fewOrigins(b *residency.Bundle) bool {
	for _, p := range b.Policies {
		whose := []string{}
		for _, t := range b.Tenants {
			if t.Policy == p.Name || slices.Contains(t.Policies, p.Name) {
				whose = append(whose, t.Name)
			}
		}
		if b.Default == p.Name || len(whose) == 0 {
			whose = append(whose, "")
		}
		for _, zone := range p.Zones {
			for _, tenant := range whose {
				origins := 0
				for _, n := range b.Nodes {
					serves := len(n.Tenants) == 0 || slices.Contains(n.Tenants, tenant)
					if serves && slices.Contains(n.Roles, residency.RoleOrigin) && (zone.Anywhere || slices.Contains(zone.Countries, n.Country)) {
						origins++
					}
				}
				if origins < 2 && !p.SingleOrigin {
					return true
				}
			}
		}
	}
	return false
}

// TestFormatPolicyRoundTrip writes and reads random bundles; those that leave a
// zone with few origins are refused, and no others.
func TestFormatPolicyRoundTrip(t *testing.T) {
	refused, kept := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		want := drawBundle(t)
		text, err := FormatPolicy(want)
		if few := len(want.Nodes) > 0 && fewOrigins(want); few || err != nil {
			if !few || err == nil || !strings.Contains(err.Error(), "the register has") {
				t.Fatalf("few origins %v, got %v", few, err)
			}
			refused++
			return
		}
		kept++
		got, err := ParsePolicy("p.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("(-want +got):\n%s\n%s", diff, text)
		}
	})
	if refused == 0 || kept == 0 {
		t.Errorf("refused %d, kept %d: the test does not see both", refused, kept)
	}
}
