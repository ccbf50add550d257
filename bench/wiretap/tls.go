package wiretap

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// tlsPair is a TLS 1.3 connection that is followed from its beginning.
type tlsPair struct {
	hello  []byte // the client's random
	ours   bool   // the suite is TLS_AES_128_GCM_SHA256
	halves [2]tlsHalf
}

type tlsHalf struct {
	seal   sealer
	number uint64
	phase  int // index of labels
}

// labels of the secrets of the two directions: of the handshake, then of what follows.
var labels = [2][2]string{{"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0"}, {"SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0"}}

const recordHeader = 5

// cutRecord cuts the next record off a stream (RFC 8446 section 5.1).
//
//	| type (1) | version (2) | length (2) | fragment |
func cutRecord(b []byte) (record, rest []byte, ok bool) {
	if len(b) < recordHeader {
		return nil, b, false
	}
	n := recordHeader + int(binary.BigEndian.Uint16(b[3:]))
	if len(b) < n {
		return nil, b, false
	}
	return b[:n], b[n:], true
}

// ready says whether a record can be opened already, as far as secrets go.
func (p *tlsPair) ready(record []byte, from int, secrets map[string]map[string][]byte) bool {
	return record[0] != 23 || p.hello != nil && !p.ours || secrets[string(p.hello)][labels[from][0]] != nil && secrets[string(p.hello)][labels[from][1]] != nil
}

// open opens a record that the client (0) or the server (1) sent; of the handshake
// there is nothing to show.
func (p *tlsPair) open(record []byte, from int, secrets map[string]map[string][]byte) ([]byte, bool) {
	body := record[recordHeader:]
	switch {
	case record[0] != 23: // in the clear: the hellos, a change of ciphers, an alert
		p.shake(body, from)
		return nil, true
	case !p.ours:
		return nil, false
	}
	h := &p.halves[from]
	for h.phase < 2 {
		if h.seal.aead == nil {
			secret := secrets[string(p.hello)][labels[from][h.phase]]
			if secret == nil {
				return nil, false
			}
			h.seal, h.number = recordSealer(secret), 0
		}
		if plain, ok := h.try(record); ok {
			return plain, true
		}
		if h.phase == 1 {
			return nil, false
		}
		h.phase, h.seal = h.phase+1, sealer{}
	}
	return nil, false
}

// shake takes what is needed of the hellos.
//
//	| type (1) | length (3) | version (2) | random (32) | session (1+n) | suite (2) |
func (p *tlsPair) shake(b []byte, from int) {
	const random, session = 6, 38
	if len(b) <= session {
		return
	}
	switch {
	case b[0] == 1 && from == 0:
		p.hello = append([]byte(nil), b[random:session]...)
	case b[0] == 2 && from == 1:
		if at := session + 1 + int(b[session]); len(b) >= at+2 {
			p.ours = binary.BigEndian.Uint16(b[at:]) == 0x1301
		}
	}
}

func (h *tlsHalf) try(record []byte) ([]byte, bool) {
	nonce := append([]byte(nil), h.seal.iv...)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(h.number >> (8 * i))
	}
	plain, err := h.seal.aead.Open(nil, nonce, record[recordHeader:], record[:recordHeader])
	if err != nil {
		return nil, false
	}
	h.number++
	for n := len(plain); n > 0; n-- { // zeros pad it, then comes the true type
		if plain[n-1] != 0 {
			if plain[n-1] != 23 {
				return nil, true // the handshake, tickets
			}
			return plain[:n-1], true
		}
	}
	return nil, true
}

// recordSealer is sealerOf with the labels of TLS 1.3.
func recordSealer(secret []byte) sealer {
	aead, err := cipher.NewGCM(block(expand(secret, "key", 16)))
	if err != nil {
		panic(err) // only for a block of another size
	}
	return sealer{aead, expand(secret, "iv", 12)}
}

// openMembers opens a message of memberlist's stream; its first five bytes are
// sealed in as well.
func openMembers(key, b []byte) ([]byte, bool) {
	const header, nonce = 5, 12
	if len(b) < header+1+nonce+16 || b[0] != encrypted {
		return nil, false
	}
	cut, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	aead, err := cipher.NewGCM(cut)
	if err != nil {
		return nil, false
	}
	plain, err := aead.Open(nil, b[header+1:][:nonce], b[header+1+nonce:], b[:header])
	return plain, err == nil
}
