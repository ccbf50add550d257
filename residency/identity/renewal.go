package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/domicile/domicile/residency"
)

// A proof shows, on a connection that is up, that its holder has another
// certificate now: what exported authenticators (RFC 9261) do, for one kind of
// certificate and in one message. The binding is exported from the connection's
// own keys (RFC 8446 section 7.5) and differs for the two ends, so that a proof is
// good on one connection in one direction and cannot be repeated elsewhere.
//
//	offset size
//	     0    1  version, 1
//	     1    2  length of the certificate
//	     3       certificate (DER)
//	   end   64  ECDSA P-256 signature (r, s) of proofContext, the binding and
//	             all before it
const (
	proofVersion = 1
	proofHead    = 3
	proofContext = "domicile link proof v1\x00"

	// maxProofCertificate bounds the certificate in a proof; one with the longest
	// names has about 1,500 bytes.
	maxProofCertificate = 4096

	// MaxProof is the size of the largest proof, in bytes.
	MaxProof = proofHead + maxProofCertificate + claimSignature
)

// Prove shows that this node holds a certificate, on the connection with that binding.
func Prove(pair *tls.Certificate, binding []byte) ([]byte, error) {
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || len(pair.Certificate) == 0 || len(pair.Certificate[0]) > maxProofCertificate {
		return nil, errors.New("prove certificate: no certificate with a key that signs, or too large a one")
	}
	b := binary.BigEndian.AppendUint16([]byte{proofVersion}, uint16(len(pair.Certificate[0])))
	b = append(b, pair.Certificate[0]...)
	sig, err := signFixed(key, proofContext+string(binding), b)
	if err != nil {
		return nil, fmt.Errorf("prove certificate: %w", err)
	}
	return append(b, sig...), nil
}

// VerifyProof checks a proof for a connection's binding and returns the node that
// its certificate states. The certificate has to be one of the roots', valid at now,
// and its key has to have signed this very binding.
func VerifyProof(b, binding []byte, roots *x509.CertPool, now time.Time) (residency.Node, error) {
	var none residency.Node
	if len(b) < proofHead+claimSignature || len(b) > MaxProof || b[0] != proofVersion {
		return none, fmt.Errorf("verify proof: %d bytes that are no proof of version %d", len(b), proofVersion)
	}
	signed := len(b) - claimSignature
	if n := int(binary.BigEndian.Uint16(b[1:])); n != signed-proofHead {
		return none, fmt.Errorf("verify proof: a certificate of %d bytes in %d", n, signed-proofHead)
	}
	cert, node, err := verify(b[proofHead:signed], roots, now)
	if err != nil {
		return none, fmt.Errorf("verify proof: %w", err)
	}
	if err := verifyFixed(cert.PublicKey, proofContext+string(binding), b[:signed], b[signed:]); err != nil {
		return none, fmt.Errorf("verify proof: node %q: %w", node.Name, err)
	}
	return node, nil
}

// SameFacts says in which fact two certificates of a node differ, nil if in none:
// then one may take the other's place while the node runs. Validity and serial
// number are no facts; of roles the order is none.
func SameFacts(was, is residency.Node) error {
	if what, a, b := difference(was, is); what != "" {
		return fmt.Errorf("the %s is %q now and was %q", what, b, a)
	}
	return nil
}

// difference names the first fact in which two nodes differ, and both forms of it.
func difference(a, b residency.Node) (what, inA, inB string) {
	for _, f := range []struct{ what, a, b string }{
		{"name", string(a.Name), string(b.Name)},
		{"country", string(a.Country), string(b.Country)},
		{"operator", a.Operator, b.Operator},
		{"operator country", string(a.OperatorCountry), string(b.OperatorCountry)},
		{"parent", a.Parent, b.Parent},
		{"parent country", string(a.ParentCountry), string(b.ParentCountry)},
		{"roles", joinRoles(a.Roles), joinRoles(b.Roles)},
	} {
		if f.a != f.b {
			return f.what, f.a, f.b
		}
	}
	return "", "", ""
}
