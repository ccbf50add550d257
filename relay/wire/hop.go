package wire

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Carriage says where the sender takes media over UDP, beside the QUIC connection:
// at the address at which QUIC has it, at this port. The id is what the peer puts
// into each datagram.
//
//	 0          4           6
//	+----------+-----------+
//	| id (32)  | port (16) |
//	+----------+-----------+
type Carriage struct {
	ID   uint32 // not 0
	Port uint16 // not 0
}

const carriageSize = 6

// AppendCarriage appends the envelope of a CARRIAGE.
func AppendCarriage(b []byte, c Carriage) []byte {
	b = appendEnvelope(b, TypeCarriage, carriageSize)
	b = binary.BigEndian.AppendUint32(b, c.ID)
	return binary.BigEndian.AppendUint16(b, c.Port)
}

// ParseCarriage reads the payload of a CARRIAGE.
func ParseCarriage(b []byte) (Carriage, error) {
	if len(b) != carriageSize {
		return Carriage{}, fmt.Errorf("parse carriage: %d bytes, want %d", len(b), carriageSize)
	}
	c := Carriage{ID: binary.BigEndian.Uint32(b), Port: binary.BigEndian.Uint16(b[4:])}
	if c.ID == 0 || c.Port == 0 {
		return Carriage{}, fmt.Errorf("parse carriage: id %d at port %d", c.ID, c.Port)
	}
	return c, nil
}

// A hop datagram goes over UDP itself. Its head is in the clear and authenticated,
// the rest is sealed by AEAD_AES_128_GCM under the keys of a direction and phase.
//
//	 0          1           2          6              12                      n-16
//	+----------+-----------+----------+--------------+-----------------------+---------+
//	| 'D' (8)  | phase (8) | id (32)  | number (48)  | kind (8), sealed body | tag     |
//	+----------+-----------+----------+--------------+-----------------------+---------+
//
// Numbers count the datagrams of a direction, over all phases, and are never used
// twice.
const (
	HopSize   = 12
	HopTag    = 16
	HopMark   = 'D'
	MaxNumber = 1<<48 - 1
)

// HopHead is the head of a hop datagram.
type HopHead struct {
	Phase  uint8
	ID     uint32 // the receiver's
	Number uint64
}

// PutHop writes the head into b, which has at least HopSize bytes.
func PutHop(b []byte, h HopHead) {
	b[0], b[1] = HopMark, h.Phase
	binary.BigEndian.PutUint32(b[2:], h.ID)
	putNumber(b[6:], h.Number)
}

// ParseHop reads the head. Anybody may have written it.
func ParseHop(b []byte) (HopHead, error) {
	switch {
	case len(b) < HopSize+1+HopTag:
		return HopHead{}, fmt.Errorf("parse hop of %d bytes: %w", len(b), ErrCut)
	case b[0] != HopMark:
		return HopHead{}, fmt.Errorf("parse hop: mark %d is unknown", b[0])
	}
	return HopHead{Phase: b[1], ID: binary.BigEndian.Uint32(b[2:]), Number: number(b[6:])}, nil
}

func putNumber(b []byte, n uint64) {
	binary.BigEndian.PutUint16(b, uint16(n>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(n))
}

func number(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

// The kinds of hop datagrams, by the first byte that is sealed.
//
//	MEDIA     records, as in a DATAGRAM
//	REPAIR    number (48) of the datagram that did not arrive, then its records; none:
//	          it is not to be had any more
//	FEEDBACK  see Feedback
//	PROBE     zeros: whether, and how fast, so many bytes pass
const (
	HopMedia    = 1
	HopRepair   = 2
	HopFeedback = 3
	HopProbe    = 4
)

// RepairSize is what a REPAIR has before its records: kind and number.
const RepairSize = 1 + 6

// PutRepair writes what stands before the records into b, which has at least
// RepairSize bytes.
func PutRepair(b []byte, n uint64) {
	b[0] = HopRepair
	putNumber(b[1:], n)
}

// ParseRepair reads a REPAIR, from its kind on.
func ParseRepair(b []byte) (n uint64, records []byte, err error) {
	if len(b) < RepairSize {
		return 0, nil, fmt.Errorf("parse repair of %d bytes: %w", len(b), ErrCut)
	}
	return number(b[1:]), b[RepairSize:], nil
}

// NextMedia takes the first record off a hop datagram's. There are no heartbeats.
func NextMedia(b []byte) (r Record, rest []byte, err error) {
	r, rest, err = NextRecord(b)
	if err == nil && r.Alias == 0 {
		err = fmt.Errorf("parse record: alias 0 is the link's own")
	}
	return r, rest, err
}

// Limits of one FEEDBACK; with both it has 1,154 bytes and fits every path.
const (
	MaxReported = 400
	MaxAsked    = 34
)

// FeedbackUnit is what arrivals are counted in, in microseconds.
const FeedbackUnit = 50

// Feedback says when datagrams arrived, on the receiver's clock, and which are
// asked for again.
//
//	 0       1             7              9           13          14
//	+-------+-------------+--------------+-----------+-----------+----------------
//	| kind  | base (48)   | count c (16) | time (32) | asked (8) | c bits, deltas, asked
//	+-------+-------------+--------------+-----------+-----------+----------------
//
// A bit for each of c numbers from base on says that it arrived, and 16 signed bits
// for each of those, in units of 50 µs, how long after the one before, the first of
// them after time. Asked are numbers (48), each with 16 bits for those behind it.
type Feedback struct {
	Base  uint64
	At    []int64  // in units; Missed: not arrived
	Asked []uint64 // rising
}

// Missed stands for a datagram that did not arrive.
const Missed = math.MinInt64

// MaxGap is by how much two arrivals in one report may differ, in units: 1.6 s. Of more
// the second is stated wrongly.
const MaxGap = math.MaxInt16

const (
	feedbackHead = 14
	askedSize    = 8
)

// AppendFeedback appends a FEEDBACK, its kind first. It has room for MaxReported
// arrivals, and for as many of Asked as it returns: those behind have to wait.
func AppendFeedback(b []byte, f *Feedback) (out []byte, asked int) {
	at := f.At[:min(len(f.At), MaxReported)]
	head := len(b)
	b = append(b, make([]byte, feedbackHead)...)
	b[head] = HopFeedback
	putNumber(b[head+1:], f.Base)
	binary.BigEndian.PutUint16(b[head+7:], uint16(len(at)))
	bits := len(b)
	for range (len(at) + 7) / 8 {
		b = append(b, 0)
	}
	last, first := int64(0), true
	for i, t := range at {
		if t == Missed {
			continue
		}
		if first {
			first, last = false, t
			binary.BigEndian.PutUint32(b[head+9:], uint32(t))
		}
		delta := min(max(t-last, -MaxGap), MaxGap)
		last += delta
		b[bits+i/8] |= 1 << (i % 8)
		b = binary.BigEndian.AppendUint16(b, uint16(delta))
	}
	n := 0
	for ; n < MaxAsked && asked < len(f.Asked); n++ {
		first, mask := f.Asked[asked], uint16(0)
		for asked++; asked < len(f.Asked) && f.Asked[asked]-first <= 16; asked++ {
			mask |= 1 << (f.Asked[asked] - first - 1)
		}
		b = append(b, 0, 0, 0, 0, 0, 0)
		putNumber(b[len(b)-6:], first)
		b = binary.BigEndian.AppendUint16(b, mask)
	}
	b[head+13] = byte(n)
	return b, asked
}

// Parse reads a FEEDBACK, from its kind on, into f, whose slices are used again.
// Times go on from the 32 bits of the first.
func (f *Feedback) Parse(b []byte) error {
	if len(b) < feedbackHead {
		return fmt.Errorf("parse feedback of %d bytes: %w", len(b), ErrCut)
	}
	f.Base, f.At, f.Asked = number(b[1:]), f.At[:0], f.Asked[:0]
	count, at, asked := int(binary.BigEndian.Uint16(b[7:])), int64(binary.BigEndian.Uint32(b[9:])), int(b[13])
	if count > MaxReported || asked > MaxAsked {
		return fmt.Errorf("parse feedback: %d arrivals and %d questions, at most %d and %d are allowed", count, asked, MaxReported, MaxAsked)
	}
	bits := b[feedbackHead:]
	if len(bits) < (count+7)/8 {
		return fmt.Errorf("parse feedback: arrivals: %w", ErrCut)
	}
	rest := bits[(count+7)/8:]
	for i := range count {
		if bits[i/8]>>(i%8)&1 == 0 {
			f.At = append(f.At, Missed)
			continue
		}
		if len(rest) < 2 {
			return fmt.Errorf("parse feedback: arrivals: %w", ErrCut)
		}
		at += int64(int16(binary.BigEndian.Uint16(rest)))
		f.At, rest = append(f.At, at), rest[2:]
	}
	if len(rest) != asked*askedSize {
		return fmt.Errorf("parse feedback: %d questions in %d bytes", asked, len(rest))
	}
	for ; len(rest) > 0; rest = rest[askedSize:] {
		first, mask := number(rest), binary.BigEndian.Uint16(rest[6:])
		f.Asked = append(f.Asked, first)
		for i := range 16 {
			if mask>>i&1 != 0 {
				f.Asked = append(f.Asked, first+uint64(i)+1)
			}
		}
	}
	return nil
}
