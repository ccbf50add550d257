package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
)

// maxPEM bounds what is read of a file: certificates and keys are a few KiB.
const maxPEM = 1 << 20

// WriteKey writes a private key as PEM (PKCS #8) into a new file of mode 0600.
func WriteKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key %s: %w", path, err)
	}
	return writeNew(path, 0o600, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
}

// WriteCertificates writes certificates (DER) as PEM into a new file of mode
// 0644, the holder's first.
func WriteCertificates(path string, ders ...[]byte) error {
	var b bytes.Buffer
	for _, der := range ders {
		if err := pem.Encode(&b, &pem.Block{Type: pemCertificate, Bytes: der}); err != nil {
			return fmt.Errorf("write certificate %s: %w", path, err)
		}
	}
	return writeNew(path, 0o644, b.Bytes())
}

// writeNew writes a file that does not exist yet.
func writeNew(path string, mode os.FileMode, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// CheckKeyMode refuses a private key that others than its owner may touch.
func CheckKeyMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("read key %s: mode %04o lets others than its owner at it; chmod 600 it", path, mode)
	}
	return nil
}

// LoadKey reads a private key that only its owner may touch.
func LoadKey(path string) (crypto.Signer, error) {
	if err := CheckKeyMode(path); err != nil {
		return nil, err
	}
	blocks, err := readPEM(path, pemKey)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0])
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: a key of type %T: want ECDSA on P-256", path, parsed)
	}
	if _, err := publicKey(key.Public()); err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	return key, nil
}

// LoadCertificates reads all certificates of a PEM file: a node's, a server's
// with its chain, or the authorities that a node trusts. There is at least one.
func LoadCertificates(path string) ([]*x509.Certificate, error) {
	blocks, err := readPEM(path, pemCertificate)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	certs := make([]*x509.Certificate, len(blocks))
	for i, der := range blocks {
		if certs[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", path, err)
		}
	}
	return certs, nil
}

// LoadPair reads the certificate and key of a node. Both must belong together.
func LoadPair(certPath, keyPath string) (tls.Certificate, error) {
	certs, err := LoadCertificates(certPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := LoadKey(keyPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair := tls.Certificate{PrivateKey: key, Leaf: certs[0]}
	for _, c := range certs {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	if pub, err := publicKey(certs[0].PublicKey); err != nil || !pub.Equal(key.Public()) {
		return tls.Certificate{}, fmt.Errorf("read key %s: it is not the key of the certificate %s", keyPath, certPath)
	}
	return pair, nil
}

// readPEM returns the contents of a file's blocks of one kind, at least one.
// Blocks of another kind are refused: a key beside a certificate is a mistake
// that would publish it.
func readPEM(path, kind string) ([][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxPEM {
		return nil, fmt.Errorf("%s: %d bytes: want at most %d", path, info.Size(), maxPEM)
	}
	rest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var blocks [][]byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("%s: a PEM block of type %q: want %q", path, block.Type, kind)
		}
		blocks = append(blocks, block.Bytes)
	}
	if len(blocks) == 0 {
		return nil, fmt.Errorf("%s: no PEM block of type %q", path, kind)
	}
	return blocks, nil
}
