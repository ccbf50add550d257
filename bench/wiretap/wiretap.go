// Package wiretap opens what was captured at the nodes of a test: QUIC's packets with
// the secrets that nodes give away which were built to, gossip with the mesh's own
// key, media and TLS with the secrets of the attendees that the test plays. So a test
// can look for words in what passes a node, and need not believe what nodes say of
// themselves.
//
// It captures nothing, keeps nothing but keys and the ends of streams, and opens only
// what this project's nodes speak: QUIC version 1 after the handshake and TLS 1.3,
// both sealed with AES-128-GCM, memberlist's packets and streams, DTLS-SRTP bare or
// within TURN.
package wiretap

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
)

// QUIC opens packets of connections whose secrets it was given.
//
//	| flags (1) | connection id (0, 4 or 8) | number (1-4) | sealed frames | (RFC 9000 section 17.3.1)
type QUIC struct {
	known map[[32]byte]bool
	keys  []*direction
	flows map[flow][]*direction // by which direction's packets were opened before
	// Opened and Closed count packets after the handshake.
	Opened, Closed int
}

type flow struct{ src, dst netip.AddrPort }

// direction is one half of a connection.
type direction struct {
	hide   cipher.Block // header protection; does not change
	secret []byte
	phase  byte
	seal   [2]sealer // of this key phase, and of the one before
	number int64     // the highest so far, -1: none
	id     int       // length of connection ids
}

type sealer struct {
	aead cipher.AEAD
	iv   []byte
}

// NewQUIC opens nothing until it has learnt secrets.
func NewQUIC() *QUIC {
	return &QUIC{known: map[[32]byte]bool{}, flows: map[flow][]*direction{}}
}

// Learn takes the secrets out of a key log (draft-ietf-tls-keylogfile).
func (q *QUIC) Learn(log []byte) {
	for line := range bytes.Lines(log) {
		f := bytes.Fields(line)
		if len(f) != 3 || string(f[0]) != "CLIENT_TRAFFIC_SECRET_0" && string(f[0]) != "SERVER_TRAFFIC_SECRET_0" {
			continue
		}
		secret, err := hex.DecodeString(string(f[2]))
		if err != nil || len(secret) != sha256.Size || q.known[[32]byte(secret)] {
			continue
		}
		q.known[[32]byte(secret)] = true
		q.keys = append(q.keys, newDirection(secret))
	}
}

func newDirection(secret []byte) *direction {
	return &direction{hide: block(expand(secret, "quic hp", 16)), secret: secret, seal: [2]sealer{sealerOf(secret)}, number: -1}
}

func sealerOf(secret []byte) sealer {
	aead, err := cipher.NewGCM(block(expand(secret, "quic key", 16)))
	if err != nil {
		panic(err) // only for a block of another size
	}
	return sealer{aead, expand(secret, "quic iv", 12)}
}

func block(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only for a key of another length
	}
	return b
}

// expand is HKDF-Expand-Label (RFC 8446 section 7.1) without a context.
func expand(secret []byte, label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(append(append(info, "tls13 "...), label...), 0)
	b, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		panic(err) // only for more than 255 blocks
	}
	return b
}

// Open returns the frames of a captured datagram; false: it is none of a known
// connection after its handshake.
func (q *QUIC) Open(src, dst netip.AddrPort, datagram []byte) ([]byte, bool) {
	if len(datagram) < 21 || datagram[0]&0xc0 != 0x40 {
		return nil, false // a long header: the handshake
	}
	at := flow{src, dst}
	for _, d := range q.flows[at] {
		if plain, ok := d.open(datagram, d.id); ok {
			q.Opened++
			return plain, true
		}
	}
	for _, d := range q.keys {
		for _, id := range []int{4, 0, 8} {
			if d.number >= 0 && d.id != id {
				continue
			}
			if plain, ok := d.open(datagram, id); ok {
				d.id = id
				q.flows[at] = append(q.flows[at], d)
				q.Opened++
				return plain, true
			}
		}
	}
	q.Closed++
	return nil, false
}

// open takes the header protection off (RFC 9001 section 5.4) and opens the rest.
func (d *direction) open(datagram []byte, id int) ([]byte, bool) {
	at := 1 + id // of the packet number
	if len(datagram) < at+4+aes.BlockSize {
		return nil, false
	}
	var mask [aes.BlockSize]byte
	d.hide.Encrypt(mask[:], datagram[at+4:at+4+aes.BlockSize])
	first := datagram[0] ^ mask[0]&0x1f
	n := int(first&3) + 1
	head := bytes.Clone(datagram[:at+n])
	head[0] = first
	var short int64
	for i := range n {
		head[at+i] ^= mask[1+i]
		short = short<<8 | int64(head[at+i])
	}
	number := d.whole(short, n)
	phase := first >> 2 & 1
	if phase == d.phase {
		return d.try(d.seal[0], number, head, datagram[at+n:])
	}
	// The key before this one, for what was overtaken; or the next (RFC 9001 section 6).
	if d.seal[1].aead != nil {
		if plain, ok := d.try(d.seal[1], number, head, datagram[at+n:]); ok {
			return plain, true
		}
	}
	next := expand(d.secret, "quic ku", sha256.Size)
	s := sealerOf(next)
	plain, ok := d.try(s, number, head, datagram[at+n:])
	if ok {
		d.secret, d.phase, d.seal = next, phase, [2]sealer{s, d.seal[0]}
	}
	return plain, ok
}

func (d *direction) try(s sealer, number int64, head, sealed []byte) ([]byte, bool) {
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(number >> (8 * i))
	}
	plain, err := s.aead.Open(nil, nonce, sealed, head)
	if err != nil {
		return nil, false
	}
	d.number = max(d.number, number)
	return plain, true
}

// whole is the packet number that is nearest to the next expected one
// (RFC 9000 appendix A.3).
func (d *direction) whole(short int64, n int) int64 {
	window := int64(1) << (8 * n)
	expected := d.number + 1
	number := expected&^(window-1) | short
	switch {
	case number <= expected-window/2:
		return number + window
	case number > expected+window/2 && number >= window:
		return number - window
	}
	return number
}

// Gossip opens a packet of memberlist's with the mesh's key.
//
//	| version: 1 (1) | nonce (12) | sealed with AES-GCM |
func Gossip(key, datagram []byte) ([]byte, bool) {
	const nonce = 12
	if len(datagram) < 1+nonce+16 || datagram[0] > 1 {
		return nil, false
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	aead, err := cipher.NewGCM(b)
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, datagram[1:1+nonce], datagram[1+nonce:], nil)
	return plain, err == nil
}
