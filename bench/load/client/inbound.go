package client

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
)

// kind is what a payload type carries.
type kind uint8

const (
	video kind = iota // what is not known is taken for video
	audio
	repair // RTX: packets again, or padding to probe with
)

// warmPackets of each stream are always decrypted: pion tells of a track when it
// has read some.
const warmPackets = 32

// Inbound counts the media that arrives at one client's socket, before anybody
// decrypts it: RTP headers are in the clear. All methods may be called from any
// goroutine.
type Inbound struct {
	sample uint16 // one packet in so many is decrypted and timed

	mu      sync.Mutex // guards the rest
	packets uint64     // of media; repairs are counted apart
	repairs uint64
	first   [2]time.Time  // of video, of audio
	last    time.Time     // when the newest came
	pause   time.Duration // the longest without one, see Pause
	kinds   [128]kind     // by payload type
	streams map[uint32]*stream
	head    rtp.Header // reused

	// Feedback for congestion control.
	transportCC uint8 // id of the header extension; 0: not negotiated
	heard       *twcc.Recorder
	since       time.Time // arrivals are told relative to it
}

func newInbound(sample uint16) *Inbound {
	return &Inbound{sample: sample, streams: make(map[uint32]*stream), heard: twcc.NewRecorder(1), since: time.Now()}
}

// learn takes payload types and extensions from the description that was agreed
// on.
func (in *Inbound) learn(description string) error {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(description); err != nil {
		return fmt.Errorf("read own answer: %w", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range d.MediaDescriptions {
		for _, a := range m.Attributes {
			number, rest, _ := strings.Cut(a.Value, " ")
			id, err := strconv.ParseUint(number, 10, 7)
			switch {
			case err != nil:
			case a.Key == "rtpmap" && strings.HasPrefix(rest, "rtx/"):
				in.kinds[id] = repair
			case a.Key == "rtpmap" && m.MediaName.Media == "audio":
				in.kinds[id] = audio
			case a.Key == "extmap" && rest == sdp.TransportCCURI:
				in.transportCC = uint8(id)
			}
		}
	}
	return nil
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
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, err := in.head.Unmarshal(b); err != nil {
		return false
	}
	in.hear(at)
	k := in.kinds[in.head.PayloadType]
	if k == repair {
		in.repairs++
		return false
	}
	in.packets++
	if in.first[k].IsZero() {
		in.first[k] = at
	}
	if !in.last.IsZero() {
		in.pause = max(in.pause, at.Sub(in.last))
	}
	in.last = at
	return in.follow(in.head.SSRC, in.head.SequenceNumber, at)
}

// hear notes the arrival for congestion control.
func (in *Inbound) hear(at time.Time) {
	if in.transportCC == 0 {
		return
	}
	var ext rtp.TransportCCExtension
	if ext.Unmarshal(in.head.GetExtension(in.transportCC)) == nil {
		in.heard.Record(in.head.SSRC, ext.TransportSequence, at.Sub(in.since).Microseconds())
	}
}

// feedback returns what to tell the sender's congestion control since the last
// call.
func (in *Inbound) feedback() []rtcp.Packet {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.heard.BuildFeedbackPacket()
}

// follow counts a packet of a stream.
func (in *Inbound) follow(ssrc uint32, seq uint16, at time.Time) bool {
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

// Packets returns how many RTP packets of media came.
func (in *Inbound) Packets() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.packets
}

// Missing returns how many RTP packets of media did not come though later ones of
// their stream did.
func (in *Inbound) Missing() (n uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, s := range in.streams {
		expected := uint64(s.highest-uint32(s.base)) + 1
		n += expected - min(expected, s.packets)
	}
	return n
}

// Repairs returns how many RTX packets came: retransmissions, and padding to
// probe with.
func (in *Inbound) Repairs() uint64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.repairs
}

// First returns when the first packet of audio and of video came.
func (in *Inbound) First() (ofAudio, ofVideo time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.first[audio], in.first[video]
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

// Pause returns when the last packet of media came, and the longest time without one
// since it was last called, the one that goes on included.
func (in *Inbound) Pause(now time.Time) (last time.Time, longest time.Duration) {
	in.mu.Lock()
	defer in.mu.Unlock()
	last, longest = in.last, in.pause
	if !last.IsZero() {
		longest = max(longest, now.Sub(last))
	}
	in.pause = 0
	return last, longest
}
