package room

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
)

// opens publishes a microphone or a picture.
func (g *guest) opens(source livekit.TrackSource) (sfu.TrackID, *sfu.UpTrack) {
	g.t.Helper()
	kind, media := livekit.TrackType_VIDEO, sfu.Video
	if source == livekit.TrackSource_MICROPHONE {
		kind, media = livekit.TrackType_AUDIO, sfu.Audio
	}
	sid := g.announces(source, kind)
	up := events{g.Participant}.Publish(rtc.Incoming{CID: source.String(), Kind: media, Codec: vp8})
	if up == nil {
		g.t.Fatal("the track is not taken")
	}
	awaits(g.t, "track is published", func() bool { return g.s.track(g.t, sid) != nil })
	return sid, up
}

func (g *guest) announces(source livekit.TrackSource, kind livekit.TrackType) sfu.TrackID {
	g.t.Helper()
	before := number(g.wire, (*livekit.SignalResponse).GetTrackPublished)
	g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{
		Cid: source.String(), Type: kind, Source: source}}})
	awaits(g.t, "track is announced", func() bool { return number(g.wire, (*livekit.SignalResponse).GetTrackPublished) > before })
	return sfu.TrackID(last(g.wire, (*livekit.SignalResponse).GetTrackPublished).Track.Sid)
}

func (s *stage) track(t *testing.T, id sfu.TrackID) (tr *track) {
	s.do(t, func() { tr = s.tracks[id] })
	return tr
}

// mutesItself is the client's own button.
func (g *guest) mutesItself(id sfu.TrackID, muted bool) {
	g.t.Helper()
	g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_Mute{Mute: &livekit.MuteTrackRequest{Sid: string(id), Muted: muted}}})
	n := number(g.wire, (*livekit.SignalResponse).GetPongResp)
	g.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_PingReq{PingReq: &livekit.Ping{}}})
	awaits(g.t, "request is handled", func() bool { return number(g.wire, (*livekit.SignalResponse).GetPongResp) > n })
	g.s.do(g.t, func() {})
}

// TestModeratorMutes follows a mute from the answer to the participant's own unmute.
func TestModeratorMutes(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	id, up := anna.opens(livekit.TrackSource_MICROPHONE)
	info, err := s.MuteTrack(t.Context(), "anna", id, true)
	if err != nil || !info.Muted || info.Sid != string(id) || !up.Muted() {
		t.Fatalf("got %v, %v; muted %v", info, err, up.Muted())
	}
	if m := last(anna.wire, (*livekit.SignalResponse).GetMute); m.GetSid() != string(id) || !m.GetMuted() {
		t.Errorf("the client is told %v", m)
	}
	awaits(t, "bob sees it", func() bool {
		for _, p := range last(bob.wire, (*livekit.SignalResponse).GetUpdate).GetParticipants() {
			if p.Identity == "anna" && len(p.Tracks) == 1 && p.Tracks[0].Muted {
				return true
			}
		}
		return false
	})

	anna.mutesItself(id, false) // under way before she heard of it
	if !up.Muted() || number(anna.wire, (*livekit.SignalResponse).GetMute) != 2 {
		t.Errorf("an old unmute undoes the mute: muted %v, told %d times", up.Muted(), number(anna.wire, (*livekit.SignalResponse).GetMute))
	}
	anna.mutesItself(id, true) // her client has heard of it
	anna.mutesItself(id, false)
	if up.Muted() {
		t.Error("anna cannot unmute herself")
	}
	if _, err = s.MuteTrack(t.Context(), "anna", id, true); err != nil {
		t.Fatal(err)
	}
	s.later(muteSettles) // a client that does not confirm
	if anna.mutesItself(id, false); up.Muted() {
		t.Error("anna cannot unmute herself later")
	}

	for _, c := range []struct {
		who   string
		id    sfu.TrackID
		muted bool
		want  error
	}{{"anna", id, false, ErrUnmute}, {"anna", "TR_x", true, ErrNoTrack}, {"bob", id, true, ErrNoTrack}, {"eve", id, true, ErrAbsent}} {
		if _, err := s.MuteTrack(t.Context(), c.who, c.id, c.muted); !errors.Is(err, c.want) {
			t.Errorf("%s %s: %v, want %v", c.who, c.id, err, c.want)
		}
	}
	s.deps.RemoteUnmute = true
	if _, err = s.MuteTrack(t.Context(), "anna", id, true); err != nil {
		t.Fatal(err)
	}
	if info, err := s.MuteTrack(t.Context(), "anna", id, false); err != nil || info.Muted || up.Muted() {
		t.Errorf("unmuting where it is allowed: %v, %v", info, err)
	}
	if m := last(anna.wire, (*livekit.SignalResponse).GetMute); m.GetMuted() {
		t.Error("the client is not told of the unmute")
	}
}

// TestModeratorMutesTheAbsent tells a client of a mute that it has missed, and does
// not let it correct its record before.
func TestModeratorMutesTheAbsent(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	id, up := anna.opens(livekit.TrackSource_MICROPHONE)
	anna.wire.Close("lost")
	awaits(t, "the loss is noticed", func() bool { return anna.line.Load() == nil })
	if _, err := s.MuteTrack(t.Context(), "anna", id, true); err != nil {
		t.Fatal(err)
	}
	s.later(muteSettles)
	back, _ := anna.resumes()
	awaits(t, "anna is greeted again", func() bool { return len(back.sent()) >= 4 })
	got := back.sent()
	if got[0].GetReconnect() == nil || got[1].GetMute().GetSid() != string(id) || got[2].GetUpdate() == nil {
		t.Errorf("greeted with %v", got[:3])
	}
	anna.wire = back
	if anna.mutesItself(id, false); !up.Muted() {
		t.Error("what she corrects undoes the mute")
	}
}

// TestModeratorMutesAnnounced mutes a track whose media is still to come.
func TestModeratorMutesAnnounced(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	id := anna.announces(livekit.TrackSource_CAMERA, livekit.TrackType_VIDEO)
	if info, err := s.MuteTrack(t.Context(), "anna", id, true); err != nil || !info.Muted {
		t.Fatalf("got %v, %v", info, err)
	}
	up := events{anna.Participant}.Publish(rtc.Incoming{CID: livekit.TrackSource_CAMERA.String(), Kind: sfu.Video, Codec: vp8})
	if up == nil || !up.Muted() {
		t.Error("it comes unmuted")
	}
}

// TestPermission takes rights away and gives them back.
func TestPermission(t *testing.T) {
	s := newStage(t, "edge")
	s.deps.Mint = func(g control.Grants, _ time.Duration) (string, error) {
		return fmt.Sprint(g.Identity, " may publish: ", g.Video.GetCanPublish(), ", sources ", len(g.Video.GetCanPublishSources())), nil
	}
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	mic, voice := anna.opens(livekit.TrackSource_MICROPHONE)
	cam, picture := anna.opens(livekit.TrackSource_CAMERA)
	permit := func(p *livekit.ParticipantPermission) *livekit.ParticipantInfo {
		t.Helper()
		info, err := s.UpdateParticipant(t.Context(), &livekit.UpdateParticipantRequest{Identity: "anna", Permission: p})
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	refused := func() bool {
		anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{
			Cid: "again", Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA}}})
		return last(anna.wire, (*livekit.SignalResponse).GetRequestResponse).GetReason() == livekit.RequestResponse_NOT_ALLOWED
	}

	info := permit(&livekit.ParticipantPermission{CanSubscribe: true, CanPublish: true, CanPublishData: true,
		CanPublishSources: []livekit.TrackSource{livekit.TrackSource_MICROPHONE}})
	if len(info.Tracks) != 1 || info.Tracks[0].Sid != string(mic) || !picture.Muted() || voice.Muted() || s.track(t, cam) != nil {
		t.Errorf("tracks %v; muted %v and %v", info.Tracks, picture.Muted(), voice.Muted())
	}
	if got := last(anna.wire, (*livekit.SignalResponse).GetTrackUnpublished).GetTrackSid(); got != string(cam) {
		t.Errorf("the client is told to unpublish %q", got)
	}
	awaits(t, "the camera is refused", refused)
	awaits(t, "she gets a token that says so", func() bool {
		return last(anna.wire, (*livekit.SignalResponse).GetRefreshToken) == "anna may publish: true, sources 1"
	})
	anna.mutesItself(cam, false)
	if !picture.Muted() {
		t.Error("the client lets the picture go on")
	}

	// Media of a track that was announced before.
	permit(&livekit.ParticipantPermission{CanSubscribe: true, CanPublish: true, CanPublishData: true})
	late := anna.announces(livekit.TrackSource_CAMERA, livekit.TrackType_VIDEO)
	permit(&livekit.ParticipantPermission{})
	events{anna.Participant}.Publish(rtc.Incoming{CID: livekit.TrackSource_CAMERA.String(), Kind: sfu.Video, Codec: vp8})
	if s.track(t, late) != nil || s.track(t, mic) != nil || !voice.Muted() {
		t.Error("she goes on publishing")
	}

	// Subscriptions.
	bobs, _ := bob.opens(livekit.TrackSource_CAMERA)
	settled := func() bool {
		done, n := make(chan struct{}), 0
		anna.post(func() { n = len(anna.subs); close(done) })
		<-done
		return n == 0
	}
	if !settled() {
		t.Error("she is subscribed without the right")
	}
	permit(&livekit.ParticipantPermission{CanSubscribe: true, CanPublish: true, CanPublishData: true, CanUpdateMetadata: true})
	awaits(t, "she gets bob's track", func() bool { return !settled() })
	if err := s.UpdateSubscriptions(t.Context(), &livekit.UpdateSubscriptionsRequest{Identity: "anna", TrackSids: []string{string(bobs)}}); err != nil {
		t.Fatal(err)
	}
	awaits(t, "she is unsubscribed", settled)
	if err := s.UpdateSubscriptions(t.Context(), &livekit.UpdateSubscriptionsRequest{Identity: "anna", Subscribe: true,
		ParticipantTracks: []*livekit.ParticipantTracks{{ParticipantSid: "PA_bob", TrackSids: []string{string(bobs)}}}}); err != nil {
		t.Fatal(err)
	}
	awaits(t, "she is subscribed", func() bool { return !settled() })
	anna.announces(livekit.TrackSource_SCREEN_SHARE, livekit.TrackType_VIDEO)
	if p := s.inRoom(t, "anna").Permission; !p.CanPublish || !p.CanUpdateMetadata || len(p.CanPublishSources) != 0 {
		t.Errorf("permission %v", p)
	}
}

func userData(t *testing.T, from, sid string) *livekit.DataPacket {
	t.Helper()
	return &livekit.DataPacket{ParticipantIdentity: from, ParticipantSid: sid, Value: &livekit.DataPacket_User{User: &livekit.UserPacket{}}}
}

// TestUpdateParticipant changes what is named, and nothing else.
func TestUpdateParticipant(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	s.comes(t, "anna")
	if _, err := s.UpdateParticipant(t.Context(), &livekit.UpdateParticipantRequest{Identity: "anna", Name: "Anna", Attributes: map[string]string{"hand": "up"}}); err != nil {
		t.Fatal(err)
	}
	info, err := s.UpdateParticipant(t.Context(), &livekit.UpdateParticipantRequest{Identity: "anna", Metadata: "m",
		Attributes: map[string]string{"hand": "", "role": "host", "domicile.node": "mars"}})
	if err != nil || info.Name != "Anna" || info.Metadata != "m" || !info.Permission.CanPublish {
		t.Fatalf("got %v, %v", info, err)
	}
	if got := slices.Sorted(maps.Keys(info.Attributes)); strings.Join(got, " ") != "domicile.city domicile.country domicile.node role" || info.Attributes["domicile.node"] != "fra" {
		t.Errorf("attributes %v", info.Attributes)
	}
	big := map[string]string{"k": strings.Repeat("x", control.MaxAttributeBytes-1)}
	for name, req := range map[string]*livekit.UpdateParticipantRequest{
		"attributes that are too large together": {Identity: "anna", Name: "x", Attributes: big},
		"hidden":                                 {Identity: "anna", Name: "x", Permission: &livekit.ParticipantPermission{Hidden: true}},
	} {
		if _, err := s.UpdateParticipant(t.Context(), req); !errors.Is(err, control.ErrInvalid) || s.inRoom(t, "anna").Name != "Anna" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What another node passes on is checked again.
	long := strings.Repeat("x", control.MaxMetadataBytes+1)
	if _, err := s.UpdateParticipant(t.Context(), &livekit.UpdateParticipantRequest{Identity: "anna", Metadata: long}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("metadata: %v", err)
	}
	if _, err := s.UpdateMetadata(t.Context(), long); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("room metadata: %v", err)
	}
	if err := s.SendData(t.Context(), &livekit.SendDataRequest{Data: []byte(long)}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("data: %v", err)
	}
	if _, err := s.UpdateParticipant(t.Context(), &livekit.UpdateParticipantRequest{Identity: "eve"}); !errors.Is(err, ErrAbsent) {
		t.Errorf("eve: %v", err)
	}
	if err := s.UpdateSubscriptions(t.Context(), &livekit.UpdateSubscriptionsRequest{Identity: "anna", TrackSids: make([]string, maxChoices+1)}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("too many choices: %v", err)
	}
}

// TestAddressees finds whom the API's data is for.
func TestAddressees(t *testing.T) {
	s := newStage(t, "edge")
	s.has(t, "waw", false, person("PA_anna", "anna"), person("PA_bob", "bob"))
	for _, c := range []struct {
		ids, sids []string
		to        string
		some      bool
	}{{nil, nil, "", false}, {[]string{"anna"}, nil, "anna", true}, {nil, []string{"PA_bob", "PA_gone"}, "bob", true},
		{nil, []string{"PA_gone"}, "", true}, {[]string{"eve"}, []string{"PA_anna"}, "eve anna", true}} {
		to, some := s.addressees(&livekit.SendDataRequest{DestinationIdentities: c.ids, DestinationSids: c.sids}) //nolint:staticcheck // older programs write these
		if strings.Join(to, " ") != c.to || some != c.some {
			t.Errorf("%v %v: got %v, %v", c.ids, c.sids, to, some)
		}
	}
}

// TestFromServer takes the API's data from other nodes, and nothing under its cover.
func TestFromServer(t *testing.T) {
	for name, c := range map[string]struct {
		pkt  *livekit.DataPacket
		want bool
	}{
		"data":                   {userData(t, "", ""), true},
		"in somebody's name":     {userData(t, "anna", ""), false},
		"of somebody's sid":      {userData(t, "", "PA_anna"), false},
		"somebody's name inside": {&livekit.DataPacket{Value: &livekit.DataPacket_User{User: &livekit.UserPacket{ParticipantIdentity: "anna"}}}, false},
		"a message of the chat":  {&livekit.DataPacket{Value: &livekit.DataPacket_ChatMessage{ChatMessage: &livekit.ChatMessage{}}}, false},
		"a transcription":        {&livekit.DataPacket{Value: &livekit.DataPacket_Transcription{}}, false},
		"nothing":                {&livekit.DataPacket{}, false},
	} {
		if got := fromServer(c.pkt); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestUpdateMetadata is the home's.
func TestUpdateMetadata(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna := s.comes(t, "anna")
	if rec, err := s.UpdateMetadata(t.Context(), "agenda"); err != nil || rec.Metadata != "agenda" {
		t.Fatalf("got %+v, %v", rec, err)
	}
	if got := last(anna.wire, (*livekit.SignalResponse).GetRoomUpdate).GetRoom().GetMetadata(); got != "agenda" {
		t.Errorf("anna is told %q", got)
	}
	s.do(t, func() {
		if n := len(s.saved); n == 0 || s.saved[n-1].Metadata != "agenda" {
			t.Errorf("saved %v", s.saved)
		}
		s.home.name = "waw"
	})
	if _, err := s.UpdateMetadata(t.Context(), "other"); !errors.Is(err, ErrNotHome) {
		t.Errorf("not at home: %v", err)
	}
	if proto.Size(s.Snapshot().Record.Info(1)) == 0 || s.Snapshot().Record.Metadata != "agenda" {
		t.Errorf("record %+v", s.Snapshot().Record)
	}
}
