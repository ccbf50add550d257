package front

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var testPairOnce = sync.OnceValues(func() (*tls.Certificate, error) {
	cert, key, err := makePair("node.test")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	return &pair, err
})

// testPair is a self-signed certificate for node.test, one for all tests.
func testPair(t *testing.T) *tls.Certificate {
	pair, err := testPairOnce()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func makePair(name string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}

// pairFiles writes pairs into two files; each version gets a later time.
type pairFiles struct {
	cert, key string
	version   int
}

func (p *pairFiles) write(t *testing.T, cert, key []byte) {
	t.Helper()
	p.version++
	at := time.Date(2026, 1, 1, 0, 0, p.version, 0, time.UTC)
	for file, data := range map[string][]byte{p.cert: cert, p.key: key} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCertificateFilesReload(t *testing.T) {
	dir := t.TempDir()
	files := &pairFiles{cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }

	if _, err := NewCertificateFiles(files.cert, files.key, clock, nil); err == nil {
		t.Fatal("files that do not exist were accepted")
	}
	cert1, key1, err := makePair("one.test")
	if err != nil {
		t.Fatal(err)
	}
	files.write(t, cert1, key1)
	c, err := NewCertificateFiles(files.cert, files.key, clock, nil)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when, want string) {
		t.Helper()
		pair, err := c.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := pair.Leaf.Subject.CommonName; got != want {
			t.Errorf("%s: certificate of %q, want %q", when, got, want)
		}
	}
	expect("at first", "one.test")

	cert2, key2, err := makePair("two.test")
	if err != nil {
		t.Fatal(err)
	}
	files.write(t, cert2, key1) // a renewal half done: the key is still the old one
	now = now.Add(recheck)
	expect("half written", "one.test")
	files.write(t, cert2, key2)
	expect("within a second", "one.test")
	now = now.Add(recheck)
	expect("rewritten", "two.test")
	os.Remove(files.cert)
	now = now.Add(recheck)
	expect("removed", "two.test")

	if _, err := NewCertificateFiles(files.key, files.key, clock, nil); err == nil {
		t.Error("a key was accepted as certificate")
	}
}
