package signal

import (
	"fmt"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// decodeRequest reads a binary frame as protobuf and a text frame as its JSON
// mapping. Fields that this server does not know are passed over in both. The
// cause is not wrapped: it can quote the message, and that can be a chat line.
func decodeRequest(kind websocket.MessageType, data []byte) (*livekit.SignalRequest, error) {
	req := new(livekit.SignalRequest)
	if kind == websocket.MessageText {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, req); err != nil {
			return nil, fmt.Errorf("%w: %d bytes of text are not a SignalRequest in JSON", ErrBadFrame, len(data))
		}
		return req, nil
	}
	if err := proto.Unmarshal(data, req); err != nil {
		return nil, fmt.Errorf("%w: %d bytes are not a SignalRequest", ErrBadFrame, len(data))
	}
	return req, nil
}

// encodeResponse writes a message as a text frame in JSON or as a binary one.
func encodeResponse(json bool, m *livekit.SignalResponse) (frame, error) {
	if json {
		data, err := protojson.Marshal(m)
		if err != nil {
			return frame{}, fmt.Errorf("encode %T in JSON: %w", m.GetMessage(), err)
		}
		return frame{kind: websocket.MessageText, data: data}, nil
	}
	data, err := proto.Marshal(m)
	if err != nil {
		return frame{}, fmt.Errorf("encode %T: %w", m.GetMessage(), err)
	}
	return frame{kind: websocket.MessageBinary, data: data}, nil
}
