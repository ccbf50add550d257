package sfu

import (
	"encoding/binary"
	"errors"
)

// headerSize is the fixed part of an RTP header.
const headerSize = 12

// maxRTP is the largest RTP packet that is carried, in bytes. Browsers stay
// under 1200, an Ethernet frame holds 1472; larger ones come from nobody we
// serve.
const maxRTP = 1600

var (
	errShort     = errors.New("parse RTP: packet is cut")
	errLong      = errors.New("parse RTP: packet is too long")
	errVersion   = errors.New("parse RTP: version is not 2")
	errRTCP      = errors.New("parse RTP: packet is RTCP")
	errExtension = errors.New("parse RTP: header extension is cut")
	errPadding   = errors.New("parse RTP: impossible padding")
)

// header is what the node reads of an RTP header (RFC 3550 section 5.1):
//
//	 0                   1                   2                   3
//	|V=2|P|X|  CC   |M|     PT      |       sequence number         |
//	|                           timestamp                           |
//	|                             SSRC                              |
//	|                  CC times CSRC, 4 bytes each                  |
//	| X: profile, 16 bits           | length in 4-byte words        |
type header struct {
	seq    uint16
	ts     uint32
	ssrc   uint32
	pt     uint8
	marker bool
	start  int // payload is raw[start:end]
	end    int
}

// parseHeader reads the header of a packet that may come from anybody. After
// it returns nil, start and end lie in raw and start ≤ end.
func parseHeader(raw []byte) (header, error) {
	var h header
	switch {
	case len(raw) < headerSize:
		return h, errShort
	case len(raw) > maxRTP:
		return h, errLong
	case raw[0]>>6 != 2:
		return h, errVersion
	case raw[1] >= 192 && raw[1] <= 223: // RFC 5761 section 4
		return h, errRTCP
	}
	h.marker = raw[1]&0x80 != 0
	h.pt = raw[1] & 0x7f
	h.seq = binary.BigEndian.Uint16(raw[2:])
	h.ts = binary.BigEndian.Uint32(raw[4:])
	h.ssrc = binary.BigEndian.Uint32(raw[8:])
	var err error
	if h.start, err = payloadStart(raw); err != nil {
		return h, err
	}
	h.end, err = payloadEnd(raw, h.start)
	return h, err
}

func payloadStart(raw []byte) (int, error) {
	start := headerSize + 4*int(raw[0]&0x0f)
	if start > len(raw) {
		return 0, errShort
	}
	if raw[0]&0x10 == 0 {
		return start, nil
	}
	if start+4 > len(raw) {
		return 0, errExtension
	}
	start += 4 + 4*int(binary.BigEndian.Uint16(raw[start+2:]))
	if start > len(raw) {
		return 0, errExtension
	}
	return start, nil
}

func payloadEnd(raw []byte, start int) (int, error) {
	if raw[0]&0x20 == 0 {
		return len(raw), nil
	}
	padding := int(raw[len(raw)-1])
	if padding == 0 || padding > len(raw)-start {
		return 0, errPadding
	}
	return len(raw) - padding, nil
}

// putHeader writes a header without CSRCs, extensions and padding: CSRCs are
// nobody's, and padding belongs to the publisher's hop.
func putHeader(b []byte, marker bool, pt uint8, seq uint16, ts, ssrc uint32) {
	b[0] = 2 << 6
	b[1] = pt & 0x7f
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
}
