package room

import (
	"slices"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

// may is a client's request that lets some have tracks.
func may(list ...*livekit.TrackPermission) *livekit.SignalRequest {
	return &livekit.SignalRequest{Message: &livekit.SignalRequest_SubscriptionPermission{
		SubscriptionPermission: &livekit.SubscriptionPermission{TrackPermissions: list}}}
}

// TestPermissions lets a publisher choose its audience.
func TestPermissions(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob, carl := s.comes(t, "anna"), s.comes(t, "bob"), s.comes(t, "carl")
	id := anna.publishes(camera(), vp8).ID()
	gets := func(g *guest, want bool) {
		t.Helper()
		awaits(t, "subscriptions", func() bool { return (g.receives(id) != nil) == want })
	}
	told := func(g *guest, n int, allowed bool) {
		t.Helper()
		awaits(t, "told", func() bool { return number(g.wire, (*livekit.SignalResponse).GetSubscriptionPermissionUpdate) == n })
		m := last(g.wire, (*livekit.SignalResponse).GetSubscriptionPermissionUpdate)
		if m.TrackSid != string(id) || m.ParticipantSid != anna.sid || m.Allowed != allowed {
			t.Errorf("told %v", m)
		}
	}
	gets(bob, true)
	gets(carl, true)
	anna.asks(may(&livekit.TrackPermission{ParticipantIdentity: "bob", AllTracks: true}))
	gets(carl, false)
	told(carl, 1, false)
	gets(bob, true)
	dora := s.comes(t, "dora")
	told(dora, 1, false)
	anna.asks(may(&livekit.TrackPermission{ParticipantSid: carl.sid, TrackSids: []string{string(id)}}))
	gets(bob, false)
	gets(carl, true)
	told(bob, 1, false)
	told(carl, 2, true)
	anna.asks(&livekit.SignalRequest{Message: &livekit.SignalRequest_SubscriptionPermission{
		SubscriptionPermission: &livekit.SubscriptionPermission{AllParticipants: true}}})
	gets(bob, true)
	gets(dora, true)
	told(dora, 2, true)

	t.Run("what cannot be used lets nobody in", func(t *testing.T) {
		anna.asks(may(make([]*livekit.TrackPermission, maxGrants+1)...))
		gets(bob, false)
		gets(carl, false)
	})
	t.Run("a later track", func(t *testing.T) {
		anna.asks(may(&livekit.TrackPermission{ParticipantIdentity: "bob", TrackSids: []string{string(id)}}))
		gets(bob, true)
		voice := anna.publishes(&livekit.AddTrackRequest{Cid: "mic", Type: livekit.TrackType_AUDIO}, sfu.Codec{MimeType: "audio/opus", ClockRate: 48000}).ID()
		awaits(t, "bob is refused the voice", func() bool {
			return last(bob.wire, (*livekit.SignalResponse).GetSubscriptionPermissionUpdate).GetTrackSid() == string(voice)
		})
		if bob.receives(voice) != nil {
			t.Error("bob gets it")
		}
	})
}

// TestPermissionsAcross holds for the people of other nodes, on either side.
func TestPermissionsAcross(t *testing.T) {
	s := newStage(t, "edge")
	s.open(t)
	anna, bob := s.comes(t, "anna"), s.comes(t, "bob")
	id := anna.publishes(camera(), vp8).ID()
	s.do(t, func() { s.has(t, "waw", false, person("PA_w", "w")) })
	served := func() (ok bool) {
		s.do(t, func() { ok = s.mayServe(s.tracks[id], "waw") })
		return ok
	}
	if !served() {
		t.Fatal("not by default")
	}
	anna.asks(may(&livekit.TrackPermission{ParticipantIdentity: "bob", AllTracks: true}))
	awaits(t, "nobody of waw may", func() bool { return !served() })
	s.do(t, func() {
		rec := s.localRecord(anna.Participant)
		if rec.Allow == nil || len(rec.Allow.Grants) != 1 {
			t.Errorf("record %+v", rec)
		}
	})
	anna.asks(may(&livekit.TrackPermission{ParticipantIdentity: "w", AllTracks: true}))
	awaits(t, "w may", served)

	rec := recordOf(t, 2, person("PA_w", "w", "TR_w"))
	rec.Allow = &Permissions{Grants: []Grant{{Identity: "anna", All: true}}}
	s.do(t, func() {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 1}, Changed: []ParticipantRecord{rec}})
	})
	awaits(t, "anna gets it", func() bool { return anna.receives("TR_w") != nil })
	awaits(t, "bob is told", func() bool {
		return last(bob.wire, (*livekit.SignalResponse).GetSubscriptionPermissionUpdate).GetTrackSid() == "TR_w"
	})
	if bob.receives("TR_w") != nil {
		t.Error("bob gets it")
	}
	bad := rec
	bad.Version, bad.Allow = 3, &Permissions{Grants: slices.Repeat([]Grant{{Identity: "bob", All: true}}, maxGrants+1)}
	s.do(t, func() {
		s.says("waw", KindParticipants, Participants{Presence: Presence{Node: "waw", Participants: 1}, Changed: []ParticipantRecord{bad}})
	})
	if bob.receives("TR_w") != nil {
		t.Error("too many grants let bob in")
	}
}
