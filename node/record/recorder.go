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
	if r.needKeyframe == nil {
		r.needKeyframe = func() {}
	}
	r.asm = newAssembler(dep, isVideo(codec.MimeType), func(why DropReason) { r.drop(why) })
	return r, nil
}

// packet takes a packet and owns it from then on.
func (r *recorder) packet(p *packet) error {
	now := p.arrival
	for {
		switch r.order.push(p) {
		case pushLate, pushDuplicate:
			r.drop(DropDuplicate)
			release(p)
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

// tick lets time pass.
func (r *recorder) tick(now time.Time) error { return r.settle(now) }

// close hands out whatever is left.
func (r *recorder) close() error {
	var last time.Time
	for r.pop(last, true) {
	}
	if a := r.clock.finish(); a != nil {
		r.out.addArrival(*a, last)
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
	media, window := r.clock.place(p.ts, p.arrival)
	if window != nil {
		r.out.addArrival(*window, p.arrival)
	}
	r.asm.push(p, gap, media, func(f frame) { r.addFrame(f, p.arrival) })
	if r.asm.needKey && p.arrival.Sub(r.lastAsk) >= keyframeRetry {
		r.lastAsk = p.arrival
		r.needKeyframe()
	}
	release(p)
	return true
}

func (r *recorder) addFrame(f frame, now time.Time) {
	if r.out.dueBefore(f.pts) {
		r.flush()
	}
	r.out.addFrame(f, now)
	r.frame()
	if r.out.due(now) {
		r.flush()
	}
}

func (r *recorder) flush() {
	if c := r.out.take(); c != nil && r.err == nil {
		r.err = r.write(c)
	}
}

func release(p *packet) {
	if p.raw != nil {
		buffers.Put(p.raw)
		p.raw = nil
	}
}
