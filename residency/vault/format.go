package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// A track file (".dtr"), all numbers big-endian:
//
//	+---------+---------+-----------+---------------------------+
//	| "DOMTR" | version | key bytes | file key, wrapped by age  |   header
//	|    5    | 1 (=1)  |     2     | to every recipient        |
//	+---------+---------+-----------+---------------------------+
//	| record 0: meta | record 1: cluster | … | record n: final  |
//	+----------------+-------------------+---+------------------+
//
// A record is two sealed boxes (AES-256-GCM, 16-byte tags), so that a changed
// length is told apart from a file that merely ends too early:
//
//	+------+--------+-----+----------------------+-----+
//	| kind | length | tag |  body (length bytes) | tag |
//	|  1   |   4    | 16  |                      | 16  |
//	+------+--------+-----+----------------------+-----+
//
// The file key is random and used for one file only; the nonce is the number
// of the box. Every box has the tag of the box before it as additional data,
// the first one SHA-256 of the header and of the recording's and the track's
// id. Hence boxes cannot be changed, swapped, repeated, left out or moved to
// another file. Only the end can be missing: a process that dies leaves at most
// one incomplete record, and what is before it stays readable. The final record
// says that the track is whole; the recording's document repeats its tag, so
// that a finished track cannot be passed off as one that was cut.
const (
	magic       = "DOMTR"
	version     = 1
	headerFixed = len(magic) + 1 + 2
	keySize     = 32
	tagSize     = 16
	headPlain   = 1 + 4
	headSealed  = headPlain + tagSize

	// maxBody bounds what a reader allocates for one record. A cluster holds
	// at most 250 ms of media or one frame: 16 MiB is far above either.
	maxBody = 16 << 20
)

// The kinds of record.
const (
	kindMeta    = 1 // JSON of TrackMeta
	kindCluster = 2
	kindFinal   = 3 // number of clusters, 8 bytes
)

// chain seals or opens the boxes of one file in order.
type chain struct {
	aead cipher.AEAD
	box  uint64 // number of the next box: the nonce
	link []byte // additional data of the next box
}

func newChain(key, header []byte, rec ID, track TrackID) (*chain, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write(header)
	fmt.Fprintf(h, "%s/%s", rec, track) // neither id may hold a slash
	return &chain{aead: aead, link: h.Sum(nil)}, nil
}

func (c *chain) nonce() []byte {
	n := make([]byte, 12)
	binary.BigEndian.PutUint64(n[4:], c.box)
	return n
}

func (c *chain) advance(tag []byte) {
	c.box++
	c.link = append(c.link[:0], tag...)
}

// seal appends the record to dst.
func (c *chain) seal(dst []byte, kind byte, body []byte) []byte {
	var head [headPlain]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(body)))
	for _, plain := range [][]byte{head[:], body} {
		dst = c.aead.Seal(dst, c.nonce(), plain, c.link)
		c.advance(dst[len(dst)-tagSize:])
	}
	return dst
}

// open opens one box in place.
func (c *chain) open(sealed []byte) ([]byte, error) {
	tag := [tagSize]byte(sealed[len(sealed)-tagSize:])
	plain, err := c.aead.Open(sealed[:0], c.nonce(), sealed, c.link)
	if err != nil {
		return nil, err
	}
	c.advance(tag[:])
	return plain, nil
}

func (c *chain) openHead(sealed []byte) (kind byte, length int, err error) {
	head, err := c.open(sealed)
	if err != nil {
		return 0, 0, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxBody {
		return 0, 0, fmt.Errorf("record of %d bytes is over the limit of %d", n, maxBody)
	}
	return head[0], int(n), nil
}

// newHeader makes a file key and the header that carries it, for whoever may read what
// is recorded of a tenant.
func newHeader(keys *KeyStore, tenant string) (key, header []byte, err error) {
	key = make([]byte, keySize)
	rand.Read(key) // never fails (crypto/rand)
	wrapped, err := keys.wrapKey(tenant, key)
	if err != nil {
		return nil, nil, err
	}
	if len(wrapped) > 0xffff {
		return nil, nil, errors.New("too many recipients")
	}
	header = append([]byte(magic), version)
	header = binary.BigEndian.AppendUint16(header, uint16(len(wrapped)))
	return key, append(header, wrapped...), nil
}

// parseFixed checks the fixed part of a header and returns how many bytes of
// wrapped key follow.
func parseFixed(b []byte) (int, error) {
	if string(b[:len(magic)]) != magic {
		return 0, errors.New("not a track file")
	}
	if v := b[len(magic)]; v != version {
		return 0, fmt.Errorf("version %d, want %d", v, version)
	}
	return int(binary.BigEndian.Uint16(b[len(magic)+1:])), nil
}
