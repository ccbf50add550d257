package membership

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/domicile/domicile/residency"
)

// What nodes say to each other beside memberlist's own messages. Certificates
// are too large for metadata, so they travel with the push/pull state and, where
// a claim refers to one that is not known yet, on demand. Numbers are big-endian.
//
//	state:        1 version | 2 count | count × ( 2 length | DER )
//	want:         1 kind=1 | 32 fingerprint | name of who asks
//	certificate:  1 kind=2 | DER
const (
	stateVersion = 1
	kindWant     = 1
	kindCert     = 2

	fingerprintSize = 32

	// maxCertificate bounds a certificate; a node's has about 800 bytes.
	maxCertificate = 4096
	// maxCertificates bounds those in one state: the mesh is made for tens.
	maxCertificates = 256
)

// fingerprint is the SHA-256 of a certificate's DER form.
type fingerprint = [fingerprintSize]byte

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
