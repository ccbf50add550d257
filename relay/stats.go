package relay

import (
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/residency"
)

// DropReason says why a packet or message did not pass.
type DropReason uint8

// The reasons, in the order of a packet's way.
const (
	DropMalformed DropReason = iota // offered: no RTP packet, or a layer that does not exist
	DropQueueFull                   // offered: the queue was full, its oldest went
	DropRevoked                     // the track was revoked while it waited, or before
	DropClosed                      // the track or the link was closed
	DropRefused                     // a message whose permit ended while it waited, or a reply without one
	DropDeadline                    // the frame or audio packet was too old to be of use
	DropStopped                     // the peer wants no more of the frame
	DropStreams                     // the peer allows no more streams
	DropOversize                    // no datagram of the path is long enough
	DropLost                        // received: datagrams that did not arrive
	DropCut                         // received: frames whose end the sender gave up
	DropUnbound                     // received: nobody listens to the alias
	dropReasons
)

var dropNames = [dropReasons]string{"malformed", "queue-full", "revoked", "closed", "refused", "deadline",
	"stopped", "streams", "oversize", "lost", "cut", "unbound"}

// String is the reason's name in metrics.
func (r DropReason) String() string { return dropNames[r] }

// counters are kept for each track by itself and summed when they are read, so
// that tracks share no cache line.
type counters struct {
	txPackets, txBytes atomic.Uint64
	rxPackets, rxBytes atomic.Uint64
	drops              [dropReasons]atomic.Uint64
}

func (c *counters) sent(packets, bytes int) {
	c.txPackets.Add(uint64(packets))
	c.txBytes.Add(uint64(bytes))
}

func (c *counters) received(bytes int) {
	c.rxPackets.Add(1)
	c.rxBytes.Add(uint64(bytes))
}

func (c *counters) drop(r DropReason, n int) {
	if n > 0 {
		c.drops[r].Add(uint64(n))
	}
}

func (c *counters) addTo(s *Stats) {
	s.TxPackets += c.txPackets.Load()
	s.TxBytes += c.txBytes.Load()
	s.RxPackets += c.rxPackets.Load()
	s.RxBytes += c.rxBytes.Load()
	for r := range c.drops {
		if n := c.drops[r].Load(); n > 0 {
			s.Drops[DropReason(r).String()] += n
		}
	}
}

// fold adds the counters of a track that is forgotten.
func (c *counters) fold(from *counters) {
	c.txPackets.Add(from.txPackets.Load())
	c.txBytes.Add(from.txBytes.Load())
	c.rxPackets.Add(from.rxPackets.Load())
	c.rxBytes.Add(from.rxBytes.Load())
	for r := range c.drops {
		c.drops[r].Add(from.drops[r].Load())
	}
}

// Stats is what a link measured since it came up. Packets and bytes are RTP's;
// the QUIC figures count the packets on the path.
type Stats struct {
	Peer     residency.NodeName `json:"peer"`
	Carriage string             `json:"carriage"`
	Age      time.Duration      `json:"age_ns"`
	RTT      time.Duration      `json:"rtt_ns"` // smoothed, of heartbeats; 0 until the first answer

	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"`
	Drops     map[string]uint64 `json:"drops"` // by DropReason

	TxTracks     int `json:"tx_tracks"`
	RxTracks     int `json:"rx_tracks"`
	QueueControl int `json:"queue_control"` // messages
	QueueMedia   int `json:"queue_media"`   // packets

	QUICSent       uint64 `json:"quic_sent"`
	QUICReceived   uint64 `json:"quic_received"`
	QUICLost       uint64 `json:"quic_lost"`
	QUICWindow     uint64 `json:"quic_window"` // congestion window, bytes
	QUICBytesSent  uint64 `json:"quic_bytes_sent"`
	QUICBytesRecvd uint64 `json:"quic_bytes_received"`
}

// Stats reads the link's counters.
func (l *Link) Stats() Stats {
	q := l.conn.ConnectionStats()
	s := Stats{
		Peer: l.peer.Name, Carriage: "quic", Age: time.Since(l.started), RTT: l.heart.smoothed(),
		Drops: make(map[string]uint64), QueueControl: len(l.outbox),
		QUICSent: q.PacketsSent, QUICReceived: q.PacketsReceived, QUICLost: q.PacketsLost,
		QUICWindow: q.CongestionWindow, QUICBytesSent: q.BytesSent, QUICBytesRecvd: q.BytesReceived,
	}
	l.mu.Lock()
	l.count.addTo(&s)
	for _, t := range l.tracks {
		t.count.addTo(&s)
		s.TxTracks++
		s.QueueMedia += t.waiting()
	}
	l.mu.Unlock()
	for _, b := range *l.receiver.bound.Load() {
		b.count.addTo(&s)
		s.RxTracks++
	}
	if lost := l.receiver.lost(); lost > 0 {
		s.Drops[DropLost.String()] += lost
	}
	return s
}
