package node

import (
	"testing"

	"github.com/livekit/protocol/livekit"
	"github.com/pion/webrtc/v4"
)

// TestCodecFallback gives a client that decodes VP8 alone, on another node, the
// second codec of a track, which its publisher sends from then on.
func TestCodecFallback(t *testing.T) {
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
