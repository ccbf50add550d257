package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net/netip"
	"time"

	"github.com/domicile/domicile/residency"
)

const pemRequest = "CERTIFICATE REQUEST"

// Request is what a node asks its operator's CA for: a certificate in its name for
// a key that it has shown to hold. What the node is, the operator says; a request
// states no fact, and one that does is refused.
type Request struct {
	Name residency.NodeName
	Key  *ecdsa.PublicKey
}

// NewRequest makes a request (PKCS #10, RFC 2986) in DER form.
func NewRequest(name residency.NodeName, key crypto.Signer) ([]byte, error) {
	if _, err := residency.ParseNodeName(string(name)); err != nil {
		return nil, fmt.Errorf("request certificate: %w", err)
	}
	if _, err := publicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("request certificate: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: string(name)}}, key)
	if err != nil {
		return nil, fmt.Errorf("request certificate: %w", err)
	}
	return der, nil
}

// ParseRequest reads a request (DER) and checks that its key signed it.
func ParseRequest(der []byte) (Request, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("read request: its sender does not hold the key: %w", err)
	}
	key, err := publicKey(csr.PublicKey)
	if err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	name, err := residency.ParseNodeName(csr.Subject.CommonName)
	if err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	if len(csr.Extensions) > 0 {
		return Request{}, fmt.Errorf("read request: it asks for extensions (%v): what a certificate states, the operator says", csr.Extensions[0].Id)
	}
	return Request{Name: name, Key: key}, nil
}

// LoadRequest reads a request from a PEM file.
func LoadRequest(path string) (Request, error) {
	blocks, err := readPEM(path, pemRequest)
	if err != nil {
		return Request{}, fmt.Errorf("read request: %w", err)
	}
	if len(blocks) > 1 {
		return Request{}, fmt.Errorf("read request: %s holds %d, want one", path, len(blocks))
	}
	return ParseRequest(blocks[0])
}

// WriteRequest writes a request (DER) as PEM into a new file.
func WriteRequest(path string, der []byte) error {
	return writeNew(path, 0o644, pem.EncodeToMemory(&pem.Block{Type: pemRequest, Bytes: der}))
}

// Issued reports whether this CA issued a certificate, whatever the time is.
func (ca *CA) Issued(cert *x509.Certificate) error {
	if err := cert.CheckSignatureFrom(ca.cert); err != nil {
		return fmt.Errorf("certificate %s was not issued by %q: %w", serial(cert), ca.cert.Subject.CommonName, err)
	}
	return nil
}

// Renew issues what an earlier certificate of this CA's states once more, with
// other dates: for its key, or for another one if pub is not nil.
func (ca *CA) Renew(old *x509.Certificate, pub crypto.PublicKey, from, to time.Time) ([]byte, error) {
	if err := ca.Issued(old); err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	n, err := Parse(old)
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	if pub == nil {
		pub = old.PublicKey
	}
	sans := SANs{DNS: old.DNSNames}
	for _, ip := range old.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			sans.IPs = append(sans.IPs, a.Unmap())
		}
	}
	return ca.Issue(pub, n, sans, from, to)
}
