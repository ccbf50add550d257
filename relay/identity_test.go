package relay_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// Links come up with the certificates that operators' CAs issue, and the peer
// is the node that its certificate states.
func TestLinksWithNodeCertificates(t *testing.T) {
	ca, err := identity.CreateCA(t.TempDir(), "test CA", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	mesh := relaytest.NewMesh(t, nil)
	mesh.Configure = func(name residency.NodeName, c *relay.Config) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		n := residency.Node{Name: name, Country: "PL", Operator: "Op", OperatorCountry: "DE", Parent: "Op", ParentCountry: "DE",
			Roles: []residency.Role{residency.RoleEdge}}
		der, err := ca.Issue(key.Public(), n, identity.SANs{}, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		c.ServerTLS, c.ClientTLS = identity.TLS(identity.Fixed(cert), ca.Pool(), "domicile-relay", time.Now)
		c.PeerNode = identity.PeerNode
	}
	a, b := mesh.Start(t, "a", netip.AddrPort{}), mesh.Start(t, "b", netip.AddrPort{})
	mesh.Introduce()
	for n, peer := range map[*relaytest.Node]residency.NodeName{a: "b", b: "a"} {
		if got := relaytest.Await(t, n.Up, "link").Peer(); got.Name != peer || got.Country != "PL" || got.OperatorCountry != "DE" {
			t.Errorf("peer of %s is %+v", n.Name, got)
		}
	}
}
