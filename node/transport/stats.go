package transport

import "sync/atomic"

// Drop names why a datagram or packet went no further.
type Drop uint8

// The reasons for drops. The first group is counted by the Engine, for datagrams
// that belong to nobody; the second by the connection.
const (
	DropUnknown     Drop = iota // neither STUN, DTLS, RTP nor RTCP
	DropTooLong                 // longer than a worker takes
	DropNoPath                  // from an address without a check
	DropBadCheck                // STUN that is no binding request, or malformed
	DropNoUfrag                 // a check for nobody
	DropIntegrity               // a check with another password
	DropPathTaken               // a check from an address where another client lives
	DropSocketFull              // the socket's send buffer is full
	DropUnreachable             // the kernel knows no way there
	DropNotOwner                // a check through a tunnel of somebody else
	DropNoChannel               // TURN data on a channel that is not bound, or cut
	DropOverRate                // more than a tunnel's bandwidth
	DropBadFrame                // a stream whose frames make no sense
	DropUnproved                // a stream when too many have not made a check

	DropEarly        // media before the handshake
	DropUnsealed     // media that was not sealed with the connection's keys
	DropReplayed     // media that came before
	DropTooManySSRCs // media of one stream too many
	DropHandshake    // DTLS faster than it is read
	DropUnsent       // media to a client without a path
	DropLossy        // data for a channel that is behind
	DropStreamFull   // media to a client that has not taken what was sent before

	numDrops
)

func (d Drop) String() string {
	return [numDrops]string{
		"unknown", "too_long", "no_path", "bad_check", "no_ufrag", "integrity", "path_taken", "socket_full", "unreachable",
		"not_owner", "no_channel", "over_rate", "bad_frame", "unproved",
		"early", "unsealed", "replayed", "too_many_ssrcs", "handshake", "unsent", "lossy", "stream_full",
	}[d]
}

type counters [numDrops]atomic.Uint64

func (c *counters) add(d Drop) { c[d].Add(1) }

func (c *counters) named() map[string]uint64 {
	m := make(map[string]uint64)
	for d := range numDrops {
		if n := c[d].Load(); n > 0 {
			m[d.String()] = n
		}
	}
	return m
}

// sendCounters count what batches have sent.
type sendCounters struct {
	packets, messages atomic.Uint64
}

// EngineStats count since Listen.
type EngineStats struct {
	PacketsSent  uint64            // datagrams on the wire
	MessagesSent uint64            // of which the kernel was handed so many, segmented
	Drops        map[string]uint64 // by reason
	Conns        int
	Paths        int
}

// Stats of all connections together.
func (e *Engine) Stats() EngineStats {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return EngineStats{
		PacketsSent: e.sent.packets.Load(), MessagesSent: e.sent.messages.Load(),
		Drops: e.drops.named(), Conns: len(e.conns), Paths: len(e.table),
	}
}

// traffic counts one connection's media.
type traffic struct {
	packetsIn, bytesIn, packetsOut, bytesOut atomic.Uint64
}

// Stats count since NewConn.
type Stats struct {
	State                State
	Profile              string // of SRTP; empty before the handshake
	Paths                int
	PacketsIn, BytesIn   uint64 // RTP and RTCP as they came
	PacketsOut, BytesOut uint64 // RTP and RTCP as they left
	Drops                map[string]uint64
}

// Stats of this connection.
func (c *Conn) Stats() Stats {
	s := Stats{
		PacketsIn: c.traffic.packetsIn.Load(), BytesIn: c.traffic.bytesIn.Load(),
		PacketsOut: c.traffic.packetsOut.Load(), BytesOut: c.traffic.bytesOut.Load(),
		Drops: c.drops.named(),
	}
	if k := c.keys.Load(); k != nil {
		s.Profile = k.profile.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.State, s.Paths = c.state, len(c.paths)
	return s
}
