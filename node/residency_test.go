package node

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// TestEEAOnly keeps a node outside the zone out of a room: by its attendees, by
// its questions, and by what it claims.
func TestEEAOnly(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	bob := enter(t, fra, "closed", "bob", preset("eea-only"))
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	bob.negotiate() // the answer says that the media is on its way

	t.Run("an attendee is told why, and where to go", func(t *testing.T) {
		for _, policy := range []string{"eea-only", ""} {
			status, text := refusedJoin(t, nyc, "closed", "eve", preset(policy))
			if status != 403 || !strings.Contains(text, "nyc is in US") || !strings.Contains(text, "use node fra instead: https://fra.example") {
				t.Errorf("preset %q: %d %q", policy, status, text)
			}
			if _, err := dial(t, nyc, "closed", "eve", preset(policy)); err == nil {
				t.Error("the WebSocket is accepted")
			}
		}
	})

	t.Run("a token that promises another policy does not open the room", func(t *testing.T) {
		if status, text := refusedJoin(t, fra, "closed", "eve", preset("global")); status != 403 || !strings.Contains(text, `has policy "eea-only"`) {
			t.Errorf("%d %q", status, text)
		}
	})

	t.Run("the record is not told", func(t *testing.T) {
		_, err := nyc.resolve(context.Background(), resolveRequest{Spec: room.Record{Name: "closed"}, Country: "US"})
		var r *Refusal
		if !errors.As(err, &r) || r.Code != CodeRefused || r.Rule != residency.RuleZone || strings.Contains(r.Message, "RM_") {
			t.Errorf("got %v", err)
		}
	})

	t.Run("commands are refused", func(t *testing.T) {
		for _, op := range []string{opDelete, opParticipants, opRemove, opRecord, opStopRecord} {
			_, err := nyc.command(context.Background(), "fra", room.Record{Name: "closed", Policy: "eea-only"}, command{Op: op, Room: "closed", Identity: "bob", Policy: "eea-only"})
			if asRefusal(err).Code != CodeRefused {
				t.Errorf("%s: %v", op, err)
			}
		}
		if fra.rooms.get("closed") == nil {
			t.Error("the room is gone")
		}
	})

	t.Run("its own word changes nothing", func(t *testing.T) { lies(t, fra, nyc, bob, camera) })
}

// lies has a node outside the zone state that it is in the room, by every
// message there is.
func lies(t *testing.T, fra, nyc *testNode, bob *client, camera string) {
	rec := fra.rooms.get("closed").Snapshot().Record
	presence := room.Presence{Node: "nyc", Participants: 1, Outside: true, Recorder: true}
	ghost := &livekit.ParticipantInfo{Sid: "PA_ghost", Identity: "ghost", JoinedAtMs: time.Now().UnixMilli()}
	say := func(kind relay.Kind, m any) {
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		class := residency.ClassSignalling
		if kind == room.KindData {
			class = residency.ClassChat
		}
		permit, v := nyc.permit(room.Record{Name: "closed", Policy: "eea-only"}, class, "fra", true)
		if !v.Allow {
			t.Fatalf("the test cannot speak: %s", v.Reason)
		}
		if err := nyc.link("fra").Send(permit, kind, body); err != nil {
			t.Fatal(err)
		}
	}
	info, err := proto.Marshal(ghost)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := proto.Marshal(&livekit.ParticipantInfo{Sid: "PA_twin", Identity: "bob", JoinedAtMs: time.Now().Add(time.Hour).UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	packet, err := proto.Marshal(&livekit.DataPacket{ParticipantSid: "PA_ghost", ParticipantIdentity: "ghost"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		say(room.KindHello, room.Hello{Presence: presence, Record: rec})
		say(room.KindParticipants, room.Participants{Presence: presence, Whole: true, Tell: true, Here: []string{"PA_ghost", "PA_twin"},
			Changed: []room.ParticipantRecord{{Version: 1, Info: info}, {Version: 1, Info: twin}}})
		say(room.KindRoster, room.Roster{Home: "nyc", Seq: 99, Record: rec, Nodes: []room.Presence{presence}})
		say(room.KindSubscribe, room.Subscribe{Track: sfu.TrackID(camera), Layers: 7})
		say(room.KindData, room.Data{Reliable: true, Packet: packet})
		say(room.KindKeyframe, room.Keyframe{Track: sfu.TrackID(camera)})
	}
	// Messages of a link are handled in order: after this question all have been.
	nyc.resolve(context.Background(), resolveRequest{Spec: room.Record{Name: "other", Policy: "eea-only"}}) //nolint:errcheck // refused
	eventually(t, "fra has refused", func() bool { return strings.Contains(fra.log.String(), "residency refuses") })
	if err := (service{fra.Node}).RemoveParticipant(context.Background(), "closed", "ghost"); err == nil {
		t.Error("the ghost was in the room")
	}
	if bob.leave != nil {
		t.Errorf("bob was sent away: %v", bob.leave)
	}
	if present(fra, "closed", "nyc") || len(bob.people) != 0 || len(bob.data) != 0 {
		t.Errorf("nyc is in the room: %v", fra.rooms.get("closed").Snapshot())
	}
	if n := fra.media("nyc"); n != 0 || serves(fra, nyc) {
		t.Errorf("%d media packets went to nyc", n)
	}
	if strings.Contains(nyc.log.String(), "does not live here") {
		t.Error("nyc was sent messages of the room")
	}
}

// tightened is the bundle with no edge outside the zone any more.
func tightened(epoch residency.Epoch) *residency.Bundle {
	b := testBundle(epoch)
	b.Policies["global"].EdgeOutside = false
	return b
}

// TestPolicyTightened stops the media of a live room within a second, whether
// the node outside the zone takes part in the change or not.
func TestPolicyTightened(t *testing.T) {
	for _, c := range []struct {
		name  string
		adopt []residency.NodeName
	}{{"everywhere", []residency.NodeName{"nyc", "fra"}}, {"but on the node outside", []residency.NodeName{"fra"}}} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
			fra, nyc := m.node("fra"), m.node("nyc")
			bob := enter(t, fra, "town", "bob", nil)
			camera := bob.publish("camera", livekit.TrackType_VIDEO)
			eve := enter(t, nyc, "town", "eve", nil)
			eve.hears(camera)
			for _, name := range c.adopt {
				m.node(name).setBundle(tightened(2))
			}
			changed := time.Now()
			promptly(t, time.Second, "fra serves nothing to nyc", func() bool { return !serves(fra, nyc) })
			still := fra.media("nyc")
			within(t, patience, "a second has passed", func() bool { return time.Since(changed) > time.Second })
			if n := fra.media("nyc"); n != still {
				t.Errorf("%d packets went on to nyc", n-still)
			}
			if c.adopt[0] == "nyc" {
				eve.await("is sent away", func() bool { return eve.leave != nil })
			}
		})
	}
}

// TestPolicyRenewed lets media flow on when a new epoch changes nothing for it.
func TestPolicyRenewed(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
	bob := enter(t, m.node("fra"), "town", "bob", nil)
	camera := bob.publish("camera", livekit.TrackType_VIDEO)
	eve := enter(t, m.node("nyc"), "town", "eve", nil)
	eve.hears(camera)
	for epoch := residency.Epoch(2); epoch < 4; epoch++ {
		m.adopt(testBundle(epoch))
		m.converge()
		eve.hears(camera)
	}
	late := enter(t, m.node("nyc"), "town", "late", nil)
	late.hears(camera)
	bob.sees("eve", "late")
}
