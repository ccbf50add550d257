package configs

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// FormatPolicy writes a bundle as a policy file, ready to be signed. ParsePolicy
// gives the same bundle again; a bundle of which that would not hold is refused.
func FormatPolicy(b *residency.Bundle) ([]byte, error) {
	w := policyWriter{zones: map[string]residency.Zone{}}
	for _, name := range b.Names() {
		w.policy(b.Policies[name])
	}
	if w.err != nil {
		return nil, fmt.Errorf("write policy: %w", w.err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "epoch: %d\n", b.Epoch)
	writeTime(&out, "issued", b.Issued)
	writeTime(&out, "expires", b.Expires)
	fmt.Fprintf(&out, "default: %q\n", b.Default)
	w.writeZones(&out)
	out.WriteString("policies:\n")
	out.Write(w.policies.Bytes())
	writeTenants(&out, b)
	writeRegister(&out, b)
	if _, err := ParsePolicy("policy", out.Bytes()); err != nil {
		return nil, fmt.Errorf("write policy: %w", err)
	}
	return out.Bytes(), nil
}

// policyWriter gathers the zones that policies use while it writes these.
type policyWriter struct {
	policies bytes.Buffer
	zones    map[string]residency.Zone
	err      error
}

func (w *policyWriter) policy(p *residency.Policy) {
	fmt.Fprintf(&w.policies, "  %q:\n    title: %q\n", p.Name, p.Title)
	if p.Description != "" {
		fmt.Fprintf(&w.policies, "    description: %q\n", p.Description)
	}
	if p.Source != "" {
		fmt.Fprintf(&w.policies, "    source: %q\n", p.Source)
	}
	w.policies.WriteString("    classes:\n")
	for _, class := range residency.Classes() {
		zone := p.Zone(class)
		if before, ok := w.zones[zone.Name]; ok && !reflect.DeepEqual(before, zone) && w.err == nil {
			w.err = fmt.Errorf("zone %q: two policies mean different things by it", zone.Name)
		}
		w.zones[zone.Name] = zone
		fmt.Fprintf(&w.policies, "      %s: %q\n", class, zone.Name)
	}
	edge := edgeNever
	if p.EdgeOutside {
		edge = edgeLocal
	}
	fmt.Fprintf(&w.policies, "    edge_outside: %s\n", edge)
	fmt.Fprintf(&w.policies, "    recording: {allowed: %t, notice: %t, consent: %t%s%s}\n", p.Recording.Allowed, p.Recording.Notice, p.Recording.Consent, startText(p), consentText(p.Recording))
	fmt.Fprintf(&w.policies, "    chat_log: %t\n    qa_log: %t\n", p.ChatLog, p.QALog)
	if p.AttendanceLog {
		w.policies.WriteString("    attendance_log: true\n")
	}
	if p.Registration {
		w.policies.WriteString("    registration: true\n")
	}
	fmt.Fprintf(&w.policies, "    e2ee: %s\n    evidence: %s\n", cmp.Or(p.E2EE, residency.E2EEAllowed), cmp.Or(p.Evidence, residency.EvidenceRequired))
	w.transfers(p)
	w.retention(p)
	if p.SingleOrigin {
		fmt.Fprintf(&w.policies, "    few_origins: %s\n", originsAccepted)
	}
}

func (w *policyWriter) transfers(p *residency.Policy) {
	if p.TransferRequired {
		fmt.Fprintf(&w.policies, "    transfer_basis: %s\n", transferRequired)
	}
	if len(p.Transfers) > 0 {
		w.policies.WriteString("    transfers:\n")
	}
	for _, t := range p.Transfers {
		fmt.Fprintf(&w.policies, "      - kind: %q\n", t.Kind)
		writeCountries(&w.policies, "    countries", t.Countries)
		writeTime(&w.policies, "        from", t.From)
		writeTime(&w.policies, "        until", t.Until)
		fmt.Fprintf(&w.policies, "        reference: %q\n", t.Reference)
	}
}

func (w *policyWriter) writeZones(out *bytes.Buffer) {
	var text bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(w.zones)) {
		zone := w.zones[name]
		members, _ := residency.NamedZone(name)
		if reflect.DeepEqual(zone, residency.Zone{Name: name, Countries: members}) {
			continue // built in
		}
		fmt.Fprintf(&text, "  %q:\n", name)
		if zone.Anywhere {
			text.WriteString("    anywhere: true\n")
		}
		writeCountries(&text, "countries", zone.Countries)
		writeCountries(&text, "operator_countries", zone.OperatorCountries)
		writeCountries(&text, "parent_countries", zone.ParentCountries)
		writeCountries(&text, "excluded_parent_countries", zone.ExcludedParentCountries)
		if len(zone.Operators) > 0 {
			fmt.Fprintf(&text, "    operators: [%s]\n", quoted(zone.Operators))
		}
	}
	if text.Len() > 0 {
		out.WriteString("zones:\n")
		out.Write(text.Bytes())
	}
}

func writeCountries(out *bytes.Buffer, key string, countries []residency.Country) {
	if len(countries) == 0 {
		return
	}
	for _, name := range residency.NamedZones() {
		if members, _ := residency.NamedZone(name); slices.Equal(members, countries) {
			fmt.Fprintf(out, "    %s: [%s]\n", key, name)
			return
		}
	}
	fmt.Fprintf(out, "    %s: [%s]\n", key, quoted(countries))
}

// quoted writes a list with every entry in quotes: NO stays Norway.
func quoted[S ~string](items []S) string {
	texts := make([]string, len(items))
	for i, s := range items {
		texts[i] = fmt.Sprintf("%q", string(s))
	}
	return strings.Join(texts, ", ")
}

func writeTime(out *bytes.Buffer, key string, t time.Time) {
	if !t.IsZero() {
		fmt.Fprintf(out, "%s: %q\n", key, t.UTC().Format(time.RFC3339Nano))
	}
}

func writeRegister(out *bytes.Buffer, b *residency.Bundle) {
	if len(b.Nodes) > 0 {
		out.WriteString("nodes:\n")
	}
	for _, n := range b.Nodes {
		fmt.Fprintf(out, "  - {name: %q, country: %q", string(n.Name), string(n.Country))
		writeList(out, "roles", n.Roles)
		writeList(out, "tenants", n.Tenants)
		out.WriteString("}\n")
	}
	if len(b.Overrides) > 0 {
		out.WriteString("overrides:\n")
	}
	for _, o := range b.Overrides {
		fmt.Fprintf(out, "  - {node: %q, reason: %q, until: %q}\n", string(o.Node), o.Reason, o.Until.UTC().Format(time.RFC3339Nano))
	}
	if len(b.Revoked) > 0 {
		fmt.Fprintf(out, "revoked: [%s]\n", quoted(b.Revoked))
	}
}

func writeTenants(out *bytes.Buffer, b *residency.Bundle) {
	if len(b.Tenants) > 0 {
		out.WriteString("tenants:\n")
	}
	byName := func(a, b residency.Tenant) int { return cmp.Compare(a.Name, b.Name) }
	for _, t := range slices.SortedFunc(slices.Values(b.Tenants), byName) {
		fmt.Fprintf(out, "  %q: {policy: %q", t.Name, t.Policy)
		writeList(out, "policies", t.Policies)
		writeList(out, "api_keys", t.APIKeys)
		fmt.Fprintf(out, ", controller: %q}\n", t.Controller)
	}
}

// writeList goes on with a mapping in braces.
func writeList[S ~string](out *bytes.Buffer, key string, items []S) {
	if len(items) > 0 {
		fmt.Fprintf(out, ", %s: [%s]", key, quoted(items))
	}
}
