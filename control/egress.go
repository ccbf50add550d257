package control

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/livekit/protocol/livekit"
)

// EgressBackend does what the Egress API asks for. It answers with the errors of this
// package.
type EgressBackend interface {
	// StartEgress begins to record what the order says, and refuses by the gate what
	// would leave for somewhere else than the room's own origins.
	StartEgress(ctx context.Context, o EgressOrder) (*livekit.EgressInfo, error)
	// ListEgress returns what the request's room, id and state let through, newest first.
	ListEgress(ctx context.Context, req *livekit.ListEgressRequest) ([]*livekit.EgressInfo, error)
	// StopEgress ends one of a room; the empty room is any.
	StopEgress(ctx context.Context, room, id string) (*livekit.EgressInfo, error)
}

// NewEgress serves /twirp/livekit.Egress/<Method>, as NewRoomService does RoomService.
// Every method needs the grant roomRecord; a token that names a room is good for that
// room alone, so that an attendee who may record cannot see other rooms.
func NewEgress(b EgressBackend, keys Keys, now func() time.Time) http.Handler {
	return authorized(livekit.NewEgressServer(&egress{backend: b}), keys, now)
}

// egress checks grants and arguments and hands over to the backend.
type egress struct{ backend EgressBackend }

// mayRecord wants roomRecord. It returns the one room of the token, "" if it names none.
func mayRecord(ctx context.Context, room string) (only string, err error) {
	if err := may(ctx, "roomRecord", func(g *Grants) bool { return g.Video.RoomRecord }); err != nil {
		return "", err
	}
	only = ctx.Value(grantsKey{}).(*Grants).Video.Room
	return only, may(ctx, "roomRecord for this room", func(*Grants) bool { return only == "" || room == "" || only == room })
}

func (s *egress) start(ctx context.Context, room string, read func() (EgressOrder, error)) (*livekit.EgressInfo, error) {
	if _, err := mayRecord(ctx, room); err != nil {
		return nil, err
	}
	if err := ValidRoomName(room); err != nil {
		return nil, twirpError("start egress", err)
	}
	o, err := read()
	if err != nil {
		return nil, twirpError("start egress", err)
	}
	info, err := s.backend.StartEgress(ctx, o)
	return info, twirpError("start egress", err)
}

func (s *egress) StartRoomCompositeEgress(ctx context.Context, req *livekit.RoomCompositeEgressRequest) (*livekit.EgressInfo, error) {
	return s.start(ctx, req.RoomName, func() (EgressOrder, error) { return roomOrder(req) })
}

func (s *egress) StartParticipantEgress(ctx context.Context, req *livekit.ParticipantEgressRequest) (*livekit.EgressInfo, error) {
	return s.start(ctx, req.RoomName, func() (EgressOrder, error) { return participantOrder(req) })
}

func (s *egress) StartTrackCompositeEgress(ctx context.Context, req *livekit.TrackCompositeEgressRequest) (*livekit.EgressInfo, error) {
	return s.start(ctx, req.RoomName, func() (EgressOrder, error) { return tracksOrder(req) })
}

func (s *egress) StartTrackEgress(ctx context.Context, req *livekit.TrackEgressRequest) (*livekit.EgressInfo, error) {
	return s.start(ctx, req.RoomName, func() (EgressOrder, error) { return trackOrder(req) })
}

func (s *egress) ListEgress(ctx context.Context, req *livekit.ListEgressRequest) (*livekit.ListEgressResponse, error) {
	only, err := mayRecord(ctx, req.RoomName)
	if err != nil {
		return nil, err
	}
	if only != "" {
		req.RoomName = only
	}
	items, err := s.backend.ListEgress(ctx, req)
	if err != nil {
		return nil, twirpError("list egress", err)
	}
	return &livekit.ListEgressResponse{Items: items}, nil
}

func (s *egress) StopEgress(ctx context.Context, req *livekit.StopEgressRequest) (*livekit.EgressInfo, error) {
	only, err := mayRecord(ctx, "")
	if err != nil {
		return nil, err
	}
	if req.EgressId == "" {
		return nil, twirpError("stop egress", fmt.Errorf("%w: egress_id is empty", ErrInvalid))
	}
	info, err := s.backend.StopEgress(ctx, only, req.EgressId)
	return info, twirpError("stop egress", err)
}

// What this server does not have, with the reason.

func (s *egress) notHere(ctx context.Context, method, why string) (*livekit.EgressInfo, error) {
	if _, err := mayRecord(ctx, ""); err != nil {
		return nil, err
	}
	return nil, twirpError(method, fmt.Errorf("%w: %s", ErrUnimplemented, why))
}

func (s *egress) StartEgress(ctx context.Context, _ *livekit.StartEgressRequest) (*livekit.EgressInfo, error) {
	return s.notHere(ctx, "start egress", "use StartRoomCompositeEgress, StartParticipantEgress, StartTrackCompositeEgress or StartTrackEgress")
}

func (s *egress) StartWebEgress(ctx context.Context, _ *livekit.WebEgressRequest) (*livekit.EgressInfo, error) {
	return s.notHere(ctx, "start web egress", "this server opens no web pages; it records rooms")
}

func (s *egress) UpdateLayout(ctx context.Context, _ *livekit.UpdateLayoutRequest) (*livekit.EgressInfo, error) {
	return s.notHere(ctx, "update layout", "tracks are recorded one by one, and the layout is chosen when they are exported")
}

func (s *egress) UpdateStream(ctx context.Context, _ *livekit.UpdateStreamRequest) (*livekit.EgressInfo, error) {
	return s.notHere(ctx, "update stream", noStreams)
}
