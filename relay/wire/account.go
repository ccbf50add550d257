package wire

import (
	"encoding/binary"
	"fmt"
)

// Account says what an account number stands for: what the sender counts under
// it is of one room and class, and went under one version of the policies. The
// number is the sender's; it is never used twice, so that an account outlives
// the link on which it was opened.
//
//	 0              8            16         17          17+c        19+c
//	+--------------+------------+----------+-----------+-----------+----------+
//	| account (64) | epoch (64) | c (8)    | class (c) | r (16)    | room (r) |
//	+--------------+------------+----------+-----------+-----------+----------+
type Account struct {
	Number uint64 // not 0
	Epoch  uint64
	Class  string
	Room   string
}

const accountOverhead = 8 + 8 + 1 + 2

// AppendAccount appends the envelope of an ACCOUNT. Class and Room must pass
// Message.Check.
func AppendAccount(b []byte, a Account) []byte {
	b = appendEnvelope(b, TypeAccount, accountOverhead+len(a.Class)+len(a.Room))
	b = binary.BigEndian.AppendUint64(b, a.Number)
	b = binary.BigEndian.AppendUint64(b, a.Epoch)
	return appendPlace(b, a.Class, a.Room)
}

// ParseAccount reads the payload of an ACCOUNT.
func ParseAccount(b []byte) (Account, error) {
	if len(b) < accountOverhead {
		return Account{}, fmt.Errorf("parse account of %d bytes: %w", len(b), ErrCut)
	}
	a := Account{Number: binary.BigEndian.Uint64(b), Epoch: binary.BigEndian.Uint64(b[8:])}
	class, room, rest, err := parsePlace(b[16:])
	switch {
	case err != nil:
		return Account{}, fmt.Errorf("parse account: %w", err)
	case a.Number == 0:
		return Account{}, fmt.Errorf("parse account: number 0 stands for none")
	case len(rest) > 0:
		return Account{}, fmt.Errorf("parse account: %d bytes too many", len(rest))
	}
	a.Class, a.Room = class, room
	return a, nil
}

// Track says under which account the packets of an alias are counted; account 0
// says that the alias is not used any more.
//
//	 0            4              12
//	+------------+--------------+
//	| alias (32) | account (64) |
//	+------------+--------------+
type Track struct {
	Alias   uint32
	Account uint64
}

const trackSize = 4 + 8

// AppendTrack appends the envelope of a TRACK.
func AppendTrack(b []byte, t Track) []byte {
	b = appendEnvelope(b, TypeTrack, trackSize)
	b = binary.BigEndian.AppendUint32(b, t.Alias)
	return binary.BigEndian.AppendUint64(b, t.Account)
}

// ParseTrack reads the payload of a TRACK.
func ParseTrack(b []byte) (Track, error) {
	if len(b) != trackSize {
		return Track{}, fmt.Errorf("parse track: %d bytes, want %d", len(b), trackSize)
	}
	t := Track{Alias: binary.BigEndian.Uint32(b), Account: binary.BigEndian.Uint64(b[4:])}
	if t.Alias == 0 {
		return Track{}, fmt.Errorf("parse track: alias 0 is the link's own")
	}
	return t, nil
}

// Tally is how much the sender has counted under an account since it was opened.
// What the receiver did not get of that was lost on the way. It names no room and
// carries nothing but figures, and so goes out even after the permit has ended.
//
//	 0              8              16           24         25
//	+--------------+--------------+------------+----------+
//	| account (64) | packets (64) | bytes (64) | final (8)|
//	+--------------+--------------+------------+----------+
//
// Final is 1 if nothing more will be counted under the account, else 0.
type Tally struct {
	Account uint64
	Packets uint64
	Bytes   uint64
	Final   bool
}

const tallySize = 3*8 + 1

// AppendTally appends the envelope of a TALLY.
func AppendTally(b []byte, t Tally) []byte {
	b = appendEnvelope(b, TypeTally, tallySize)
	b = binary.BigEndian.AppendUint64(b, t.Account)
	b = binary.BigEndian.AppendUint64(b, t.Packets)
	b = binary.BigEndian.AppendUint64(b, t.Bytes)
	if t.Final {
		return append(b, 1)
	}
	return append(b, 0)
}

// ParseTally reads the payload of a TALLY.
func ParseTally(b []byte) (Tally, error) {
	switch {
	case len(b) != tallySize:
		return Tally{}, fmt.Errorf("parse tally: %d bytes, want %d", len(b), tallySize)
	case b[24] > 1:
		return Tally{}, fmt.Errorf("parse tally: final %d, want 0 or 1", b[24])
	}
	return Tally{Account: binary.BigEndian.Uint64(b), Packets: binary.BigEndian.Uint64(b[8:]),
		Bytes: binary.BigEndian.Uint64(b[16:]), Final: b[24] == 1}, nil
}

// appendPlace appends class and room, each with its length before it.
func appendPlace(b []byte, class, room string) []byte {
	b = append(b, byte(len(class)))
	b = append(b, class...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(room)))
	return append(b, room...)
}

// parsePlace reads what appendPlace wrote; rest is what follows.
func parsePlace(b []byte) (class, room string, rest []byte, err error) {
	if len(b) < 1 {
		return "", "", nil, fmt.Errorf("class: %w", ErrCut)
	}
	c := int(b[0])
	b = b[1:]
	if c > MaxClass {
		return "", "", nil, fmt.Errorf("class of %d bytes, at most %d are allowed", c, MaxClass)
	}
	if len(b) < c+2 {
		return "", "", nil, fmt.Errorf("class: %w", ErrCut)
	}
	class = string(b[:c])
	r := int(binary.BigEndian.Uint16(b[c:]))
	b = b[c+2:]
	if r > MaxRoom {
		return "", "", nil, fmt.Errorf("room name of %d bytes, at most %d are allowed", r, MaxRoom)
	}
	if len(b) < r {
		return "", "", nil, fmt.Errorf("room name: %w", ErrCut)
	}
	return class, string(b[:r]), b[r:], nil
}
