package rtc

import (
	"errors"
	"fmt"

	"github.com/pion/webrtc/v4"
)

// The labels of LiveKit's data channels.
const (
	labelReliable  = "_reliable"
	labelLossy     = "_lossy"
	labelDataTrack = "_data_track"
)

// How much may wait for a client, in bytes. Lossy data is stale after a few
// round trips: 64 KiB are 50 ms at 10 Mbit/s. Reliable data gets the room that a
// file or a chat history needs; and a little before the channel opens.
const (
	maxLossyBuffer    = 64 << 10
	maxReliableBuffer = 4 << 20
	maxEarly          = 256 << 10
)

// receiveData takes the client's messages from a channel it opened.
func (s *Session) receiveData(dc *webrtc.DataChannel) {
	label := dc.Label()
	switch label {
	case labelReliable, labelLossy, labelDataTrack:
		dc.OnMessage(func(m webrtc.DataChannelMessage) {
			s.gate.pass(func() { s.events.Data(label, m.Data) })
		})
	default:
		// Nobody would read it, and what nobody reads fills memory.
		dc.OnOpen(func() { _ = dc.Close() })
	}
}

// outbox sends to the client. Guarded by subscriber.mu but for the channels,
// which pion guards.
type outbox struct {
	reliable, lossy *webrtc.DataChannel
	open            bool     // the reliable channel has opened and early is sent
	early           [][]byte // reliable messages from before that
	earlySize       int
	dropped         uint64 // lossy messages
}

// make creates the channels on the node's side.
func (b *outbox) make(pc *webrtc.PeerConnection) error {
	ordered, unordered, none := true, false, uint16(0)
	var err error
	b.reliable, err = pc.CreateDataChannel(labelReliable, &webrtc.DataChannelInit{Ordered: &ordered})
	if err != nil {
		return fmt.Errorf("create channel %q: %w", labelReliable, err)
	}
	b.lossy, err = pc.CreateDataChannel(labelLossy, &webrtc.DataChannelInit{Ordered: &unordered, MaxRetransmits: &none})
	if err != nil {
		return fmt.Errorf("create channel %q: %w", labelLossy, err)
	}
	return nil
}

func (b *outbox) sendLossy(payload []byte) error {
	if b.lossy.ReadyState() != webrtc.DataChannelStateOpen || b.lossy.BufferedAmount()+uint64(len(payload)) > maxLossyBuffer {
		b.dropped++
		return nil
	}
	return b.lossy.Send(payload)
}

func (b *outbox) sendReliable(payload []byte) error {
	if !b.open {
		if b.earlySize+len(payload) > maxEarly {
			return errors.New("channel is not open yet and its queue is full")
		}
		b.early = append(b.early, append([]byte(nil), payload...))
		b.earlySize += len(payload)
		return nil
	}
	if waiting := b.reliable.BufferedAmount(); waiting+uint64(len(payload)) > maxReliableBuffer {
		return fmt.Errorf("client is %d bytes behind", waiting)
	}
	return b.reliable.Send(payload)
}

// opened sends what waited for the channel.
func (b *outbox) opened() {
	b.open = true
	for _, m := range b.early {
		if err := b.reliable.Send(m); err != nil {
			break // it closed again, and the session with it
		}
	}
	b.early, b.earlySize = nil, 0
}
