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
//	first bidirectional         the control stream: HELLO from each side, then MESSAGE, REPORT, STATED,
//	                            IDENTITY, DOUBTS and CARRIAGE, and what the ends count by: ACCOUNT, TRACK and TALLY
//	any other bidirectional     one REQUEST or OFFER one way, one RESPONSE the other way
//	unidirectional              the packets of one video frame of one layer
//	DATAGRAM frames             audio packets, several in each, and PING and PONG
//
// Beside it, once each side has said by CARRIAGE where it takes them, media goes in
// hop datagrams over UDP, sealed by keys of the same handshake; see HopHead.
//
// The node that dialled opens the control stream and speaks first.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Version is the newest version of everything in this package, and MinVersion the
// oldest that is spoken still: that of the release before, so that a mesh can be
// upgraded node by node. HELLO settles which one counts on a link: the newest that
// both know (see Agree).
//
//	3  CARRIAGE, and media beside QUIC
//	2  STATED, OFFER, IDENTITY and DOUBTS, and accounts
const (
	Version    = 3
	MinVersion = 2
)

// Agree names the version of a link on which one end offers theirs and the other
// knows versions up to ours. A release that knew one version alone insists on that:
// who offered it a newer one comes again with an older.
func Agree(ours, theirs uint16) (version uint16, ok bool) {
	version = min(ours, theirs)
	return version, version >= MinVersion
}

// Limits that both sides keep. What exceeds them ends the link.
const (
	MaxMessage   = 1 << 20 // bytes of a message's, request's or response's body
	MaxRoom      = 1024    // bytes of a room's name
	MaxClass     = 32      // bytes of a data class's name
	MaxError     = 512     // bytes of an error that travels back to a requester
	MaxPolicy    = 4 << 20 // bytes of a policy that is offered, and of its signature
	MaxSignature = 4 << 10
	MaxProof     = 8 << 10 // bytes of an IDENTITY: a certificate with a signature, which this package does not look into
	MaxPacket    = 2048    // bytes of one RTP packet; Ethernet allows 1472, jumbo frames are not wanted
	MaxLayer     = 3       // highest simulcast layer
	MinPacket    = 12      // an RTP header without anything (RFC 3550 section 5.1)
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
	TypeStated   Type = 6
	TypeIdentity Type = 7
	TypeOffer    Type = 8
	TypeDoubts   Type = 9
	TypeAccount  Type = 12
	TypeTrack    Type = 10
	TypeTally    Type = 11
	TypeCarriage Type = 13 // since version 3
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
	case TypeStated:
		return "STATED"
	case TypeOffer:
		return "OFFER"
	case TypeIdentity:
		return "IDENTITY"
	case TypeDoubts:
		return "DOUBTS"
	case TypeAccount:
		return "ACCOUNT"
	case TypeTrack:
		return "TRACK"
	case TypeTally:
		return "TALLY"
	case TypeCarriage:
		return "CARRIAGE"
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
		return responseOverhead + MaxMessage
	case TypeAccount:
		return accountOverhead + MaxClass + MaxRoom
	case TypeTrack:
		return trackSize
	case TypeTally:
		return tallySize
	case TypeCarriage:
		return carriageSize
	case TypeStated:
		return statedSize
	case TypeOffer:
		return offerOverhead + MaxSignature + MaxPolicy
	case TypeIdentity:
		return MaxProof
	case TypeDoubts:
		return 2 + MaxDoubts*(doubtOverhead+maxDoubtName)
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
//	 0           2              10         11          11+c        13+c       13+c+r
//	+-----------+--------------+----------+-----------+-----------+----------+--------+
//	| kind (16) | account (64) | c (8)    | class (c) | r (16)    | room (r) | body … |
//	+-----------+--------------+----------+-----------+-----------+----------+--------+
type Message struct {
	Kind    uint16 // belongs to the user of relay
	Account uint64 // under which the sender counts the body
	Class   string
	Room    string
	Body    []byte
}

const messageOverhead = 2 + 8 + 1 + 2

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
	b = binary.BigEndian.AppendUint64(b, m.Account)
	return append(appendPlace(b, m.Class, m.Room), m.Body...)
}

// ParseMessage reads the payload of a MESSAGE or a REQUEST. Body points into b.
func ParseMessage(b []byte) (Message, error) {
	if len(b) < messageOverhead {
		return Message{}, fmt.Errorf("parse message of %d bytes: %w", len(b), ErrCut)
	}
	m := Message{Kind: binary.BigEndian.Uint16(b), Account: binary.BigEndian.Uint64(b[2:])}
	var err error
	if m.Class, m.Room, m.Body, err = parsePlace(b[10:]); err != nil {
		return Message{}, fmt.Errorf("parse message: %w", err)
	}
	if len(m.Body) > MaxMessage {
		return Message{}, fmt.Errorf("parse message: body of %d bytes, at most %d are allowed", len(m.Body), MaxMessage)
	}
	return m, nil
}

// Response is the payload of a RESPONSE.
//
//	 0            1              9
//	+------------+--------------+------------------------------+
//	| status (8) | account (64) | body, or the error's text …  |
//	+------------+--------------+------------------------------+
//
// Status 0 is success, 1 an error; others are not allowed. An error is nobody's
// data: its account is 0.
type Response struct {
	Failed  bool   // Body is the text of an error
	Account uint64 // under which the sender counts the body
	Body    []byte
}

const responseOverhead = 1 + 8

// AppendResponse appends the envelope of a RESPONSE. The text of an error is
// cut to MaxError bytes; a body must not be longer than MaxMessage.
func AppendResponse(b []byte, r Response) []byte {
	status := byte(0)
	if r.Failed {
		status, r.Account = 1, 0
		r.Body = r.Body[:min(len(r.Body), MaxError)]
	}
	b = appendEnvelope(b, TypeResponse, responseOverhead+len(r.Body))
	b = append(b, status)
	b = binary.BigEndian.AppendUint64(b, r.Account)
	return append(b, r.Body...)
}

// ParseResponse reads the payload of a RESPONSE. Body points into b.
func ParseResponse(b []byte) (Response, error) {
	if len(b) < responseOverhead {
		return Response{}, fmt.Errorf("parse response: %w", ErrCut)
	}
	r := Response{Failed: b[0] == 1, Account: binary.BigEndian.Uint64(b[1:]), Body: b[responseOverhead:]}
	switch {
	case b[0] > 1:
		return Response{}, fmt.Errorf("parse response: status %d is unknown", b[0])
	case r.Failed && r.Account != 0:
		return Response{}, fmt.Errorf("parse response: an error under account %d", r.Account)
	case r.Failed && len(r.Body) > MaxError:
		return Response{}, fmt.Errorf("parse response: error of %d bytes, at most %d are allowed", len(r.Body), MaxError)
	case len(r.Body) > MaxMessage:
		return Response{}, fmt.Errorf("parse response: body of %d bytes, at most %d are allowed", len(r.Body), MaxMessage)
	}
	return r, nil
}

// AppendIdentity appends the envelope of an IDENTITY: the proof that the sender has
// another certificate now, at most MaxProof bytes. The payload is the proof.
func AppendIdentity(b, proof []byte) []byte {
	return append(appendEnvelope(b, TypeIdentity, len(proof)), proof...)
}
