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
	"github.com/domicile/domicile/residency"
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

	// Guarded by mu, which also serialises those who replace bound.
	mu      sync.Mutex
	aliases map[uint32]*account // under which the peer counts its tracks

	// Written by receiveDatagrams only.
	first, highest atomic.Uint32
	datagrams      atomic.Uint64
}

func (r *receiver) init() {
	r.bound.Store(&map[uint32]*binding{})
	r.aliases = make(map[uint32]*account)
}

// binding is a track that somebody listens to.
type binding struct {
	sink MediaSink
	turn uint32 // picks its couriers
	dead atomic.Bool

	// Guarded by the receiver's mu.
	permit residency.Permit // that lets this node have the track from the peer
	hold   hold             // for another epoch's
	handed figures          // of count, to accounts already
	lanes  [wire.MaxLayer + 1]struct {
		calls sync.Mutex // held during a call of the sink
		order order
	}
	count counters
}

// Bind sends the packets of the peer's track alias to s. The permit is this
// node's own word that the data may come from there: the receiver asks the gate,
// too. An alias that was bound before is bound anew.
func (l *Link) Bind(p residency.Permit, alias uint32, s MediaSink) error {
	if err := l.admit(p); err != nil {
		return err
	}
	return l.receiver.replace(l, alias, &binding{sink: s, permit: p, turn: l.f.couriers.next.Add(1)})
}

// Unbind stops the packets of a track; they are counted as "unbound" from now on.
// When it returns, no call of the sink is under way; so it must not be called
// from one.
func (l *Link) Unbind(alias uint32) { l.receiver.replace(l, alias, nil) } //nolint:errcheck // only a new binding can be refused

func (r *receiver) replace(l *Link, alias uint32, b *binding) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.aliases[alias]
	if b != nil && a != nil && !b.permits(a) {
		return fmt.Errorf("relay: bind track %d of node %q: it is of another room or class than the permit", alias, l.peer.Name)
	}
	if old := r.binding(alias); old != nil {
		without := maps.Clone(*r.bound.Load())
		delete(without, alias)
		r.bound.Store(&without)
		old.end()
		l.count.fold(&old.count)
		if a != nil {
			old.hand(a)
		}
	}
	if b != nil {
		with := maps.Clone(*r.bound.Load())
		with[alias] = b
		r.bound.Store(&with)
	}
	return nil
}

// end returns when the sink gets nothing more, and all that it got is counted.
func (b *binding) end() {
	b.dead.Store(true)
	for i := range b.lanes {
		b.lanes[i].calls.Lock()
		b.lanes[i].calls.Unlock() //nolint:staticcheck // whoever held it has finished
	}
}

// permits reports whether the binding's permit is for what the peer counts under
// a. Of two versions of the policies the sender may have the newer one first.
func (b *binding) permits(a *account) bool {
	return a.key.room == b.permit.Room() && a.key.class == b.permit.Class()
}

// Rebind renews the permit of a track that is bound: when the policies changed
// and still allow it, or a certificate was renewed. An error leaves it as it is.
func (l *Link) Rebind(p residency.Permit, alias uint32) error {
	if err := l.admit(p); err != nil {
		return err
	}
	l.receiver.mu.Lock()
	defer l.receiver.mu.Unlock()
	b := l.receiver.binding(alias)
	if b == nil || p.Room() != b.permit.Room() || p.Class() != b.permit.Class() {
		return fmt.Errorf("relay: renew track %d of node %q: it is not bound, or for something else", alias, l.peer.Name)
	}
	b.permit, b.hold = p, hold{}
	return nil
}

// nameAlias notes the account of an alias. A binding that is older, and not for
// that account, ends.
func (r *receiver) nameAlias(l *Link, alias uint32, a *account) error {
	r.mu.Lock()
	if len(r.aliases) >= maxAliases {
		r.mu.Unlock()
		return protocolError(fmt.Errorf("more than %d tracks", maxAliases))
	}
	b := r.binding(alias)
	wrong := b != nil && !b.permits(a)
	if !wrong {
		if old := r.aliases[alias]; old != nil && b != nil {
			b.hand(old)
		}
		r.aliases[alias] = a
	}
	r.mu.Unlock()
	if wrong {
		l.Unbind(alias)
	}
	return nil
}

// endAlias forgets an alias whose last packet has been sent.
func (r *receiver) endAlias(l *Link, alias uint32) {
	l.Unbind(alias)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.aliases, alias)
}

// Bound reports whether a track is listened to: it ends with its permit.
func (l *Link) Bound(alias uint32) bool { return l.receiver.binding(alias) != nil }

// sweepBindings ends what the gate would not let in any more. As a track does, a
// binding waits a moment for a permit of a new epoch.
func (l *Link) sweepBindings() {
	now, epoch := l.cfg.Now(), l.cfg.Epoch()
	for alias, b := range *l.receiver.bound.Load() {
		l.receiver.mu.Lock()
		over := b.hold.over(b.permit, epoch, now)
		l.receiver.mu.Unlock()
		if over {
			l.Unbind(alias)
		}
	}
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
