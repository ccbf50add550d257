package bwe

import "time"

// historySize is how many packets are remembered: two seconds at 10 Mbit/s. What
// is reported later than that counts for nothing anyway. A power of two.
const historySize = 2048

// record is a packet that was sent.
type record struct {
	sent    time.Duration
	size    uint16
	cluster uint8 // probe it belongs to, 0 if none
	known   uint8
	missed  uint32 // ms of the estimator's time: when it was first reported as not received
}

// What is known of a packet.
const (
	unsent uint8 = iota
	flying
	missing // reported as not received
	landed
)

// history is a ring of the last packets by their sequence number, which is
// counted on beyond 16 bits.
type history struct {
	ring     [historySize]record
	newest   int64 // greatest number sent
	reported int64 // greatest number that a report spoke of
	started  bool
}

// unwrap finds the number nearest to the newest that ends in seq.
func (h *history) unwrap(seq uint16) int64 {
	return h.newest + int64(int16(seq-uint16(h.newest)))
}

func (h *history) add(seq, size uint16, at time.Duration, cluster uint8) {
	if !h.started {
		h.started, h.newest = true, int64(seq)+1<<16
		h.reported = h.newest - 1
	}
	n := h.unwrap(seq)
	if n <= h.newest-historySize {
		return // its place belongs to a later one
	}
	for gap := max(h.newest+1, n-historySize+1); gap < n; gap++ {
		h.ring[gap%historySize].known = unsent
	}
	h.newest = max(h.newest, n)
	h.ring[n%historySize] = record{sent: at, size: size, cluster: cluster, known: flying}
}

// forget makes what was sent so far unknown: feedback on it says nothing any more.
func (h *history) forget() { h.ring = [historySize]record{} }

// get returns what is known of packet n, nil if it was not sent or is forgotten.
func (h *history) get(n int64) *record {
	if !h.started || n > h.newest || n <= h.newest-historySize || n < 0 {
		return nil
	}
	if r := &h.ring[n%historySize]; r.known != unsent {
		return r
	}
	return nil
}
