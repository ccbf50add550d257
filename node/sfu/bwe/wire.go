package bwe

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"
)

// A transport-wide feedback packet (draft-holmer-rmcat-transport-wide-cc-extensions-01
// section 3.1). It is read here and not by the library because 40 bytes can claim
// 65535 packets: the library makes an object for each before it misses their
// deltas, four milliseconds and four megabytes. Here a packet costs what the history
// can hold at most, and nothing is allocated.
//
//	 0                   1                   2                   3
//	|V=2|P| FMT=15  |    PT=205     |           length              |
//	|                     SSRC of packet sender                     |
//	|                      SSRC of media source                     |
//	|      base sequence number     |      packet status count      |
//	|                 reference time                | fb pkt. count |
//	|  chunks, 2 bytes each …                                       |
//	|  deltas, 1 or 2 bytes for each packet received … | padding    |
//
//	chunk: |0| S |    run length 13     |   a run of the symbol S
//	       |1|0| 14 symbols of 1 bit    |
//	       |1|1|  7 symbols of 2 bits   |
const (
	feedbackType, feedbackFormat = 205, 15
	headerSize, feedbackHead     = 4, 20
	deltaUnit                    = 250 * time.Microsecond
)

// symbol is the status of a packet.
type symbol uint8

const (
	absent symbol = iota
	near          // received, a delta of 1 byte
	far           // received, a signed delta of 2 bytes
	reserved
)

// status is one packet's: delta is from the one received before.
type status struct {
	symbol symbol
	delta  time.Duration
}

// report is a feedback packet, checked: it counts whole or not at all.
type report struct {
	base      uint16
	reference uint32
	statuses  []status // reused
}

// parse reads a packet from its header to its end.
func (r *report) parse(raw []byte) bool {
	if len(raw) < feedbackHead {
		return false
	}
	if raw[0]&0x20 != 0 {
		pad := int(raw[len(raw)-1])
		if pad == 0 || len(raw)-pad < feedbackHead {
			return false
		}
		raw = raw[:len(raw)-pad]
	}
	r.base = binary.BigEndian.Uint16(raw[12:])
	r.reference = binary.BigEndian.Uint32(raw[16:]) >> 8
	count, rest := int(binary.BigEndian.Uint16(raw[14:])), raw[feedbackHead:]
	if count == 0 || count > historySize {
		return false
	}
	r.statuses = r.statuses[:0]
	for len(r.statuses) < count {
		if len(rest) < 2 {
			return false
		}
		r.chunk(binary.BigEndian.Uint16(rest), count)
		rest = rest[2:]
	}
	return r.deltas(rest)
}

// chunk adds the symbols of a chunk, up to count.
func (r *report) chunk(c uint16, count int) {
	if c>>15 == 0 {
		for n := c & 0x1fff; n > 0; n-- {
			r.add(symbol(c>>13&3), count)
		}
		return
	}
	width, mask := 1, uint16(1)
	if c>>14&1 == 1 {
		width, mask = 2, 3
	}
	for shift := 14 - width; shift >= 0; shift -= width {
		r.add(symbol(c>>shift&mask), count)
	}
}

func (r *report) add(s symbol, count int) {
	if len(r.statuses) < count {
		r.statuses = append(r.statuses, status{symbol: s})
	}
}

// deltas adds them to the packets that were received.
func (r *report) deltas(rest []byte) bool {
	for i := range r.statuses {
		s := &r.statuses[i]
		switch {
		case s.symbol == near && len(rest) >= 1:
			s.delta, rest = time.Duration(rest[0])*deltaUnit, rest[1:]
		case s.symbol == far && len(rest) >= 2:
			s.delta, rest = time.Duration(int16(binary.BigEndian.Uint16(rest)))*deltaUnit, rest[2:]
		case s.symbol == near || s.symbol == far:
			return false
		}
	}
	return true
}

// convert takes what the library parsed.
func (r *report) convert(fb *rtcp.TransportLayerCC) bool {
	count := int(fb.PacketStatusCount)
	if count == 0 || count > historySize {
		return false
	}
	r.base, r.reference, r.statuses = fb.BaseSequenceNumber, fb.ReferenceTime, r.statuses[:0]
	for _, chunk := range fb.PacketChunks {
		n, run, list := unpack(chunk)
		for i := 0; i < n && len(r.statuses) < count; i++ {
			if list != nil {
				run = list[i]
			}
			r.add(symbol(min(run, uint16(reserved))), count)
		}
	}
	return len(r.statuses) == count && r.convertDeltas(fb.RecvDeltas)
}

func (r *report) convertDeltas(deltas []*rtcp.RecvDelta) bool {
	for i := range r.statuses {
		s := &r.statuses[i]
		if s.symbol != near && s.symbol != far {
			continue
		}
		// The library gives microseconds; what is beyond 16 bits of 250 µs is made up.
		if len(deltas) == 0 || deltas[0] == nil || deltas[0].Type != uint16(s.symbol) ||
			deltas[0].Delta > 32767*250 || deltas[0].Delta < -32768*250 {
			return false
		}
		s.delta, deltas = time.Duration(deltas[0].Delta)*time.Microsecond, deltas[1:]
	}
	return true
}

// unpack returns a chunk's symbols: a run of one, or a list.
func unpack(chunk rtcp.PacketStatusChunk) (n int, run uint16, list []uint16) {
	switch c := chunk.(type) {
	case *rtcp.RunLengthChunk:
		if c != nil {
			return int(c.RunLength), c.PacketStatusSymbol, nil
		}
	case *rtcp.StatusVectorChunk:
		if c != nil {
			return len(c.SymbolList), 0, c.SymbolList
		}
	}
	return 0, 0, nil
}

// Compound takes the transport-wide feedback out of a compound RTCP packet
// (RFC 3550 section 6.1) and returns the packets that are left, nil if none are.
// It moves them together within compound. From where the lengths make no sense
// on, all is left as it is, for whoever reads the rest to complain.
func (e *Estimator) Compound(compound []byte, now time.Time) []byte {
	kept, at := 0, 0
	for len(compound)-at >= headerSize {
		size := headerSize * (1 + int(binary.BigEndian.Uint16(compound[at+2:])))
		if compound[at]>>6 != 2 || size > len(compound)-at {
			break
		}
		if compound[at]&0x1f == feedbackFormat && compound[at+1] == feedbackType {
			e.packet(compound[at:at+size], now)
		} else {
			kept += copy(compound[kept:], compound[at:at+size])
		}
		at += size
	}
	if kept += copy(compound[kept:], compound[at:]); kept == 0 {
		return nil
	}
	return compound[:kept]
}

func (e *Estimator) packet(raw []byte, now time.Time) {
	at := e.at(now)
	if !e.report.parse(raw) {
		e.ignored.Malformed++
		return
	}
	e.learn(at)
}

// Feedback takes a transport-wide feedback packet as the library parsed it. What
// cannot be is ignored and counted.
func (e *Estimator) Feedback(fb *rtcp.TransportLayerCC, now time.Time) {
	at := e.at(now)
	if fb == nil || !e.report.convert(fb) {
		e.ignored.Malformed++
		return
	}
	e.learn(at)
}
