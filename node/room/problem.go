package room

import (
	"encoding/json"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
)

// TopicRecording is the topic of the data by which clients are told what is wrong with a
// recording, as soon as it is known: JSON with "problem", empty when it is over. It comes
// from the node, in nobody's name. Who joins later asks for the room's state.
const TopicRecording = "domicile.recording"

// tellProblem tells everybody here what is wrong with the room's recording, if that is
// news: LiveKit's protocol has no message for it.
func (r *Room) tellProblem() {
	if r.record.RecordingProblem == r.problem {
		return
	}
	r.problem = r.record.RecordingProblem
	said, err := json.Marshal(map[string]string{"problem": r.problem})
	if err != nil {
		return
	}
	b, err := proto.Marshal(&livekit.DataPacket{Kind: livekit.DataPacket_RELIABLE,
		Value: &livekit.DataPacket_User{User: &livekit.UserPacket{Payload: said, Topic: proto.String(TopicRecording)}}})
	if err != nil {
		return
	}
	for _, p := range r.locals {
		p.sendData(true, b)
	}
}
