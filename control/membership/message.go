package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/hashicorp/memberlist"

	"github.com/domicile/domicile/residency"
)

// What nodes say to each other beside memberlist's own messages. Certificates
// are too large for metadata, so they travel with the push/pull state and, where
// a claim refers to one that is not known yet, on demand. Numbers are big-endian.
//
//	metadata:     1 n | n zeros | claim
//	state:        1 version | 2 count | count × ( 2 length | DER )
//	want:         1 kind=1 | 32 fingerprint | name of who asks
//	certificate:  1 kind=2 | DER
const (
	stateVersion = 1
	kindWant     = 1
	kindCert     = 2

	fingerprintSize = 32

	// maxPadding bounds the zeros before a claim.
	maxPadding = 63

	// maxCertificate bounds a certificate; a node's has about 800 bytes.
	maxCertificate = 4096
	// maxCertificates bounds those in one state: the mesh is made for tens.
	maxCertificates = 256
)

// fingerprint is the SHA-256 of a certificate's DER form.
type fingerprint = [fingerprintSize]byte

// pad makes metadata of a claim: of another length than last, and most likely of
// another than what other nodes gossip at the same time. Claims of a mesh are of one
// length, and memberlist's queue loses messages of one length: it tells those that
// were sent equally often apart by a number that counts from 1 again whenever the
// queue is empty for a moment, also while it replaces or holds back its only message
// (v0.7.0, queue.go, deleteItem and addItem). What it lost so deletes others in turn,
// and the mesh learnt of a change by push/pull alone, 15 s later.
func pad(claim []byte, last int) []byte {
	most := max(0, min(maxPadding, memberlist.MetaMaxSize-1-len(claim)))
	n := rand.IntN(most + 1)
	if 1+n+len(claim) == last && most > 0 {
		n = (n + 1) % (most + 1)
	}
	b := make([]byte, 1+n, 1+n+len(claim))
	b[0] = byte(n)
	return append(b, claim...)
}

// unpad returns the claim in metadata, a slice of it.
func unpad(meta []byte) ([]byte, error) {
	if len(meta) == 0 || int(meta[0]) > maxPadding || len(meta) <= 1+int(meta[0]) {
		return nil, fmt.Errorf("read metadata: %d bytes: want a length, as many zeros, a claim", len(meta))
	}
	zeros, claim := meta[1:1+int(meta[0])], meta[1+int(meta[0]):]
	for _, z := range zeros {
		if z != 0 {
			return nil, errors.New("read metadata: something stands where zeros belong")
		}
	}
	return claim, nil
}

// encodeState writes certificates for push/pull, as many as are allowed.
func encodeState(ders [][]byte) []byte {
	ders = ders[:min(len(ders), maxCertificates)]
	b := binary.BigEndian.AppendUint16([]byte{stateVersion}, uint16(len(ders)))
	for _, der := range ders {
		b = binary.BigEndian.AppendUint16(b, uint16(len(der)))
		b = append(b, der...)
	}
	return b
}

// decodeState reads what encodeState wrote. The certificates are slices of b.
func decodeState(b []byte) ([][]byte, error) {
	if len(b) < 3 {
		return nil, fmt.Errorf("read state: %d bytes: want 3 or more", len(b))
	}
	if b[0] != stateVersion {
		return nil, fmt.Errorf("read state: version %d: want %d", b[0], stateVersion)
	}
	count := int(binary.BigEndian.Uint16(b[1:]))
	if count > maxCertificates {
		return nil, fmt.Errorf("read state: %d certificates: want at most %d", count, maxCertificates)
	}
	b = b[3:]
	ders := make([][]byte, 0, min(count, len(b)/3))
	for i := range count {
		if len(b) < 2 {
			return nil, fmt.Errorf("read state: certificate %d of %d is cut", i+1, count)
		}
		size := int(binary.BigEndian.Uint16(b))
		if size == 0 || size > maxCertificate || size > len(b)-2 {
			return nil, fmt.Errorf("read state: certificate %d of %d has %d bytes, of %d left", i+1, count, size, len(b)-2)
		}
		ders, b = append(ders, b[2:2+size:2+size]), b[2+size:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("read state: %d bytes after the last certificate", len(b))
	}
	return ders, nil
}

// want asks for a certificate.
type want struct {
	cert fingerprint
	from string // the node that asks, as gossip names it
}

func encodeWant(w want) []byte {
	b := append([]byte{kindWant}, w.cert[:]...)
	return append(b, w.from...)
}

func encodeCert(der []byte) []byte { return append([]byte{kindCert}, der...) }

// decodeMessage reads a want or a certificate; exactly one of them is returned.
// The certificate is a slice of b.
func decodeMessage(b []byte) (*want, []byte, error) {
	if len(b) == 0 {
		return nil, nil, errors.New("read message: it is empty")
	}
	switch kind, b := b[0], b[1:]; kind {
	case kindWant:
		if len(b) <= fingerprintSize || len(b) > fingerprintSize+residency.MaxNodeName {
			return nil, nil, fmt.Errorf("read message: a want of %d bytes: want a fingerprint and a name", len(b))
		}
		return &want{cert: fingerprint(b[:fingerprintSize]), from: string(b[fingerprintSize:])}, nil, nil
	case kindCert:
		if len(b) == 0 || len(b) > maxCertificate {
			return nil, nil, fmt.Errorf("read message: a certificate of %d bytes: want 1 to %d", len(b), maxCertificate)
		}
		return nil, b, nil
	default:
		return nil, nil, fmt.Errorf("read message: kind %d is unknown", kind)
	}
}
