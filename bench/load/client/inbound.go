package client

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/pion/rtcp"
)

// opusPT is what every LiveKit server offers Opus as; all else is video.
const opusPT = 111

// warmPackets of each stream are always decrypted: pion tells of a track when it
// has read some.
const warmPackets = 32

// Inbound counts the media that arrives at one client's socket, before anybody
// decrypts it: RTP headers are in the clear. All methods may be called from any
// goroutine.
type Inbound struct {
	sample uint16 // one packet in so many is decrypted and timed

	mu      sync.Mutex // guards the rest
	packets uint64
	bytes   uint64
	first   [2]time.Time // of audio, of video
	streams map[uint32]*stream
}

// stream is what receiver reports are made of, and when its last packets came.
type stream struct {
	packets  uint64
	base     uint16
	highest  uint32 // with the wraps counted
	reported struct{ packets, expected uint64 }
	arrivals [64]arrival
}

type arrival struct {
	seq uint16
	at  time.Time
}

// arrive notes an RTP packet and reports whether it is to be decrypted.
func (in *Inbound) arrive(b []byte, at time.Time) bool {
	seq, ssrc := binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[8:])
	in.mu.Lock()
	defer in.mu.Unlock()
	in.packets++
	in.bytes += uint64(len(b))
	if kind := kindOf(b); in.first[kind].IsZero() {
		in.first[kind] = at
	}
	s := in.streams[ssrc]
	if s == nil {
		s = &stream{base: seq, highest: uint32(seq)}
		in.streams[ssrc] = s
	}
	s.packets++
	if ahead := int16(seq - uint16(s.highest)); ahead > 0 {
		s.highest += uint32(ahead)
	}
	if s.packets > warmPackets && seq%in.sample != 0 {
		return false
	}
	s.arrivals[s.slot(seq, in.sample)] = arrival{seq, at}
	return true
}

func (s *stream) slot(seq, sample uint16) int {
	if s.packets > warmPackets {
		seq /= sample
	}
	return int(seq) % len(s.arrivals)
}

func kindOf(rtp []byte) int {
	if rtp[1]&0x7f == opusPT {
		return 0
	}
	return 1
}

// arrivedAt returns when a decrypted packet came to the socket.
func (in *Inbound) arrivedAt(ssrc uint32, seq uint16) (time.Time, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.streams[ssrc]
	if s == nil {
		return time.Time{}, false
	}
	for _, i := range []int{int(seq) % len(s.arrivals), int(seq/in.sample) % len(s.arrivals)} {
		if a := s.arrivals[i]; a.seq == seq && !a.at.IsZero() {
			return a.at, true
		}
	}
	return time.Time{}, false
}

// Packets returns how many RTP packets came.
func (in *Inbound) Packets() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.packets
}

// First returns when the first packet of audio and of video came.
func (in *Inbound) First() (audio, video time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.first[0], in.first[1]
}

// reports makes the reception reports of all streams (RFC 3550 section 6.4.1).
func (in *Inbound) reports() []rtcp.ReceptionReport {
	in.mu.Lock()
	defer in.mu.Unlock()
	list := make([]rtcp.ReceptionReport, 0, len(in.streams))
	for ssrc, s := range in.streams {
		list = append(list, s.report(ssrc))
	}
	return list
}

func (s *stream) report(ssrc uint32) rtcp.ReceptionReport {
	expected := uint64(s.highest-uint32(s.base)) + 1
	r := rtcp.ReceptionReport{SSRC: ssrc, LastSequenceNumber: s.highest,
		TotalLost: uint32(expected - min(expected, s.packets))}
	want, got := expected-s.reported.expected, s.packets-s.reported.packets
	if want > got {
		r.FractionLost = uint8((want - got) * 256 / (want + 1))
	}
	s.reported.expected, s.reported.packets = expected, s.packets
	return r
}
