package control

import (
	"context"

	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
)

// unimplemented answers the methods of RoomService that this server does not have.
func unimplemented(method string) error {
	return twirp.Unimplemented.Error("RoomService." + method + " is not implemented by this server")
}

func (s *roomService) MutePublishedTrack(context.Context, *livekit.MuteRoomTrackRequest) (*livekit.MuteRoomTrackResponse, error) {
	return nil, unimplemented("MutePublishedTrack")
}

func (s *roomService) UpdateParticipant(context.Context, *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error) {
	return nil, unimplemented("UpdateParticipant")
}

func (s *roomService) UpdateSubscriptions(context.Context, *livekit.UpdateSubscriptionsRequest) (*livekit.UpdateSubscriptionsResponse, error) {
	return nil, unimplemented("UpdateSubscriptions")
}

func (s *roomService) SendData(context.Context, *livekit.SendDataRequest) (*livekit.SendDataResponse, error) {
	return nil, unimplemented("SendData")
}

func (s *roomService) UpdateRoomMetadata(context.Context, *livekit.UpdateRoomMetadataRequest) (*livekit.Room, error) {
	return nil, unimplemented("UpdateRoomMetadata")
}

func (s *roomService) ForwardParticipant(context.Context, *livekit.ForwardParticipantRequest) (*livekit.ForwardParticipantResponse, error) {
	return nil, unimplemented("ForwardParticipant")
}

func (s *roomService) MoveParticipant(context.Context, *livekit.MoveParticipantRequest) (*livekit.MoveParticipantResponse, error) {
	return nil, unimplemented("MoveParticipant")
}

func (s *roomService) PerformRpc(context.Context, *livekit.PerformRpcRequest) (*livekit.PerformRpcResponse, error) {
	return nil, unimplemented("PerformRpc")
}
