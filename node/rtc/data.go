package rtc

import (
	"errors"
	"fmt"
	"sync"

	"github.com/domicile/domicile/node/transport"
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

// channels are what the node opens on a connection that it offers; on the others
// the client opens them.
func channels() []transport.Channel {
	none := uint16(0)
	return []transport.Channel{
		{Label: labelReliable, Ordered: true},
		{Label: labelLossy, MaxRetransmits: &none},
	}
}

// outbox sends to the client.
type outbox struct {
	mu        sync.Mutex // guards the rest, and orders what is sent
	open      bool       // the reliable channel has opened and early is sent
	early     [][]byte   // reliable messages from before that
	earlySize int
	dropped   uint64 // lossy messages
}

func (b *outbox) send(c *transport.Conn, reliable bool, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if reliable {
		return b.sendReliable(c, payload)
	}
	if !c.Open(labelLossy) || c.Buffered(labelLossy)+uint64(len(payload)) > maxLossyBuffer {
		b.dropped++
		return nil
	}
	return c.Send(labelLossy, true, payload)
}

func (b *outbox) sendReliable(c *transport.Conn, payload []byte) error {
	if !b.open {
		if b.earlySize+len(payload) > maxEarly {
			return errors.New("channel is not open yet and its queue is full")
		}
		b.early = append(b.early, append([]byte(nil), payload...))
		b.earlySize += len(payload)
		return nil
	}
	if waiting := c.Buffered(labelReliable); waiting+uint64(len(payload)) > maxReliableBuffer {
		return fmt.Errorf("client is %d bytes behind", waiting)
	}
	return c.Send(labelReliable, true, payload)
}

// opened sends what waited for the channel.
func (b *outbox) opened(c *transport.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = true
	for _, m := range b.early {
		if err := c.Send(labelReliable, true, m); err != nil {
			break // it closed again, and the session with it
		}
	}
	b.early, b.earlySize = nil, 0
}

// lossyDropped counts the messages that the client did not take in time.
func (b *outbox) lossyDropped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}
