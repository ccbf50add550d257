package node

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
)

// moderators are the nodes through which a call may come: the participant's, the
// home, and one that is not in the room.
func moderators(m *testMesh) map[string]service {
	return map[string]service{"its node": {m.node("waw").Node}, "the home": {m.node("fra").Node}, "a node outside the room": {m.node("vie").Node}}
}

// silence wants no packet of a track any more while another track, by whose packets
// time is told, goes on.
func (c *client) silence(sid, other string) {
	c.t.Helper()
	c.hears(other) // what was under way has arrived
	before := c.packets(sid)
	c.hears(other)
	if n := c.packets(sid) - before; n != 0 {
		c.t.Errorf("%s gets %d packets", c.identity, n)
	}
}

// TestModeratorMutes mutes through any node: nothing of the track arrives any more,
// here or elsewhere, although the client goes on sending.
func TestModeratorMutes(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	anna := enter(t, m.node("waw"), "town", "anna", nil)
	bob, carl := enter(t, m.node("fra"), "town", "bob", nil), enter(t, m.node("waw"), "town", "carl", nil)
	sid, other := anna.publish("mic", livekit.TrackType_AUDIO), anna.publish("mic2", livekit.TrackType_AUDIO)
	ctx := context.Background()
	for name, via := range moderators(m) {
		bob.hears(sid)
		carl.hears(sid)
		info, err := via.MutePublishedTrack(ctx, &livekit.MuteRoomTrackRequest{Room: "town", Identity: "anna", TrackSid: sid, Muted: true})
		if err != nil || info.Sid != sid || !info.Muted {
			t.Fatalf("%s: %v, %v", name, info, err)
		}
		bob.await("sees it", func() bool {
			i := bob.people["anna"]
			return i != nil && slices.ContainsFunc(i.Tracks, func(ti *livekit.TrackInfo) bool { return ti.Sid == sid && ti.Muted })
		})
		bob.silence(sid, other)
		carl.silence(sid, other)
		anna.await("is told", func() bool { n := len(anna.orders); return n > 0 && anna.orders[n-1].GetMute().GetMuted() })

		_, err = via.MutePublishedTrack(ctx, &livekit.MuteRoomTrackRequest{Room: "town", Identity: "anna", TrackSid: sid})
		if !errors.Is(err, control.ErrPrecondition) {
			t.Errorf("%s: unmute: %v", name, err)
		}
		anna.mute(sid, true)
		anna.mute(sid, false) // her own button
	}
	for name, via := range moderators(m) {
		for _, req := range []*livekit.MuteRoomTrackRequest{
			{Room: "town", Identity: "anna", TrackSid: "TR_none", Muted: true}, {Room: "town", Identity: "eve", TrackSid: sid, Muted: true},
			{Room: "nowhere", Identity: "anna", TrackSid: sid, Muted: true},
		} {
			if _, err := via.MutePublishedTrack(ctx, req); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%s: %v: %v", name, req, err)
			}
		}
	}
}

// TestModeratorPermits takes the right to publish away and gives it back.
func TestModeratorPermits(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	anna, bob := enter(t, m.node("waw"), "town", "anna", nil), enter(t, m.node("fra"), "town", "bob", nil)
	sid := anna.publish("mic", livekit.TrackType_AUDIO)
	bob.hears(sid)
	ctx, via := context.Background(), service{m.node("vie").Node}
	update := func(perm *livekit.ParticipantPermission) {
		t.Helper()
		info, err := via.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: "town", Identity: "anna", Name: "Guest",
			Attributes: map[string]string{"hand": "down"}, Permission: perm})
		if err != nil || info.Name != "Guest" || info.Attributes["hand"] != "down" || info.Permission.CanPublish != perm.CanPublish {
			t.Fatalf("got %v, %v", info, err)
		}
	}
	update(&livekit.ParticipantPermission{CanSubscribe: true})
	bob.await("sees it", func() bool {
		i := bob.people["anna"]
		return i != nil && len(i.Tracks) == 0 && i.Name == "Guest" && !i.Permission.CanPublish
	})
	anna.await("is told to unpublish", func() bool {
		return slices.ContainsFunc(anna.orders, func(r *livekit.SignalResponse) bool { return r.GetTrackUnpublished().GetTrackSid() == sid })
	})
	anna.say(userData("without the right"))
	anna.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{Cid: "cam", Type: livekit.TrackType_VIDEO}}})
	anna.await("is refused", func() bool {
		return slices.ContainsFunc(anna.replies, func(r *livekit.RequestResponse) bool { return r.Reason == livekit.RequestResponse_NOT_ALLOWED })
	})
	update(&livekit.ParticipantPermission{CanSubscribe: true, CanPublish: true, CanPublishData: true})
	bob.hears(anna.publish("mic2", livekit.TrackType_AUDIO))
	anna.say(userData("with it"))
	bob.await("the message", func() bool { return len(bob.data) > 0 })
	if got := bob.texts(); !slices.Equal(got, []string{"anna: with it"}) {
		t.Errorf("bob got %q", got)
	}
}

// TestModeratorSubscribes chooses what somebody receives.
func TestModeratorSubscribes(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	anna := enter(t, m.node("waw"), "town", "anna", nil)
	bob := enter(t, m.node("fra"), "town", "bob", nil, "auto_subscribe", "0")
	sid, other := anna.publish("mic", livekit.TrackType_AUDIO), anna.publish("mic2", livekit.TrackType_AUDIO)
	ctx := context.Background()
	bob.await("sees the tracks", func() bool { i := bob.people["anna"]; return i != nil && len(i.Tracks) == 2 })
	bob.want(other, true)
	for name, via := range moderators(m) {
		choose := func(yes bool) {
			t.Helper()
			err := via.UpdateSubscriptions(ctx, &livekit.UpdateSubscriptionsRequest{Room: "town", Identity: "bob", TrackSids: []string{sid}, Subscribe: yes})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		choose(true)
		bob.hears(sid)
		choose(false)
		bob.silence(sid, other)
	}
}

// TestServerData sends data from the API to all and to some, through any node.
func TestServerData(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	anna, bob := enter(t, m.node("waw"), "town", "anna", nil), enter(t, m.node("fra"), "town", "bob", nil)
	for _, c := range []*client{anna, bob} {
		c.negotiate()
	}
	anna.sees("bob")
	bob.sees("anna")
	// What anna says arrives once the channels are open.
	anna.say(userData("first"))
	bob.await("the first message", func() bool { return len(bob.data) == 1 })
	bob.say(userData("first"))
	anna.await("the first message", func() bool { return len(anna.data) == 1 })
	ctx, topic := context.Background(), "news"
	n := 1
	for name, via := range moderators(m) {
		for _, req := range []*livekit.SendDataRequest{
			{Data: []byte("for bob"), DestinationIdentities: []string{"bob"}},
			{Data: []byte("for anna"), DestinationSids: []string{anna.join.Participant.Sid}}, //nolint:staticcheck // older programs write these
			{Data: []byte("for nobody"), DestinationIdentities: []string{"eve"}},
			{Data: []byte("for all"), Topic: &topic},
		} {
			req.Room = "town"
			if err := via.SendData(ctx, req); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		n += 2
		for _, c := range []*client{anna, bob} {
			c.await("for all, "+name, func() bool { return len(c.data) >= n })
			got := c.texts()[n-2:]
			if want := []string{": for " + c.identity, ": for all"}; !slices.Equal(got, want) {
				t.Errorf("%s: %s got %q", name, c.identity, got)
			}
			c.mu.Lock()
			last := c.data[n-1]
			c.mu.Unlock()
			if last.GetUser().GetTopic() != "news" || last.Kind != livekit.DataPacket_RELIABLE {
				t.Errorf("%s: %v", name, last)
			}
		}
	}
	if err := (service{m.node("vie").Node}).SendData(ctx, &livekit.SendDataRequest{Room: "nowhere"}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("no room: %v", err)
	}
}

// TestRoomMetadata changes a room's metadata through any node, with people in it and
// without.
func TestRoomMetadata(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	ctx := context.Background()
	if _, err := (service{m.node("fra").Node}).CreateRoom(ctx, &livekit.CreateRoomRequest{Name: "empty", Metadata: "old"}); err != nil {
		t.Fatal(err)
	}
	anna := enter(t, m.node("waw"), "town", "anna", nil)
	for name, via := range moderators(m) {
		for _, room := range []string{"town", "empty"} {
			got, err := via.UpdateRoomMetadata(ctx, room, name)
			if err != nil || got.Metadata != name || got.Name != room {
				t.Fatalf("%s: %s: %v, %v", name, room, got, err)
			}
			rec, ok, err := m.node("fra").store.load(ctx, room)
			if err != nil || !ok || rec.Metadata != name {
				t.Errorf("%s: %s is stored as %+v, %v", name, room, rec, err)
			}
		}
		anna.await("is told", func() bool { return anna.room.GetMetadata() == name })
	}
	if _, err := (service{m.node("vie").Node}).UpdateRoomMetadata(ctx, "nowhere", "x"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("no room: %v", err)
	}
}
