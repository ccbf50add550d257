// Package relaytest makes small meshes of relay fabrics for tests: a certificate
// authority of its own, nodes on loopback addresses or on a simulated network,
// and handlers and sinks that write down what they were given.
//
// It refuses nothing and secures nothing; production code never imports it.
package relaytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
)

// ALPN is the protocol the nodes of this package agree on.
const ALPN = "domicile-relaytest"

// CA signs certificates for nodes that exist only in a test.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Identity is a node and its certificate.
type Identity struct {
	Node residency.Node
	cert tls.Certificate
}

// NewCA makes a CA that is valid for a day around now.
func NewCA(t testing.TB) *CA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "relaytest"},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	ca := &CA{key: key}
	ca.cert = sign(t, template, template, &key.PublicKey, key)
	return ca
}

func sign(t testing.TB, template, parent *x509.Certificate, pub *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// Identity issues a certificate to a node. Where n has no validity it is valid
// for an hour around now.
func (ca *CA) Identity(t testing.TB, n residency.Node) Identity {
	t.Helper()
	if n.NotAfter.IsZero() {
		n.NotBefore, n.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	n.NotBefore, n.NotAfter = n.NotBefore.Truncate(time.Second), n.NotAfter.Truncate(time.Second)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	n.Serial = serial.Text(16)
	cert := sign(t, &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: string(n.Name)},
		NotBefore:    n.NotBefore,
		NotAfter:     n.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:         []*url.URL{{Scheme: "relaytest", Host: string(n.Name), RawQuery: "country=" + string(n.Country)}},
	}, ca.cert, &key.PublicKey, ca.key)
	return Identity{Node: n, cert: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}}
}

// TLS returns the configurations with which id proves itself and accepts
// certificates of ca.
func (ca *CA) TLS(id Identity, now func() time.Time) (server, client *tls.Config) {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	base := &tls.Config{
		Certificates: []tls.Certificate{id.cert},
		NextProtos:   []string{ALPN},
		MinVersion:   tls.VersionTLS13,
		Time:         now,
	}
	server = base.Clone()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, roots
	client = base.Clone()
	client.InsecureSkipVerify = true // nodes are known by their URI, not by a host's name; VerifyConnection verifies
	client.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now()})
		return err
	}
	return server, client
}

// PeerNode reads the node out of a certificate of this package.
func PeerNode(s tls.ConnectionState) (residency.Node, error) {
	if len(s.PeerCertificates) == 0 {
		return residency.Node{}, errors.New("no certificate")
	}
	c := s.PeerCertificates[0]
	if len(c.URIs) != 1 || c.URIs[0].Scheme != "relaytest" {
		return residency.Node{}, fmt.Errorf("certificate %q names no node", c.Subject.CommonName)
	}
	u := c.URIs[0]
	return residency.Node{
		Name: residency.NodeName(u.Host), Country: residency.Country(u.Query().Get("country")),
		Roles:     []residency.Role{residency.RoleEdge, residency.RoleOrigin},
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Serial: c.SerialNumber.Text(16),
	}, nil
}
