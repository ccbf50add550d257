package relay

import (
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay/flow"
	"github.com/domicile/domicile/relay/wire"
)

// outlet is a layer of a track on its way to UDP. Offer fills its queue, hop.run
// empties it.
type outlet struct {
	// Static.
	t     *Track
	layer uint8
	queue *queue

	offered atomic.Uint64 // bytes
	left    atomic.Int32  // records of batch that have not left
	listed  atomic.Bool   // in the ready list
	next    *outlet       // there

	// Owned by hop.run.
	known    bool // in one of the hop's lists
	queued   bool // in its backlog
	batch    batch
	skipping bool   // the rest of the frame skip is dropped
	skip     uint32 // its timestamp
	seen     uint64 // of offered
	stream   flow.Stream
}

// outlet returns the track's outlet of a layer, a new one with its first packet.
func (t *Track) outlet(layer uint8) *outlet {
	if o := t.outlets[layer].Load(); o != nil {
		return o
	}
	packets, bytes := videoPackets, videoBytes
	if !t.video {
		packets, bytes = audioPackets, audioBytes
	}
	t.outlets[layer].CompareAndSwap(nil, &outlet{t: t, layer: layer, queue: newQueue(packets, bytes, 0, time.Now)})
	return t.outlets[layer].Load()
}

func (o *outlet) waiting() int { return o.queue.len() + int(o.left.Load()) }

// flushed reports whether nothing waits for UDP.
func (t *Track) flushed() bool {
	for i := range t.outlets {
		if o := t.outlets[i].Load(); o != nil && o.waiting() > 0 {
			return false
		}
	}
	return true
}

// refill takes what is queued once the last batch has left, and reports whether
// there is anything.
func (o *outlet) refill() bool {
	if o.batch.head < len(o.batch.buf) {
		return true
	}
	o.queue.take(&o.batch)
	o.left.Store(int32(o.batch.n))
	return o.batch.head < len(o.batch.buf)
}

// first is the record that is due, with its head, and whether it ends its frame.
func (o *outlet) first() (record []byte, marker bool) {
	record, marker, _, _ = wire.NextPacket(o.batch.buf[o.batch.head:])
	return record, marker
}

// gone moves on behind a record.
func (o *outlet) gone(record []byte) {
	o.batch.head += wire.PacketOverhead + len(record)
	o.left.Add(-1)
}

// discard drops what waits.
func (o *outlet) discard(why DropReason) {
	for o.refill() {
		n, _ := measure(o.batch.buf[o.batch.head:])
		o.t.count.drop(why, n)
		o.batch.head = len(o.batch.buf)
		o.left.Store(0)
	}
}

// readyList holds the outlets that got something since it was last taken. Any
// goroutine may put, and nobody waits.
type readyList struct{ head atomic.Pointer[outlet] }

func (r *readyList) put(o *outlet) {
	if o.listed.Swap(true) {
		return
	}
	for {
		old := r.head.Load()
		o.next = old
		if r.head.CompareAndSwap(old, o) {
			return
		}
	}
}

// any reports whether something is in the list.
func (r *readyList) any() bool { return r.head.Load() != nil }

// each calls do for what is in the list, newest first, and empties it. What is put
// meanwhile is for the next time.
func (r *readyList) each(do func(*outlet)) {
	for o := r.head.Swap(nil); o != nil; {
		next := o.next
		o.next = nil
		o.listed.Store(false)
		do(o)
		o = next
	}
}
