package relay

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
)

// frameIdle is how long a frame without an end is kept open for more packets.
// A publisher paces a frame over less than this.
const frameIdle = 100 * time.Millisecond

// lane sends one layer of a track, a unidirectional stream for each frame. The
// packets' way: Offer → queue → run → flush → writeFrame → QUIC.
//
// Packets leave as they come; the stream ends with the packet that has the
// marker, when the next timestamp begins, or when nothing came for frameIdle.
// A frame that has not left FrameDeadline after its first packet was offered is
// given up.
type lane struct {
	// Static.
	t      *Track
	layer  uint8
	queue  *queue
	wake   chan struct{} // holds a token while the queue may have packets
	flight flight

	// Owned by run.
	batch    batch
	number   uint32 // of the next frame
	ts       uint32 // of the frame at work
	skipping bool   // the rest of the frame at work is dropped as why says
	why      DropReason
	touched  time.Time // when the open frame got its last packet
}

func newLane(t *Track, layer uint8) *lane {
	return &lane{
		t: t, layer: layer,
		queue: newQueue(videoPackets, videoBytes, wire.FrameSize, time.Now),
		wake:  make(chan struct{}, 1),
	}
}

func (ln *lane) wakeUp() {
	select {
	case ln.wake <- struct{}{}:
	default:
	}
}

// run sends until the track and then the last frame in flight have ended.
func (ln *lane) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	done := ln.t.done
	for {
		select {
		case <-ln.wake:
		case <-timer.C:
		case <-done:
			done = nil
		case <-ln.t.l.ctx.Done():
			ln.discard(DropClosed)
			return
		}
		ln.flush()
		next := ln.tend(time.Now(), done == nil)
		if done == nil && next == 0 {
			ln.discard(DropClosed)
			return
		}
		if next > 0 {
			timer.Reset(next)
		}
	}
}

// flush sends what is queued, frame by frame.
func (ln *lane) flush() {
	for ln.refill() {
		b, at := ln.batch.buf, ln.batch.head
		switch ln.t.standing(ln.t.l.cfg.Now()) {
		case waits:
			return
		case over:
			ln.drop(DropRevoked, b[at:])
			ln.batch.head = len(b)
			return
		}
		end, ts, last := frameEnd(b, at)
		ln.sendPart(b, at, end, ts)
		if last {
			ln.endFrame()
		}
		ln.batch.head = end
	}
}

// refill takes what is queued once the last batch has left. It leaves the queue
// alone while the track waits: there the oldest goes when there is too much.
func (ln *lane) refill() bool {
	if ln.batch.head < len(ln.batch.buf) {
		return true
	}
	if ln.t.standing(ln.t.l.cfg.Now()) == waits {
		return false
	}
	ln.queue.take(&ln.batch)
	return ln.batch.head < len(ln.batch.buf)
}

// frameEnd finds the end of the records from at on that belong to one frame.
func frameEnd(b []byte, at int) (end int, ts uint32, last bool) {
	for end = at; end < len(b); {
		rtp, isLast, rest, _ := wire.NextPacket(b[end:])
		if rtp == nil || end > at && timestamp(rtp) != ts {
			return end, ts, false
		}
		ts = timestamp(rtp)
		end = len(b) - len(rest)
		if isLast {
			return end, ts, true
		}
	}
	return end, ts, false
}

// sendPart sends the records b[at:end] of one frame. In front of at there is
// room for a header: the queue's, or records that have left.
func (ln *lane) sendPart(b []byte, at, end int, ts uint32) {
	if ts != ln.ts {
		ln.endFrame()
		ln.skipping, ln.ts = false, ts
	}
	if ln.skipping {
		ln.drop(ln.why, b[at:end])
		return
	}
	s := ln.flight.stream()
	start := at
	if s == nil {
		var why DropReason
		if s, why = ln.openFrame(ts); s == nil {
			ln.skip(why, b[at:end])
			return
		}
		start = at - wire.FrameSize
		wire.PutFrame(b[start:at], wire.Frame{Alias: ln.t.alias, Layer: ln.layer, Number: ln.number})
		ln.number++
	}
	n, err := s.Write(b[start:end])
	if err != nil {
		gone := b[at:max(at, start+n)] // what QUIC took may arrive, though the rest is given up
		ln.t.count.sent(measure(gone))
		ln.flight.abandon()
		ln.skip(ln.writeFailure(err), b[at+whole(gone):end])
		return
	}
	ln.touched = time.Now()
	ln.t.count.sent(measure(b[at:end]))
}

// openFrame opens the stream of a new frame, unless the frame is too old.
func (ln *lane) openFrame(ts uint32) (*quic.SendStream, DropReason) {
	now := time.Now()
	since, ok := ln.batch.since(ts)
	if !ok {
		since = now
	}
	deadline := since.Add(ln.t.l.cfg.FrameDeadline)
	if !now.Before(deadline) {
		return nil, DropDeadline
	}
	s, err := ln.flight.open(ln.t.l.conn, deadline)
	var limit *quic.StreamLimitReachedError
	switch {
	case err == nil && s == nil:
		return nil, DropRevoked
	case errors.As(err, &limit):
		return nil, DropStreams
	case err != nil:
		return nil, DropClosed
	}
	s.SetPriority(int8(urgencyMedia+ln.layer), false)
	s.SetWriteDeadline(deadline)
	return s, 0
}

// writeFailure names why QUIC did not take a part of a frame.
func (ln *lane) writeFailure(err error) DropReason {
	var reset *quic.StreamError
	switch {
	case ln.t.revoked.Load() != nil:
		return DropRevoked
	case errors.As(err, &reset):
		return DropStopped
	case isTimeout(err):
		return DropDeadline
	}
	return DropClosed
}

// endFrame ends the open frame; what QUIC holds of it still leaves.
func (ln *lane) endFrame() { ln.flight.end(ln.t.l.conn.ConnectionStats().PacketsLost) }

func (ln *lane) skip(why DropReason, records []byte) {
	ln.skipping, ln.why = true, why
	ln.drop(why, records)
}

func (ln *lane) drop(why DropReason, records []byte) {
	n, _ := measure(records)
	ln.t.count.drop(why, n)
}

// discard drops what is queued.
func (ln *lane) discard(why DropReason) {
	if ln.t.revoked.Load() != nil {
		why = DropRevoked
	}
	if ln.batch.head < len(ln.batch.buf) {
		ln.drop(why, ln.batch.buf[ln.batch.head:])
	}
	ln.queue.take(&ln.batch)
	ln.t.count.drop(why, ln.batch.n)
	ln.batch.head = len(ln.batch.buf)
}

// measure counts the packets and RTP bytes of records.
func measure(records []byte) (packets, bytes int) {
	for {
		rtp, _, rest, _ := wire.NextPacket(records)
		if rtp == nil {
			return packets, bytes
		}
		packets++
		bytes += len(rtp)
		records = rest
	}
}

// whole is how many of the bytes are whole records.
func whole(records []byte) int {
	rest := records
	for {
		rtp, _, next, _ := wire.NextPacket(rest)
		if rtp == nil {
			return len(records) - len(rest)
		}
		rest = next
	}
}

// tend ends a frame that got no more packets, gives up frames that are overdue,
// and returns when to look again, 0 if nothing is in flight.
func (ln *lane) tend(now time.Time, finishing bool) time.Duration {
	var next time.Duration
	if ln.flight.stream() != nil {
		if idle := frameIdle - now.Sub(ln.touched); finishing || idle <= 0 {
			ln.endFrame()
		} else {
			next = idle
		}
	}
	if due := ln.flight.expire(now, ln.t.l.conn.ConnectionStats().PacketsLost); due > 0 && (next == 0 || due < next) {
		next = due
	}
	return next
}

// flight is what QUIC holds of a lane: the open frame and those that ended
// within the deadline. Revoke resets them from another goroutine.
type flight struct {
	mu       sync.Mutex
	dead     bool
	current  *quic.SendStream
	deadline time.Time
	sent     []sentFrame
}

// sentFrame is a frame that QUIC took whole, which says nothing about arrival.
type sentFrame struct {
	s        *quic.SendStream
	deadline time.Time
	lost     uint64 // packets the connection had lost when the frame ended
}

// open opens a stream; nil without an error once the flight was killed.
func (fl *flight) open(conn *quic.Conn, deadline time.Time) (*quic.SendStream, error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.dead {
		return nil, nil
	}
	s, err := conn.OpenUniStream()
	if err != nil {
		return nil, err
	}
	fl.current, fl.deadline = s, deadline
	return s, nil
}

func (fl *flight) stream() *quic.SendStream {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return fl.current
}

// end closes the current stream and remembers it until its deadline.
func (fl *flight) end(lost uint64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.current == nil {
		return
	}
	fl.current.Close()
	fl.sent = append(fl.sent, sentFrame{fl.current, fl.deadline, lost})
	fl.current = nil
}

// abandon resets the current stream.
func (fl *flight) abandon() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if fl.current != nil {
		fl.current.CancelWrite(wire.StreamDeadline)
		fl.current = nil
	}
}

// expire forgets frames past their deadline and returns how long the oldest of
// the others has. QUIC does not tell whether a stream was acknowledged: if the
// connection lost packets since the frame ended, part of it may be waiting to
// be repeated, and that is stopped.
func (fl *flight) expire(now time.Time, lost uint64) time.Duration {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	n := 0
	for n < len(fl.sent) && !now.Before(fl.sent[n].deadline) {
		if fl.sent[n].lost != lost {
			fl.sent[n].s.CancelWrite(wire.StreamDeadline)
		}
		n++
	}
	fl.sent = slices.Delete(fl.sent, 0, n)
	if len(fl.sent) == 0 {
		return 0
	}
	return fl.sent[0].deadline.Sub(now)
}

// kill resets every stream and lets no other be opened.
func (fl *flight) kill() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.dead = true
	if fl.current != nil {
		fl.current.CancelWrite(wire.StreamRevoked)
		fl.current = nil
	}
	for _, f := range fl.sent {
		f.s.CancelWrite(wire.StreamRevoked)
	}
	fl.sent = nil
}
