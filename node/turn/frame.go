package turn

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// maxFrame bounds a STUN message or ChannelData on the wire. A media packet has
// at most 1500 bytes; pion's read buffer has 1600 and drops what fills it.
const maxFrame = 1599

const (
	stunHeader    = 20
	channelHeader = 4
	cookie        = 0x2112A442
)

// readFrame reads the next message of a TURN stream into buf (RFC 8656 section
// 12.5 and RFC 8489 section 6.2.2): STUN is as long as its header says,
// ChannelData is padded to four bytes on a stream. Any other bytes end the
// stream, since there is no way back into step.
func readFrame(r *bufio.Reader, buf []byte) (n int, err error) {
	head, err := r.Peek(channelHeader)
	if err != nil {
		return 0, err
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	var pad int
	switch {
	case head[0] < 0x40:
		n = stunHeader + length
		if length%4 != 0 {
			return 0, fmt.Errorf("STUN message of %d bytes: not a multiple of four", length)
		}
	case head[0] < 0x80:
		n = channelHeader + length
		pad = -length & 3
	default:
		return 0, fmt.Errorf("first byte %#02x: neither STUN nor ChannelData", head[0])
	}
	if n > min(maxFrame, len(buf)) {
		return 0, fmt.Errorf("message of %d bytes: longer than %d", n, maxFrame)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, err
	}
	if _, err := r.Discard(pad); err != nil {
		return 0, err
	}
	if head := buf[:n]; head[0] < 0x40 && binary.BigEndian.Uint32(head[4:]) != cookie {
		return 0, errors.New("STUN message without the magic cookie")
	}
	return n, nil
}

// STUN methods, classes and attributes that matter here (RFC 8489, RFC 8656).
const (
	methodBinding          = 0x001
	methodAllocate         = 0x003
	methodRefresh          = 0x004
	methodSend             = 0x006
	methodCreatePermission = 0x008
	methodChannelBind      = 0x009

	classRequest    = 0
	classIndication = 1

	attrErrorCode          = 0x0009
	attrPeerAddress        = 0x0012 // XOR-PEER-ADDRESS
	attrRequestedFamily    = 0x0017 // REQUESTED-ADDRESS-FAMILY
	attrEvenPort           = 0x0018
	attrRequestedTransport = 0x0019
	attrReservationToken   = 0x0022

	familyIPv4   = 0x01
	transportUDP = 17
)

// verdict is what becomes of a message before pion sees it.
type verdict int

const (
	pass verdict = 0
	drop verdict = -1
	// Anything else is the error code to answer with.
	codeForbidden  verdict = 403
	codeFamily     verdict = 440
	codeTransport  verdict = 442
	codeNoCapacity verdict = 508
)

// inspect refuses what this relay does not do: methods of RFC 6062, TCP and
// IPv6 allocations, ports of one's choice, and peers that are not ours. pion
// would take TCP for UDP, and knows a peer's address but not its port. The
// relay socket checks each packet again.
//
// All attributes count, also repeated ones and those behind
// MESSAGE-INTEGRITY: what pion may or may not look at is refused either way.
func inspect(msg []byte, peers reach) (verdict, error) {
	method, class := messageType(msg)
	switch {
	case class == classIndication && method == methodSend:
		return pass, nil // decided for each packet, by the relay socket
	case class != classRequest:
		return drop, nil
	}
	v := pass
	err := eachAttribute(msg[stunHeader:], func(kind uint16, value []byte) {
		if v == pass {
			v = judge(method, kind, value, peers)
		}
	})
	if err != nil {
		return drop, err
	}
	switch method {
	case methodBinding, methodAllocate, methodRefresh, methodCreatePermission, methodChannelBind:
		return v, nil
	}
	return drop, nil
}

func judge(method, kind uint16, value []byte, peers reach) verdict {
	switch method {
	case methodAllocate:
		switch kind {
		case attrRequestedTransport:
			if len(value) != 4 || value[0] != transportUDP {
				return codeTransport
			}
		case attrEvenPort, attrReservationToken:
			return codeNoCapacity
		case attrRequestedFamily:
			if len(value) != 4 || value[0] != familyIPv4 {
				return codeFamily
			}
		}
	case methodCreatePermission, methodChannelBind:
		if kind != attrPeerAddress {
			return pass
		}
		peer, ok := peerAddress(value)
		if !ok || !peers.permits(peer.Addr()) {
			return codeForbidden
		}
		if _, ok := peers.to(peer); !ok && method == methodChannelBind {
			return codeForbidden
		}
	}
	return pass
}

// messageType takes the type apart:
//
//	 0                 1
//	 2  3  4 5 6 7 8 9 0 1 2 3 4 5
//	+--+--+-+-+-+-+-+-+-+-+-+-+-+-+
//	|M |M |M|M|M|C|M|M|M|C|M|M|M|M|
//	|11|10|9|8|7|1|6|5|4|0|3|2|1|0|
//	+--+--+-+-+-+-+-+-+-+-+-+-+-+-+
func messageType(msg []byte) (method uint16, class uint16) {
	t := binary.BigEndian.Uint16(msg)
	return t&0x000F | t&0x00E0>>1 | t&0x3E00>>2, t&0x0010>>4 | t&0x0100>>7
}

func eachAttribute(b []byte, f func(kind uint16, value []byte)) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return fmt.Errorf("attribute header of %d bytes", len(b))
		}
		kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		padded := (length + 3) &^ 3
		if 4+padded > len(b) {
			return fmt.Errorf("attribute %#04x of %d bytes: %d are left", kind, length, len(b)-4)
		}
		f(kind, b[4:4+length])
		b = b[4+padded:]
	}
	return nil
}

// peerAddress reads an XOR-PEER-ADDRESS of IPv4; none other can be a peer.
func peerAddress(v []byte) (netip.AddrPort, bool) {
	if len(v) != 8 || v[0] != 0 || v[1] != familyIPv4 {
		return netip.AddrPort{}, false
	}
	var ip [4]byte
	binary.BigEndian.PutUint32(ip[:], binary.BigEndian.Uint32(v[4:])^cookie)
	return netip.AddrPortFrom(netip.AddrFrom4(ip), binary.BigEndian.Uint16(v[2:])^cookie>>16), true
}

// appendError appends the error response to a request: its header with the
// class changed, and ERROR-CODE without a reason.
func appendError(b []byte, request []byte, code verdict) []byte {
	t := binary.BigEndian.Uint16(request) | 0x0110
	b = binary.BigEndian.AppendUint16(b, t)
	b = binary.BigEndian.AppendUint16(b, 8)
	b = append(b, request[4:stunHeader]...)
	b = binary.BigEndian.AppendUint16(b, attrErrorCode)
	b = binary.BigEndian.AppendUint16(b, 4)
	return append(b, 0, 0, byte(code/100), byte(code%100))
}
