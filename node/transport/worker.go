package transport

import (
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/stun/v3"
)

const (
	// maxDatagram is the largest datagram taken, in bytes. Media keeps to an
	// Ethernet frame; DTLS of clients that do not split their certificate fits too.
	maxDatagram = 2047
	// maxRead is how many datagrams are read in one call, and so at most handled
	// before what they caused leaves.
	maxRead = 64
	// audioAtMost is the longest packet of audio worth thinking of, in bytes: 20 ms of
	// stereo twice (RED). The packets of a picture that needs several are longer.
	audioAtMost = 600
	// lingerFor is how long a worker waits for the rest of a frame, once for each
	// read, in addition to the 50 µs that the kernel adds. The reader of a quiet
	// socket wakes for the first packet, which would leave alone, as a message to
	// each receiver, and the rest after it: measured with frames of six to 100
	// clients, 3.2 packets in a message without, 5.9 with it, and a sixth less CPU time.
	lingerFor = 50 * time.Microsecond
	// sweepEvery is after how many paths gone a worker looks for those it still
	// knows: few enough to hold little memory, seldom enough to cost nothing.
	sweepEvery = 256
)

// Worker reads one socket, as it fills or at each beat. Its batch is flushed after
// each drain.
type Worker struct {
	// Static after construction.
	engine *Engine
	group  *group
	batch  *Batch
	in     *receiver

	busy sync.Mutex // held from the first packet of a drain to its flush

	// Owned by run.
	paths   map[sockname]*path   // those that were seen, so that no lock is needed
	bound   map[boundKey]*Tunnel // the same for channels
	touched []*Conn              // since the last Drained
	header  rtp.Header           // reused for each packet
	request stun.Message         // reused for each check
	reply   stun.Message
	swept   uint64 // Engine.gone at the last sweep

}

func newWorker(e *Engine, g *group, s *socket, shard int) *Worker {
	return &Worker{
		engine: e, group: g, batch: newBatch(e, shard), in: newReceiver(s),
		paths: make(map[sockname]*path), bound: make(map[boundKey]*Tunnel), touched: make([]*Conn, 0, maxRead),
	}
}

// newLent makes a worker for what comes through streams.
func newLent(e *Engine, shard int) *Worker {
	return &Worker{engine: e, batch: newBatch(e, shard), touched: make([]*Conn, 0, maxRead)}
}

// Batch is for what the handlers of this worker's events send.
func (w *Worker) Batch() *Batch { return w.batch }

// The way of a packet in: run → datagram → media → Conn.openRTP → Handler.RTP,
// and when the socket is empty Handler.Drained → Batch.Flush.

func (w *Worker) run() {
	for {
		n, err := w.in.receive()
		if err != nil {
			return // the socket is closed
		}
		w.busy.Lock()
		w.take(0, n)
		if _, last := w.in.datagram(n - 1); n < maxRead && Unfinished(last) {
			w.take(n, w.in.linger(n))
		}
		w.drained()
		w.busy.Unlock()
	}
}

// Settle returns when all that the workers were sending has left, or more exactly:
// what they took in before the call. A track that is muted is silent from then on.
// It must not be called from an event.
func (e *Engine) Settle() {
	for _, workers := range [][]*Worker{e.workers, e.reports, e.lent} {
		for _, w := range workers {
			w.busy.Lock()
			w.busy.Unlock() //nolint:staticcheck // waiting is all
		}
	}
}

// take handles the datagrams from first to before last.
func (w *Worker) take(first, last int) {
	now := w.engine.now()
	w.batch.now = now
	for i := first; i < last; i++ {
		name, b := w.in.datagram(i)
		w.datagram(name, b, now)
	}
}

// Unfinished tells whether more of a frame is likely to follow a datagram at once: it
// is a big packet and does not have the marker that ends a picture. It may be in a
// TURN channel.
func Unfinished(b []byte) bool {
	if len(b) <= audioAtMost {
		return false
	}
	k := classify(b)
	if k == kindChannel {
		b = b[channelHeader:]
		k = classify(b)
	}
	return k == kindRTP && b[1]&0x80 == 0
}

// drained tells the connections that were touched, and sends what they answered.
func (w *Worker) drained() {
	for i, c := range w.touched {
		c.drained(w)
		w.touched[i] = nil
	}
	w.touched = w.touched[:0]
	w.batch.Flush()
	w.sweep()
}

// datagram handles one.
func (w *Worker) datagram(name *sockname, b []byte, now time.Time) {
	if len(b) > maxDatagram {
		w.engine.drops.add(DropTooLong)
		return
	}
	k := classify(b)
	switch k {
	case kindUnknown:
		w.engine.drops.add(DropUnknown)
		return
	case kindSTUN:
		w.stranger(name, b, now)
		return
	case kindChannel:
		w.channel(name, b, now)
		return
	case kindQUIC:
		w.quic(name, b)
		return
	}
	p, c := w.path(name)
	w.known(p, c, k, b, now)
}

// known handles what is no check and came on a path.
func (w *Worker) known(p *path, c *Conn, k kind, b []byte, now time.Time) {
	if c == nil {
		w.engine.drops.add(DropNoPath)
		return
	}
	if k == kindDTLS {
		c.handshakeIn(b)
		return
	}
	w.media(c, p, k, b, now)
}

func (w *Worker) media(c *Conn, p *path, k kind, b []byte, now time.Time) {
	if k == kindRTP {
		b = c.openRTP(&w.header, b)
	} else {
		b = c.openRTCP(b)
	}
	if b == nil {
		return
	}
	c.hear(p, now)
	if k == kindRTP {
		w.touch(c)
		c.deliverRTP(w, b, now)
	} else {
		c.deliverRTCP(w, b, now)
	}
}

// touch remembers the connection for Drained, once.
func (w *Worker) touch(c *Conn) {
	for i := len(w.touched) - 1; i >= 0; i-- {
		if w.touched[i] == c {
			return
		}
	}
	w.touched = append(w.touched, c)
}

// path finds whose a 5-tuple is: among those seen before, else in the table that
// all workers share.
func (w *Worker) path(name *sockname) (*path, *Conn) {
	if p := w.paths[*name]; p != nil {
		if c := p.conn.Load(); c != nil {
			return p, c
		}
		delete(w.paths, *name)
	}
	p := w.engine.lookup(w.group, name)
	if p == nil {
		return nil, nil
	}
	c := p.conn.Load()
	if c != nil {
		w.paths[*name] = p
	}
	return p, c
}

// sweep forgets paths that are gone and from which nothing comes any more.
func (w *Worker) sweep() {
	gone := w.engine.gone.Load()
	if gone-w.swept < sweepEvery {
		return
	}
	w.swept = gone
	for name, p := range w.paths {
		if p.conn.Load() == nil {
			delete(w.paths, name)
		}
	}
	for key, t := range w.bound {
		if t.closed.Load() {
			delete(w.bound, key)
		}
	}
}
