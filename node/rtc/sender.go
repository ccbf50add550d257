package rtc

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

// sender joins a DownTrack to a media section: it is the section's TrackLocal,
// it writes the DownTrack's packets, and it reads the client's feedback.
type sender struct {
	// Static after subscriber.add.
	b        *subscriber
	up       *sfu.UpTrack
	down     *sfu.DownTrack
	streamID string
	trackID  string
	rtp      *webrtc.RTPSender

	mu      sync.Mutex // guards what pion binds
	ssrc    uint32
	pt      uint8
	writer  webrtc.TrackLocalWriter
	started bool

	header rtp.Header // used by Write alone, which the DownTrack calls one at a time
}

var _ webrtc.TrackLocal = (*sender)(nil)

func newSender(b *subscriber, up *sfu.UpTrack, streamID, trackID string) *sender {
	s := &sender{b: b, up: up, streamID: streamID, trackID: trackID}
	s.down = sfu.NewDownTrack(up, sfu.DownConfig{Report: s.report})
	return s
}

// ID implements webrtc.TrackLocal.
func (s *sender) ID() string { return s.trackID }

// StreamID implements webrtc.TrackLocal.
func (s *sender) StreamID() string { return s.streamID }

// RID implements webrtc.TrackLocal.
func (s *sender) RID() string { return "" }

// Kind implements webrtc.TrackLocal.
func (s *sender) Kind() webrtc.RTPCodecType {
	if s.up.Kind() == sfu.Audio {
		return webrtc.RTPCodecTypeAudio
	}
	return webrtc.RTPCodecTypeVideo
}

// Bind implements webrtc.TrackLocal: it notes what was negotiated. Packets begin
// with start, when the subscriber's lock is free again.
func (s *sender) Bind(ctx webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	codec, ok := pickCodec(s.up.Codec(), ctx.CodecParameters())
	if !ok {
		// The client cannot decode it. An error would fail the whole answer and
		// every other track with it: this one stays silent instead.
		have := ctx.CodecParameters()
		if len(have) == 0 {
			return codec, fmt.Errorf("bind %q: no codec negotiated", s.trackID)
		}
		return have[0], nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ssrc, s.pt, s.writer = uint32(ctx.SSRC()), uint8(codec.PayloadType), ctx.WriteStream()
	return codec, nil
}

// Unbind implements webrtc.TrackLocal.
func (s *sender) Unbind(webrtc.TrackLocalContext) error { return nil }

// becameBound reports, once, that start is due.
func (s *sender) becameBound() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writer == nil || s.started {
		return false
	}
	s.started = true
	return true
}

// start lets the DownTrack write.
func (s *sender) start() {
	s.mu.Lock()
	ssrc, pt := s.ssrc, s.pt
	s.mu.Unlock()
	s.down.Bind(sfu.Binding{SSRC: ssrc, PayloadType: pt, Writer: s})
	s.down.Tick(s.b.s.engine.now(), &sfu.Scratch{}) // ask for the first keyframe now
}

// Write implements sfu.Writer. What the DownTrack made is twelve bytes of header
// and the payload; the header is filled in by hand because pion's parser allocates.
func (s *sender) Write(_ sfu.Out, raw []byte, _ int) error {
	s.header.Version = 2
	s.header.Marker = raw[1]&0x80 != 0
	s.header.PayloadType = raw[1] & 0x7f
	s.header.SequenceNumber = binary.BigEndian.Uint16(raw[2:])
	s.header.Timestamp = binary.BigEndian.Uint32(raw[4:])
	s.header.SSRC = binary.BigEndian.Uint32(raw[8:])
	_, err := s.writer.WriteRTP(&s.header, raw[12:])
	return err
}

// report sends the client a sender report (RFC 3550 section 6.4.1).
func (s *sender) report(sr sfu.SenderReport, _ sfu.Out) {
	s.mu.Lock()
	ssrc := s.ssrc
	s.mu.Unlock()
	// Lost is as good as late: the next one comes in a second.
	_ = s.b.pc.WriteRTCP([]rtcp.Packet{&rtcp.SenderReport{
		SSRC: ssrc, NTPTime: sr.NTP, RTPTime: sr.RTP, PacketCount: sr.Packets, OctetCount: sr.Octets,
	}})
}

// readFeedback hands the client's RTCP to the DownTrack until the section ends.
func (s *sender) readFeedback() {
	buf := make([]byte, maxPacket)
	var out sfu.Scratch
	for {
		n, _, err := s.rtp.Read(buf)
		if err != nil {
			return
		}
		if pkts, err := rtcp.Unmarshal(buf[:n]); err == nil {
			s.down.HandleRTCP(pkts, s.b.s.engine.now(), &out)
		}
	}
}
