package residency

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestHand asks about recipients of every kind, under a zone with every condition.
func TestHand(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	zone := Zone{Name: "Europe", Countries: []Country{"DE", "FR", "GB"}, OperatorCountries: []Country{"DE", "FR"}, ExcludedParentCountries: []Country{"US"}}
	zones := map[Class]Zone{}
	for _, c := range Classes() {
		zones[c] = zone
	}
	b := &Bundle{Epoch: 3, Default: "p", Expires: now.Add(time.Hour), Policies: map[string]*Policy{
		"p": {Name: "p", Zones: zones, EdgeOutside: true, TransferRequired: true},
	}, Nodes: []Registered{{Name: "fra", Country: "DE"}}}
	good := Recipient{Name: "hooks.example", Country: "DE", Operator: "A", OperatorCountry: "DE", Parent: "A", ParentCountry: "DE"}
	ask := Request{Room: "r", Class: ClassMetadata, Now: now, NoEvidence: ""}
	for name, tt := range map[string]struct {
		change func(*Request, *Recipient)
		want   string
	}{
		"in the zone":                  {func(*Request, *Recipient) {}, "true zone hooks.example is in DE, inside zone"},
		"elsewhere":                    {func(_ *Request, r *Recipient) { r.Country = "US" }, `false zone hooks.example is in US, outside zone "Europe"`},
		"undeclared":                   {func(_ *Request, r *Recipient) { *r = Recipient{Name: "s3"} }, "false zone s3: its country is unknown"},
		"another operator":             {func(_ *Request, r *Recipient) { r.OperatorCountry = "US" }, "false zone hooks.example: the country of its operator is US"},
		"an unknown operator":          {func(_ *Request, r *Recipient) { r.OperatorCountry = "" }, "false zone hooks.example: the country of its operator is unknown"},
		"another parent":               {func(_ *Request, r *Recipient) { r.ParentCountry = "US" }, "false zone hooks.example: the country of its operator's ultimate parent is US"},
		"an unknown parent":            {func(_ *Request, r *Recipient) { r.ParentCountry = "" }, "false zone hooks.example: the country of its operator's ultimate parent is unknown"},
		"a third country, no ground":   {func(_ *Request, r *Recipient) { r.Country = "GB" }, "false transfer-basis hooks.example is in the third country GB"},
		"nobody may keep recordings":   {func(q *Request, _ *Recipient) { q.Class = ClassRecording }, "false not-stored"},
		"nobody may keep the chat":     {func(q *Request, _ *Recipient) { q.Class = ClassChat }, "false not-stored"},
		"media passes and is not kept": {func(q *Request, _ *Recipient) { q.Class = ClassMedia }, "false not-stored"},
		"an unknown class":             {func(q *Request, _ *Recipient) { q.Class = "names" }, "false no-policy"},
		"an unknown policy":            {func(q *Request, _ *Recipient) { q.Policy = "x" }, "false no-policy"},
		"an unknown tenant":            {func(q *Request, _ *Recipient) { q.Tenant = "x" }, "false tenant"},
		"no evidence":                  {func(q *Request, _ *Recipient) { q.NoEvidence = "no origin" }, "false evidence"},
		"policies that have expired":   {func(q *Request, _ *Recipient) { q.Now = now.Add(time.Hour) }, "false bundle-stale"},
	} {
		q, to := ask, good
		tt.change(&q, &to)
		v := NewGate(b).Hand(q, to)
		if got := fmt.Sprintf("%t %s %s", v.Allow, v.Rule, v.Reason); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s:\n  got  %s\n  want %s…", name, got, tt.want)
		}
	}
	if v := (*Gate)(nil).Hand(ask, good); v.Allow || v.Rule != RuleNoBundle {
		t.Errorf("without policies: %+v", v)
	}
}
