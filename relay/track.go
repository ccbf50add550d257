package relay

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Queues of a track: two seconds of audio, or of video at 4 Mbit/s. How old media
// may get is FrameDeadline's business. The queues have to take what arrives at
// once after this process was kept from running, and the sockets' buffers hold
// more than a second of media.
const (
	audioPackets = 100
	audioBytes   = 64 << 10
	videoPackets = 1024
	videoBytes   = 1 << 20
)

// Track sends one media track to the peer. Offer and Report never block and may
// be called from several goroutines; the permit is looked at again for every
// batch that leaves.
type Track struct {
	// Static after OpenTrack.
	l     *Link
	alias uint32
	video bool
	audio *queue        // nil for video
	done  chan struct{} // closed by Revoke and Close

	grant atomic.Pointer[residency.Permit] // that it sends by; Renew replaces it
	held  atomic.Int64                     // Unix ns: since then it waits for another epoch's; 0: it does not

	revoked atomic.Pointer[string] // the reason, nil while the track may send
	closed  atomic.Bool
	ending  sync.Once    // closes done
	working atomic.Int32 // lanes that run

	lanes   [wire.MaxLayer + 1]atomic.Pointer[lane]   // over QUIC
	outlets [wire.MaxLayer + 1]atomic.Pointer[outlet] // over UDP
	thinned atomic.Uint32                             // layers that the path does not carry, as bits
	count   counters

	// Guarded by the link's mu.
	account *account // of the permit
	handed  figures  // of count, to accounts already

	spare batch // owned by the link's datagram sender
}

// OpenTrack gives a new track an alias, under which the peer binds it. How the
// peer learns the alias is the caller's business. Aliases are never used twice.
func (l *Link) OpenTrack(p residency.Permit, video bool) (*Track, error) {
	if err := l.admit(p); err != nil {
		return nil, err
	}
	a, err := l.account(p)
	if err != nil {
		return nil, err
	}
	t := &Track{l: l, account: a, video: video, done: make(chan struct{})}
	t.grant.Store(&p)
	if !video {
		t.audio = newQueue(audioPackets, audioBytes, 0, time.Now)
	}
	if err := l.addTrack(t); err != nil {
		a.release()
		return nil, err
	}
	out := outgoing{permit: p, account: a, envelope: wire.AppendTrack(nil, wire.Track{Alias: t.alias, Account: a.id.Number})}
	if err := l.enqueue(out); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// addTrack gives the track its alias.
func (l *Link) addTrack(t *Track) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.ctx.Err() != nil {
		return fmt.Errorf("relay: open track to node %q: the link is down", l.peer.Name)
	}
	l.lastAlias++
	t.alias = l.lastAlias
	l.tracks[t.alias] = t
	l.snapshotAudio()
	return nil
}

// snapshotAudio renews what the datagram sender reads; l.mu is held.
func (l *Link) snapshotAudio() {
	var audio []*Track
	for _, t := range l.tracks {
		if t.audio != nil {
			audio = append(audio, t)
		}
	}
	l.audio.Store(&audio)
}

// Alias is the track's number on its link, never 0.
func (t *Track) Alias() uint32 { return t.alias }

// Offer queues a copy of an RTP packet; marker says that it ends its frame. When
// the queue is full its oldest packets are dropped. Nothing is told to the
// caller: Stats counts what was dropped, and why.
func (t *Track) Offer(layer uint8, marker bool, rtp []byte) {
	switch {
	case len(rtp) < wire.MinPacket || len(rtp) > wire.MaxPacket || layer > wire.MaxLayer:
		t.count.drop(DropMalformed, 1)
	case t.revoked.Load() != nil:
		t.count.drop(DropRevoked, 1)
	case t.closed.Load() || t.l.ctx.Err() != nil:
		t.count.drop(DropClosed, 1)
	default:
		t.l.carriage(len(rtp)).offer(t, layer, marker, rtp)
	}
}

// offerLane queues a packet for a stream: video, and audio packets that no
// datagram takes.
func (t *Track) offerLane(layer uint8, marker bool, rtp []byte) {
	ln := t.lanes[layer].Load()
	if ln == nil {
		if ln = t.startLane(layer); ln == nil {
			t.count.drop(DropClosed, 1)
			return
		}
	}
	t.count.drop(DropQueueFull, ln.queue.push(nil, rtp, marker || t.audio != nil))
	ln.wakeUp()
}

// startLane starts the sender of a layer with its first packet.
func (t *Track) startLane(layer uint8) *lane {
	ln := newLane(t, layer)
	if !t.lanes[layer].CompareAndSwap(nil, ln) {
		return t.lanes[layer].Load()
	}
	t.working.Add(1)
	if !t.l.spawn(func() {
		defer t.working.Add(-1)
		ln.run()
	}) {
		t.working.Add(-1)
		return nil
	}
	if t.revoked.Load() != nil { // Revoke may have looked before the lane was there
		ln.flight.kill()
	}
	return ln
}

// Report sends a sender report of a layer. It is dropped when too many messages
// wait.
func (t *Track) Report(layer uint8, sr wire.SenderReport) {
	if layer > wire.MaxLayer {
		t.count.drop(DropMalformed, 1)
		return
	}
	if !t.valid(t.l.cfg.Now()) || t.closed.Load() {
		return
	}
	out := outgoing{track: t, envelope: wire.AppendReport(nil, wire.Report{Alias: t.alias, Layer: layer, Sender: sr})}
	if !t.l.outbox.offer(out) {
		t.count.drop(DropQueueFull, 1)
	}
}

// valid reports whether the track may send at now.
func (t *Track) valid(now time.Time) bool { return t.standing(now) == sends }

// Revoke stops the track for good. When it returns, no video leaves any more:
// queued packets are dropped, open frames are reset and lost parts of them are
// not sent again. Queued audio is dropped too; datagrams that are already QUIC's
// or on the way to it, 33 at most, cannot be taken back: QUIC sends them within
// a round trip or so, or the link is found dead.
func (t *Track) Revoke(reason string) {
	if !t.revoked.CompareAndSwap(nil, &reason) {
		return
	}
	for i := range t.lanes {
		if ln := t.lanes[i].Load(); ln != nil {
			ln.flight.kill()
		}
	}
	t.finish()
	t.l.cfg.Log.Debug("relay: track revoked", "peer", t.l.peer.Name, "alias", t.alias, "reason", reason)
}

// Revoked returns why the track was revoked, "" while it is not.
func (t *Track) Revoked() string {
	if r := t.revoked.Load(); r != nil {
		return *r
	}
	return ""
}

// Close ends the track. What was offered before still leaves.
func (t *Track) Close() {
	t.closed.Store(true)
	t.finish()
}

func (t *Track) finish() {
	t.ending.Do(func() { close(t.done) })
	t.wakeUp()
}

// wakeUp has what is queued looked at.
func (t *Track) wakeUp() {
	t.l.datagrams.wakeUp()
	if t.l.hop != nil {
		t.l.hop.wakeUp()
	}
}

// Held returns the layers, as bits, that are not sent now because the path does
// not carry them. Offering them costs nothing but a count.
func (t *Track) Held() uint8 { return uint8(t.thinned.Load()) }

// waiting returns how many packets are queued.
func (t *Track) waiting() int {
	n := 0
	if t.audio != nil {
		n = t.audio.len()
	}
	for i := range t.lanes {
		if ln := t.lanes[i].Load(); ln != nil {
			n += ln.queue.len()
		}
		if o := t.outlets[i].Load(); o != nil {
			n += o.waiting()
		}
	}
	return n
}

// finished reports whether an ended track has nothing left to do.
func (t *Track) finished() bool {
	select {
	case <-t.done:
		return t.working.Load() == 0 && (t.audio == nil || t.audio.len() == 0) && t.flushed()
	default:
		return false
	}
}

// sweepTracks revokes tracks whose permit ended, also those that send nothing
// just now, and forgets those that ended.
func (l *Link) sweepTracks() {
	l.mu.Lock()
	tracks := make([]*Track, 0, len(l.tracks))
	for _, t := range l.tracks {
		tracks = append(tracks, t)
	}
	l.mu.Unlock()
	now := l.cfg.Now()
	for _, t := range tracks {
		t.valid(now)
		if t.finished() {
			l.forget(t)
		}
	}
}

func (l *Link) forget(t *Track) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.tracks[t.alias]; !ok {
		return
	}
	delete(l.tracks, t.alias)
	l.count.fold(&t.count)
	t.hand()
	t.account.release()
	l.snapshotAudio()
	// Where it is left out, the peer keeps the alias until the link ends.
	l.outbox.offer(outgoing{tally: true, envelope: wire.AppendTrack(nil, wire.Track{Alias: t.alias})})
}

func timestamp(rtp []byte) uint32 { return binary.BigEndian.Uint32(rtp[4:]) }
