package control

import (
	"context"
	"fmt"

	"github.com/livekit/protocol/livekit"
)

// MaxDataBytes bounds what SendData takes: everybody it is for gets a copy, and
// LiveKit clients cut larger data into packets of 15 KB themselves.
const MaxDataBytes = 32 << 10

// Moderation is what the API does in a room while people are in it.
type Moderation interface {
	// MutePublishedTrack returns the track as it is afterwards.
	MutePublishedTrack(ctx context.Context, req *livekit.MuteRoomTrackRequest) (*livekit.TrackInfo, error)
	UpdateParticipant(ctx context.Context, req *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error)
	UpdateSubscriptions(ctx context.Context, req *livekit.UpdateSubscriptionsRequest) error
	SendData(ctx context.Context, req *livekit.SendDataRequest) error
	UpdateRoomMetadata(ctx context.Context, room, metadata string) (*livekit.Room, error)
}

func (s *roomService) MutePublishedTrack(ctx context.Context, req *livekit.MuteRoomTrackRequest) (*livekit.MuteRoomTrackResponse, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	if req.TrackSid == "" {
		return nil, twirpError("mute track", fmt.Errorf("%w: track_sid is empty", ErrInvalid))
	}
	track, err := s.backend.MutePublishedTrack(ctx, req)
	if err != nil {
		return nil, twirpError("mute track", err)
	}
	return &livekit.MuteRoomTrackResponse{Track: track}, nil
}

func (s *roomService) UpdateParticipant(ctx context.Context, req *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	if err := ValidUpdate(req); err != nil {
		return nil, twirpError("update participant", err)
	}
	p, err := s.backend.UpdateParticipant(ctx, req)
	return p, twirpError("update participant", err)
}

// ValidUpdate says what is wrong with a change of a participant. It is asked where
// the call arrives, and again by the node that carries it out for another.
func ValidUpdate(req *livekit.UpdateParticipantRequest) error {
	sources := req.GetPermission().GetCanPublishSources()
	switch {
	case len(req.Name) > MaxNameBytes:
		return fmt.Errorf("%w: name has %d bytes, at most %d are allowed", ErrInvalid, len(req.Name), MaxNameBytes)
	case len(sources) > len(livekit.TrackSource_name):
		return fmt.Errorf("%w: can_publish_sources has %d entries, there are %d sources", ErrInvalid, len(sources), len(livekit.TrackSource_name))
	}
	if err := ValidMetadata(req.Metadata); err != nil {
		return err
	}
	return ValidAttributes(req.Attributes)
}

func (s *roomService) UpdateSubscriptions(ctx context.Context, req *livekit.UpdateSubscriptionsRequest) (*livekit.UpdateSubscriptionsResponse, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	if err := s.backend.UpdateSubscriptions(ctx, req); err != nil {
		return nil, twirpError("update subscriptions", err)
	}
	return &livekit.UpdateSubscriptionsResponse{}, nil
}

func (s *roomService) SendData(ctx context.Context, req *livekit.SendDataRequest) (*livekit.SendDataResponse, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	err := ValidData(req)
	if err == nil {
		err = s.backend.SendData(ctx, req)
	}
	if err != nil {
		return nil, twirpError("send data", err)
	}
	return &livekit.SendDataResponse{}, nil
}

// ValidData says what is wrong with data for a room, if anything.
func ValidData(req *livekit.SendDataRequest) error {
	switch {
	case len(req.Data) > MaxDataBytes:
		return fmt.Errorf("%w: data has %d bytes, at most %d are allowed", ErrInvalid, len(req.Data), MaxDataBytes)
	case len(req.Nonce) != 0 && len(req.Nonce) != 16:
		return fmt.Errorf("%w: nonce has %d bytes, want none or the 16 of a UUID", ErrInvalid, len(req.Nonce))
	}
	return nil
}

func (s *roomService) UpdateRoomMetadata(ctx context.Context, req *livekit.UpdateRoomMetadataRequest) (*livekit.Room, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	if err := ValidMetadata(req.Metadata); err != nil {
		return nil, twirpError("update room metadata", err)
	}
	room, err := s.backend.UpdateRoomMetadata(ctx, req.Room, req.Metadata)
	return room, twirpError("update room metadata", err)
}
