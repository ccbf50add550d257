package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

// storage is data_dir/acme: accounts, as certmagic keeps them, and for each
// authority a file with the certificate and its key. Directories have mode 0700,
// files 0600; a file is replaced as a whole.
//
// The directory has one user, this process, so locks are in memory: those of
// certmagic's files would make a node that was killed wait for itself.
type storage struct {
	*certmagic.FileStorage
	locks sync.Map // name → *sync.Mutex
}

func newStorage(dir string) *storage {
	return &storage{FileStorage: &certmagic.FileStorage{Path: dir}}
}

// Lock implements certmagic.Locker.
func (s *storage) Lock(_ context.Context, name string) error {
	m, _ := s.locks.LoadOrStore(name, new(sync.Mutex))
	m.(*sync.Mutex).Lock()
	return nil
}

// Unlock implements certmagic.Locker.
func (s *storage) Unlock(_ context.Context, name string) error {
	m, ok := s.locks.Load(name)
	if !ok {
		return fmt.Errorf("%s is not locked", name)
	}
	m.(*sync.Mutex).Unlock()
	return nil
}

// Load implements certmagic.Storage. A file of an account that is damaged counts
// as missing: then the account is made anew, instead of failing for ever.
func (s *storage) Load(ctx context.Context, name string) ([]byte, error) {
	b, err := s.FileStorage.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	damaged := false
	switch filepath.Ext(name) {
	case ".json":
		damaged = !json.Valid(b)
	case ".key":
		block, _ := pem.Decode(b)
		damaged = block == nil
	}
	if damaged {
		return nil, &fs.PathError{Op: "read", Path: s.Filename(name), Err: fs.ErrNotExist}
	}
	return b, nil
}

// prepare makes the directory and finds out whether it can be written, before
// the authority is asked for something that could not be kept.
func (s *storage) prepare() error {
	if err := os.MkdirAll(s.Path, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(s.Path, 0o700); err != nil { // keys lie there; MkdirAll leaves what exists as it is
		return err
	}
	const probe = "probe"
	if err := s.Store(context.Background(), probe, []byte("can this be written?\n")); err != nil {
		return err
	}
	return s.Delete(context.Background(), probe)
}

// bundleOf names the file of an authority's certificate. Another authority has
// another file, so that a certificate of a staging directory is not taken for
// one that browsers believe.
func bundleOf(issuer string) string {
	return filepath.Join(certmagic.StorageKeys.Safe(issuer), "certificate.pem")
}

// save keeps a certificate with its key in one file: so they can never be at odds.
func (s *storage) save(name string, chain, key []byte) error {
	return s.Store(context.Background(), name, bytes.Join([][]byte{key, chain}, nil))
}

// saved reads it back; an error is fs.ErrNotExist if there is none.
func (s *storage) saved(name string) (*tls.Certificate, error) {
	b, err := s.Load(context.Background(), name)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b, b) // each takes the blocks that are its own
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: s.Filename(name), Err: err}
	}
	return &pair, nil
}

// newKey makes the key of a certificate, with its PEM form. P-256 is what every
// browser takes and handshakes are cheap with.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// requestFor makes the request for a certificate that holds for the names.
func requestFor(names []string, key crypto.Signer) (*x509.CertificateRequest, error) {
	dns, ips := sorted(names)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: dns, IPAddresses: ips}, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

// sorted tells names from addresses.
func sorted(names []string) (dns []string, ips []net.IP) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			ips = append(ips, ip)
		} else {
			dns = append(dns, name)
		}
	}
	return dns, ips
}

// selfMadeLife is how long a self-made certificate lasts, in case that somebody
// has told a test bed to believe it. Nobody else does.
const selfMadeLife = 365 * day

// selfMade makes a certificate that nobody believes, for a node that has no
// other: with it TLS works for clients that do not ask, and handshakes fail for
// a reason that people can read.
func selfMade(names []string, now time.Time) (*tls.Certificate, error) {
	key, _, err := newKey()
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	dns, ips := sorted(names)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Domicile: no certificate yet"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfMadeLife),
		DNSNames: dns, IPAddresses: ips,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.Join(errors.New("self-made certificate"), err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
