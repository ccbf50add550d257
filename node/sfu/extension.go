package sfu

import "encoding/binary"

// Extensions are the ids under which one side negotiated RTP header extensions
// (RFC 8285), 0 for those that it did not.
type Extensions struct {
	AudioLevel           uint8 `json:"audio_level,omitempty"` // RFC 6464
	VideoOrientation     uint8 `json:"orientation,omitempty"` // 3GPP TS 26.114 section 7.4.5
	PlayoutDelay         uint8 `json:"playout,omitempty"`
	AbsCaptureTime       uint8 `json:"capture,omitempty"`
	DependencyDescriptor uint8 `json:"dependency,omitempty"` // of AV1's RTP payload format
	TransportCC          uint8 `json:"-"`                    // between two neighbours only, like the next
	MID                  uint8 `json:"-"`                    // RFC 9143
}

// carried are the extensions that travel from the publisher to the receiver.
const (
	extLevel = iota
	extOrientation
	extPlayout
	extCapture
	extDependency
	carried
)

func (e Extensions) carried() [carried]uint8 {
	return [carried]uint8{e.AudioLevel, e.VideoOrientation, e.PlayoutDelay, e.AbsCaptureTime, e.DependencyDescriptor}
}

// span is a run of bytes of a packet.
type span struct {
	at  uint16
	len uint8
}

func (s span) of(raw []byte) []byte { return raw[s.at : s.at+uint16(s.len)] }

// elements are the extensions of a packet that are passed on, and where they are.
type elements struct {
	has uint8 // bit k: extension k is there
	at  [carried]span
}

// Profiles of RFC 8285 sections 4.2 and 4.3; the low four bits of the second
// are the application's.
const (
	oneByte     = 0xbede
	twoByte     = 0x1000
	twoByteMask = 0xfff0
)

// eachElement calls visit for every element of the packet's header extension
// until it returns false. The packet's header has been parsed.
//
//	one-byte form: |  ID   | len-1 | data …        0 is padding, 15 ends it
//	two-byte form: |      ID       |      len      | data …
func eachElement(raw []byte, visit func(id uint8, s span) bool) {
	if raw[0]&0x10 == 0 {
		return
	}
	at := headerSize + 4*int(raw[0]&0x0f)
	profile := binary.BigEndian.Uint16(raw[at:])
	end := at + 4 + 4*int(binary.BigEndian.Uint16(raw[at+2:]))
	step := oneByteElement
	switch {
	case profile == oneByte:
	case profile&twoByteMask == twoByte:
		step = twoByteElement
	default:
		return // of a profile that nobody negotiated
	}
	for at += 4; at < end; {
		if raw[at] == 0 {
			at++
			continue
		}
		id, s := step(raw, at)
		if id == 0 || int(s.at)+int(s.len) > end || !visit(id, s) {
			return
		}
		at = int(s.at) + int(s.len)
	}
}

// oneByteElement returns id 0 where the elements end.
func oneByteElement(raw []byte, at int) (uint8, span) {
	id := raw[at] >> 4
	if id == 15 {
		return 0, span{}
	}
	return id, span{uint16(at + 1), raw[at]&0x0f + 1}
}

func twoByteElement(raw []byte, at int) (uint8, span) {
	if at+1 >= len(raw) {
		return 0, span{}
	}
	return raw[at], span{uint16(at + 2), raw[at+1]}
}

// findElements notes those of a packet that were negotiated under ids.
func findElements(raw []byte, ids *[carried]uint8) (found elements) {
	eachElement(raw, func(id uint8, s span) bool {
		for k, want := range ids {
			if id == want {
				found.has |= 1 << k
				found.at[k] = s
			}
		}
		return true
	})
	return found
}

// ExtensionValue returns the data of a header extension, inside raw, or nil. raw may
// come from anybody.
func ExtensionValue(raw []byte, id uint8) (data []byte) {
	if _, err := parseHeader(raw); err != nil || id == 0 {
		return nil
	}
	eachElement(raw, func(got uint8, s span) bool {
		if got == id {
			data = s.of(raw)
		}
		return got != id
	})
	return data
}

// element is one that is to be written.
type element struct {
	id   uint8
	data []byte
}

// stampSize is the length of a transport-wide sequence number.
const stampSize = 2

// maxElements is how many there are at most: those passed on, stamp and MID.
const maxElements = carried + 2

// block is the header extension of a packet that is about to leave.
type block struct {
	elements [maxElements]element
	count    int
	size     int  // of the data
	wide     bool // something does not fit the one-byte form
	last     int  // where the data of the last element is, once put
	numbered bool // it is a dependency descriptor
}

// add puts an element in; empty ones only fit the two-byte form.
func (b *block) add(id uint8, data []byte) {
	b.elements[b.count] = element{id, data}
	b.count++
	b.size += len(data)
	b.wide = b.wide || id > 14 || len(data) > 16 || len(data) == 0
}

func (b *block) head() int {
	if b.wide {
		return 2
	}
	return 1
}

// len returns the length in the packet, with the four bytes in front.
func (b *block) len() int {
	if b.count == 0 {
		return 0
	}
	return 4 + (b.size+b.count*b.head()+3)&^3
}

// put writes the block and returns where the data of the first element is.
func (b *block) put(rtp []byte) (first int) {
	size := b.len()
	profile := uint16(oneByte)
	if b.wide {
		profile = twoByte
	}
	binary.BigEndian.PutUint16(rtp, profile)
	binary.BigEndian.PutUint16(rtp[2:], uint16(size/4-1))
	at := 4
	for _, e := range b.elements[:b.count] {
		if b.wide {
			rtp[at], rtp[at+1] = e.id, uint8(len(e.data))
		} else {
			rtp[at] = e.id<<4 | uint8(len(e.data)-1)
		}
		at += b.head()
		b.last = at
		at += copy(rtp[at:], e.data)
	}
	clear(rtp[at:size])
	return 4 + b.head()
}
