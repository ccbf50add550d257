// Package evidence keeps and checks the proof of where a room's data went.
//
// Each node of a room writes signed receipts of what it sent, received, stored
// and recorded, to and from whom, by which rule of which policies. They form a
// chain per node (receipt.go), go into an append-only log on an origin (log.go)
// whose signed heads other nodes countersign (head.go, witness.go), and leave as
// one file that needs no trust in whoever hands it over (bundle.go).
//
// The package holds no room's name and no person: a room stands in the log under
// a pseudonym. It decides nothing about who may have what; that is the gate's.
// Apart from the storage of a log and of what a witness remembers (disk.go, log.go,
// archive.go, witness.go) it performs no I/O; callers pass the time.
//
// # Who is not trusted, and what finds him out
//
//	a receipt is changed           its signature, and the hash in the next receipt
//	a receipt is left out          its number is missing in the chain; a chain ends
//	                               with a final receipt; the other end of the hop
//	                               has its own
//	the log's tail is rewritten    the new head is not consistent with the head
//	                               that another node countersigned
//	two views of one log           heads that two nodes countersigned are not
//	                               consistent with each other
//	a node writes nothing          its neighbours' receipts name it
//	a forged certificate           the operator's authority did not issue it
//	another policy than in force   the policies are in the file, signed by the
//	                               authority, and every receipt is judged again by
//	                               the gate that runs in a node
//
// What no mechanism here finds: nodes at both ends of a hop that agree to write
// nothing of it; a node that states less bytes than it sent to somebody who
// writes no receipts, such as an attendee; an authority that vouches for a place
// where the node is not.
package evidence

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Hash is a SHA-256 as it stands in receipts and heads, hexadecimal in lower case.
type Hash string

// hashOf hashes bytes as they are.
func hashOf(b []byte) Hash {
	sum := sha256.Sum256(b)
	return Hash(hex.EncodeToString(sum[:]))
}

// Fingerprint names a certificate by the SHA-256 of its DER form.
func Fingerprint(der []byte) Hash { return hashOf(der) }

// valid says whether the text is a hash in the one form it may have.
func (h Hash) valid() bool { return lowerHex(string(h), 2*sha256.Size) }

func lowerHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Pseudonym stands for a room in receipts: who has the log alone cannot tell
// which room it is, nor whether two logs speak of one.
type Pseudonym string

// pseudonymSize is 16 bytes: no two rooms of one key meet by chance.
const pseudonymSize = 16

// ParsePseudonym accepts 32 hexadecimal digits in lower case.
func ParsePseudonym(s string) (Pseudonym, error) {
	if !lowerHex(s, 2*pseudonymSize) {
		return "", fmt.Errorf("room pseudonym %q: want %d hexadecimal digits in lower case", s, 2*pseudonymSize)
	}
	return Pseudonym(s), nil
}

// RoomKey turns a room's id into its pseudonym. The room's home makes one for
// each room and gives it away with the room's exported evidence, never before.
type RoomKey string

// roomKeySize is that of the hash under the HMAC.
const roomKeySize = 32

// NewRoomKey makes a key by chance.
func NewRoomKey() RoomKey {
	b := make([]byte, roomKeySize)
	rand.Read(b) // never fails, see crypto/rand
	return RoomKey(hex.EncodeToString(b))
}

// pseudonymContext keeps the key's other uses, if it ever has any, apart.
const pseudonymContext = "domicile room pseudonym v1\x00"

// Pseudonym is HMAC-SHA-256 of the room's id, its first half.
func (k RoomKey) Pseudonym(sid string) (Pseudonym, error) {
	if !lowerHex(string(k), 2*roomKeySize) {
		return "", fmt.Errorf("room key: want %d hexadecimal digits in lower case", 2*roomKeySize)
	}
	if sid == "" {
		return "", errors.New("room pseudonym: the room has no id")
	}
	key, err := hex.DecodeString(string(k))
	if err != nil {
		return "", fmt.Errorf("room key: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(pseudonymContext))
	mac.Write([]byte(sid))
	return Pseudonym(hex.EncodeToString(mac.Sum(nil)[:pseudonymSize])), nil
}
