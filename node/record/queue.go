package record

import (
	"sync"
	"time"

	"github.com/domicile/domicile/node/sfu"
)

const (
	// queueSize bounds the packets that wait for the disk: over 3 s of a
	// 3 Mbit/s video, a few MB. Beyond it new packets are dropped: what waits
	// is older and makes a whole frame sooner.
	queueSize = 1024
	// queueWakes is how many are taken at once without waiting for the tick: only a
	// picture of 60 Mbit/s, or a disk that has stood still, makes so many of them.
	queueWakes = queueSize / 4
	// queueKeeps is how much memory stays with the queue when it is empty: ten times
	// what a 3 Mbit/s video makes of it.
	queueKeeps = 256 << 10
)

// queue is what waits to be recorded. Run takes all of it at its tick: to wake a
// goroutine for each packet costs more than anything else that is done with it.
// Two batches take turns, so that nothing is allocated for a packet.
type queue struct {
	wake chan struct{} // capacity 1: do not wait for the tick

	mu sync.Mutex
	in batch
}

// batch is packets and reports in the order in which they came.
type batch struct {
	data  []byte // the packets, one behind another
	items []item
}

// item is a packet, or a report.
type item struct {
	size    int               // of the packet
	report  *sfu.SenderReport // nil for a packet
	arrival time.Time
	late    uint32 // packets before this one that found the queue full
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds a copy of a packet, or a report, which has no bytes. It reports whether there is room.
func (q *queue) put(raw []byte, i item) bool {
	i.size = len(raw)
	q.mu.Lock()
	n := len(q.in.items)
	if n < queueSize {
		q.in.data = append(q.in.data, raw...)
		q.in.items = append(q.in.items, i)
	}
	q.mu.Unlock()
	if n == queueWakes {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return n < queueSize
}

// take gives what waits for an empty batch.
func (q *queue) take(empty batch) batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.in
	q.in = empty
	return b
}

// emptied is the batch's memory for another, unless it has become too much.
func (b batch) emptied() batch {
	if cap(b.data) > queueKeeps {
		return batch{}
	}
	clear(b.items)
	return batch{b.data[:0], b.items[:0]}
}
