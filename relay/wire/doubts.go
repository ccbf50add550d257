package wire

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Doubt is what a node measured of another that contradicts the other's
// certificate. It says nothing of any room, and needs no permit.
type Doubt struct {
	Of      string        // the other node's name
	Country string        // two letters: where its certificate has it
	SeenIn  string        // two letters, or empty: where its address is known to be
	RTT     time.Duration // a round trip that is too short, in whole microseconds; 0: none
}

// MaxDoubts bounds the payload of a DOUBTS, which is all that a node has to say
// of others:
//
//	 0            2
//	+------------+--------+--------+-----
//	| count (16) | doubt  | doubt  | …
//	+------------+--------+--------+-----
//
//	 0        1        1+n           3+n           5+n           9+n
//	+--------+--------+-------------+-------------+-------------+
//	| n (8)  | name … | country (16)| seen in (16)| RTT µs (32) |
//	+--------+--------+-------------+-------------+-------------+
const MaxDoubts = 256

const (
	doubtOverhead = 1 + 2 + 2 + 4
	maxDoubtName  = 63 // a DNS label
)

// Check reports what of d does not fit into a frame.
func (d Doubt) Check() error {
	switch {
	case len(d.Of) == 0 || len(d.Of) > maxDoubtName:
		return fmt.Errorf("frame doubt: name of %d bytes, 1 to %d are allowed", len(d.Of), maxDoubtName)
	case !letters(d.Country):
		return fmt.Errorf("frame doubt: country %q: want two letters", d.Country)
	case d.SeenIn != "" && !letters(d.SeenIn):
		return fmt.Errorf("frame doubt: seen in %q: want two letters or nothing", d.SeenIn)
	case d.RTT < 0 || d.RTT/time.Microsecond > 1<<32-1 || d.RTT%time.Microsecond != 0:
		return fmt.Errorf("frame doubt: round trip of %s", d.RTT)
	}
	return nil
}

func letters(s string) bool {
	return len(s) == 2 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'A' && s[1] <= 'Z'
}

// AppendDoubts appends the envelope of a DOUBTS with the first MaxDoubts of list,
// each of which Check has found nothing in.
func AppendDoubts(b []byte, list []Doubt) []byte {
	list = list[:min(len(list), MaxDoubts)]
	n := 2
	for _, d := range list {
		n += doubtOverhead + len(d.Of)
	}
	b = appendEnvelope(b, TypeDoubts, n)
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, d := range list {
		b = append(b, byte(len(d.Of)))
		b = append(b, d.Of...)
		b = append(b, d.Country...)
		b = append(append(b, d.SeenIn...), make([]byte, 2-len(d.SeenIn))...)
		b = binary.BigEndian.AppendUint32(b, uint32(d.RTT/time.Microsecond))
	}
	return b
}

// ParseDoubts reads the payload of a DOUBTS.
func ParseDoubts(b []byte) ([]Doubt, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("parse doubts of %d bytes: %w", len(b), ErrCut)
	}
	count := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; count > MaxDoubts {
		return nil, fmt.Errorf("parse doubts: %d of them, at most %d are allowed", count, MaxDoubts)
	}
	var list []Doubt
	for range count {
		if len(b) < 1 || len(b) < doubtOverhead+int(b[0]) {
			return nil, fmt.Errorf("parse doubts: %w", ErrCut)
		}
		n := int(b[0])
		d := Doubt{Of: string(b[1 : 1+n]), Country: string(b[1+n : 3+n]), SeenIn: string(b[3+n : 5+n]),
			RTT: time.Duration(binary.BigEndian.Uint32(b[5+n:])) * time.Microsecond}
		if d.SeenIn == "\x00\x00" {
			d.SeenIn = ""
		}
		if err := d.Check(); err != nil {
			return nil, fmt.Errorf("parse doubts: %w", err)
		}
		list, b = append(list, d), b[doubtOverhead+n:]
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("parse doubts: %d bytes after the last", len(b))
	}
	return list, nil
}
