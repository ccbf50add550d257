// Package identity says who a node is: an operator's certificate authority, the
// certificates it issues to nodes, the claims nodes sign for gossip, and the
// signatures under policies.
//
// What a node is (its country, operator, ultimate parent, roles) stands in one
// URI of its certificate and is true because the operator's CA signed it. The
// package refuses to take such a fact from anywhere else: a claim that differs
// from the certificate does not verify. It reads and writes files and starts
// nothing; callers pass the time.
package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// The facts of a node stand in the URI subject alternative name of its
// certificate (RFC 5280 section 4.2.1.6):
//
//	domicile://node/fra?country=DE&operator=Example+GmbH&operator_country=DE
//	    &parent=Example+Holding&parent_country=DE&roles=origin,edge
//
// Every key stands there exactly once, none other does, and the certificate has
// no second URI: which of two would count is a question an attacker can use.
const (
	uriScheme = "domicile"
	uriHost   = "node"
)

var uriKeys = []string{"country", "operator", "operator_country", "parent", "parent_country", "roles"}

// maxURI bounds the text that ParseURI looks at; what FormatURI writes for the
// longest names, every byte escaped, is below it.
const maxURI = 1024

// FormatURI writes a node's facts as the URI of its certificate.
func FormatURI(n residency.Node) (*url.URL, error) {
	if err := n.Validate(); err != nil {
		return nil, fmt.Errorf("write node URI: %w", err)
	}
	roles := make([]string, len(n.Roles))
	for i, r := range n.Roles {
		roles[i] = string(r)
	}
	q := url.Values{
		"country": {string(n.Country)}, "operator": {n.Operator}, "operator_country": {string(n.OperatorCountry)},
		"parent": {n.Parent}, "parent_country": {string(n.ParentCountry)}, "roles": {strings.Join(roles, ",")},
	}
	return &url.URL{Scheme: uriScheme, Host: uriHost, Path: "/" + string(n.Name), RawQuery: q.Encode()}, nil
}

// ParseURI reads a node's facts from the URI of a certificate. It leaves the
// validity and the serial number empty.
func ParseURI(u *url.URL) (residency.Node, error) {
	n, err := parseURI(u)
	if err != nil {
		return residency.Node{}, fmt.Errorf("read node URI: %w", err)
	}
	return n, nil
}

func parseURI(u *url.URL) (n residency.Node, err error) {
	if s := u.String(); len(s) > maxURI {
		return n, fmt.Errorf("%d bytes: want at most %d", len(s), maxURI)
	}
	plain := u.User == nil && u.Opaque == "" && u.Fragment == "" && u.RawPath == ""
	if !plain || u.Scheme != uriScheme || u.Host != uriHost || !strings.HasPrefix(u.Path, "/") {
		return n, fmt.Errorf("%q: want domicile://node/NAME?…", u)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return n, fmt.Errorf("%q: %w", u, err)
	}
	for key, values := range q {
		if !slices.Contains(uriKeys, key) {
			return n, fmt.Errorf("%q: unknown key %q: want %s", u, key, strings.Join(uriKeys, ", "))
		}
		if len(values) != 1 {
			return n, fmt.Errorf("%q: key %q stands there %d times", u, key, len(values))
		}
	}
	for _, key := range uriKeys {
		if !q.Has(key) {
			return n, fmt.Errorf("%q: key %q is missing", u, key)
		}
	}
	n = residency.Node{
		Name:     residency.NodeName(u.Path[1:]),
		Country:  residency.Country(q.Get("country")),
		Operator: q.Get("operator"), OperatorCountry: residency.Country(q.Get("operator_country")),
		Parent: q.Get("parent"), ParentCountry: residency.Country(q.Get("parent_country")),
	}
	for r := range strings.SplitSeq(q.Get("roles"), ",") {
		n.Roles = append(n.Roles, residency.Role(r))
	}
	return n, n.Validate()
}

// Parse reads what a certificate states about its node. It does not verify the
// certificate; Verify does both.
func Parse(cert *x509.Certificate) (residency.Node, error) {
	if len(cert.URIs) != 1 {
		return residency.Node{}, fmt.Errorf("read certificate %s: it has %d URIs, want exactly one of domicile://node/…", serial(cert), len(cert.URIs))
	}
	n, err := parseURI(cert.URIs[0])
	if err != nil {
		return residency.Node{}, fmt.Errorf("read certificate %s: %w", serial(cert), err)
	}
	n.NotBefore, n.NotAfter, n.Serial = cert.NotBefore, cert.NotAfter, serial(cert)
	return n, nil
}

// serial is the form in which policies revoke: lower-case hexadecimal without
// leading zeros.
func serial(cert *x509.Certificate) string { return cert.SerialNumber.Text(16) }

// maxSerialBits is what RFC 5280 section 4.1.2.2 allows; policies revoke by it.
const maxSerialBits = 160

// Verify checks that a certificate (DER) was issued to a node by one of the
// roots and is valid at now, and returns what it states.
func Verify(der []byte, roots *x509.CertPool, now time.Time) (*x509.Certificate, residency.Node, error) {
	cert, n, err := verify(der, roots, now)
	if err != nil {
		return nil, residency.Node{}, fmt.Errorf("verify node certificate: %w", err)
	}
	return cert, n, nil
}

func verify(der []byte, roots *x509.CertPool, now time.Time) (*x509.Certificate, residency.Node, error) {
	var none residency.Node
	if roots == nil || now.IsZero() {
		// x509 would take the machine's roots, or its clock.
		return nil, none, errors.New("no roots or no time to verify by")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, none, err
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, none, err
	}
	if bits := cert.SerialNumber.BitLen(); bits == 0 || bits > maxSerialBits {
		return nil, none, fmt.Errorf("certificate of serial number %.48s…: want 1 to %d bits, or no policy could revoke it", serial(cert), maxSerialBits)
	}
	if cert.IsCA {
		return nil, none, fmt.Errorf("certificate %s is an authority's, not a node's", serial(cert))
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if !slices.Contains(cert.ExtKeyUsage, use) {
			return nil, none, fmt.Errorf("certificate %s lacks the extended key usages serverAuth and clientAuth", serial(cert))
		}
	}
	if _, err := publicKey(cert.PublicKey); err != nil {
		return nil, none, err
	}
	n, err := Parse(cert)
	return cert, n, err
}

// Fingerprint is the SHA-256 of a certificate's DER form; it tells certificates apart.
func Fingerprint(cert *x509.Certificate) [32]byte { return FingerprintOf(cert.Raw) }

// FingerprintOf is the Fingerprint of a certificate's DER form.
func FingerprintOf(der []byte) [32]byte { return sha256.Sum256(der) }

// GenerateKey makes the key of a node or a server: ECDSA on P-256, which TLS
// between nodes, browsers and hardware all speak.
func GenerateKey() (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

func publicKey(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("a key of type %T: want ECDSA on P-256", pub)
	}
	return key, nil
}
