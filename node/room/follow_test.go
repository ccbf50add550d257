package room

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

// gallery is a room whose tracks are on another node, so that they need no media.
func gallery(t *testing.T) *stage {
	s := newStage(t, "edge")
	people := []*livekit.ParticipantInfo{person("PA_a", "anna"), person("PA_b", "bob"), person("PA_c", "carl")}
	for i, p := range people {
		p.JoinedAtMs += int64(i)
	}
	s.has(t, "waw", false, people...)
	return s
}

// adds adds a track, told of as "identity source codec [muted|encrypted|private]".
func (s *stage) adds(line string) *track {
	f := strings.Fields(line)
	source := livekit.TrackSource(livekit.TrackSource_value[strings.ToUpper(f[1])])
	info := &livekit.TrackInfo{Sid: "TR_" + f[0] + "_" + f[1] + "_" + f[2], Source: source, Type: livekit.TrackType_VIDEO}
	media := TrackRecord{Codec: sfu.Codec{MimeType: "video/" + f[2], ClockRate: 90000}, Available: 1}
	if f[2] == "opus" {
		info.Type, media.Codec = livekit.TrackType_AUDIO, sfu.Codec{MimeType: "audio/opus", ClockRate: 48000}
	}
	t := &track{id: sfu.TrackID(info.Sid), node: "waw", ownerSID: "PA_" + f[0][:1], ownerIdentity: f[0], info: info, media: media, poke: s.poke}
	switch {
	case slices.Contains(f, "muted"):
		info.Muted = true
	case slices.Contains(f, "encrypted"):
		info.Encryption = livekit.Encryption_GCM
	case slices.Contains(f, "private"):
		t.allow = &Permissions{}
	}
	s.tracks[t.id] = t
	return t
}

func TestShown(t *testing.T) {
	for _, c := range []struct {
		name, source, kind, mime, now, spoke string
		tracks                               []string
		want                                 string
	}{
		{"nothing", "anna", "video", "", "", "", nil, ""},
		{"somebody else's", "anna", "video", "", "", "", []string{"bob camera vp8"}, ""},
		{"the camera before the screen", "anna", "video", "", "", "", []string{"anna screen_share vp8", "anna camera vp8"}, "TR_anna_camera_vp8"},
		{"the screen where there is no camera", "anna", "video", "", "", "", []string{"anna screen_share vp8"}, "TR_anna_screen_share_vp8"},
		{"the screen while the camera is muted", "anna", "video", "", "", "", []string{"anna camera vp8 muted", "anna screen_share vp8"}, "TR_anna_screen_share_vp8"},
		{"a muted one rather than none", "anna", "video", "", "", "", []string{"anna camera vp8 muted"}, "TR_anna_camera_vp8"},
		{"one track by its id", "TR_bob_camera_vp8", "video", "", "", "", []string{"anna camera vp8", "bob camera vp8"}, "TR_bob_camera_vp8"},
		{"of its kind", "anna", "audio", "", "", "", []string{"anna camera vp8", "anna microphone opus"}, "TR_anna_microphone_opus"},
		{"in its codec", "anna", "video", "video/h264", "", "", []string{"anna camera vp8", "anna screen_share H264"}, "TR_anna_screen_share_H264"},
		{"not what a player has no key for", "anna", "video", "", "", "", []string{"anna camera vp8 encrypted"}, ""},
		{"not what its owner keeps to some", "anna", "video", "", "", "", []string{"anna camera vp8 private"}, ""},
		{"who has been here longest, before anybody speaks", "", "video", "", "", "", []string{"carl camera vp8", "bob camera vp8"}, "TR_bob_camera_vp8"},
		{"the speaker", "", "video", "", "", "carl", []string{"carl camera vp8", "bob camera vp8"}, "TR_carl_camera_vp8"},
		{"the speaker's sound", "", "audio", "", "", "carl", []string{"carl microphone opus", "bob microphone opus"}, "TR_carl_microphone_opus"},
		{"the one it shows while the speaker has no picture", "", "video", "", "TR_bob_camera_vp8", "carl",
			[]string{"carl microphone opus", "anna camera vp8", "bob camera vp8"}, "TR_bob_camera_vp8"},
		{"somebody else when the speaker has gone", "", "video", "", "TR_carl_camera_vp8", "carl", []string{"bob camera vp8"}, "TR_bob_camera_vp8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := gallery(t)
			for _, line := range c.tracks {
				s.adds(line)
			}
			s.spoke.identity = c.spoke
			kind := sfu.Video
			if c.kind == "audio" {
				kind = sfu.Audio
			}
			got := ""
			if tr := s.shown(followKey{source: c.source, kind: kind, mime: c.mime}, sfu.TrackID(c.now)); tr != nil {
				got = string(tr.id)
			}
			if got != c.want {
				t.Errorf("shows %q, want %q", got, c.want)
			}
		})
	}
}

// A follower goes from one to the other and asks nobody it does not show.
func TestFollowerMoves(t *testing.T) {
	s := gallery(t)
	bob, carl := s.adds("bob camera vp8"), s.adds("carl camera vp8")
	key := followKey{kind: sfu.Video, mime: "video/vp8"}
	f := s.follower(key, bob)
	f.viewers["player"] = "PA_player"
	s.locals["player"] = &Participant{sid: "PA_player", identity: "player", info: person("PA_player", "player")}
	var down watching
	f.track.up.AddSink(&down)
	shows := func(want ...*track) {
		t.Helper()
		s.doMoveFollowers(s.now)
		for _, tr := range []*track{bob, carl} {
			wanted := tr.up != nil && tr.up.Wanted() != 0
			if wanted != slices.Contains(want, tr) {
				t.Errorf("%s is wanted: %t", tr.id, wanted)
			}
		}
	}
	shows(bob)
	s.noteSpeaker("carl", s.now)
	shows(carl)
	s.noteSpeaker("bob", s.now.Add(speakerHold-1)) // carl has hardly stopped
	shows(carl)
	s.noteSpeaker("bob", s.now.Add(speakerHold))
	shows(bob)
	delete(s.tracks, bob.id)
	shows(carl)
	delete(s.tracks, carl.id)
	shows()
	s.tracks[bob.id] = bob
	shows(bob)
	delete(s.locals, "player")
	shows()
	if len(s.followers) > 0 {
		t.Errorf("%d followers without a viewer", len(s.followers))
	}
}

// Players hear what the room lets everybody here hear, and no more.
func TestFollowersHearTheSelection(t *testing.T) {
	s := gallery(t)
	sound := s.adds("bob microphone opus")
	f := s.follower(followKey{kind: sfu.Audio, mime: "audio/opus"}, sound)
	f.track.up.AddSink(&watching{})
	s.move(f, sound)
	if f.tap.From() != sound.voice.heard || !sound.watched() {
		t.Errorf("the follower is tied to what the publisher sends; watched: %t", sound.watched())
	}
}

// Whoever is loudest on any node is the speaker, but not somebody hidden.
func TestFollowersTakeTheLoudest(t *testing.T) {
	s := gallery(t)
	ghost := person("PA_g", "ghost")
	ghost.Permission = &livekit.ParticipantPermission{Hidden: true}
	s.has(t, "waw", false, person("PA_a", "anna"), person("PA_b", "bob"), ghost)
	s.adds("anna microphone opus")
	s.adds("bob microphone opus")
	says := func(levels ...Speaker) string {
		s.says("waw", KindSpeaking, Speaking{Speakers: levels})
		s.noteLoudest(s.now)
		s.now = s.now.Add(speakerHold)
		return s.speaker()
	}
	for i, c := range []struct {
		levels []Speaker
		want   string
	}{
		{nil, "anna"},
		{[]Speaker{{"PA_b", 0.2}}, "bob"},
		{[]Speaker{{"PA_a", 0.3}, {"PA_b", 0.2}, {"PA_g", 0.9}}, "anna"},
		{nil, "anna"},
		{[]Speaker{{"PA_b", 0.1}}, "bob"},
	} {
		if got := says(c.levels...); got != c.want {
			t.Errorf("step %d: %q speaks, want %q", i, got, c.want)
		}
	}
}

type watching struct{}

func (*watching) Wants() sfu.LayerSet                { return 1 }
func (*watching) Report(sfu.Layer, sfu.SenderReport) {}
func (*watching) Offer(_ []sfu.Packet, _ sfu.Out)    {}

// The choice depends on nothing but the tracks: not on the order in which a map
// gives them, nor on the time of the day.
func TestShownIsStable(t *testing.T) {
	s := gallery(t)
	for _, who := range []string{"anna", "bob", "carl"} {
		for i := range 5 {
			s.adds(fmt.Sprintf("%s camera c%d", who, i))
		}
	}
	first := s.shown(followKey{kind: sfu.Video}, "")
	for range 200 {
		if now := s.shown(followKey{kind: sfu.Video}, first.id); now != first {
			t.Fatalf("moved from %s to %s without cause", first.id, now.id)
		}
	}
}

func TestSourcesByName(t *testing.T) {
	s := gallery(t)
	ghost := person("PA_g", "ghost")
	ghost.Permission = &livekit.ParticipantPermission{Hidden: true}
	s.has(t, "waw", false, person("PA_a", "anna"), ghost)
	s.adds("anna camera vp8")
	p := &Participant{sid: "PA_p", identity: "player", info: &livekit.ParticipantInfo{Permission: &livekit.ParticipantPermission{CanSubscribe: true}}}
	s.locals["player"] = p
	for source, want := range map[string]error{"anna": nil, "TR_anna_camera_vp8": nil, "": nil, "ghost": ErrNoSource, "nobody": ErrNoSource, "TR_x": ErrNoSource} {
		list, err := s.doFollow(p, source, []sfu.Kind{sfu.Audio, sfu.Video})
		if err != want || err == nil && len(list) != 1 {
			t.Errorf("%q: %v, %d tracks", source, err, len(list))
		}
	}
	s.adds("ghost microphone opus")
	if list, err := s.doFollow(p, "", []sfu.Kind{sfu.Audio}); err != ErrSilent {
		t.Errorf("the sound of somebody hidden: %v, %v", list, err)
	}
	if _, err := s.doFollow(p, "anna", []sfu.Kind{sfu.Audio}); err != ErrSilent {
		t.Errorf("sound of a camera: %v", err)
	}
	p.info.Permission.CanSubscribe = false
	if _, err := s.doFollow(p, "anna", []sfu.Kind{sfu.Video}); err != ErrNoSource {
		t.Errorf("without canSubscribe: %v", err)
	}
	// Players of the same share a follower.
	if len(s.followers) != 3 {
		t.Errorf("%d followers", len(s.followers))
	}
}

func TestReplaceICE(t *testing.T) {
	offer := "v=0\r\na=ice-ufrag:old1\r\nm=audio 9 x 0\r\na=ice-ufrag:old1\r\na=ice-pwd:oldpassword\r\na=mid:0\r\n"
	want := "v=0\r\na=ice-ufrag:new1\r\nm=audio 9 x 0\r\na=ice-ufrag:new1\r\na=ice-pwd:newpassword\r\na=mid:0\r\n"
	if got := replaceICE(offer, "new1", "newpassword"); got != want {
		t.Errorf("%q", got)
	}
	ice := iceOf("v=0\r\nm=audio\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=candidate:1 1 udp 2 192.0.2.1 9 typ host\r\na=candidate:2 1 udp 1 192.0.2.2 9 typ host\r\n")
	if ice.Ufrag != "u" || ice.Pwd != "p" || len(ice.Candidates) != 2 || ice.Candidates[1] != "2 1 udp 1 192.0.2.2 9 typ host" {
		t.Errorf("%+v", ice)
	}
}
