package rtc

import (
	"testing"

	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

// A client that took only VP8 from the first offer is sent a second VP8 track
// too, and refused what it cannot decode.
func TestTracksForClientOfOneCodec(t *testing.T) {
	e := newTestEngine(t)
	bob := newClient(t, e)
	if err := bob.sub.Close(); err != nil {
		t.Fatal(err)
	}
	bob.sub = newPeerOfVP8(t)
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	wait(t, bob.offers, "the first answer")
	for _, id := range []string{"TR_1", "TR_2"} {
		up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: sfu.TrackID(id), Kind: sfu.Video,
			Codec: sfu.Codec{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}})
		if _, err := bob.session.Subscribe(up, "PA_a|"+id, id); err != nil {
			t.Fatalf("track %s: %v", id, err)
		}
		wait(t, bob.offers, "the answer that takes "+id)
	}
	up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: "TR_3", Kind: sfu.Video,
		Codec: sfu.Codec{MimeType: webrtc.MimeTypeH264, ClockRate: 90000}})
	if _, err := bob.session.Subscribe(up, "PA_a|TR_3", "TR_3"); err == nil {
		t.Error("a track was sent to a client that cannot decode it")
	}
}

func newPeerOfVP8(t *testing.T) *webrtc.PeerConnection {
	t.Helper()
	m := &webrtc.MediaEngine{}
	codec := webrtc.RTPCodecParameters{PayloadType: 96,
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}
	if err := m.RegisterCodec(codec, webrtc.RTPCodecTypeVideo); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{LoggerFactory: quiet()}
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(m), webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	return pc
}
