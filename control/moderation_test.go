package control

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
	"google.golang.org/protobuf/proto"
)

func (b *rooms) MutePublishedTrack(_ context.Context, req *livekit.MuteRoomTrackRequest) (*livekit.TrackInfo, error) {
	b.calls++
	b.last = req
	return &livekit.TrackInfo{Sid: req.TrackSid, Muted: req.Muted}, b.fail
}

func (b *rooms) UpdateParticipant(_ context.Context, req *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error) {
	b.calls++
	b.last = req
	return &livekit.ParticipantInfo{Identity: req.Identity, Name: req.Name, Permission: req.Permission}, b.fail
}

func (b *rooms) UpdateSubscriptions(_ context.Context, req *livekit.UpdateSubscriptionsRequest) error {
	b.calls++
	b.last = req
	return b.fail
}

func (b *rooms) SendData(_ context.Context, req *livekit.SendDataRequest) error {
	b.calls++
	b.last = req
	return b.fail
}

func (b *rooms) UpdateRoomMetadata(_ context.Context, room, metadata string) (*livekit.Room, error) {
	b.calls++
	return &livekit.Room{Name: room, Metadata: metadata}, b.fail
}

// moderation is each of its methods with a request for a room.
var moderation = map[string]func(context.Context, livekit.RoomService, string) (proto.Message, error){
	"mute": func(ctx context.Context, c livekit.RoomService, room string) (proto.Message, error) {
		return c.MutePublishedTrack(ctx, &livekit.MuteRoomTrackRequest{Room: room, Identity: "alice", TrackSid: "TR_1", Muted: true})
	},
	"update participant": func(ctx context.Context, c livekit.RoomService, room string) (proto.Message, error) {
		return c.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: room, Identity: "alice", Name: "A", Permission: &livekit.ParticipantPermission{CanPublish: true}})
	},
	"subscriptions": func(ctx context.Context, c livekit.RoomService, room string) (proto.Message, error) {
		return c.UpdateSubscriptions(ctx, &livekit.UpdateSubscriptionsRequest{Room: room, Identity: "alice", TrackSids: []string{"TR_1"}})
	},
	"data": func(ctx context.Context, c livekit.RoomService, room string) (proto.Message, error) {
		return c.SendData(ctx, &livekit.SendDataRequest{Room: room, Data: []byte("hello"), Nonce: make([]byte, 16)})
	},
	"room metadata": func(ctx context.Context, c livekit.RoomService, room string) (proto.Message, error) {
		return c.UpdateRoomMetadata(ctx, &livekit.UpdateRoomMetadataRequest{Room: room, Metadata: "m"})
	},
}

// TestModeration hands each request over and its answer back, and needs roomAdmin of
// that very room.
func TestModeration(t *testing.T) {
	b := newRooms()
	s := serve(t, b)
	c := livekit.NewRoomServiceJSONClient(s.URL, s.Client())
	answers := map[string]string{
		"mute": `track:{sid:"TR_1" muted:true}`, "update participant": `identity:"alice" name:"A" permission:{can_publish:true}`,
		"subscriptions": "", "data": "", "room metadata": `name:"standup" metadata:"m"`,
	}
	for name, call := range moderation {
		got, err := call(as(t, all), c, "standup")
		if text := strings.ReplaceAll(fmt.Sprint(got), "  ", " "); err != nil || text != answers[name] {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if n := len(b.last.(interface{ GetRoom() string }).GetRoom()); b.calls != 5 || n == 0 {
		t.Errorf("%d calls", b.calls)
	}
	for name, call := range moderation {
		for who, grant := range map[string]auth.VideoGrant{
			"nobody": {RoomCreate: true, RoomList: true, RoomJoin: true, Room: "standup"}, "another room's admin": {RoomAdmin: true, Room: "retro"},
		} {
			_, err := call(as(t, grant), c, "standup")
			wantCode(t, err, twirp.Unauthenticated, "permissions denied")
			if b.calls != 5 {
				t.Fatalf("%s by %s reaches the backend", name, who)
			}
		}
		b.fail = fmt.Errorf("x: %w", ErrPrecondition)
		_, err := call(as(t, all), c, "standup")
		wantCode(t, err, twirp.FailedPrecondition, "x")
		b.fail, b.calls = nil, 5
	}
}

// TestModerationRefuses what cannot be carried out as it stands.
func TestModerationRefuses(t *testing.T) {
	b := newRooms()
	s := serve(t, b)
	c, ctx := livekit.NewRoomServiceProtobufClient(s.URL, s.Client()), as(t, all)
	long := strings.Repeat("x", MaxMetadataBytes+1)
	for text, call := range map[string]func() error{
		"track_sid is empty": func() error {
			_, err := c.MutePublishedTrack(ctx, &livekit.MuteRoomTrackRequest{Room: "standup", Identity: "alice"})
			return err
		},
		"name has 257 bytes": func() error {
			_, err := c.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: "standup", Name: long[:257]})
			return err
		},
		"metadata has 65537 bytes": func() error {
			_, err := c.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: "standup", Metadata: long})
			return err
		},
		"can_publish_sources has 6 entries": func() error {
			_, err := c.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: "standup",
				Permission: &livekit.ParticipantPermission{CanPublishSources: make([]livekit.TrackSource, 6)}})
			return err
		},
		"attributes have 65538 bytes": func() error {
			_, err := c.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: "standup", Attributes: map[string]string{"k": long}})
			return err
		},
		"update room metadata: invalid: metadata has 65537 bytes": func() error {
			_, err := c.UpdateRoomMetadata(ctx, &livekit.UpdateRoomMetadataRequest{Room: "standup", Metadata: long})
			return err
		},
		"data has 32769 bytes": func() error {
			_, err := c.SendData(ctx, &livekit.SendDataRequest{Room: "standup", Data: make([]byte, MaxDataBytes+1)})
			return err
		},
		"nonce has 3 bytes": func() error {
			_, err := c.SendData(ctx, &livekit.SendDataRequest{Room: "standup", Nonce: make([]byte, 3)})
			return err
		},
	} {
		wantCode(t, call(), twirp.InvalidArgument, text)
	}
	_, err := c.MoveParticipant(ctx, &livekit.MoveParticipantRequest{Room: "standup", Identity: "alice", DestinationRoom: "retro"})
	wantCode(t, err, twirp.Unimplemented, "residency policy")
	_, err = c.ForwardParticipant(ctx, &livekit.ForwardParticipantRequest{Room: "standup", Identity: "alice", DestinationRoom: "retro"})
	wantCode(t, err, twirp.Unimplemented, "residency policy")
	if b.calls != 0 {
		t.Errorf("the backend was called %d times", b.calls)
	}
}
