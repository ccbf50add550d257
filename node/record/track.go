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
	"sync"
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
}

const (
	// queueSize bounds the packets that wait for the disk: over 3 s of a
	// 3 Mbit/s video, a few MB. Beyond it new packets are dropped: what waits
	// is older and makes a whole frame sooner.
	queueSize = 1024
	tickEvery = 50 * time.Millisecond
	// syncEvery keeps the loss of a power failure under a second.
	syncEvery = 500 * time.Millisecond
)

// Track records one track. WriteRTP and Report never block and may be called
// from any goroutine; Run does the work.
type Track struct {
	// Static after construction.
	w     ClusterWriter
	queue chan message

	// Owned by Run.
	core  *recorder
	dirty bool // written since the last sync

	stopped atomic.Bool
	stats   struct {
		packets, frames, clusters, bytes atomic.Uint64
		drops                            [dropReasons]atomic.Uint64
	}
}

// message is a packet or a report on its way to Run.
type message struct {
	raw     *[]byte // nil for a report
	report  sfu.SenderReport
	arrival time.Time
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1500); return &b }}

// NewTrack returns a track that records into w. It fails for codecs that cannot
// be recorded.
func NewTrack(w ClusterWriter, codec sfu.Codec, opts Options) (*Track, error) {
	t := &Track{w: w, queue: make(chan message, queueSize)}
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
	buf := buffers.Get().(*[]byte)
	*buf = append((*buf)[:0], raw...)
	select {
	case t.queue <- message{raw: buf, arrival: arrival}:
	default:
		buffers.Put(buf)
		t.drop(DropQueueFull)
	}
}

// Report hands over a sender report in the clock of the packets given to
// WriteRTP. It never blocks; a report that finds the queue full is forgotten,
// the next one says the same.
func (t *Track) Report(sr sfu.SenderReport) {
	if t.stopped.Load() {
		return
	}
	select {
	case t.queue <- message{report: sr}:
	default:
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
		case m := <-t.queue:
			err = t.handle(m)
		case now := <-tick.C:
			err = t.core.tick(now)
			if err == nil && t.dirty && now.Sub(synced) >= syncEvery {
				synced, t.dirty = now, false
				err = t.w.Sync()
			}
		}
		if err != nil {
			return err
		}
	}
}

func (t *Track) drain() error {
	for {
		select {
		case m := <-t.queue:
			if err := t.handle(m); err != nil {
				return err
			}
		default:
			return t.core.close()
		}
	}
}

func (t *Track) handle(m message) error {
	if m.raw == nil {
		return t.core.report(m.report)
	}
	var h rtp.Packet
	if err := h.Unmarshal(*m.raw); err != nil {
		t.drop(DropMalformed)
		buffers.Put(m.raw)
		return nil
	}
	return t.core.packet(&packet{
		seq: h.SequenceNumber, ts: h.Timestamp, marker: h.Marker, payload: h.Payload,
		arrival: m.arrival, raw: m.raw,
	})
}

func (t *Track) writeCluster(cluster []byte) error {
	if err := t.w.Write(cluster); err != nil {
		return err
	}
	t.dirty = true
	t.stats.clusters.Add(1)
	t.stats.bytes.Add(uint64(len(cluster)))
	return nil
}
