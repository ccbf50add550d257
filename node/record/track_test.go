package record

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/sfu"
)

// slowDisk is a ClusterWriter whose writes can be held up or made to fail.
type slowDisk struct {
	held chan struct{} // writes wait until it is closed; nil: they do not
	fail error

	mu       sync.Mutex
	clusters [][]byte
	syncs    int
	closed   bool
}

func (d *slowDisk) Write(b []byte) error {
	if d.held != nil {
		<-d.held
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.clusters = append(d.clusters, append([]byte(nil), b...))
	return nil
}

func (d *slowDisk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	return nil
}

func (d *slowDisk) Close() error { d.closed = true; return nil }

func (d *slowDisk) frames(t *testing.T) (n int) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.clusters {
		for e, err := range entries(c) {
			must(t, err)
			if e.frame != nil {
				n++
			}
		}
	}
	return n
}

func opusPacket(seq int) []byte {
	p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 111, SequenceNumber: uint16(seq), Timestamp: uint32(seq) * 960}, Payload: []byte{0xf8, 1, 2, byte(seq)}}
	raw, err := p.Marshal()
	if err != nil {
		panic(err)
	}
	return raw
}

// runTrack starts a track over d inside a synctest bubble.
func runTrack(t *testing.T, d *slowDisk) (tr *Track, stop func() error) {
	t.Helper()
	tr, err := NewTrack(d, codecOpus, Options{Start: time.Now()})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	return tr, func() error {
		cancel()
		return <-done
	}
}

func TestTrackRecordsWhatItIsGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		tr, stop := runTrack(t, d)
		for i := range 100 {
			raw := opusPacket(i)
			tr.WriteRTP(raw, time.Now())
			clear(raw) // valid only during the call
			time.Sleep(20 * time.Millisecond)
		}
		tr.WriteRTP([]byte{1, 2, 3}, time.Now())
		must(t, stop())
		s := tr.Stats()
		if n := d.frames(t); n != 100 || s.Frames != 100 || s.Packets != 101 || s.Drops[DropMalformed] != 1 {
			t.Errorf("%d frames, stats %+v", n, s)
		}
		if !d.closed || d.syncs < 3 {
			t.Errorf("closed %v, %d syncs in 2 s", d.closed, d.syncs)
		}
		tr.WriteRTP(opusPacket(101), time.Now())
		tr.Report(sfu.SenderReport{})
		if n := tr.Stats().Drops[DropStopped]; n != 1 {
			t.Errorf("%d packets after the end", n)
		}
	})
}

// At any moment what a dying process would lose is 250 ms at most (G9): packets
// that arrived earlier have been written.
func TestNothingWaitsLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		tr, stop := runTrack(t, d)
		sent := 0
		for step := range 400 {
			if step%100 < 60 { // pauses of 400 ms, so that clusters must close by time
				tr.WriteRTP(opusPacket(sent), time.Now())
				sent++
			}
			due := sent // frames older than 250 ms
			if step%100 < 60 {
				due = max(0, sent-25)
			} else if step%100 < 85 {
				due = max(0, sent-(85-step%100))
			}
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if n := d.frames(t); n < due {
				t.Fatalf("step %d: %d frames written of %d that are older than 250 ms", step, n, due)
			}
		}
		must(t, stop())
	})
}

// A disk that stands still drops packets of the recording, and nothing waits.
func TestStuckDiskDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{held: make(chan struct{})}
		tr, stop := runTrack(t, d)
		start := time.Now()
		for i := range 2 * queueSize {
			tr.WriteRTP(opusPacket(i), start.Add(time.Duration(i)*20*time.Millisecond))
			tr.Report(sfu.SenderReport{NTP: 1 << 32, Arrival: start})
		}
		if time.Since(start) != 0 {
			t.Error("WriteRTP waited")
		}
		synctest.Wait()
		if s := tr.Stats(); s.Drops[DropQueueFull] < queueSize/2 {
			t.Errorf("stats %+v", s)
		}
		close(d.held)
		must(t, stop())
		s := tr.Stats()
		if uint64(d.frames(t)) != s.Frames || s.Frames+s.Drops[DropQueueFull] != 2*queueSize {
			t.Errorf("%d frames on disk, stats %+v", d.frames(t), s)
		}
	})
}

// What live media waits for is a copy: no memory is asked for, whatever waits for the disk.
func TestHandingOverAllocatesNothing(t *testing.T) {
	tr, err := NewTrack(&slowDisk{}, codecOpus, Options{Start: time.Now()})
	must(t, err)
	raw, at := make([]byte, 1200), time.Now()
	fill := func() {
		for range queueKeeps / 2400 {
			tr.WriteRTP(raw, at)
		}
		tr.spare = tr.queue.take(tr.spare).emptied()
	}
	fill()
	fill() // both batches have their memory
	if n := testing.AllocsPerRun(20, fill); n > 0 {
		t.Errorf("%v allocations in %d packets", n, queueKeeps/2400)
	}
}

func TestWriteErrorEndsTheTrack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space")
		d := &slowDisk{fail: full}
		tr, err := NewTrack(d, codecOpus, Options{Start: time.Now()})
		must(t, err)
		tr.WriteRTP(opusPacket(0), time.Now())
		start := time.Now()
		if err := tr.Run(t.Context()); !errors.Is(err, full) {
			t.Fatalf("error %v", err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("told after %v, want within a second (G10)", d)
		}
		if !d.closed {
			t.Error("the writer was not closed")
		}
	})
}

func TestUnknownCodec(t *testing.T) {
	for _, c := range []sfu.Codec{{}, {MimeType: "video/H265", ClockRate: 90000}, {MimeType: "audio/opus"}} {
		if _, err := NewTrack(&slowDisk{}, c, Options{}); err == nil {
			t.Errorf("codec %+v was accepted", c)
		}
	}
}
