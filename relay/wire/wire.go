// Package wire frames what two nodes say to each other on a relay link.
//
// It turns values into bytes and bytes into values and does nothing else: no
// I/O, no clock, no state, no meaning of rooms or messages. Parsers take a
// slice, return an error on anything that is cut, too long or unknown, and
// return values that point into the slice they were given.
//
// # The conversation
//
// One QUIC connection joins two nodes. All integers are big-endian.
//
//	stream                      carries
//	first bidirectional         the control stream: HELLO from each side, then MESSAGE and REPORT
//	any other bidirectional     one REQUEST one way, one RESPONSE the other way
//	unidirectional              the packets of one video frame of one layer
//	DATAGRAM frames             audio packets, several in each, and PING and PONG
//
// The node that dialled opens the control stream and speaks first.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the version of everything in this package. Nodes of different
// versions do not talk: HELLO settles that before anything else is said.
const Version = 1

// Limits that both sides keep. What exceeds them ends the link.
const (
	MaxMessage = 1 << 20 // bytes of a message's, request's or response's body
	MaxRoom    = 1024    // bytes of a room's name
	MaxClass   = 32      // bytes of a data class's name
	MaxError   = 512     // bytes of an error that travels back to a requester
	MaxPacket  = 2048    // bytes of one RTP packet; Ethernet allows 1472, jumbo frames are not wanted
	MaxLayer   = 3       // highest simulcast layer
	MinPacket  = 12      // an RTP header without anything (RFC 3550 section 5.1)
)

// ErrCut says that the input ends before the value does.
var ErrCut = errors.New("input ends too early")

// Type says what an envelope holds.
type Type uint8

// The types of envelope.
const (
	TypeHello    Type = 1
	TypeMessage  Type = 2
	TypeReport   Type = 3
	TypeRequest  Type = 4
	TypeResponse Type = 5
)

// String names the type as the package comment does.
func (t Type) String() string {
	switch t {
	case TypeHello:
		return "HELLO"
	case TypeMessage:
		return "MESSAGE"
	case TypeReport:
		return "REPORT"
	case TypeRequest:
		return "REQUEST"
	case TypeResponse:
		return "RESPONSE"
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// maxPayload is the longest payload of a type, 0 for an unknown type.
func (t Type) maxPayload() int {
	switch t {
	case TypeHello:
		return helloSize
	case TypeMessage, TypeRequest:
		return messageOverhead + MaxClass + MaxRoom + MaxMessage
	case TypeReport:
		return reportSize
	case TypeResponse:
		return 1 + MaxMessage
	}
	return 0
}

// EnvelopeSize is the length of an envelope's header.
//
//	 0        1                                   5
//	+--------+-----------------------------------+-------------+
//	| type   | length of the payload (32)        | payload …   |
//	+--------+-----------------------------------+-------------+
const EnvelopeSize = 5

// ParseEnvelope reads an envelope's header. The length it returns is never
// more than the type allows, so a reader may trust it as a bound.
func ParseEnvelope(b []byte) (Type, int, error) {
	if len(b) < EnvelopeSize {
		return 0, 0, fmt.Errorf("parse envelope of %d bytes: %w", len(b), ErrCut)
	}
	t, n := Type(b[0]), binary.BigEndian.Uint32(b[1:])
	limit := t.maxPayload()
	if limit == 0 {
		return 0, 0, fmt.Errorf("parse envelope: type %d is unknown", b[0])
	}
	if uint64(n) > uint64(limit) {
		return 0, 0, fmt.Errorf("parse envelope: %s of %d bytes, at most %d are allowed", t, n, limit)
	}
	return t, int(n), nil
}

func appendEnvelope(b []byte, t Type, n int) []byte {
	b = append(b, byte(t))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// magic opens a HELLO, so that something else on the port is told apart from
// another version: "DMCL".
const magic = 0x444d434c

// Hello is the first thing each side says.
//
//	 0                       4           6
//	+-----------------------+-----------+
//	| "DMCL"                | version   |
//	+-----------------------+-----------+
type Hello struct{ Version uint16 }

const helloSize = 6

// AppendHello appends the envelope of a HELLO.
func AppendHello(b []byte, h Hello) []byte {
	b = appendEnvelope(b, TypeHello, helloSize)
	b = binary.BigEndian.AppendUint32(b, magic)
	return binary.BigEndian.AppendUint16(b, h.Version)
}

// ParseHello reads the payload of a HELLO. It does not judge the version.
func ParseHello(b []byte) (Hello, error) {
	if len(b) != helloSize {
		return Hello{}, fmt.Errorf("parse hello: %d bytes, want %d", len(b), helloSize)
	}
	if m := binary.BigEndian.Uint32(b); m != magic {
		return Hello{}, fmt.Errorf("parse hello: magic %q, want %q", b[:4], "DMCL")
	}
	return Hello{Version: binary.BigEndian.Uint16(b[4:])}, nil
}

// Message is the payload of a MESSAGE and of a REQUEST.
//
//	 0           2          3           3+c         5+c        5+c+r
//	+-----------+----------+-----------+-----------+----------+--------+
//	| kind (16) | c (8)    | class (c) | r (16)    | room (r) | body … |
//	+-----------+----------+-----------+-----------+----------+--------+
type Message struct {
	Kind  uint16 // belongs to the user of relay
	Class string
	Room  string
	Body  []byte
}

const messageOverhead = 2 + 1 + 2

// Check reports what of m does not fit into a frame.
func (m Message) Check() error {
	switch {
	case len(m.Class) > MaxClass:
		return fmt.Errorf("frame message: class of %d bytes, at most %d are allowed", len(m.Class), MaxClass)
	case len(m.Room) > MaxRoom:
		return fmt.Errorf("frame message: room name of %d bytes, at most %d are allowed", len(m.Room), MaxRoom)
	case len(m.Body) > MaxMessage:
		return fmt.Errorf("frame message: body of %d bytes, at most %d are allowed", len(m.Body), MaxMessage)
	}
	return nil
}

// AppendMessage appends the envelope of m as a MESSAGE or a REQUEST; m.Check
// must have found nothing.
func AppendMessage(b []byte, t Type, m Message) []byte {
	b = appendEnvelope(b, t, messageOverhead+len(m.Class)+len(m.Room)+len(m.Body))
	b = binary.BigEndian.AppendUint16(b, m.Kind)
	b = append(b, byte(len(m.Class)))
	b = append(b, m.Class...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Room)))
	b = append(b, m.Room...)
	return append(b, m.Body...)
}

// ParseMessage reads the payload of a MESSAGE or a REQUEST. Body points into b.
func ParseMessage(b []byte) (Message, error) {
	if len(b) < messageOverhead {
		return Message{}, fmt.Errorf("parse message of %d bytes: %w", len(b), ErrCut)
	}
	m := Message{Kind: binary.BigEndian.Uint16(b)}
	c := int(b[2])
	b = b[3:]
	if c > MaxClass {
		return Message{}, fmt.Errorf("parse message: class of %d bytes, at most %d are allowed", c, MaxClass)
	}
	if len(b) < c+2 {
		return Message{}, fmt.Errorf("parse message: class: %w", ErrCut)
	}
	m.Class = string(b[:c])
	r := int(binary.BigEndian.Uint16(b[c:]))
	b = b[c+2:]
	if r > MaxRoom {
		return Message{}, fmt.Errorf("parse message: room name of %d bytes, at most %d are allowed", r, MaxRoom)
	}
	if len(b) < r {
		return Message{}, fmt.Errorf("parse message: room name: %w", ErrCut)
	}
	m.Room, m.Body = string(b[:r]), b[r:]
	if len(m.Body) > MaxMessage {
		return Message{}, fmt.Errorf("parse message: body of %d bytes, at most %d are allowed", len(m.Body), MaxMessage)
	}
	return m, nil
}

// Response is the payload of a RESPONSE.
//
//	 0            1
//	+------------+------------------------------+
//	| status (8) | body, or the error's text …  |
//	+------------+------------------------------+
//
// Status 0 is success, 1 an error; others are not allowed.
type Response struct {
	Failed bool // Body is the text of an error
	Body   []byte
}

// AppendResponse appends the envelope of a RESPONSE. The text of an error is
// cut to MaxError bytes; a body must not be longer than MaxMessage.
func AppendResponse(b []byte, r Response) []byte {
	status := byte(0)
	if r.Failed {
		status = 1
		r.Body = r.Body[:min(len(r.Body), MaxError)]
	}
	b = appendEnvelope(b, TypeResponse, 1+len(r.Body))
	b = append(b, status)
	return append(b, r.Body...)
}

// ParseResponse reads the payload of a RESPONSE. Body points into b.
func ParseResponse(b []byte) (Response, error) {
	if len(b) == 0 {
		return Response{}, fmt.Errorf("parse response: %w", ErrCut)
	}
	r := Response{Failed: b[0] == 1, Body: b[1:]}
	switch {
	case b[0] > 1:
		return Response{}, fmt.Errorf("parse response: status %d is unknown", b[0])
	case r.Failed && len(r.Body) > MaxError:
		return Response{}, fmt.Errorf("parse response: error of %d bytes, at most %d are allowed", len(r.Body), MaxError)
	case len(r.Body) > MaxMessage:
		return Response{}, fmt.Errorf("parse response: body of %d bytes, at most %d are allowed", len(r.Body), MaxMessage)
	}
	return r, nil
}
