package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/domicile/domicile/residency"
)

// The files of a CA. Only nodes' operators hold the key; nodes get ca.pem.
const (
	CAFile    = "ca.pem"
	CAKeyFile = "ca-key.pem"
)

const (
	// caValidity is long because every node and every policy hangs on it; a
	// change of CA is done by having nodes trust two for a while.
	caValidity = 10 * 365 * 24 * time.Hour

	// MaxServerValidity is what browsers accept of a server's certificate at
	// most: 398 days, less a day for clocks that differ.
	MaxServerValidity = 397 * 24 * time.Hour
)

// SANs are the names and addresses under which a certificate's holder answers.
type SANs struct {
	DNS []string
	IPs []netip.Addr
}

func (s SANs) ips() []net.IP {
	ips := make([]net.IP, len(s.IPs))
	for i, a := range s.IPs {
		ips[i] = a.Unmap().AsSlice()
	}
	return ips
}

// CA is an operator's certificate authority: it says which nodes there are,
// what they are, and which policies are in force. It is immutable.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// CreateCA makes a CA valid from now for ten years and writes ca.pem and
// ca-key.pem (mode 0600) into dir. It refuses to overwrite either.
func CreateCA(dir, commonName string, now time.Time) (*CA, error) {
	ca, err := newCA(commonName, now)
	if err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	if err := WriteKey(filepath.Join(dir, CAKeyFile), ca.key); err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	if err := WriteCertificates(filepath.Join(dir, CAFile), ca.cert.Raw); err != nil {
		return nil, fmt.Errorf("create CA: %w", err)
	}
	return ca, nil
}

func newCA(commonName string, now time.Time) (*CA, error) {
	if commonName == "" {
		return nil, errors.New("the common name is empty")
	}
	key, err := GenerateKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now,
		NotAfter:              now.Add(caValidity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it issues to nodes, not to other authorities
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &CA{cert: cert, key: key}, err
}

// LoadCA reads ca.pem and ca-key.pem from dir. It refuses a key that others
// than its owner can read, and a key that is not the certificate's.
func LoadCA(dir string) (*CA, error) {
	certs, err := LoadCertificates(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	key, err := LoadKey(filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	cert := certs[0]
	if !cert.IsCA {
		return nil, fmt.Errorf("load CA: %s is not the certificate of an authority", filepath.Join(dir, CAFile))
	}
	if pub, err := publicKey(cert.PublicKey); err != nil || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("load CA: the key in %s is not that of %s", CAKeyFile, CAFile)
	}
	return &CA{cert: cert, key: key}, nil
}

// Certificate returns the CA's own certificate.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// Pool returns a new pool that holds the CA alone.
func (ca *CA) Pool() *x509.CertPool { return Pool(ca.cert) }

// Pool returns a pool of the given authorities.
func Pool(cas ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range cas {
		pool.AddCert(c)
	}
	return pool
}

// Issue makes a node's certificate (DER), valid in [from, to), for both ends of
// links between nodes. The node's validity and serial number are ignored: they
// are set here.
func (ca *CA) Issue(pub crypto.PublicKey, n residency.Node, sans SANs, from, to time.Time) ([]byte, error) {
	uri, err := FormatURI(n)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	template := leaf(string(n.Name), sans, from, to)
	template.URIs = append(template.URIs, uri)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return ca.issue(template, pub)
}

// IssueServer makes a certificate (DER) for HTTPS and TURN over TLS, as browsers
// want it: serverAuth alone, valid for 397 days at most, at least one name or
// address. It states nothing about a node, so no node accepts it as a peer's,
// and its private key may lie where a web server can read it.
func (ca *CA) IssueServer(pub crypto.PublicKey, sans SANs, from, to time.Time) ([]byte, error) {
	if len(sans.DNS)+len(sans.IPs) == 0 {
		return nil, errors.New("issue server certificate: no name and no address")
	}
	if d := to.Sub(from); d > MaxServerValidity {
		return nil, fmt.Errorf("issue server certificate: valid for %v: browsers accept %v at most", d, MaxServerValidity)
	}
	template := leaf("", sans, from, to) // browsers ignore the common name
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return ca.issue(template, pub)
}

func leaf(commonName string, sans SANs, from, to time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             from,
		NotAfter:              to,
		DNSNames:              sans.DNS,
		IPAddresses:           sans.ips(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
}

func (ca *CA) issue(template *x509.Certificate, pub crypto.PublicKey) ([]byte, error) {
	key, err := publicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if !template.NotBefore.Before(template.NotAfter) || template.NotAfter.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("issue certificate: valid from %s to %s: want an end after the start and not after the CA's, %s",
			template.NotBefore.UTC().Format(time.RFC3339), template.NotAfter.UTC().Format(time.RFC3339), ca.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	der, err := sign(template, ca.cert, key, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	return der, nil
}

func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) ([]byte, error) {
	// 127 random bits: positive, unguessable, within RFC 5280's 20 bytes.
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = n.Add(n, big.NewInt(1))
	return x509.CreateCertificate(rand.Reader, template, parent, pub, key)
}
