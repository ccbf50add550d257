package wire

import (
	"encoding/binary"
	"fmt"
)

// Policy names a version of the policies: its epoch and the SHA-256 of its text.
//
//	 0            8                        40
//	+------------+------------------------+
//	| epoch (64) | digest (256)           |
//	+------------+------------------------+
type Policy struct {
	Epoch  uint64
	Digest [32]byte
}

const policySize = 8 + 32

// Stated is the payload of a STATED: the policies that a node decides by, and the
// newest that it holds. It says nothing of any room, and needs no permit.
//
//	 0          40         80
//	+----------+----------+
//	| force    | has      |
//	+----------+----------+
type Stated struct {
	Force, Has Policy
}

const statedSize = 2 * policySize

// AppendStated appends the envelope of a STATED.
func AppendStated(b []byte, s Stated) []byte {
	b = appendEnvelope(b, TypeStated, statedSize)
	for _, p := range []Policy{s.Force, s.Has} {
		b = binary.BigEndian.AppendUint64(b, p.Epoch)
		b = append(b, p.Digest[:]...)
	}
	return b
}

// ParseStated reads the payload of a STATED.
func ParseStated(b []byte) (Stated, error) {
	if len(b) != statedSize {
		return Stated{}, fmt.Errorf("parse stated: %d bytes, want %d", len(b), statedSize)
	}
	s := Stated{Force: parsePolicy(b), Has: parsePolicy(b[policySize:])}
	if s.Has.Epoch < s.Force.Epoch {
		return Stated{}, fmt.Errorf("parse stated: policies of epoch %d are in force, and the newest are of epoch %d", s.Force.Epoch, s.Has.Epoch)
	}
	return s, nil
}

func parsePolicy(b []byte) Policy {
	return Policy{Epoch: binary.BigEndian.Uint64(b), Digest: [32]byte(b[8:policySize])}
}

// Offer is the payload of an OFFER: a policy file and its signature, and nothing
// else. The RESPONSE to it has no body.
//
//	 0         2          2+s
//	+---------+----------+-----------+
//	| s (16)  | signature | policy … |
//	+---------+----------+-----------+
type Offer struct {
	Policy, Signature []byte
}

const offerOverhead = 2

// Check reports what of o does not fit into a frame.
func (o Offer) Check() error {
	switch {
	case len(o.Policy) == 0 || len(o.Policy) > MaxPolicy:
		return fmt.Errorf("frame offer: policy of %d bytes, 1 to %d are allowed", len(o.Policy), MaxPolicy)
	case len(o.Signature) == 0 || len(o.Signature) > MaxSignature:
		return fmt.Errorf("frame offer: signature of %d bytes, 1 to %d are allowed", len(o.Signature), MaxSignature)
	}
	return nil
}

// AppendOffer appends the envelope of an OFFER; o.Check must have found nothing.
func AppendOffer(b []byte, o Offer) []byte {
	b = appendEnvelope(b, TypeOffer, offerOverhead+len(o.Signature)+len(o.Policy))
	b = binary.BigEndian.AppendUint16(b, uint16(len(o.Signature)))
	b = append(b, o.Signature...)
	return append(b, o.Policy...)
}

// ParseOffer reads the payload of an OFFER. Its parts point into b.
func ParseOffer(b []byte) (Offer, error) {
	if len(b) < offerOverhead {
		return Offer{}, fmt.Errorf("parse offer of %d bytes: %w", len(b), ErrCut)
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[offerOverhead:]; len(b) < n {
		return Offer{}, fmt.Errorf("parse offer: signature: %w", ErrCut)
	}
	o := Offer{Signature: b[:n:n], Policy: b[n:]}
	if err := o.Check(); err != nil {
		return Offer{}, fmt.Errorf("parse offer: %w", err)
	}
	return o, nil
}
