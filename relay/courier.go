package relay

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// maxBag is how much may wait for a courier, in bytes: 100 ms at 300 Mbit/s. A sink
// that takes longer loses what comes meanwhile.
const maxBag = 4 << 20

// couriers hand to sinks what came over UDP. One goroutine reads the socket of all
// links; what a sink does with a packet, for hundreds of attendees, takes longer than
// to open it, and goes on on all cores. A layer of a track always has the same
// courier, so that its packets stay in order.
type couriers struct {
	all  []*courier
	next atomic.Uint32 // binding's turn
}

// courier is one of them.
type courier struct {
	wake chan struct{} // holds a token while the bag may hold something
	used bool          // since the last call of send; owned by who reads the socket

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

// send has the couriers go that got something.
func (c *couriers) send() {
	for _, w := range c.all {
		if w.used {
			w.used = false
			select {
			case w.wake <- struct{}{}:
			default:
			}
		}
	}
}

// run hands packets over until ctx ends.
func (w *courier) run(ctx context.Context) {
	var mine bag
	var burst [][]byte
	for {
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		mine, w.bag = w.bag, mine
		w.mu.Unlock()
		burst = mine.deliver(burst)
	}
}

// deliver hands over what a bag holds, the packets of a layer that came together in
// one call, and empties it.
func (g *bag) deliver(burst [][]byte) [][]byte {
	start := 0
	for i, p := range g.parcels {
		burst = append(burst, g.bytes[start:p.end:p.end])
		start = p.end
		if i+1 < len(g.parcels) && g.parcels[i+1].b == p.b && g.parcels[i+1].layer == p.layer {
			continue
		}
		p.b.deliver(p.layer, burst, p.l.cfg.Now())
		clear(burst)
		burst = burst[:0]
	}
	clear(g.parcels)
	g.bytes, g.parcels = g.bytes[:0], g.parcels[:0]
	return burst
}
