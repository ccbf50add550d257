package rtc

import (
	"bytes"
	"encoding/binary"
	"sync"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/rtc/jsep"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/transport"
)

const (
	// maxEarly bounds the packets of a stream that wait until the room has taken
	// the track: a keyframe of 100 packets fits.
	maxEarlyPackets = 128
	// stampInterval is how often arrivals are reported (draft-holmer-rmcat-transport-
	// wide-cc-extensions). Senders look for a rising delay in a few reports: 50 ms
	// let them see one within 200 ms, at 20 small packets a second.
	stampInterval = 50 * time.Millisecond
	// reportInterval is how often receiver reports are sent.
	reportInterval = time.Second
)

// receiving is what comes in over a connection: streams, by SSRC, that feed the
// layers of UpTracks.
type receiving struct {
	p     *peer                                  // static, like the next two
	ssrc  uint32                                 // of this node in its reports
	write func(*transport.Batch, ...rtcp.Packet) // to the client

	mu        sync.Mutex // guards the rest: packets, reports and ticks come one at a time
	closed    bool
	sections  map[string]*section
	names     register
	streams   map[uint32]*stream
	dirty     []*stream // had packets since the last drain
	stamps    *twcc.Recorder
	stampAt   time.Time // the last arrival
	stampedAt time.Time // the last report of arrivals
	reportAt  time.Time
	ignored   uint64              // tracks beyond MaxTracks
	changes   uint64              // of which streams there are
	adopted   map[string][]Stream // as another node knew them, by the track id of the msid
	unknown   uint64              // packets that belong to no track
}

// section is a media section that the client sends on.
type section struct {
	in      jsep.Incoming
	track   *incoming // nil until media comes
	refused bool      // it was one too many
}

// stream is one SSRC: a layer of a track, or its retransmissions.
type stream struct {
	ssrc    uint32
	track   *incoming
	layer   sfu.Layer
	repairs *stream // for retransmissions: what they repair, nil until known
	rtx     bool
	recv    *sfu.Receiver // nil for retransmissions
	pending []sfu.Inbound // since the last drain
	early   []sfu.Inbound // copies, until the room has taken the track
	cut     bool          // more came than fits early
}

func (r *receiving) init(p *peer) {
	r.p, r.ssrc, r.write = p, newSSRC(), p.writeRTCP
	r.sections, r.streams = make(map[string]*section), make(map[uint32]*stream)
	r.names = newRegister(nil)
	r.stamps = twcc.NewRecorder(r.ssrc)
}

// packet takes one packet; it is valid until drained.
func (r *receiving) packet(rtp []byte, at time.Time) {
	if len(rtp) < rtpHeader {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamped(rtp, at)
	s := r.streams[ssrcOf(rtp)]
	if s == nil {
		if s = r.resolve(rtp); s == nil {
			r.unknown++
			return
		}
	}
	switch {
	case s.track.unwanted():
	case s.rtx:
		r.repair(s, rtp, at)
	case s.track.carries(payloadType(rtp)) && s.recv.Take(rtp, at):
		r.keep(s, rtp, at)
	}
}

// stamped notes that a packet came, whosever it is: one that is thrown away here was
// not lost on the way, and the client would slow down all its tracks for it.
func (r *receiving) stamped(rtp []byte, at time.Time) {
	if stamp := sfu.ExtensionValue(rtp, r.names.ids.TransportCC); len(stamp) >= 2 {
		r.stamps.Record(ssrcOf(rtp), binary.BigEndian.Uint16(stamp), at.UnixMicro())
		r.stampAt = at
	}
}

// repair turns a retransmission into the packet that it repeats.
func (r *receiving) repair(s *stream, rtp []byte, at time.Time) {
	if payloadType(rtp) != s.track.format.RTX {
		return // it repeats a packet of another codec
	}
	if s.repairs == nil {
		if s.repairs = r.primaryOf(s); s.repairs == nil {
			return // padding from before the first packet
		}
	}
	if rtp, ok := s.repairs.recv.Repair(rtp, s.track.format.PayloadType, at); ok {
		r.keep(s.repairs, rtp, at)
	}
}

// keep holds a packet until the socket is drained.
func (r *receiving) keep(s *stream, rtp []byte, at time.Time) {
	s.pending = append(s.pending, sfu.Inbound{Raw: rtp, Arrival: at})
	if len(s.pending) == 1 {
		r.dirty = append(r.dirty, s)
	}
}

// drained hands what came in one go to the media plane, and asks for what is
// missing.
func (r *receiving) drained(out *transport.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.dirty {
		at := s.pending[len(s.pending)-1].Arrival
		r.hand(s, out)
		clear(s.pending)
		s.pending = s.pending[:0]
		r.askMissing(s, at, out)
	}
	r.dirty = r.dirty[:0]
	if r.stampAt.Sub(r.stampedAt) >= stampInterval {
		r.sendStamps(r.stampAt, out)
	}
}

func (r *receiving) hand(s *stream, out *transport.Batch) {
	t := s.track
	switch {
	case !t.ready:
		s.hold()
	case t.up != nil:
		t.up.Ingest(s.layer, s.pending, out)
	}
}

// hold copies packets that come before the room has taken the track: the first
// keyframe is among them.
func (s *stream) hold() {
	for _, in := range s.pending {
		if s.cut = s.cut || len(s.early) == maxEarlyPackets; !s.cut {
			s.early = append(s.early, sfu.Inbound{Raw: bytes.Clone(in.Raw), Arrival: in.Arrival})
		}
	}
}

func (r *receiving) askMissing(s *stream, now time.Time, out *transport.Batch) {
	var buf [16]rtcp.NackPair
	pairs, keyframe := s.recv.Nacks(now, buf[:0])
	if len(pairs) > 0 {
		r.write(out, &rtcp.TransportLayerNack{SenderSSRC: r.ssrc, MediaSSRC: s.ssrc, Nacks: pairs})
	}
	if keyframe && s.track.up != nil {
		s.track.up.RequestKeyframe(s.layer, now)
	}
}

// sendStamps reports the arrivals since the last time.
func (r *receiving) sendStamps(now time.Time, out *transport.Batch) {
	r.stampedAt = now
	if r.stamps.PacketsHeld() == 0 {
		return
	}
	for _, report := range r.stamps.BuildFeedbackPacket() { // one, unless numbers leapt
		r.write(out, report)
	}
}

// tick repeats what may have been lost and sends receiver reports.
func (r *receiving) tick(now time.Time, out *transport.Batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		if !s.rtx && !s.track.unwanted() {
			r.askMissing(s, now, out)
		}
	}
	if now.Sub(r.stampedAt) >= stampInterval {
		r.sendStamps(now, out)
	}
	if now.Sub(r.reportAt) >= reportInterval {
		r.reportAt = now
		r.sendReports(now, out)
	}
}

// maxReports is what one receiver report holds (RFC 3550 section 6.4.2).
const maxReports = 31

func (r *receiving) sendReports(now time.Time, out *transport.Batch) {
	rr := &rtcp.ReceiverReport{SSRC: r.ssrc}
	for _, s := range r.streams {
		if s.rtx {
			continue
		}
		if rep, ok := s.recv.Report(now); ok {
			rr.Reports = append(rr.Reports, rep)
		}
		if len(rr.Reports) == maxReports {
			r.write(out, rr)
			rr = &rtcp.ReceiverReport{SSRC: r.ssrc}
		}
	}
	if len(rr.Reports) > 0 {
		r.write(out, rr)
	}
}

// reports takes the publisher's sender reports.
func (r *receiving) reports(pkts []rtcp.Packet, at time.Time) {
	for _, pkt := range pkts {
		sr, ok := pkt.(*rtcp.SenderReport)
		if !ok {
			continue
		}
		report := sfu.SenderReport{
			NTP: sr.NTPTime, RTP: sr.RTPTime, Packets: sr.PacketCount, Octets: sr.OctetCount, Arrival: at,
		}
		if up, layer := r.noteReport(sr.SSRC, report); up != nil {
			up.Report(layer, report)
		}
	}
}

func (r *receiving) noteReport(ssrc uint32, sr sfu.SenderReport) (*sfu.UpTrack, sfu.Layer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.streams[ssrc]
	if s == nil || s.rtx {
		return nil, 0
	}
	s.recv.SenderReport(sr)
	return s.track.up, s.layer
}
