package client

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/bench/load/media"
)

// sender publishes one track.
type sender struct {
	c     *Client
	track *webrtc.TrackLocalStaticRTP
	rtp   *webrtc.RTPSender
	ssrc  uint32
	seq   uint16
	ts    uint32

	keyframe atomic.Bool // one was asked for
	packets  uint32
	octets   uint32
}

// publish announces the tracks and offers the publisher's connection.
func (c *Client) publish() error {
	if c.cfg.Video {
		if err := c.announce(vp8.RTPCodecCapability, livekit.TrackType_VIDEO, livekit.TrackSource_CAMERA, "cam"); err != nil {
			return err
		}
	}
	if c.cfg.Audio {
		if err := c.announce(opus.RTPCodecCapability, livekit.TrackType_AUDIO, livekit.TrackSource_MICROPHONE, "mic"); err != nil {
			return err
		}
	}
	offer, err := c.pub.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	if err := c.pub.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	return c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{
		Offer: &livekit.SessionDescription{Type: "offer", Sdp: offer.SDP, Id: 1}}})
}

func (c *Client) announce(codec webrtc.RTPCodecCapability, kind livekit.TrackType, source livekit.TrackSource, cid string) error {
	track, err := webrtc.NewTrackLocalStaticRTP(codec, cid, "bench")
	if err != nil {
		return fmt.Errorf("make track: %w", err)
	}
	t, err := c.pub.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return fmt.Errorf("make track: %w", err)
	}
	enc := t.Sender().GetParameters().Encodings
	if len(enc) == 0 {
		return errors.New("make track: it has no SSRC")
	}
	s := &sender{c: c, track: track, rtp: t.Sender(), ssrc: uint32(enc[0].SSRC), seq: uint16(rand.Uint32()), ts: rand.Uint32()}
	s.keyframe.Store(true)
	c.senders = append(c.senders, s)
	req := &livekit.AddTrackRequest{Cid: cid, Type: kind, Source: source}
	if kind == livekit.TrackType_VIDEO {
		req.Width, req.Height = 640, 360
	}
	return c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: req}})
}

// Start begins to send media on the announced tracks.
func (c *Client) Start() {
	for _, s := range c.senders {
		c.tasks.Go(s.feedback)
		if s.track.Kind() == webrtc.RTPCodecTypeVideo {
			c.tasks.Go(s.video)
		} else {
			c.tasks.Go(s.audio)
		}
	}
}

// video sends frames, the packets of each at once, as Chromium's pacer does.
func (s *sender) video() {
	v := media.Video{Sharp: s.c.cfg.Sharp}
	s.pace(time.Second/media.FrameRate, func(now time.Time) error {
		key := s.keyframe.Swap(false)
		for i := range v.Packets() {
			if err := s.write(v.Packet(i, key, time.Now()), i == v.Packets()-1); err != nil {
				return err
			}
		}
		s.ts += media.VideoClock / media.FrameRate
		v.Next()
		return nil
	})
}

func (s *sender) audio() {
	var a media.Audio
	s.pace(time.Second/media.AudioRate, func(now time.Time) error {
		err := s.write(a.Packet(now), false)
		s.ts += media.AudioClock / media.AudioRate
		return err
	})
}

// pace calls send at a steady rate, beginning anywhere in the first interval so
// that publishers do not send in step. Who was held up catches up.
func (s *sender) pace(every time.Duration, send func(time.Time) error) {
	next := time.Now().Add(rand.N(every))
	reportAt := next.Add(reportEvery)
	timer := time.NewTimer(time.Until(next))
	defer timer.Stop()
	for {
		select {
		case <-s.c.ctx.Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		if err := send(now); err != nil {
			s.c.cancel(fmt.Errorf("publish: %w", err))
			return
		}
		if now.After(reportAt) {
			reportAt = now.Add(reportEvery)
			s.report(now)
		}
		next = next.Add(every)
		timer.Reset(time.Until(next))
	}
}

// canaryAt is where a payload bears the canary: behind its headers. The stamp is
// behind it.
const canaryAt, stamp = 32, 12

func (s *sender) write(payload []byte, marker bool) error {
	copy(payload[canaryAt:len(payload)-stamp], s.c.cfg.Canary)
	err := s.track.WriteRTP(&rtp.Packet{Payload: payload, Header: rtp.Header{
		Version: 2, Marker: marker, SequenceNumber: s.seq, Timestamp: s.ts}})
	s.seq++
	s.packets++
	s.octets += uint32(len(payload))
	s.c.sent.Add(1)
	return err
}

// report sends a sender report.
func (s *sender) report(now time.Time) {
	const toNTP = 2208988800 // seconds from 1900 to 1970
	ntp := uint64(now.Unix()+toNTP)<<32 | uint64(now.Nanosecond())<<32/1e9
	_ = s.c.pub.WriteRTCP([]rtcp.Packet{&rtcp.SenderReport{
		SSRC: s.ssrc, NTPTime: ntp, RTPTime: s.ts, PacketCount: s.packets, OctetCount: s.octets}})
}

// feedback waits for requests for a keyframe.
func (s *sender) feedback() {
	for {
		pkts, _, err := s.rtp.ReadRTCP()
		if err != nil {
			return
		}
		for _, p := range pkts {
			switch p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				s.keyframe.Store(true)
			}
		}
	}
}
