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
	DropThinned                     // offered: a layer that the path does not carry
	DropForged                      // received: a datagram that the peer did not seal
	DropRepeated                    // received: a datagram that came before, or far too late
	dropReasons
)

var dropNames = [dropReasons]string{"malformed", "queue-full", "revoked", "closed", "refused", "deadline",
	"stopped", "streams", "oversize", "lost", "cut", "unbound",
	"thinned", "forged", "repeated"}

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
	Carriage string             `json:"carriage"` // quic or udp: where media goes now
	Why      string             `json:"why"`      // it does
	Age      time.Duration      `json:"age_ns"`
	RTT      time.Duration      `json:"rtt_ns"` // smoothed, of heartbeats; 0 until the first answer

	TxPackets uint64            `json:"tx_packets"`
	TxBytes   uint64            `json:"tx_bytes"`
	RxPackets uint64            `json:"rx_packets"`
	RxBytes   uint64            `json:"rx_bytes"`
	Drops     map[string]uint64 `json:"drops"` // by DropReason

	Version    uint16 `json:"version"`           // of the wire, as both ends agreed
	Suspect    bool   `json:"suspect,omitempty"` // nothing arrives from the peer now
	Suspicions uint64 `json:"suspicions"`        // how often that was so

	TxTracks     int `json:"tx_tracks"`
	RxTracks     int `json:"rx_tracks"`
	QueueControl int `json:"queue_control"` // messages
	QueueMedia   int `json:"queue_media"`   // packets

	UDP *UDPStats `json:"udp,omitempty"` // of the carriage on UDP, where there is one

	QUICSent       uint64 `json:"quic_sent"`
	QUICReceived   uint64 `json:"quic_received"`
	QUICLost       uint64 `json:"quic_lost"`
	QUICWindow     uint64 `json:"quic_window"` // congestion window, bytes
	QUICBytesSent  uint64 `json:"quic_bytes_sent"`
	QUICBytesRecvd uint64 `json:"quic_bytes_received"`
}

// RTT is the smoothed round trip of heartbeats, 0 until the first answer.
func (l *Link) RTT() time.Duration { return l.heart.smoothed() }

// UDPStats is what the carriage on UDP measured.
type UDPStats struct {
	Estimate  float64       `json:"estimate_bps"` // what the path carries, as far as is known
	Because   string        `json:"because"`      // the estimate is what it is
	Queue     time.Duration `json:"queue_ns"`     // of the path, beyond its quickest packets
	Loss      float64       `json:"loss"`         // of what is sent, before repairs
	Length    int           `json:"length"`       // longest datagram, bytes
	Moves     int           `json:"moves"`        // changes of the carriage
	Held      int           `json:"held"`         // layers that are left out, as the path does not carry them
	Phase     uint32        `json:"key_phase"`
	Sent      uint64        `json:"sent"` // datagrams
	Received  uint64        `json:"received"`
	Resent    uint64        `json:"resent"`    // answers to what the peer missed
	Repaired  uint64        `json:"repaired"`  // of what this node missed
	Repeats   uint64        `json:"repeats"`   // repairs that were not needed
	GivenUp   uint64        `json:"given_up"`  // datagrams that never came
	Unsent    uint64        `json:"unsent"`    // that the kernel did not take
	Strangers uint64        `json:"strangers"` // of the whole node: datagrams that belong to no link
}

func (h *hop) stats() *UDPStats {
	s := h.state.Load()
	u := &UDPStats{Estimate: s.estimate, Because: string(s.cause), Queue: s.queue, Loss: s.loss, Length: int(h.limit.Load()),
		Moves: s.moves, Held: s.held, Phase: s.phase, Sent: h.count.sent.Load(), Received: h.count.received.Load(),
		Resent: h.count.repairs.Load(), Unsent: h.count.unsent.Load(), Strangers: h.l.f.Strangers()}
	if o := h.opened.Load(); o != nil {
		o.mu.Lock()
		u.Repaired, u.Repeats, u.GivenUp = o.arrivals.Repaired, o.arrivals.Repeats, o.arrivals.Lost
		o.mu.Unlock()
	}
	return u
}

// Stats reads the link's counters.
func (l *Link) Stats() Stats {
	q := l.conn.ConnectionStats()
	s := Stats{
		Peer: l.peer.Name, Age: time.Since(l.started), RTT: l.heart.smoothed(),
		Version: l.version, Suspect: l.suspect.Load(), Suspicions: l.suspicions.Load(),
		Drops: make(map[string]uint64), QueueControl: l.outbox.len(),
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
	carriage, why := l.carriageNow()
	s.Carriage, s.Why = string(carriage), string(why)
	lost := l.receiver.lost()
	if l.hop != nil {
		s.UDP = l.hop.stats()
		lost += s.UDP.GivenUp
	}
	if lost > 0 {
		s.Drops[DropLost.String()] += lost
	}
	return s
}
