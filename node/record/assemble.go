package record

import "time"

const (
	// maxFrame bounds a frame in assembly; a 4K keyframe has some hundred kB.
	maxFrame = 4 << 20
	// keyframeRetry is how often a missing keyframe is asked for: an answer
	// takes a round trip to the publisher and a frame interval.
	keyframeRetry = 500 * time.Millisecond
)

// assembler makes frames of packets in sequence. Incomplete frames are dropped;
// video behind a loss is dropped up to the next keyframe, since everything
// before that refers to what is missing.
type assembler struct {
	dep   depacketizer
	video bool
	drop  func(DropReason)

	open    bool // a frame is being assembled
	broken  bool // … but one of its payloads was bad
	ts      uint32
	pts     int64
	buf     []byte
	intact  bool // the packet before this one was there
	needKey bool
	gap     bool // something was dropped since the last frame out
}

func newAssembler(dep depacketizer, video bool, drop func(DropReason)) *assembler {
	return &assembler{dep: dep, video: video, drop: drop, needKey: video}
}

// push takes the next packet at media time pts and calls out for each frame it
// completes. The frame's data is valid during the call.
func (a *assembler) push(p *packet, gap bool, pts int64, out func(frame)) {
	if gap {
		a.lose()
	}
	if a.open && p.ts != a.ts {
		a.complete(out) // a sender that sets no marker
	}
	if len(p.payload) == 0 {
		a.intact = true // padding: nothing to store, nothing missing
		return
	}
	if !a.open {
		if !a.dep.starts(p.payload, a.intact) {
			a.drop(DropIncomplete)
			a.spoil()
			a.intact = p.marker
			return
		}
		a.open, a.broken, a.ts, a.pts, a.buf = true, false, p.ts, pts, a.buf[:0]
		a.dep.begin()
	}
	a.intact = true
	a.append(p.payload)
	if p.marker || !a.video {
		a.complete(out)
	}
}

func (a *assembler) append(payload []byte) {
	var err error
	if a.buf, err = a.dep.add(a.buf, payload); err != nil || len(a.buf) > maxFrame {
		a.buf, a.broken = a.buf[:0], true
	}
}

// lose notes that packets are missing here.
func (a *assembler) lose() {
	if a.open {
		a.drop(DropIncomplete)
	}
	a.open, a.intact = false, false
	a.spoil()
}

// spoil notes that a frame is missing here.
func (a *assembler) spoil() {
	a.gap = true
	a.needKey = a.needKey || a.video
}

func (a *assembler) complete(out func(frame)) {
	a.open = false
	if a.broken {
		a.drop(DropMalformed)
		a.spoil()
		return
	}
	data, key := a.dep.finish(a.buf)
	switch {
	case len(data) == 0:
	case a.needKey && !key:
		a.drop(DropNoKeyframe)
		a.gap = true
	default:
		out(frame{pts: a.pts, keyframe: key, gap: a.gap, data: data})
		a.needKey, a.gap = false, false
	}
}
