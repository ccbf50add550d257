package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// Claim is what a node says of itself in gossip. The first group repeats its
// certificate and must equal it; the rest is the node's word, which may be
// contradicted by what others measure.
type Claim struct {
	Name            residency.NodeName
	Country         residency.Country
	Operator        string
	OperatorCountry residency.Country
	Parent          string
	ParentCountry   residency.Country
	Roles           []residency.Role

	// CertFingerprint is the Fingerprint of the certificate whose key signed
	// the claim. SignClaim's caller sets it.
	CertFingerprint [32]byte

	Epoch     residency.Epoch // of the policies the node decides by
	Load      float64         // 0 idle to 1 full; travels in steps of 1/65535
	Attendees uint32          // connected through the node
	Latitude  float64         // degrees, -90 to 90; travels in millionths
	Longitude float64         // degrees, -180 to 180; likewise

	// Issued is when the claim was made, in whole milliseconds. It is the
	// claim's sequence too: a node never issues two in one millisecond, and a
	// claim that is not Newer than the last one is a replay.
	Issued time.Time

	RelayAddr  netip.AddrPort // QUIC, node to node
	GossipAddr netip.AddrPort // memberlist
	URL        string         // public base for attendees, "https://127.20.0.1:7443"; empty if it serves none
}

// The form of a claim, version 1. Numbers are big-endian. It must fit the 512
// bytes that memberlist has for a node's metadata; the bounds of its strings
// see to that.
//
//	offset size
//	     0    1  version, 1
//	     1    1  roles, bit 0 origin, bit 1 edge
//	     2    8  policy epoch
//	    10    8  issued, milliseconds since 1970
//	    18    2  load, 0 to 65535
//	    20    4  attendees
//	    24    4  latitude, millionths of a degree, signed
//	    28    4  longitude, likewise
//	    32    2  country
//	    34    2  operator's country
//	    36    2  parent's country
//	    38   32  SHA-256 of the certificate
//	    70       name, operator, parent, URL, relay, gossip, each
//	             a byte of length, then as many bytes
//	                 relay, gossip: 0 bytes if unknown, or 4 or 16 of address
//	                 and 2 of port
//	   end   64  ECDSA P-256 signature (r, s) of claimContext and all before it
const (
	claimVersion   = 1
	claimFixed     = 70
	claimSignature = 64
	maxClaimURL    = 96

	// MaxClaim is the size of the largest claim, in bytes.
	MaxClaim = claimFixed + (1 + residency.MaxNodeName) + 2*(1+residency.MaxOrganisation) + (1 + maxClaimURL) + 2*(1+16+2) + claimSignature
)

// A constant below zero does not compile: memberlist takes 512 bytes.
const _ uint = 512 - MaxClaim

// claimContext keeps a signature under a claim from being one under anything else.
const claimContext = "domicile claim v1\x00"

// degrees is the unit in which coordinates travel.
const degrees = 1e6

// Newer reports whether the claim was issued after another of the same node.
func (c Claim) Newer(than Claim) bool { return c.Issued.After(than.Issued) }

// Node returns what the claim states about its node, without validity and
// serial number: only a certificate has those.
func (c Claim) Node() residency.Node {
	return residency.Node{
		Name: c.Name, Country: c.Country,
		Operator: c.Operator, OperatorCountry: c.OperatorCountry,
		Parent: c.Parent, ParentCountry: c.ParentCountry,
		Roles: c.Roles,
	}
}

// ClaimOf begins the claim of a certificate's holder: the facts and the
// fingerprint, for the caller to add the rest.
func ClaimOf(cert *x509.Certificate) (Claim, error) {
	n, err := Parse(cert)
	if err != nil {
		return Claim{}, err
	}
	return Claim{
		Name: n.Name, Country: n.Country,
		Operator: n.Operator, OperatorCountry: n.OperatorCountry,
		Parent: n.Parent, ParentCountry: n.ParentCountry,
		Roles: n.Roles, CertFingerprint: Fingerprint(cert),
	}, nil
}

// SignClaim encodes a claim of at most MaxClaim bytes, signed with the key of
// the node's certificate.
func SignClaim(c Claim, key crypto.Signer) ([]byte, error) {
	b, err := encodeClaim(c)
	if err != nil {
		return nil, fmt.Errorf("sign claim: %w", err)
	}
	sig, err := signFixed(key, claimContext, b)
	if err != nil {
		return nil, fmt.Errorf("sign claim: %w", err)
	}
	return append(b, sig...), nil
}

// PeekClaim decodes a claim without verifying anything: good for finding the
// certificate to verify it with, and for nothing else.
func PeekClaim(b []byte) (Claim, error) {
	c, _, err := decodeClaim(b)
	if err != nil {
		return Claim{}, fmt.Errorf("read claim: %w", err)
	}
	return c, nil
}

// VerifyClaim decodes a claim and checks that the certificate's key signed it
// and that it states what the certificate states. The certificate itself is the
// caller's to Verify, and so is whether the claim is Newer than the last one.
func VerifyClaim(b []byte, cert *x509.Certificate) (Claim, error) {
	c, signed, err := decodeClaim(b)
	if err != nil {
		return Claim{}, fmt.Errorf("verify claim: %w", err)
	}
	if c.CertFingerprint != Fingerprint(cert) {
		return Claim{}, fmt.Errorf("verify claim: node %q refers to the certificate with fingerprint %x…, not to this one", c.Name, c.CertFingerprint[:8])
	}
	if err := verifyFixed(cert.PublicKey, claimContext, b[:signed], b[signed:]); err != nil {
		return Claim{}, fmt.Errorf("verify claim: node %q: %w", c.Name, err)
	}
	stated, err := Parse(cert)
	if err != nil {
		return Claim{}, fmt.Errorf("verify claim: %w", err)
	}
	if err := c.contradicts(stated); err != nil {
		return Claim{}, fmt.Errorf("verify claim: node %q: %w", stated.Name, err)
	}
	return c, nil
}

// contradicts names the first fact in which the claim and the certificate differ.
func (c Claim) contradicts(n residency.Node) error {
	if what, claim, cert := difference(c.Node(), n); what != "" {
		return fmt.Errorf("the claim states the %s %q, the certificate %q", what, claim, cert)
	}
	return nil
}

// joinRoles writes a set of roles in the order of residency.Roles.
func joinRoles(roles []residency.Role) string {
	var names []string
	for _, r := range residency.Roles() {
		if slices.Contains(roles, r) {
			names = append(names, string(r))
		}
	}
	return strings.Join(names, ",")
}

// valid checks what both ends must be able to rely on.
func (c Claim) valid() error {
	if err := c.Node().Validate(); err != nil {
		return err
	}
	switch {
	case !(c.Load >= 0 && c.Load <= 1): // so that NaN fails too
		return fmt.Errorf("load %v: want 0 to 1", c.Load)
	case !(math.Abs(c.Latitude) <= 90 && math.Abs(c.Longitude) <= 180):
		return fmt.Errorf("place %v, %v: want a latitude of -90 to 90 and a longitude of -180 to 180", c.Latitude, c.Longitude)
	case c.Issued.UnixMilli() <= 0:
		return fmt.Errorf("issued at %s: want a time after 1970", c.Issued)
	}
	return validBase(c.URL)
}

func validBase(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > maxClaimURL {
		return fmt.Errorf("URL %q: want at most %d bytes", s, maxClaimURL)
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("URL: %w", err)
	}
	if u.Scheme != "https" || u.Hostname() == "" || u.String() != "https://"+u.Host {
		return fmt.Errorf("URL %q: want https://HOST or https://HOST:PORT", s)
	}
	return nil
}

func encodeClaim(c Claim) ([]byte, error) {
	if err := c.valid(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, MaxClaim)
	b = append(b, claimVersion, roleBits(c.Roles))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Issued.UnixMilli()))
	b = binary.BigEndian.AppendUint16(b, uint16(math.Round(c.Load*math.MaxUint16)))
	b = binary.BigEndian.AppendUint32(b, c.Attendees)
	b = binary.BigEndian.AppendUint32(b, uint32(int32(math.Round(c.Latitude*degrees))))
	b = binary.BigEndian.AppendUint32(b, uint32(int32(math.Round(c.Longitude*degrees))))
	b = append(b, c.Country...)
	b = append(b, c.OperatorCountry...)
	b = append(b, c.ParentCountry...)
	b = append(b, c.CertFingerprint[:]...)
	for _, s := range []string{string(c.Name), c.Operator, c.Parent, c.URL} {
		b = append(append(b, byte(len(s))), s...)
	}
	for _, a := range []netip.AddrPort{c.RelayAddr, c.GossipAddr} {
		var err error
		if b, err = appendAddr(b, a); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func roleBits(roles []residency.Role) (bits byte) {
	for i, r := range residency.Roles() {
		if slices.Contains(roles, r) {
			bits |= 1 << i
		}
	}
	return bits
}

func appendAddr(b []byte, a netip.AddrPort) ([]byte, error) {
	if !a.IsValid() {
		return append(b, 0), nil
	}
	if a.Addr().Zone() != "" {
		return nil, fmt.Errorf("address %s: a zone means nothing to other nodes", a)
	}
	ip := a.Addr().Unmap().AsSlice()
	b = append(append(b, byte(len(ip)+2)), ip...)
	return binary.BigEndian.AppendUint16(b, a.Port()), nil
}

// decodeClaim reads a claim and returns how many of its bytes are signed. There
// is one form for each claim: what encodeClaim would not write is refused.
func decodeClaim(b []byte) (c Claim, signed int, err error) {
	if len(b) < claimFixed+claimSignature || len(b) > MaxClaim {
		return c, 0, fmt.Errorf("%d bytes: want %d to %d", len(b), claimFixed+claimSignature, MaxClaim)
	}
	if b[0] != claimVersion {
		return c, 0, fmt.Errorf("version %d: want %d", b[0], claimVersion)
	}
	signed = len(b) - claimSignature
	c = Claim{
		Epoch:           residency.Epoch(binary.BigEndian.Uint64(b[2:])),
		Issued:          time.UnixMilli(int64(binary.BigEndian.Uint64(b[10:]))).UTC(),
		Load:            float64(binary.BigEndian.Uint16(b[18:])) / math.MaxUint16,
		Attendees:       binary.BigEndian.Uint32(b[20:]),
		Latitude:        float64(int32(binary.BigEndian.Uint32(b[24:]))) / degrees,
		Longitude:       float64(int32(binary.BigEndian.Uint32(b[28:]))) / degrees,
		Country:         residency.Country(b[32:34]),
		OperatorCountry: residency.Country(b[34:36]),
		ParentCountry:   residency.Country(b[36:38]),
		CertFingerprint: [32]byte(b[38:70]),
	}
	for i, r := range residency.Roles() {
		if b[1]&(1<<i) != 0 {
			c.Roles = append(c.Roles, r)
		}
	}
	var fields [6][]byte
	if err := splitFields(b[claimFixed:signed], fields[:]); err != nil {
		return c, 0, err
	}
	c.Name, c.Operator, c.Parent, c.URL = residency.NodeName(fields[0]), string(fields[1]), string(fields[2]), string(fields[3])
	if c.RelayAddr, err = readAddr(fields[4]); err != nil {
		return c, 0, err
	}
	if c.GossipAddr, err = readAddr(fields[5]); err != nil {
		return c, 0, err
	}
	again, err := encodeClaim(c)
	if err == nil && !bytes.Equal(again, b[:signed]) {
		err = errors.New("it is not in the one form a claim has")
	}
	return c, signed, err
}

// splitFields cuts b into exactly len(fields) fields of a byte of length each.
func splitFields(b []byte, fields [][]byte) error {
	for i := range fields {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return fmt.Errorf("field %d of %d is cut", i+1, len(fields))
		}
		end := 1 + int(b[0])
		fields[i], b = b[1:end], b[end:]
	}
	if len(b) > 0 {
		return fmt.Errorf("%d bytes after the last field", len(b))
	}
	return nil
}

func readAddr(b []byte) (netip.AddrPort, error) {
	if len(b) == 0 {
		return netip.AddrPort{}, nil
	}
	if len(b) < 2 {
		return netip.AddrPort{}, fmt.Errorf("an address of %d bytes", len(b))
	}
	a, ok := netip.AddrFromSlice(b[:len(b)-2])
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("an address of %d bytes", len(b))
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[len(b)-2:])), nil
}

// digest hashes a message together with what it is meant for.
func digest(context string, message []byte) []byte {
	h := sha256.New()
	h.Write([]byte(context))
	h.Write(message)
	return h.Sum(nil)
}

// signFixed signs as r and s of 32 bytes each; the usual ASN.1 form varies in size.
func signFixed(key crypto.Signer, context string, message []byte) ([]byte, error) {
	if _, err := publicKey(key.Public()); err != nil {
		return nil, err
	}
	der, err := key.Sign(rand.Reader, digest(context, message), crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		return nil, err
	}
	sig := make([]byte, claimSignature)
	rs.R.FillBytes(sig[:32])
	rs.S.FillBytes(sig[32:])
	return sig, nil
}

func verifyFixed(pub crypto.PublicKey, context string, message, sig []byte) error {
	key, err := publicKey(pub)
	if err != nil {
		return err
	}
	r, s := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
	if !ecdsa.Verify(key, digest(context, message), r, s) {
		return errors.New("the certificate's key did not sign this")
	}
	return nil
}
