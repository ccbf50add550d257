package relay

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
)

// MediaSink takes the packets of a track that the peer sends. Calls for one
// layer come one at a time, those for different layers from different
// goroutines. The packets, which came together, are valid only during the call; a
// sink never blocks.
type MediaSink interface {
	Media(layer uint8, rtp [][]byte, arrival time.Time)
	Report(layer uint8, sr wire.SenderReport, arrival time.Time)
}

const (
	// reorderWait is how long the packets of a frame wait for the frame before
	// it. It covers goroutines that overtake each other and a repair on a short
	// path; the receivers' own jitter buffers cover the rest.
	reorderWait = 20 * time.Millisecond
	// frameTimeout is how long a stream may take, in FrameDeadlines. Senders give
	// frames up after one; whoever never does is not one of ours.
	frameTimeout = 10
	frameBuffer  = 8 << 10
)

// receiver is what a link knows of the tracks that arrive.
type receiver struct {
	bound atomic.Pointer[map[uint32]*binding] // immutable; the hot path only loads it
	mu    sync.Mutex                          // serialises those who replace it

	// Written by receiveDatagrams only.
	first, highest atomic.Uint32
	datagrams      atomic.Uint64
}

func (r *receiver) init() { r.bound.Store(&map[uint32]*binding{}) }

// binding is a track that somebody listens to.
type binding struct {
	sink  MediaSink
	dead  atomic.Bool
	lanes [wire.MaxLayer + 1]struct {
		calls sync.Mutex // held during a call of the sink
		order order
	}
	count counters
}

// Bind sends the packets of the peer's track alias to s. An alias that was bound
// before is bound anew.
func (l *Link) Bind(alias uint32, s MediaSink) {
	l.receiver.replace(l, alias, &binding{sink: s})
}

// Unbind stops the packets of a track; they are counted as "unbound" from now on.
// A call of the sink that is under way may still be finishing.
func (l *Link) Unbind(alias uint32) { l.receiver.replace(l, alias, nil) }

func (r *receiver) replace(l *Link, alias uint32, b *binding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.bound.Load())
	if old := next[alias]; old != nil {
		old.dead.Store(true)
		l.count.fold(&old.count)
		delete(next, alias)
	}
	if b != nil {
		next[alias] = b
	}
	r.bound.Store(&next)
}

func (r *receiver) binding(alias uint32) *binding { return (*r.bound.Load())[alias] }

// sawDatagram notes a sequence number. Datagrams may overtake each other.
func (r *receiver) sawDatagram(seq uint32) {
	if r.datagrams.Add(1) == 1 {
		r.first.Store(seq)
		r.highest.Store(seq)
	}
	if int32(seq-r.highest.Load()) > 0 {
		r.highest.Store(seq)
	}
}

// lost returns how many datagrams are missing of those up to the highest seen.
func (r *receiver) lost() uint64 {
	got := r.datagrams.Load()
	if got == 0 {
		return 0
	}
	expected := uint64(r.highest.Load()-r.first.Load()) + 1
	return expected - min(expected, got)
}

func (r *receiver) report(rep wire.Report, now time.Time) {
	if b := r.binding(rep.Alias); b != nil {
		b.sink.Report(rep.Layer, rep.Sender, now)
	}
}

// deliver hands packets to the sink.
func (b *binding) deliver(layer uint8, rtp [][]byte, now time.Time) {
	ln := &b.lanes[layer]
	ln.calls.Lock()
	defer ln.calls.Unlock()
	if b.dead.Load() {
		return
	}
	for _, p := range rtp {
		b.count.received(len(p))
	}
	b.sink.Media(layer, rtp, now)
}

// order puts the frames of one layer back in the order in which they were sent,
// as far as that costs no more than reorderWait.
type order struct {
	mu    sync.Mutex
	next  uint32        // number of the frame whose turn it is
	moved chan struct{} // closed when next moves on; nil while nobody waits
}

// await returns when it is the frame's turn, when it has waited long enough, or
// when the link ends.
func (o *order) await(number uint32, ended <-chan struct{}) {
	var timeout <-chan time.Time
	for {
		o.mu.Lock()
		if int32(number-o.next) <= 0 {
			o.mu.Unlock()
			return
		}
		if o.moved == nil {
			o.moved = make(chan struct{})
		}
		moved := o.moved
		o.mu.Unlock()
		if timeout == nil {
			t := time.NewTimer(reorderWait)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-moved:
		case <-timeout:
			o.advance(number)
		case <-ended:
			return
		}
	}
}

// advance makes it the turn of a frame, unless a later one has it.
func (o *order) advance(number uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if int32(number-o.next) <= 0 {
		return
	}
	o.next = number
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
}

// receiveFrames reads the peer's unidirectional streams. QUIC's stream limit
// bounds how many are read at once.
func (l *Link) receiveFrames() error {
	for {
		s, err := l.conn.AcceptUniStream(l.ctx)
		if err != nil {
			return l.unlessEnded(err)
		}
		l.spawn(func() { l.end(l.receiveFrame(s)) })
	}
}

// frameReader is what one stream is read with.
type frameReader struct {
	buf   [frameBuffer]byte
	burst [][]byte
}

var frameReaders = sync.Pool{New: func() any { return new(frameReader) }}

// receiveFrame reads one frame; an error ends the link.
func (l *Link) receiveFrame(s *quic.ReceiveStream) error {
	s.SetReadDeadline(time.Now().Add(frameTimeout * l.cfg.FrameDeadline))
	var head [wire.FrameSize]byte
	if _, err := io.ReadFull(s, head[:]); err != nil {
		return l.frameEnded(s, err, true)
	}
	f, err := wire.ParseFrame(head[:])
	if err != nil {
		return protocolError(err)
	}
	b := l.receiver.binding(f.Alias)
	if b == nil {
		l.count.drop(DropUnbound, 1)
		s.CancelRead(wire.StreamUnbound)
		return nil
	}
	o := &b.lanes[f.Layer].order
	o.await(f.Number, l.ctx.Done())
	defer o.advance(f.Number + 1)
	r := frameReaders.Get().(*frameReader)
	defer frameReaders.Put(r)
	return l.receivePackets(s, b, f.Layer, r)
}

// receivePackets hands over packets as they arrive.
func (l *Link) receivePackets(s *quic.ReceiveStream, b *binding, layer uint8, r *frameReader) error {
	held := 0
	for {
		n, readErr := s.Read(r.buf[held:])
		now := l.cfg.Now()
		records := r.buf[:held+n]
		r.burst = r.burst[:0]
		for {
			rtp, _, rest, err := wire.NextPacket(records)
			if err != nil {
				return protocolError(err)
			}
			if rtp == nil {
				break
			}
			r.burst = append(r.burst, rtp)
			records = rest
		}
		if len(r.burst) > 0 {
			b.deliver(layer, r.burst, now)
		}
		held = copy(r.buf[:], records)
		if readErr != nil {
			return l.frameEnded(s, readErr, held > 0)
		}
	}
}

// frameEnded judges how a stream ended; cut says that it did within a record.
func (l *Link) frameEnded(s *quic.ReceiveStream, err error, cut bool) error {
	if err == io.EOF && !cut {
		return nil
	}
	var reset *quic.StreamError
	switch {
	case errors.As(err, &reset):
		l.count.drop(DropCut, 1)
		return nil
	case l.ctx.Err() != nil || l.conn.Context().Err() != nil:
		return nil
	case isTimeout(err):
		s.CancelRead(wire.StreamDeadline)
		return protocolError(fmt.Errorf("a media stream was left open for %s", frameTimeout*l.cfg.FrameDeadline))
	}
	return protocolError(fmt.Errorf("media stream: %w", wire.ErrCut))
}
