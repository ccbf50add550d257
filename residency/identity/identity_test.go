package identity

import (
	"github.com/domicile/domicile/residency"
	"net/netip"
	"testing"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func fra() residency.Node {
	return residency.Node{Name: "fra", Country: "DE", Operator: "Example Hosting GmbH", OperatorCountry: "DE",
		Parent: "Example Holding SE", ParentCountry: "FR", Roles: []residency.Role{residency.RoleOrigin, residency.RoleEdge}}
}

func TestSmoke(t *testing.T) {
	ca, err := CreateCA(t.TempDir(), "x", start)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := GenerateKey()
	der, err := ca.Issue(key.Public(), fra(), SANs{}, start, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cert, n, err := Verify(der, ca.Pool(), start)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(n, cert.URIs[0])
	c, err := ClaimOf(cert)
	if err != nil {
		t.Fatal(err)
	}
	c.Issued = start
	c.URL = "https://127.0.0.1:443"
	c.RelayAddr = netip.MustParseAddrPort("127.0.0.1:1")
	b, err := SignClaim(c, key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyClaim(b, cert)
	t.Log(len(b), MaxClaim, got, err)
}
