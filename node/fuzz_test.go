package node

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

var testStart = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// FuzzRequest gives another node's questions and commands to a node: each is
// answered or refused, and a node that is no member gets nothing at all.
func FuzzRequest(f *testing.F) {
	for _, v := range []any{
		resolveRequest{Spec: room.Record{Name: "town", Policy: "eea-only", EmptyTimeout: 1, MaxParticipants: 2}, Create: true, Country: "US"},
		resolveRequest{Spec: room.Record{Name: "a/../b"}},
		command{Op: opDelete, Room: "town"},
		command{Op: opParticipants, Room: "town"},
		command{Op: opRemove, Room: "town", Identity: "anna"},
		command{Op: opRecord, Room: "town", Policy: "global"},
		command{Op: opStopRecord, Room: "town"},
		command{Op: opRooms, Policy: "global"},
		command{Op: opMute, Room: "town", Identity: "anna", Request: encodeRequest(&livekit.MuteRoomTrackRequest{TrackSid: "TR_a", Muted: true})},
		command{Op: opUpdate, Room: "town", Identity: "anna", Request: encodeRequest(&livekit.UpdateParticipantRequest{Name: "A", Permission: &livekit.ParticipantPermission{}})},
		command{Op: opSubscriptions, Room: "town", Identity: "anna", Request: encodeRequest(&livekit.UpdateSubscriptionsRequest{ParticipantTracks: []*livekit.ParticipantTracks{{}}})},
		command{Op: opData, Room: "town", Request: encodeRequest(&livekit.SendDataRequest{Data: []byte("x")})},
		command{Op: opMetadata, Room: "town", Request: []byte{0xff}},
		command{Op: "dance", Room: "town"},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{"))
	f.Add([]byte(`{"spec":{"name":"town","policy":"none"}}`))
	n := standalone(f)
	if _, err := n.rooms.ensure(room.Record{Name: "town", SID: "RM_town", Policy: "eea-only"}.WithDefaults()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var r resolveRequest
		var c command
		json.Unmarshal(body, &r) //nolint:errcheck // what cannot be read is of no room
		json.Unmarshal(body, &c) //nolint:errcheck // likewise
		for _, from := range []residency.NodeName{"dev", "nyc"} {
			for _, answer := range []func() ([]byte, residency.Permit, error){
				func() ([]byte, residency.Permit, error) {
					return n.doResolve(t.Context(), question{from, r.Spec.Name, residency.ClassSignalling, body})
				},
				func() ([]byte, residency.Permit, error) {
					return n.doCommand(t.Context(), question{from, c.Room, c.class(), body})
				},
			} {
				b, permit, err := answer()
				if err != nil && b != nil {
					t.Errorf("an answer beside an error: %s, %v", b, err)
				}
				if err == nil && permit.Peer() != from {
					t.Errorf("the answer's permit is for %q, the question is from %q", permit.Peer(), from)
				}
				if from == "nyc" && err == nil {
					t.Errorf("a node that is no member is answered: %s", b)
				}
				if err != nil {
					decodeRefusal(encodeRefusal(err).Error()) //nolint:errcheck // it must only not panic
				}
			}
		}
	})
}
