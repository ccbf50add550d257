package alloc

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// nonceLife is how long a nonce is taken. Clients keep one until they are told
// that it is stale, so this costs a long call one round trip in ten minutes.
const nonceLife = 10 * time.Minute

// nonceUnit is the step of a nonce's clock: 24 bits of it last four years.
const nonceUnit = 8 * time.Second

const (
	nonceRaw  = 12
	nonceSize = nonceRaw / 3 * 4 // characters
)

// nonces are made and known again without being remembered, and each is good
// for one flow only (A6). A nonce has to be short, since it is in the answer
// that strangers get (A7):
//
//	0        3                             12
//	| time   | SHA-256(key, time, flow)    |   in base64: 16 characters
//
// Key and text have fixed lengths and most of the sum stays unseen, so the plain
// hash is as good as an HMAC here, at a third of its cost under a flood. Whoever
// guessed 72 bits would still need credentials.
type nonces struct {
	key [32]byte
	// anyFlow is for the control of the tests: nonces are good from everywhere.
	anyFlow bool
}

func (n *nonces) sum(when uint32, f Flow) [nonceRaw]byte {
	var text [32 + 4 + 16 + 2 + 16 + 2 + 8]byte
	copy(text[:], n.key[:])
	binary.BigEndian.PutUint32(text[32:], when)
	if !n.anyFlow {
		client, server := f.Client.Addr().As16(), f.Server.Addr().As16()
		copy(text[36:], client[:])
		binary.BigEndian.PutUint16(text[52:], f.Client.Port())
		copy(text[54:], server[:])
		binary.BigEndian.PutUint16(text[70:], f.Server.Port())
		binary.BigEndian.PutUint64(text[72:], f.Stream)
	}
	sum := sha256.Sum256(text[:])
	var raw [nonceRaw]byte
	raw[0], raw[1], raw[2] = byte(when>>16), byte(when>>8), byte(when)
	copy(raw[3:], sum[:])
	return raw
}

func nonceClock(now time.Time) uint32 {
	return uint32(now.Unix()/int64(nonceUnit/time.Second)) & 0xFFFFFF
}

// make writes a nonce for a flow.
func (n *nonces) make(now time.Time, f Flow) (text [nonceSize]byte) {
	raw := n.sum(nonceClock(now), f)
	base64.RawURLEncoding.Encode(text[:], raw[:])
	return text
}

// good tells whether a nonce was made for this flow, and lately.
func (n *nonces) good(text []byte, now time.Time, f Flow) bool {
	var raw [nonceRaw]byte
	if len(text) != nonceSize {
		return false
	}
	if _, err := base64.RawURLEncoding.Decode(raw[:], text); err != nil {
		return false
	}
	when := uint32(raw[0])<<16 | uint32(raw[1])<<8 | uint32(raw[2])
	age := (nonceClock(now) - when) & 0xFFFFFF
	if age > uint32(nonceLife/nonceUnit) {
		return false
	}
	want := n.sum(when, f)
	return subtle.ConstantTimeCompare(raw[:], want[:]) == 1
}
