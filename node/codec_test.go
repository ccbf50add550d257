package node

import (
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/webrtc/v4"
)

// TestCodecFallback gives a client that decodes VP8 alone, on another node, the
// second codec of a track, which its publisher sends from then on.
func TestCodecFallback(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	anna := enter(t, fra, "town", "anna", nil)
	bob := enter(t, waw, "town", "bob", nil, "poor", "1")
	anna.sees("bob")
	sid := anna.publishAs(&livekit.AddTrackRequest{Cid: "cam", Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA,
		SimulcastCodecs: []*livekit.SimulcastCodec{{Codec: "vp9", Cid: "cam"}, {Codec: "vp8"}}},
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP9, ClockRate: 90000, SDPFmtpLine: "profile-id=0"})
	anna.await("is asked for VP8", func() bool {
		for _, q := range anna.asked {
			for _, c := range q.SubscribedCodecs {
				if c.Codec == "vp8" && q.TrackSid == sid && c.Qualities[0].Enabled {
					return true
				}
			}
		}
		return false
	})
	if got := anna.publishAs(&livekit.AddTrackRequest{Cid: "cam8", Sid: sid, Type: livekit.TrackType_VIDEO,
		SimulcastCodecs: []*livekit.SimulcastCodec{{Codec: "vp8", Cid: "cam8"}}},
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}); got != sid {
		t.Errorf("the second codec has the track %s, not %s", got, sid)
	}
	bob.hears(sid)
	bob.await("was not refused", func() bool { return len(bob.refused) == 0 })
}

// TestEncryptedRoom says that it is, and is not recorded.
func TestEncryptedRoom(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	anna, bob := enter(t, fra, "town", "anna", nil), enter(t, waw, "town", "bob", nil)
	token := tokenFor(t, "town", "anna", nil)
	shown := func(n *testNode) string {
		var state roomJSON
		if r := call(t, n, "GET", "/api/rooms/town", token, "", &state); r != nil {
			t.Fatal(r)
		}
		return state.Encryption
	}
	if got := shown(fra); got != "none" {
		t.Errorf("without tracks: %q", got)
	}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2}
	secret := anna.publishAs(&livekit.AddTrackRequest{Cid: "mic", Type: livekit.TrackType_AUDIO, Source: livekit.TrackSource_MICROPHONE,
		Encryption: livekit.Encryption_GCM}, opus)
	bob.hears(secret)
	eventually(t, "both nodes say so", func() bool { return shown(fra) == "all" && shown(waw) == "all" })
	if got := anna.tracks["mic"].Encryption; got != livekit.Encryption_GCM {
		t.Errorf("the track's record says %v", got)
	}
	r := call(t, fra, "POST", "/api/rooms/town/recording", token, `{"action":"start"}`, nil)
	if r == nil || !strings.Contains(r.Message, "end-to-end encrypted") {
		t.Errorf("recording: %v", r)
	}
	bob.publish("plain", livekit.TrackType_VIDEO)
	eventually(t, "both nodes say that it is so in part", func() bool { return shown(fra) == "some" && shown(waw) == "some" })
}
