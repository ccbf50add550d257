package turn

import "github.com/domicile/domicile/node/turn/alloc"

// Stats are counts since the start, and the gauges Streams and Allocations.
type Stats struct {
	Streams     int // connections over TCP and TLS, with or without allocation
	Allocations int // over all transports

	Messages map[string]uint64 // STUN messages, by what became of them (alloc.Reason)

	// Packets and bytes relayed to the endpoints and to the clients, without TURN's
	// own. What was dropped on the way is counted by node/transport.
	PacketsUp, PacketsDown, BytesUp, BytesDown uint64
}

// traffic sums up what passed.
type traffic struct {
	packetsUp, packetsDown, bytesUp, bytesDown uint64
}

// add counts what a carrier's tunnels count together. Server.mu is held.
func (t *traffic) add(c *carrier) {
	if c.first == nil {
		return
	}
	s := c.first.Stats()
	t.packetsUp += s.PacketsIn
	t.bytesUp += s.BytesIn
	t.packetsDown += s.PacketsOut
	t.bytesDown += s.BytesOut
}

// Stats returns the counts at this moment.
func (s *Server) Stats() Stats {
	st := Stats{Messages: map[string]uint64{}}
	for why := range s.counts {
		if n := s.counts[why].Load(); n > 0 {
			st.Messages[alloc.Reason(why).String()] = n
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Streams, st.Allocations = len(s.clients), s.table.Len()
	sum := s.past
	for _, c := range s.carriers {
		sum.add(c)
	}
	st.PacketsUp, st.PacketsDown, st.BytesUp, st.BytesDown = sum.packetsUp, sum.packetsDown, sum.bytesUp, sum.bytesDown
	return st
}
