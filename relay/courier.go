package relay

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBag is how much may wait for a courier, in bytes: 100 ms at 300 Mbit/s. A sink
	// that takes longer loses what comes meanwhile.
	maxBag = 4 << 20
	// brief is what who reads the socket may spend on sinks after a read. To wake a
	// goroutine on another core takes about as long, and costs more.
	brief = 100 * time.Microsecond
	// eachWeight is that of a bag in what a packet of a courier takes.
	eachWeight = 0.25
)

// couriers hand to sinks what came over UDP. One goroutine reads the socket of all
// links, and hands over itself what takes no longer than brief: a few packets for a few
// attendees. What takes longer, with hundreds of attendees, goes on on all cores:
//
//	take → bag → send ─ brief ──────────────────► handOver
//	               └─ longer → wake → run ──────► handOver
//
// A layer of a track always has the same courier, and one at a time hands over for
// it, so that its packets stay in order.
type couriers struct {
	all  []*courier
	next atomic.Uint32 // binding's turn
}

// courier is one of them.
type courier struct {
	wake chan struct{} // holds a token while the bag may hold something
	used bool          // since the last call of send; owned by who reads the socket

	// Owned by who holds turn.
	turn  sync.Mutex
	mine  bag
	burst [][]byte

	each atomic.Int64 // nanoseconds that a packet takes, smoothed; written by who holds turn

	// Guarded by mu.
	mu  sync.Mutex
	bag bag
}

// bag holds packets one behind the other, with what is to become of them.
type bag struct {
	bytes   []byte
	parcels []parcel
}

type parcel struct {
	l     *Link
	b     *binding
	layer uint8
	end   int // in bytes
}

func newCouriers() *couriers {
	c := &couriers{}
	for range runtime.GOMAXPROCS(0) {
		c.all = append(c.all, &courier{wake: make(chan struct{}, 1)})
	}
	return c
}

// of is the courier of a layer.
func (c *couriers) of(b *binding, layer uint8) *courier {
	return c.all[(b.turn+uint32(layer))%uint32(len(c.all))]
}

// take puts a copy of a packet into a bag.
func (c *couriers) take(l *Link, b *binding, layer uint8, rtp []byte) {
	w := c.of(b, layer)
	w.used = true
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.bag.bytes)+len(rtp) > maxBag {
		l.count.drop(DropQueueFull, 1)
		return
	}
	w.bag.bytes = append(w.bag.bytes, rtp...)
	w.bag.parcels = append(w.bag.parcels, parcel{l, b, layer, len(w.bag.bytes)})
}

// send hands over what was taken, as far as that is brief, and has the couriers go
// for the rest.
func (c *couriers) send() {
	left := brief
	for _, w := range c.all {
		if !w.used {
			continue
		}
		w.used = false
		if takes := w.takes(); takes <= left && w.turn.TryLock() {
			left -= takes
			w.handOver()
			w.turn.Unlock()
			continue
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// takes is how long the bag is expected to take.
func (w *courier) takes() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(len(w.bag.parcels)) * time.Duration(w.each.Load())
}

// run hands packets over until ctx ends.
func (w *courier) run(ctx context.Context) {
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		w.turn.Lock()
		w.handOver()
		w.turn.Unlock()
	}
}

// handOver empties the bag; turn is held.
func (w *courier) handOver() {
	w.mu.Lock()
	w.mine, w.bag = w.bag, w.mine
	w.mu.Unlock()
	n := len(w.mine.parcels)
	if n == 0 {
		return
	}
	begun := time.Now()
	w.burst = w.mine.deliver(w.burst)
	each := w.each.Load()
	w.each.Store(each + int64(eachWeight*float64(int64(time.Since(begun))/int64(n)-each)))
}

// deliver hands over what a bag holds, the packets of a layer that came together in
// one call, and empties it.
func (g *bag) deliver(burst [][]byte) [][]byte {
	start := 0
	var l *Link
	var now time.Time
	for i, p := range g.parcels {
		burst = append(burst, g.bytes[start:p.end:p.end])
		start = p.end
		if i+1 < len(g.parcels) && g.parcels[i+1].b == p.b && g.parcels[i+1].layer == p.layer {
			continue
		}
		if p.l != l { // they came together
			l, now = p.l, p.l.cfg.Now()
		}
		p.b.deliver(p.layer, burst, now)
		clear(burst)
		burst = burst[:0]
	}
	clear(g.parcels)
	g.bytes, g.parcels = g.bytes[:0], g.parcels[:0]
	return burst
}
