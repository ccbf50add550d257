package evidence

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// A statement is a line of text: a JSON object in the one form that encoding it
// again gives, a space, and the signature over the object's bytes.
//
//	{"version":1,…} 5f0c…
//	                ECDSA on P-256 with SHA-256 of the context and the object:
//	                r and s, 32 bytes each, as 128 hexadecimal digits in lower
//	                case; s is the smaller of the two that would do, so that
//	                nobody can make a second signature out of one
//
// The context (receipt, head, …) keeps a signature from meaning anything else.
type context string

const (
	receiptContext   context = "domicile receipt v1\x00"
	headContext      context = "domicile log head v1\x00"
	countersignature context = "domicile countersignature v1\x00"
	manifestContext  context = "domicile evidence file v1\x00"
)

const (
	signatureDigits = 128

	// MaxStatement bounds a signed statement in bytes; a receipt with the
	// longest names has less than half of it.
	MaxStatement = 4096
)

// halfOrder is the largest s that a signature may have.
var halfOrder = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// sign makes a statement of a value.
func sign(ctx context, v any, key crypto.Signer) ([]byte, error) {
	body, err := encode(v)
	if err != nil {
		return nil, err
	}
	if _, err := p256(key.Public()); err != nil {
		return nil, err
	}
	der, err := key.Sign(rand.Reader, digest(ctx, body), crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	if rs.S.Cmp(halfOrder) > 0 {
		rs.S.Sub(elliptic.P256().Params().N, rs.S)
	}
	var sig [signatureDigits / 2]byte
	rs.R.FillBytes(sig[:32])
	rs.S.FillBytes(sig[32:])
	body = append(body, ' ')
	return hex.AppendEncode(body, sig[:]), nil
}

// encode writes a value in the one form that statements have: no space, keys in
// the order of the type, and characters such as < as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// split cuts a statement into its object and its signature.
func split(statement []byte) (body, sig []byte, err error) {
	if len(statement) > MaxStatement {
		return nil, nil, fmt.Errorf("%d bytes: want at most %d", len(statement), MaxStatement)
	}
	n := len(statement) - signatureDigits - 1
	if n < 2 || statement[n] != ' ' || !lowerHex(string(statement[n+1:]), signatureDigits) {
		return nil, nil, errors.New("no signature of 128 digits after a space at its end")
	}
	return statement[:n], statement[n+1:], nil
}

// read decodes a statement without looking at its signature.
func read(statement []byte, into any) error {
	body, _, err := split(statement)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	again, err := encode(into)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, body) {
		return errForm
	}
	return nil
}

// errSignature says that the key of the certificate did not sign.
var errSignature = errors.New("the certificate's key did not sign this text as it is now")

// check verifies a statement's signature.
func check(ctx context, statement []byte, cert *x509.Certificate) error {
	body, digits, err := split(statement)
	if err != nil {
		return err
	}
	key, err := p256(cert.PublicKey)
	if err != nil {
		return err
	}
	sig, err := hex.DecodeString(string(digits))
	if err != nil {
		return err
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if s.Cmp(halfOrder) > 0 || !ecdsa.Verify(key, digest(ctx, body), r, s) {
		return errSignature
	}
	return nil
}

func digest(ctx context, body []byte) []byte {
	h := sha256.New()
	h.Write([]byte(ctx))
	h.Write(body)
	return h.Sum(nil)
}

func p256(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	key, ok := pub.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("a key of type %T: want ECDSA on P-256", pub)
	}
	return key, nil
}
