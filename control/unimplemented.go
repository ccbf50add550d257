package control

import (
	"context"

	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
)

// unimplemented answers the methods of RoomService that this server does not have.
func unimplemented(method, why string) error {
	return twirp.Unimplemented.Error("RoomService." + method + " is not implemented by this server: " + why)
}

// otherPolicy is why nobody is taken from one room to another: residency is decided
// when a person joins, for the room they chose.
const otherPolicy = "the other room may have another residency policy; let the participant join it with a token of its own"

func (s *roomService) ForwardParticipant(context.Context, *livekit.ForwardParticipantRequest) (*livekit.ForwardParticipantResponse, error) {
	return nil, unimplemented("ForwardParticipant", otherPolicy)
}

func (s *roomService) MoveParticipant(context.Context, *livekit.MoveParticipantRequest) (*livekit.MoveParticipantResponse, error) {
	return nil, unimplemented("MoveParticipant", otherPolicy)
}

func (s *roomService) PerformRpc(context.Context, *livekit.PerformRpcRequest) (*livekit.PerformRpcResponse, error) {
	return nil, unimplemented("PerformRpc", "a participant has to call, or use SendData")
}
