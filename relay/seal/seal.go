// Package seal seals the datagrams of one direction of a link, and opens those of
// the other: AEAD_AES_128_GCM (RFC 5116) under keys that the caller exports from
// the handshake of the link, for each end and key phase their own (RFC 8446
// section 7.5). It changes the key before it has sealed too much with one, refuses
// what is forged, repeated or too old, and never uses a nonce twice. It performs
// no I/O, reads no clock and does not know what it seals.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

const (
	// SecretSize is what Export gives: a key of 16 bytes and a salt of 12.
	SecretSize = keySize + saltSize
	keySize    = 16
	saltSize   = 12

	// packetsPerKey and keyAge end a key. GCM stays safe for 2^23 packets of this
	// length under one key (RFC 9001 section 6.6); half of it is three minutes at
	// 20,000 packets/s. Quiet links change by the clock.
	packetsPerKey = 1 << 22
	keyAge        = time.Hour
	// oldKeyFor is how long what was sealed by the key before may still arrive.
	oldKeyFor = 5 * time.Second
)

// Export returns the secret of a key phase of one direction, SecretSize bytes.
type Export func(phase uint32) ([]byte, error)

// The reasons for which a datagram is refused.
var (
	ErrForged   = errors.New("not sealed by the peer's key")
	ErrRepeated = errors.New("arrived before, or too old to tell")
)

// key is one phase of one direction.
type key struct {
	aead cipher.AEAD
	salt [saltSize]byte
}

func newKey(export Export, phase uint32) (*key, error) {
	secret, err := export(phase)
	if err != nil {
		return nil, fmt.Errorf("seal: key %d: %w", phase, err)
	}
	if len(secret) != SecretSize {
		return nil, fmt.Errorf("seal: key %d: a secret of %d bytes, want %d", phase, len(secret), SecretSize)
	}
	block, err := aes.NewCipher(secret[:keySize])
	if err != nil {
		return nil, fmt.Errorf("seal: key %d: %w", phase, err)
	}
	k := &key{salt: [saltSize]byte(secret[keySize:])}
	k.aead, err = cipher.NewGCM(block)
	return k, err
}

// fill makes the nonce of a number: unique, as no number is used twice.
//
//	 0              6              12
//	| 0            | number       |   XOR salt
func (k *key) fill(nonce *[saltSize]byte, number uint64) {
	*nonce = k.salt
	low := binary.BigEndian.Uint64(nonce[4:]) ^ number
	binary.BigEndian.PutUint64(nonce[4:], low)
}

// Sealer seals what one end sends. It belongs to one goroutine.
type Sealer struct {
	export Export
	id     uint32
	key    *key
	phase  uint32
	next   uint64 // number of the next datagram
	sealed int    // under this key
	since  time.Time
	nonce  [saltSize]byte
}

// NewSealer returns a Sealer that puts the receiver's id on every datagram.
func NewSealer(export Export, id uint32, now time.Time) (*Sealer, error) {
	k, err := newKey(export, 0)
	if err != nil {
		return nil, err
	}
	return &Sealer{export: export, id: id, key: k, since: now}, nil
}

// Next is the number that the next datagram gets.
func (s *Sealer) Next() uint64 { return s.next }

// Phase is that of the key in use.
func (s *Sealer) Phase() uint32 { return s.phase }

// Renew changes the key before it is due.
func (s *Sealer) Renew(now time.Time) error {
	k, err := newKey(s.export, s.phase+1)
	if err != nil {
		return err
	}
	s.key, s.phase, s.sealed, s.since = k, s.phase+1, 0, now
	return nil
}

// Seal seals b in place: wire.HopSize bytes of room, then what is sealed, and
// behind it room for the tag in its capacity.
func (s *Sealer) Seal(b []byte, now time.Time) ([]byte, error) {
	if s.next > wire.MaxNumber {
		return nil, errors.New("seal: all numbers are used up")
	}
	if s.sealed >= packetsPerKey || now.Sub(s.since) >= keyAge {
		if err := s.Renew(now); err != nil {
			return nil, err
		}
	}
	wire.PutHop(b, wire.HopHead{Phase: uint8(s.phase), ID: s.id, Number: s.next})
	s.key.fill(&s.nonce, s.next)
	s.next++
	s.sealed++
	return s.key.aead.Seal(b[:wire.HopSize], s.nonce[:], b[wire.HopSize:], b[:wire.HopSize]), nil
}

// Opener opens what the other end sealed. It belongs to one goroutine at a time.
type Opener struct {
	export            Export
	phase             uint32
	before, now, next *key // of the phase before, this and the next; nil: none, or not derived yet
	changed           time.Time
	window            Window
	nonce             [saltSize]byte
}

// NewOpener returns an Opener at phase 0.
func NewOpener(export Export) (*Opener, error) {
	k, err := newKey(export, 0)
	if err != nil {
		return nil, err
	}
	return &Opener{export: export, now: k}, nil
}

// Phase is that of the newest key by which something came.
func (o *Opener) Phase() uint32 { return o.phase }

// Open opens a datagram whose head was parsed, in place. What it returns lies in
// datagram. Of a datagram that is refused nothing is left to read.
func (o *Opener) Open(h wire.HopHead, datagram []byte, now time.Time) ([]byte, error) {
	if !o.window.May(h.Number) {
		return nil, ErrRepeated
	}
	k := o.keyOf(h.Phase, now)
	if k == nil {
		return nil, ErrForged
	}
	k.fill(&o.nonce, h.Number)
	b, err := k.aead.Open(datagram[wire.HopSize:wire.HopSize], o.nonce[:], datagram[wire.HopSize:], datagram[:wire.HopSize])
	if err != nil {
		return nil, ErrForged
	}
	o.window.Take(h.Number)
	if k == o.next {
		o.before, o.now, o.next, o.changed = o.now, k, nil, now
		o.phase++
	}
	return b, nil
}

// keyOf returns the key that a phase means, nil if it means none.
func (o *Opener) keyOf(phase uint8, now time.Time) *key {
	switch phase {
	case uint8(o.phase):
		return o.now
	case uint8(o.phase + 1):
		if o.next == nil {
			o.next, _ = newKey(o.export, o.phase+1) // once for each phase, whoever asks
		}
		return o.next
	case uint8(o.phase - 1):
		if now.Sub(o.changed) < oldKeyFor {
			return o.before
		}
	}
	return nil
}
