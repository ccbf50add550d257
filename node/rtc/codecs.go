package rtc

import (
	"fmt"
	"strings"

	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

const absSendTimeURI = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"

// opusPT and the payload types below are browsers' own numbers, so that a trace
// of either side reads the same.
const opusPT webrtc.PayloadType = 111

var opus = webrtc.RTPCodecCapability{
	MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
}

// videoCodecs are what is taken and given, each with its retransmission format.
var videoCodecs = []struct {
	mime, fmtp string
	pt, rtx    webrtc.PayloadType
}{
	{webrtc.MimeTypeVP8, "", 96, 97},
	{webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", 106, 107},
	{webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f", 102, 103},
	{webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f", 112, 113},
	{webrtc.MimeTypeVP9, "profile-id=0", 98, 99},
	{webrtc.MimeTypeAV1, "", 45, 46},
}

var videoFeedback = []webrtc.RTCPFeedback{
	{Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"},
}

// newPublisherAPI makes peer connections that receive: they ask for lost packets,
// and report arrivals (TWCC), without which a browser stays at 300 kbit/s and
// drops its upper layers.
func newPublisherAPI(s webrtc.SettingEngine) (*webrtc.API, error) {
	m := &webrtc.MediaEngine{}
	if err := registerCodecs(m, true); err != nil {
		return nil, err
	}
	if err := registerExtensions(m); err != nil {
		return nil, err
	}
	r := &interceptor.Registry{}
	lost, err := nack.NewGeneratorInterceptor()
	if err != nil {
		return nil, fmt.Errorf("make NACK generator: %w", err)
	}
	r.Add(lost)
	reports, err := report.NewReceiverInterceptor()
	if err != nil {
		return nil, fmt.Errorf("make receiver reports: %w", err)
	}
	r.Add(reports)
	if err := webrtc.ConfigureTWCCSender(m, r); err != nil {
		return nil, fmt.Errorf("make transport-wide feedback: %w", err)
	}
	return webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(r)), nil
}

// newReceiverAPI makes peer connections that send. They have no interceptors:
// lost packets are sent again from the UpTrack's cache, reports come from the
// DownTrack. No retransmission format either: what is sent again has the bytes
// it had, so it may leave under its own number.
func newReceiverAPI(s webrtc.SettingEngine) (*webrtc.API, error) {
	m := &webrtc.MediaEngine{}
	if err := registerCodecs(m, false); err != nil {
		return nil, err
	}
	return webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{})), nil
}

func registerCodecs(m *webrtc.MediaEngine, rtx bool) error {
	audio := webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: opusPT}
	if err := m.RegisterCodec(audio, webrtc.RTPCodecTypeAudio); err != nil {
		return fmt.Errorf("register %q: %w", opus.MimeType, err)
	}
	for _, c := range videoCodecs {
		codec := webrtc.RTPCodecCapability{
			MimeType: c.mime, ClockRate: 90000, SDPFmtpLine: c.fmtp, RTCPFeedback: videoFeedback,
		}
		if err := registerVideo(m, codec, c.pt); err != nil {
			return err
		}
		if !rtx {
			continue
		}
		repair := webrtc.RTPCodecCapability{
			MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", c.pt),
		}
		if err := registerVideo(m, repair, c.rtx); err != nil {
			return err
		}
	}
	return nil
}

func registerVideo(m *webrtc.MediaEngine, c webrtc.RTPCodecCapability, pt webrtc.PayloadType) error {
	p := webrtc.RTPCodecParameters{RTPCodecCapability: c, PayloadType: pt}
	if err := m.RegisterCodec(p, webrtc.RTPCodecTypeVideo); err != nil {
		return fmt.Errorf("register %q as %d: %w", c.MimeType, pt, err)
	}
	return nil
}

func registerExtensions(m *webrtc.MediaEngine) error {
	both := []string{sdp.SDESMidURI, absSendTimeURI}
	video := append([]string{sdp.SDESRTPStreamIDURI, sdp.SDESRepairRTPStreamIDURI}, both...)
	for kind, uris := range map[webrtc.RTPCodecType][]string{
		webrtc.RTPCodecTypeAudio: append([]string{sdp.AudioLevelURI}, both...),
		webrtc.RTPCodecTypeVideo: video,
	} {
		for _, uri := range uris {
			if err := m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind); err != nil {
				return fmt.Errorf("register extension %q: %w", uri, err)
			}
		}
	}
	return nil
}

// codecFrom describes what pion negotiated.
func codecFrom(c webrtc.RTPCodecCapability) sfu.Codec {
	return sfu.Codec{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, SDPFmtpLine: c.SDPFmtpLine}
}

// pickCodec finds the negotiated codec that carries what the UpTrack has: the
// same format parameters if the client took them, else the same codec.
func pickCodec(want sfu.Codec, have []webrtc.RTPCodecParameters) (webrtc.RTPCodecParameters, bool) {
	best, score := webrtc.RTPCodecParameters{}, 0
	for _, c := range have {
		if s := likeness(want, c); s > score {
			best, score = c, s
		}
	}
	return best, score > 0
}

// likeness is 0 for another codec, more for parameters that matter alike.
func likeness(want sfu.Codec, have webrtc.RTPCodecParameters) int {
	if !strings.EqualFold(want.MimeType, have.MimeType) || want.ClockRate != have.ClockRate {
		return 0
	}
	score := 1
	for _, key := range []string{"profile-level-id", "packetization-mode", "profile-id"} {
		if fmtpValue(want.SDPFmtpLine, key) == fmtpValue(have.SDPFmtpLine, key) {
			score++
		}
	}
	return score
}

func fmtpValue(line, key string) string {
	for part := range strings.SplitSeq(line, ";") {
		if k, v, ok := strings.Cut(strings.TrimSpace(part), "="); ok && strings.EqualFold(k, key) {
			return strings.ToLower(v)
		}
	}
	return ""
}

// preferred orders codecs with those like want first. All stay in the offer: pion
// remembers what a client took from the first one, and could not send another
// codec later. It reports false if none is like want.
func preferred(want sfu.Codec, have []webrtc.RTPCodecParameters) ([]webrtc.RTPCodecParameters, bool) {
	var first, rest []webrtc.RTPCodecParameters
	for _, c := range have {
		if strings.EqualFold(c.MimeType, want.MimeType) {
			first = append(first, c)
		} else {
			rest = append(rest, c)
		}
	}
	return append(first, rest...), len(first) > 0
}
