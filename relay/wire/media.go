package wire

import (
	"encoding/binary"
	"fmt"
)

// SenderReport ties the RTP clock of a layer to the publisher's wall clock (RFC
// 3550 section 6.4.1).
type SenderReport struct {
	NTP     uint64 // 64-bit NTP timestamp
	RTP     uint32 // the same instant on the layer's RTP clock
	Packets uint32
	Octets  uint32
}

// Report is the payload of a REPORT.
//
//	 0            4          5           13         17            21           25
//	+------------+----------+-----------+----------+-------------+------------+
//	| alias (32) | layer (8)| NTP (64)  | RTP (32) | packets (32)| octets (32)|
//	+------------+----------+-----------+----------+-------------+------------+
type Report struct {
	Alias  uint32
	Layer  uint8
	Sender SenderReport
}

const reportSize = 25

// AppendReport appends the envelope of a REPORT.
func AppendReport(b []byte, r Report) []byte {
	b = appendEnvelope(b, TypeReport, reportSize)
	b = binary.BigEndian.AppendUint32(b, r.Alias)
	b = append(b, r.Layer)
	b = binary.BigEndian.AppendUint64(b, r.Sender.NTP)
	b = binary.BigEndian.AppendUint32(b, r.Sender.RTP)
	b = binary.BigEndian.AppendUint32(b, r.Sender.Packets)
	return binary.BigEndian.AppendUint32(b, r.Sender.Octets)
}

// ParseReport reads the payload of a REPORT.
func ParseReport(b []byte) (Report, error) {
	if len(b) != reportSize {
		return Report{}, fmt.Errorf("parse report: %d bytes, want %d", len(b), reportSize)
	}
	r := Report{Alias: binary.BigEndian.Uint32(b), Layer: b[4]}
	if err := checkTrack(r.Alias, r.Layer); err != nil {
		return Report{}, fmt.Errorf("parse report: %w", err)
	}
	r.Sender = SenderReport{
		NTP:     binary.BigEndian.Uint64(b[5:]),
		RTP:     binary.BigEndian.Uint32(b[13:]),
		Packets: binary.BigEndian.Uint32(b[17:]),
		Octets:  binary.BigEndian.Uint32(b[21:]),
	}
	return r, nil
}

func checkTrack(alias uint32, layer uint8) error {
	if alias == 0 {
		return fmt.Errorf("alias 0 is the link's own")
	}
	if layer > MaxLayer {
		return fmt.Errorf("layer %d, at most %d is allowed", layer, MaxLayer)
	}
	return nil
}

// Frame heads a unidirectional stream: the packets of one video frame of one
// layer follow until the stream ends. A reset means that the sender gave the
// rest of the frame up.
//
//	 0            4          5            9
//	+------------+----------+------------+-----------------+-----
//	| alias (32) | layer (8)| number (32)| packet record   | …
//	+------------+----------+------------+-----------------+-----
//
// Numbers count the streams of one alias and layer from 0, so that the receiver
// can put streams that were repaired at different times back in order.
type Frame struct {
	Alias  uint32
	Layer  uint8
	Number uint32
}

// FrameSize is the length of a Frame header.
const FrameSize = 9

// PutFrame writes the header into b, which has at least FrameSize bytes.
func PutFrame(b []byte, f Frame) {
	binary.BigEndian.PutUint32(b, f.Alias)
	b[4] = f.Layer
	binary.BigEndian.PutUint32(b[5:], f.Number)
}

// ParseFrame reads the header of a unidirectional stream.
func ParseFrame(b []byte) (Frame, error) {
	if len(b) < FrameSize {
		return Frame{}, fmt.Errorf("parse frame header of %d bytes: %w", len(b), ErrCut)
	}
	f := Frame{Alias: binary.BigEndian.Uint32(b), Layer: b[4], Number: binary.BigEndian.Uint32(b[5:])}
	if err := checkTrack(f.Alias, f.Layer); err != nil {
		return Frame{}, fmt.Errorf("parse frame header: %w", err)
	}
	return f, nil
}

// PacketOverhead is what a packet record adds to the RTP packet.
//
//	 0 1              2
//	+-+--------------+---------------+
//	|E| length (15)  | RTP packet …  |     E: last packet of the frame
//	+-+--------------+---------------+
const PacketOverhead = 2

const endOfFrame = 1 << 15

// PutPacket writes the head of a packet record into b, which has at least
// PacketOverhead bytes; n is the length of the RTP packet.
func PutPacket(b []byte, n int, last bool) {
	v := uint16(n)
	if last {
		v |= endOfFrame
	}
	binary.BigEndian.PutUint16(b, v)
}

// NextPacket takes the first packet record off b. When b holds only the start
// of one, packet is nil and rest is b: read more and ask again.
func NextPacket(b []byte) (packet []byte, last bool, rest []byte, err error) {
	if len(b) < PacketOverhead {
		return nil, false, b, nil
	}
	v := binary.BigEndian.Uint16(b)
	n := int(v &^ endOfFrame)
	if err := checkPacket(n); err != nil {
		return nil, false, nil, err
	}
	if len(b) < PacketOverhead+n {
		return nil, false, b, nil
	}
	return b[PacketOverhead : PacketOverhead+n], v&endOfFrame != 0, b[PacketOverhead+n:], nil
}

func checkPacket(n int) error {
	if n < MinPacket || n > MaxPacket {
		return fmt.Errorf("parse packet record: %d bytes, allowed are %d to %d", n, MinPacket, MaxPacket)
	}
	return nil
}

// DatagramSize is the length of a DATAGRAM's head.
//
//	 0               4
//	+---------------+---------+---------+-----
//	| sequence (32) | record  | record  | …
//	+---------------+---------+---------+-----
//
// The sequence counts the link's datagrams, so that the receiver sees which
// were lost, including those that its own QUIC stack threw away unread.
const DatagramSize = 4

// PutDatagram writes the head of a DATAGRAM into b.
func PutDatagram(b []byte, seq uint32) { binary.BigEndian.PutUint32(b, seq) }

// ParseDatagram reads the head of a DATAGRAM; records is what follows.
func ParseDatagram(b []byte) (seq uint32, records []byte, err error) {
	if len(b) < DatagramSize {
		return 0, nil, fmt.Errorf("parse datagram of %d bytes: %w", len(b), ErrCut)
	}
	return binary.BigEndian.Uint32(b), b[DatagramSize:], nil
}

// Record is one entry of a DATAGRAM: an RTP packet, or with Alias 0 a heartbeat
// whose Layer is Ping or Pong and whose Body is 8 bytes that a PONG repeats.
//
//	 0            4           5             7
//	+------------+-----------+-------------+--------+
//	| alias (32) | layer (8) | length (16) | body … |
//	+------------+-----------+-------------+--------+
type Record struct {
	Alias uint32
	Layer uint8
	Body  []byte
}

// RecordOverhead is what a record adds to its body.
const RecordOverhead = 7

// The heartbeats.
const (
	Ping uint8 = 0
	Pong uint8 = 1
)

// Deaf is the token of a PONG that answers nothing: its sender has heard nothing for
// a while, and what it sends arrives perhaps. No PING carries it, so a node that does
// not know the word ignores it.
const Deaf uint64 = 0

// Alive is the token of a PONG that answers nothing: its sender lives, and asks
// nothing. PINGs have greater tokens.
const Alive uint64 = 1

const tokenSize = 8

// PutRecord writes the head of a record into b, which has at least
// RecordOverhead bytes; n is the length of the body.
func PutRecord(b []byte, alias uint32, layer uint8, n int) {
	binary.BigEndian.PutUint32(b, alias)
	b[4] = layer
	binary.BigEndian.PutUint16(b[5:], uint16(n))
}

// AppendHeartbeat appends a PING or a PONG.
func AppendHeartbeat(b []byte, which uint8, token uint64) []byte {
	var head [RecordOverhead]byte
	PutRecord(head[:], 0, which, tokenSize)
	b = append(b, head[:]...)
	return binary.BigEndian.AppendUint64(b, token)
}

// Token returns what a PING or PONG carries.
func (r Record) Token() uint64 { return binary.BigEndian.Uint64(r.Body) }

// NextRecord takes the first record off b. Body points into b.
func NextRecord(b []byte) (r Record, rest []byte, err error) {
	if len(b) < RecordOverhead {
		return Record{}, nil, fmt.Errorf("parse record of %d bytes: %w", len(b), ErrCut)
	}
	r = Record{Alias: binary.BigEndian.Uint32(b), Layer: b[4]}
	n := int(binary.BigEndian.Uint16(b[5:]))
	b = b[RecordOverhead:]
	if len(b) < n {
		return Record{}, nil, fmt.Errorf("parse record: body of %d bytes: %w", n, ErrCut)
	}
	r.Body = b[:n:n]
	if r.Alias == 0 {
		if r.Layer > Pong || n != tokenSize {
			return Record{}, nil, fmt.Errorf("parse record: heartbeat %d of %d bytes is unknown", r.Layer, n)
		}
		return r, b[n:], nil
	}
	if err := checkTrack(r.Alias, r.Layer); err != nil {
		return Record{}, nil, fmt.Errorf("parse record: %w", err)
	}
	if err := checkPacket(n); err != nil {
		return Record{}, nil, err
	}
	return r, b[n:], nil
}
