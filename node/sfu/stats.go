package sfu

import "time"

// UpStats counts what an UpTrack took in since it was made.
type UpStats struct {
	Layers    [MaxLayers]LayerStats
	Malformed uint64 // packets that could not be read
	Sinks     int
	Available LayerSet
	Wanted    LayerSet
}

// LayerStats counts one layer of an UpTrack.
type LayerStats struct {
	Packets   uint64
	Bytes     uint64 // whole RTP packets
	Keyframes uint64
	Stale     uint64 // dropped: duplicates and packets too late
	Muted     uint64 // dropped: the track was muted
	Restarts  uint64 // times the numbering began anew
}

// DownStats counts what a DownTrack sent since it was made, and what its
// receiver reported last.
type DownStats struct {
	Packets, Bytes   uint64 // sent; bytes of payload (RFC 3550 section 6.4.1)
	WriteErrors      uint64
	Nacks, Resent    uint64 // packets asked for again, and sent again
	Replayed         uint64 // packets that began a stream from the cache
	Padding          uint64 // bytes sent to find out what the path carries
	KeyframeRequests uint64
	Switches         uint64
	Layer            Layer // sent now, if Live
	Target           Layer // wanted
	Live             bool
	Temporal         uint8
	Paused           bool    // by the client
	Limited          bool    // paused for want of bandwidth
	FractionLost     float64 // 0 to 1
	Lost             uint32  // packets, in all
	Jitter, RTT      time.Duration
}

// Stats returns the track's counters.
func (t *UpTrack) Stats() UpStats {
	s := UpStats{
		Malformed: t.malformed.Load(),
		Sinks:     len(t.sinks.Load().all),
		Available: t.Available(),
		Wanted:    t.Wanted(),
	}
	for i := range t.layers {
		c := &t.layers[i].count
		s.Layers[i] = LayerStats{
			Packets: c.packets.Load(), Bytes: c.bytes.Load(), Keyframes: c.keyframes.Load(),
			Stale: c.stale.Load(), Muted: c.muted.Load(), Restarts: c.restarts.Load(),
		}
	}
	return s
}

// Stats returns the stream's counters.
func (d *DownTrack) Stats() DownStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Target, s.Live, s.Paused, s.Limited = d.target, d.live, d.paused, d.limit.Pause
	s.Layer = d.sent()
	if d.m.count > 0 {
		s.Temporal = d.m.current().c.temporal
	}
	return s
}
