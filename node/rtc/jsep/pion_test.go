package jsep

import (
	"fmt"
	"slices"
	"testing"

	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"
)

// newPion makes a client that has codecs and extensions as a browser has them and
// no network.
func newPion(t testing.TB) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	must(t, m.RegisterDefaultCodecs())
	for _, x := range extensions {
		if x.audio != 0 {
			must(t, m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: x.uri}, webrtc.RTPCodecTypeAudio))
		}
		if x.video != 0 {
			must(t, m.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: x.uri}, webrtc.RTPCodecTypeVideo))
		}
	}
	s := webrtc.SettingEngine{LoggerFactory: &logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}}
	s.SetInterfaceFilter(func(string) bool { return false })
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s), webrtc.WithInterceptorRegistry(&interceptor.Registry{})).
		NewPeerConnection(webrtc.Configuration{})
	must(t, err)
	t.Cleanup(func() { must(t, pc.Close()) })
	return pc
}

// pionAnswers gives a client our offer.
func pionAnswers(t testing.TB, pc *webrtc.PeerConnection, offer string) string {
	t.Helper()
	must(t, pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}))
	a, err := pc.CreateAnswer(nil)
	must(t, err)
	must(t, pc.SetLocalDescription(a))
	return a.SDP
}

func pionOffers(t testing.TB, pc *webrtc.PeerConnection) string {
	t.Helper()
	o, err := pc.CreateOffer(nil)
	must(t, err)
	must(t, pc.SetLocalDescription(o))
	return o.SDP
}

func pionTakes(t testing.TB, pc *webrtc.PeerConnection, answer string) {
	t.Helper()
	must(t, pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}))
}

func TestSubscriberWithPion(t *testing.T) {
	pc := newPion(t)
	p := New(Config{SessionID: 1, FirstSSRC: 5, Data: true, FreshSections: true})
	add(t, p, sender("mic", opusCodec), sender("cam", vp8Codec), sender("screen", h264Codec))
	c, err := p.TakeAnswer(pionAnswers(t, pc, offer(t, p)))
	must(t, err)
	// pion leaves the DTLS handshake to a peer that is ICE lite.
	if len(c.Bound) != 3 || c.Remote.SCTPPort != 5000 || c.Remote.Setup != "passive" {
		t.Fatalf("got %+v", c)
	}
	for i, want := range []struct {
		mime string
		rtx  bool
	}{{mimeOpus, false}, {mimeVP8, true}, {mimeH264, true}} {
		b := c.Bound[i]
		if b.Codec.MimeType != want.mime || b.PayloadType == 0 || b.SSRC == 0 || (b.RTXSSRC != 0 && b.RTXPayloadType != 0) != want.rtx {
			t.Errorf("binding %d: %+v", i, b)
		}
		// This client reports on no transport-wide numbers.
		if b.Extensions.MID != 4 || b.Extensions.TransportCC != 0 || b.Feedback.TransportCC {
			t.Errorf("binding %d: %+v", i, b)
		}
	}
	if got := fmt.Sprint(p.MIDs()); got != "map[1:TR_mic 2:TR_cam 3:TR_screen]" {
		t.Errorf("MIDs %s", got)
	}
}

func TestPublisherWithPion(t *testing.T) {
	pc := newPion(t)
	_, err := pc.CreateDataChannel("_reliable", nil)
	must(t, err)
	audio, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "mic", "s")
	must(t, err)
	video, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264}, "cam", "s")
	must(t, err)
	for _, track := range []webrtc.TrackLocal{audio, video} {
		_, err = pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		must(t, err)
	}
	p := New(Config{})
	must(t, p.Prefer("cam", "video/h264"))
	c, a := answer(t, p, pionOffers(t, pc))
	pionTakes(t, pc, a)
	if len(c.Incoming) != 2 || c.Incoming[0].TrackID != "mic" || c.Incoming[1].TrackID != "cam" {
		t.Fatalf("got %+v", c.Incoming)
	}
	cam := c.Incoming[1]
	if cam.Formats[0].Codec.MimeType != mimeH264 || len(cam.Streams) != 1 || cam.Streams[0].RTX == 0 {
		t.Errorf("camera %+v", cam)
	}
	sent := pc.GetSenders()[1].GetParameters().Codecs
	if !slices.ContainsFunc(sent, func(c webrtc.RTPCodecParameters) bool { return c.MimeType == webrtc.MimeTypeH264 }) {
		t.Errorf("the client sends %+v", sent)
	}
}
