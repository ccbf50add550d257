package configs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// largePolicy is a signed policy file of 1,000 tenants and 500 nodes, each tenant
// with a policy of its own choice, a part of the nodes with tenants of their own.
func largePolicy(tb testing.TB) (path string, ca *identity.CA) {
	tb.Helper()
	b := &residency.Bundle{Epoch: 1, Default: "eea-only", Policies: map[string]*residency.Policy{}}
	for _, name := range Profiles() {
		p, err := Profile(name)
		if err != nil {
			tb.Fatal(err)
		}
		b.Policies[name] = p
	}
	countries := residency.Countries()
	for i := range 500 {
		n := residency.Registered{Name: residency.NodeName(fmt.Sprintf("node-%03d", i)), Country: countries[i%len(countries)], Roles: residency.Roles()}
		if i < 20 {
			n.Country, n.Tenants = "RU", []string{fmt.Sprintf("tenant-%04d", i%4), "tenant-0999"}
		}
		if i >= 480 {
			n.Country = "DE"
		}
		b.Nodes = append(b.Nodes, n)
	}
	for i := range 1000 {
		b.Tenants = append(b.Tenants, residency.Tenant{Name: fmt.Sprintf("tenant-%04d", i), Policy: b.Names()[i%len(b.Names())],
			APIKeys: []string{fmt.Sprintf("key-%d", i)}, Controller: fmt.Sprintf("Example %d GmbH, Berlin", i)})
	}
	for _, p := range b.Policies {
		p.SingleOrigin = p.Name == "tenant-pinned-country" // RU has nodes of some tenants alone
	}
	text, err := FormatPolicy(b)
	if err != nil {
		tb.Fatal(err)
	}
	path = filepath.Join(tb.TempDir(), "policy.yaml")
	if ca, err = identity.CreateCA(tb.TempDir(), "test", time.Now()); err != nil {
		tb.Fatal(err)
	}
	sig, err := ca.Sign(text)
	if err != nil {
		tb.Fatal(err)
	}
	for name, content := range map[string][]byte{path: text, path + SignatureSuffix: sig} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return path, ca
}

// TestLargePolicy loads it within the second that the plan allows a quiet machine;
// the bound is for one that is busy with other tests too.
func TestLargePolicy(t *testing.T) {
	path, ca := largePolicy(t)
	begin := time.Now()
	b, err := LoadSignedPolicy(path, ca.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("loaded in %s", took)
	}
	if len(b.Tenants) != 1000 || len(b.Nodes) != 500 || b.TenantOf("key-999") != "tenant-0999" {
		t.Errorf("%d tenants, %d nodes", len(b.Tenants), len(b.Nodes))
	}
}

// BenchmarkLoadSignedPolicy reads, verifies, parses and checks it.
func BenchmarkLoadSignedPolicy(b *testing.B) {
	path, ca := largePolicy(b)
	for b.Loop() {
		if _, err := LoadSignedPolicy(path, ca.Certificate()); err != nil {
			b.Fatal(err)
		}
	}
}
