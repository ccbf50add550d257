package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// signatureContext keeps a signature under a policy from being one under a
// certificate or a claim.
const signatureContext = "domicile policy v1\x00"

const pemSignature = "DOMICILE SIGNATURE"

// maxSignature bounds the text of a signature, in bytes; a real one has about 160.
const maxSignature = 4096

// Sign signs a policy file's bytes. The result is text (a PEM block) for a file
// beside it: policy.yaml.sig.
func (ca *CA) Sign(b []byte) ([]byte, error) {
	sig, err := ca.key.Sign(rand.Reader, digest(signatureContext, b), crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemSignature, Bytes: sig}), nil
}

// VerifySignature checks that one of the authorities signed b, every byte of it.
func VerifySignature(b, sig []byte, cas ...*x509.Certificate) error {
	if len(sig) > maxSignature {
		return fmt.Errorf("verify signature: it has %d bytes: want at most %d", len(sig), maxSignature)
	}
	block, _ := pem.Decode(sig)
	if block == nil || block.Type != pemSignature {
		return fmt.Errorf("verify signature: no PEM block of type %q", pemSignature)
	}
	for _, ca := range cas {
		key, err := publicKey(ca.PublicKey)
		if err == nil && ca.IsCA && ecdsa.VerifyASN1(key, digest(signatureContext, b), block.Bytes) {
			return nil
		}
	}
	return errors.New("verify signature: none of the trusted authorities signed this text as it is now")
}
