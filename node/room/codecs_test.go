package room

import (
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
)

var vp9 = sfu.Codec{MimeType: "video/VP9", ClockRate: 90000}

// arrives lets media of an announced track arrive.
func (g *guest) arrives(cid string, codec sfu.Codec) *sfu.UpTrack {
	g.t.Helper()
	kind := sfu.Video
	if codec.MimeType == "audio/opus" {
		kind = sfu.Audio
	}
	up := events{g.Participant}.Publish(rtc.Incoming{CID: cid, Kind: kind, Codec: codec})
	if up == nil {
		g.t.Fatal("the track is not taken")
	}
	return up
}

// receives is the UpTrack that a guest gets a track from, nil if it gets none.
func (g *guest) receives(id sfu.TrackID) (up *sfu.UpTrack) {
	g.inside(func() {
		if d := g.subs[id]; d != nil {
			up = d.Up()
		}
	})
	return up
}

// cannotDecode reports what a client's answer said about a codec.
func (g *guest) cannotDecode(id sfu.TrackID) {
	g.t.Helper()
	awaits(g.t, "subscribed", func() bool { return g.receives(id) != nil })
	g.inside(func() { events{g.Participant}.Unsupported(g.subs[id]) })
}

// TestBackupCodec publishes a track in a second codec for somebody who cannot
// decode the first, and goes on without it when nobody needs it any more.
func TestBackupCodec(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob, carl := s.comes(t, "anna"), s.comes(t, "bob"), s.comes(t, "carl")
	first := anna.publishes(camera(&livekit.SimulcastCodec{Codec: "vp9", Cid: "cam"}, &livekit.SimulcastCodec{Codec: "vp8"}), vp9)
	id := first.ID()
	info := last(anna.wire, (*livekit.SignalResponse).GetTrackPublished).Track
	if len(info.Codecs) != 2 || info.Codecs[0].MimeType != "video/VP9" || info.Codecs[1].MimeType != "video/VP8" {
		t.Fatalf("codecs %v", info.Codecs)
	}
	for _, g := range []*guest{bob, carl} {
		awaits(t, "everybody gets the first codec", func() bool { return g.receives(id) == first })
	}
	bob.cannotDecode(id)
	awaits(t, "anna is asked for the other codec", func() bool { return anna.enabled(id) == "vp9:LMH vp8:LMH" })
	if bob.receives(id) != nil {
		t.Error("bob still gets what he cannot decode")
	}

	anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{
		Cid: "cam8", Sid: string(id), Type: livekit.TrackType_VIDEO, SimulcastCodecs: []*livekit.SimulcastCodec{{Codec: "vp8", Cid: "cam8"}}}}})
	awaits(t, "the codec is announced", func() bool {
		m := last(anna.wire, (*livekit.SignalResponse).GetTrackPublished)
		return m.Cid == "cam8" && m.Track.Sid == string(id)
	})
	second := anna.arrives("cam8", vp8)
	if second.ID() != id+"|vp8" {
		t.Errorf("it is called %q", second.ID())
	}
	awaits(t, "bob gets it", func() bool { return bob.receives(id) == second })
	if carl.receives(id) != first || number(bob.wire, (*livekit.SignalResponse).GetSubscriptionResponse) != 0 {
		t.Error("carl has lost the first codec, or bob was refused")
	}
	bob.shows(id, 2, false)
	if n := len(s.inRoom(t, "anna").Tracks); n != 1 {
		t.Errorf("anna shows %d tracks", n)
	}

	t.Run("muting holds for both", func(t *testing.T) {
		anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_Mute{Mute: &livekit.MuteTrackRequest{Sid: string(id), Muted: true}}})
		awaits(t, "both are muted", func() bool { return first.Muted() && second.Muted() })
	})
	t.Run("somebody who comes later", func(t *testing.T) {
		dora := s.comes(t, "dora")
		dora.cannotDecode(id)
		awaits(t, "dora gets the second", func() bool { return dora.receives(id) == second })
	})
	t.Run("neither will do", func(t *testing.T) {
		bob.cannotDecode(id)
		awaits(t, "bob is refused", func() bool {
			return last(bob.wire, (*livekit.SignalResponse).GetSubscriptionResponse).GetErr() == livekit.SubscriptionError_SE_CODEC_UNSUPPORTED
		})
	})
	t.Run("it is not needed any more", func(t *testing.T) {
		s.later(dynacastDelay)
		s.do(t, s.doReconcile)
		s.later(dynacastDelay)
		awaits(t, "anna may stop", func() bool { return anna.enabled(id) == "vp9: vp8:" })
	})
	t.Run("both end together", func(t *testing.T) {
		events{anna.Participant}.Unpublish(first)
		awaits(t, "no track is left", func() (none bool) {
			s.do(t, func() { none = len(s.tracks) == 0 })
			return none
		})
	})
}

// TestBackupCodecElsewhere asks for a codec at another node's publisher, and
// answers such a wish of another node.
func TestBackupCodecElsewhere(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	bob := s.comes(t, "bob")
	w := person("PA_w", "w", "TR_w")
	w.Tracks[0].Codecs = []*livekit.SimulcastCodecInfo{{MimeType: "video/VP9"}, {MimeType: "video/VP8"}}
	rec := recordOf(t, 1, w)
	rec.Media["TR_w"] = TrackRecord{Codec: vp9, Available: 1}
	s.do(t, func() {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 1}, Changed: []ParticipantRecord{rec}})
	})
	only := recordOf(t, 1, person("PA_x", "x", "TR_x")) // a second codec without a first
	only.Media = map[sfu.TrackID]TrackRecord{"TR_x|vp8": {Codec: vp8, Available: 1}}
	s.do(t, func() {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 2}, Changed: []ParticipantRecord{only}})
		if s.tracks["TR_x|vp8"] != nil {
			t.Error("a second codec is taken without its track")
		}
		other := recordOf(t, 1, person("PA_n", "n", "TR_w")) // of another node's track
		other.Media = map[sfu.TrackID]TrackRecord{"TR_w|vp8": {Codec: vp8, Available: 1}}
		s.says("nyc", KindParticipants, Participants{Presence: Presence{Node: "nyc", Participants: 1, Outside: true}, Changed: []ParticipantRecord{other}})
		if s.tracks["TR_w|vp8"] != nil {
			t.Error("another node adds a codec to a track")
		}
	})
	bob.cannotDecode("TR_w")
	awaits(t, "the wish is noted", func() (ok bool) {
		s.do(t, func() { _, ok = s.tracks["TR_w"].lacked["video/VP8"] })
		return ok
	})
	rec.Version, rec.Media["TR_w|vp8"] = 2, TrackRecord{Codec: vp8, Available: 1}
	rec.Media["TR_w|nonsense"], rec.Media["TR_other|vp8"] = TrackRecord{Codec: vp8}, TrackRecord{Codec: vp8}
	s.do(t, func() {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 1}, Changed: []ParticipantRecord{rec}})
		if len(s.tracks) != 2 {
			t.Errorf("tracks %v", s.tracks)
		}
	})
	awaits(t, "bob gets the other codec", func() bool { up := bob.receives("TR_w"); return up != nil && up.ID() == "TR_w|vp8" })

	anna := s.comes(t, "anna")
	id := anna.publishes(camera(&livekit.SimulcastCodec{Codec: "av1", Cid: "cam"}, &livekit.SimulcastCodec{Codec: "vp8"}),
		sfu.Codec{MimeType: "video/AV1", ClockRate: 90000}).ID()
	asks := func(track sfu.TrackID) {
		s.do(t, func() { s.says("waw", KindSubscribe, Subscribe{Track: track, Layers: 1}) })
	}
	s.do(t, func() {
		s.dropRemote("nyc")
		s.says("nyc", KindSubscribe, Subscribe{Track: id + "|vp8", Layers: 1}) // is not in the room
		if len(s.tracks[id].lacked) > 0 {
			t.Error("a node outside the room makes a publisher send")
		}
	})
	asks(id + "|h264") // was not announced
	asks(id + "|vp8")
	awaits(t, "anna is asked", func() bool { return anna.enabled(id) == "av1:LMH vp8:LMH" })
	s.later(lackHolds + time.Second)
	s.do(t, s.doReconcile)
	s.later(dynacastDelay)
	awaits(t, "the wish ends if it is not repeated", func() bool { return anna.enabled(id) == "av1: vp8:" })
}

// TestAddCodecRefused answers who adds a codec to what is not theirs.
func TestAddCodecRefused(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	id := anna.publishes(camera(), vp8).ID()
	for _, sid := range []string{string(id), "TR_nothing", string(id) + "|vp8"} {
		n := number(bob.wire, (*livekit.SignalResponse).GetRequestResponse)
		bob.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{Cid: "x", Sid: sid}}})
		awaits(t, "refused", func() bool { return number(bob.wire, (*livekit.SignalResponse).GetRequestResponse) > n })
		if got := last(bob.wire, (*livekit.SignalResponse).GetRequestResponse); got.Reason != livekit.RequestResponse_NOT_FOUND {
			t.Errorf("%s: %v", sid, got)
		}
	}
}

func TestVariantNames(t *testing.T) {
	for _, bad := range []sfu.TrackID{"TR_a", "|vp8", "TR_a|", "TR_a|VP8", "TR_a|opus", "TR_a|vp8|vp8", "TR a|vp8", "TR_a|video/VP8"} {
		if base, mime, ok := variantOf(bad); ok {
			t.Errorf("%q is %q in %q", bad, base, mime)
		}
	}
	for _, c := range videoCodecs {
		id := variantID("TR_a", c.mime)
		if base, mime, ok := variantOf(id); !ok || base != "TR_a" || mime != c.mime {
			t.Errorf("%q is %q in %q", id, base, mime)
		}
	}
	if id := variantID("TR_a", "audio/opus"); id != "" {
		t.Errorf("audio has a variant %q", id)
	}
}
