package record

import (
	"fmt"
	"time"

	"github.com/domicile/domicile/node/sfu"
)

// recorder is the part of a Track without queue, goroutine and clock: packets
// and the time in, clusters out.
type recorder struct {
	// Static after construction.
	needKeyframe func()
	write        func(cluster []byte) error
	drop         func(DropReason)
	frame        func()

	order   reorder
	clock   mediaClock
	asm     *assembler
	out     clusterBuilder
	lastAsk time.Time // when a keyframe was last asked for
	gaps    gapFinder
	framed  time.Time // when the last packet of the newest frame came
	late    uint32    // packets since then that the disk was too late for
	err     error     // of the first write that failed
}

func newRecorder(codec sfu.Codec, opts Options, write func([]byte) error) (*recorder, error) {
	dep, err := newDepacketizer(codec)
	if err != nil {
		return nil, err
	}
	if codec.ClockRate == 0 {
		return nil, fmt.Errorf("codec %q has no clock rate", codec.MimeType)
	}
	r := &recorder{
		needKeyframe: opts.NeedKeyframe,
		write:        write,
		drop:         func(DropReason) {},
		frame:        func() {},
		clock:        mediaClock{rate: int64(codec.ClockRate), zero: opts.Start},
	}
	r.gaps = gapFinder{zero: opts.Start, write: func(g gap, now time.Time) { r.out.addGap(g, now) }}
	if !opts.Gone.IsZero() {
		r.gaps.goesOn(opts.Gone)
	}
	if r.needKeyframe == nil {
		r.needKeyframe = func() {}
	}
	r.asm = newAssembler(dep, isVideo(codec.MimeType), func(why DropReason) { r.drop(why) })
	return r, nil
}

// packet takes a packet, which is valid during the call.
func (r *recorder) packet(p *packet) error {
	now := p.arrival
	r.gaps.came(now)
	if gap, ok := r.order.straight(p); ok {
		r.take(p, gap)
		return r.settle(now)
	}
	p = p.keep()
	for {
		switch r.order.push(p) {
		case pushLate, pushDuplicate:
			r.drop(DropDuplicate)
			p.release()
		case pushFull:
			r.pop(now, true)
			continue
		}
		return r.settle(now)
	}
}

// report takes a sender report.
func (r *recorder) report(sr sfu.SenderReport) error {
	if a := r.clock.report(sr.NTP, sr.RTP, sr.Arrival); a != nil {
		r.out.addReport(*a, sr.Arrival)
	}
	return r.settle(sr.Arrival)
}

// tick lets time pass. Nothing that has come waits to be taken.
func (r *recorder) tick(now time.Time, s State) error {
	r.gaps.tick(now, s)
	return r.settle(now)
}

// close hands out whatever is left, and says why nothing follows if that has a cause.
func (r *recorder) close(why ending) error {
	var last time.Time
	for r.pop(last, true) {
	}
	if a := r.clock.finish(); a != nil {
		r.out.addArrival(*a, last)
	}
	if why.cause != 0 {
		r.gaps.ends(why.cause, why.at)
	}
	r.flush()
	return r.err
}

func (r *recorder) settle(now time.Time) error {
	for r.pop(now, false) {
	}
	if r.out.due(now) {
		r.flush()
	}
	return r.err
}

// pop moves one packet from the reorder buffer to the assembler.
func (r *recorder) pop(now time.Time, force bool) bool {
	p, gap := r.order.pop(now, force)
	if p == nil {
		return false
	}
	r.take(p, gap)
	p.release()
	return true
}

// take hands the next packet to the assembler.
func (r *recorder) take(p *packet, gap bool) {
	r.late += p.late
	media, window := r.clock.place(p.ts, p.arrival)
	if window != nil {
		r.out.addArrival(*window, p.arrival)
	}
	r.asm.push(p, gap, media, func(f frame) { r.addFrame(f, p.arrival) })
	if r.asm.needKey && p.arrival.Sub(r.lastAsk) >= keyframeRetry {
		r.lastAsk = p.arrival
		r.needKeyframe()
	}
}

func (r *recorder) addFrame(f frame, now time.Time) {
	if r.out.dueBefore(f.pts) {
		r.flush()
	}
	if f.gap && !r.framed.IsZero() {
		r.missing(now)
	}
	r.framed, r.late, r.order.skipped = now, 0, 0
	r.out.addFrame(f, now)
	r.frame()
	if r.out.due(now) {
		r.flush()
	}
}

// missing marks what is missing before the frame whose last packet came now.
func (r *recorder) missing(now time.Time) {
	if r.late > 0 {
		r.gaps.missing(DiskLate, r.framed, now, r.late)
		return
	}
	r.gaps.missing(Loss, r.framed, now, r.order.skipped)
}

func (r *recorder) flush() {
	if c := r.out.take(); c != nil && r.err == nil {
		r.err = r.write(c)
	}
}
