// Package record takes a track's RTP packets to the vault, and recordings out of
// it into files that players open.
//
// Recording copies and queues packets on the media path and does everything
// else in a goroutine of its own: live media never waits for the disk. Packets
// become frames, frames become clusters of at most 250 ms, and the vault seals
// them. It decides nothing about consent or residency: whoever attaches a Track
// has asked before.
package record

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/sfu"
)

// ClusterWriter stores the clusters of one track; vault.TrackWriter is one.
type ClusterWriter interface {
	Write(cluster []byte) error // the cluster may be reused afterwards
	Sync() error                // what was written survives a power loss
	Close() error               // ends the track
}

// DropReason says why something was not recorded.
type DropReason int

// The reasons for a drop. The first three count packets, the others frames or
// packets that belong to no frame.
const (
	DropQueueFull  DropReason = iota // the disk did not keep up
	DropStopped                      // the track is not being written any more
	DropDuplicate                    // came twice, or after it was given up
	DropMalformed                    // not RTP, or not of the track's codec
	DropIncomplete                   // parts of the frame are missing
	DropNoKeyframe                   // refers to pictures that are missing
	dropReasons
)

// String names the reason as metrics and logs show it.
func (r DropReason) String() string {
	names := [dropReasons]string{"queue_full", "stopped", "duplicate", "malformed", "incomplete", "no_keyframe"}
	if r < 0 || r >= dropReasons {
		return fmt.Sprintf("reason %d", int(r))
	}
	return names[r]
}

// Stats counts what a track did.
type Stats struct {
	Packets  uint64 // handed over
	Frames   uint64 // recorded
	Clusters uint64
	Bytes    uint64 // of clusters, before sealing
	Drops    map[DropReason]uint64
}

// Options tell a track about its surroundings.
type Options struct {
	// Start is the zero of the recording's timeline (vault.Recording.Started).
	Start time.Time

	// NeedKeyframe asks the publisher for a keyframe, at most every 500 ms. It is
	// called from the goroutine of Run and must not block. Video needs it.
	NeedKeyframe func()

	// Gone is set in a part of a track that was recorded before: since then nothing of
	// it came.
	Gone time.Time
}

const (
	// tickEvery is how often what has come is taken from the queue.
	tickEvery = 50 * time.Millisecond
	// syncEvery keeps the loss of a power failure under a second.
	syncEvery = 500 * time.Millisecond
)

// Track records one track. WriteRTP and Report never block and may be called
// from any goroutine; Run does the work.
type Track struct {
	// Static after construction.
	w     ClusterWriter
	queue *queue

	// Owned by Run.
	core  *recorder
	head  rtp.Packet // of the packet at hand
	spare batch      // memory for the next one
	dirty bool       // written since the last sync

	state   atomic.Uint32 // bits of what the room knows: stateMuted, stateAway
	late    atomic.Uint32 // packets dropped since the last one that found room in the queue
	why     atomic.Pointer[ending]
	stopped atomic.Bool
	waits   atomic.Int64 // since when Run is at the disk, in ns since 1970; 0: it is not
	stats   struct {
		packets, frames, clusters, bytes atomic.Uint64
		drops                            [dropReasons]atomic.Uint64
	}
}

const (
	stateMuted = 1 << iota
	stateAway
)

// ending says why a track ends, if it has a cause, and when it did.
type ending struct {
	cause Cause
	at    time.Time
}

// NewTrack returns a track that records into w. It fails for codecs that cannot
// be recorded.
func NewTrack(w ClusterWriter, codec sfu.Codec, opts Options) (*Track, error) {
	t := &Track{w: w, queue: newQueue()}
	core, err := newRecorder(codec, opts, t.writeCluster)
	if err != nil {
		return nil, fmt.Errorf("record track: %w", err)
	}
	core.drop = t.drop
	core.frame = func() { t.stats.frames.Add(1) }
	t.core = core
	return t, nil
}

// WriteRTP hands over a copy of a packet that arrived at arrival. It never blocks.
func (t *Track) WriteRTP(raw []byte, arrival time.Time) {
	t.stats.packets.Add(1)
	if t.stopped.Load() {
		t.drop(DropStopped)
		return
	}
	late := t.late.Swap(0)
	if !t.queue.put(raw, item{arrival: arrival, late: late}) {
		t.late.Add(late + 1)
		t.drop(DropQueueFull)
	}
}

// Note takes what the room knows of the track now. It never blocks, and may be called
// as often as one likes.
func (t *Track) Note(s State) {
	var bits uint32
	if s.Muted {
		bits |= stateMuted
	}
	if s.Away {
		bits |= stateAway
	}
	t.state.Store(bits)
}

// Ends says why nothing is recorded from now on. It is called before the context of Run
// ends.
func (t *Track) Ends(c Cause, now time.Time) { t.why.CompareAndSwap(nil, &ending{c, now}) }

// Report hands over a sender report in the clock of the packets given to
// WriteRTP. It never blocks; a report that finds the queue full is forgotten,
// the next one says the same.
func (t *Track) Report(sr sfu.SenderReport) {
	if !t.stopped.Load() {
		t.queue.put(nil, item{report: &sr})
	}
}

// Stats returns the counters as they are now.
func (t *Track) Stats() Stats {
	s := Stats{
		Packets: t.stats.packets.Load(), Frames: t.stats.frames.Load(),
		Clusters: t.stats.clusters.Load(), Bytes: t.stats.bytes.Load(),
		Drops: map[DropReason]uint64{},
	}
	for r := range dropReasons {
		if n := t.stats.drops[r].Load(); n > 0 {
			s.Drops[r] = n
		}
	}
	return s
}

func (t *Track) drop(r DropReason) { t.stats.drops[r].Add(1) }

// Behind is for how long the disk has not taken what it was given.
func (t *Track) Behind(now time.Time) time.Duration {
	since := t.waits.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// atDisk notes how long something takes that waits for the disk.
func (t *Track) atDisk(do func() error) error {
	t.waits.Store(time.Now().UnixNano())
	defer t.waits.Store(0)
	return do()
}

// Run records until ctx ends, then writes what is queued and closes the writer.
// It returns at once with the error of a write that failed, such as a full disk;
// what was written before stays valid. Run is called once.
func (t *Track) Run(ctx context.Context) error {
	err := t.loop(ctx)
	t.stopped.Store(true)
	if err == nil {
		err = t.drain()
	}
	if err := errors.Join(err, t.w.Close()); err != nil {
		return fmt.Errorf("record track: %w", err)
	}
	return nil
}

func (t *Track) loop(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	synced := time.Now()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-t.queue.wake:
			err = t.takeAll()
		case now := <-tick.C:
			bits := t.state.Load()
			if err = t.takeAll(); err == nil {
				err = t.core.tick(now, State{Muted: bits&stateMuted != 0, Away: bits&stateAway != 0})
			}
			if err == nil && t.dirty && now.Sub(synced) >= syncEvery {
				synced, t.dirty = now, false
				err = t.atDisk(t.w.Sync)
			}
		}
		if err != nil {
			return err
		}
	}
}

func (t *Track) drain() error {
	if err := t.takeAll(); err != nil {
		return err
	}
	return t.core.close(t.ending())
}

// ending is why nothing follows, if that has a cause.
func (t *Track) ending() ending {
	if e := t.why.Load(); e != nil {
		return *e
	}
	if t.late.Load() > 0 {
		return ending{DiskLate, t.core.framed}
	}
	return ending{}
}

// takeAll records what waits.
func (t *Track) takeAll() error {
	b := t.queue.take(t.spare)
	rest := b.data
	for _, m := range b.items {
		raw := rest[:m.size]
		rest = rest[m.size:]
		if err := t.handle(raw, m); err != nil {
			return err
		}
	}
	t.spare = b.emptied()
	return nil
}

func (t *Track) handle(raw []byte, m item) error {
	if m.report != nil {
		return t.core.report(*m.report)
	}
	h := &t.head
	if err := h.Unmarshal(raw); err != nil {
		t.drop(DropMalformed)
		t.late.Add(m.late)
		return nil
	}
	return t.core.packet(&packet{
		seq: h.SequenceNumber, ts: h.Timestamp, marker: h.Marker, payload: h.Payload,
		arrival: m.arrival, late: m.late,
	})
}

func (t *Track) writeCluster(cluster []byte) error {
	if err := t.atDisk(func() error { return t.w.Write(cluster) }); err != nil {
		return err
	}
	t.dirty = true
	t.stats.clusters.Add(1)
	t.stats.bytes.Add(uint64(len(cluster)))
	return nil
}
