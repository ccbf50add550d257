package record

import (
	"sync"
	"time"
)

const (
	// reorderWait is how long a missing packet is waited for: a retransmission
	// over two hops of 60 ms, asked for twice.
	reorderWait = 250 * time.Millisecond
	// reorderSlots bounds the packets behind a hole: a second of 10 Mbit/s.
	reorderSlots = 1024
	// seqJump is the distance from which a sequence number is another stream's
	// rather than late or early: RFC 3550 appendix A.1, MAX_DROPOUT.
	seqJump = 3000
)

// packet is one media packet.
type packet struct {
	seq     uint16
	ts      uint32
	marker  bool
	payload []byte
	arrival time.Time
	raw     *[]byte // pooled memory behind payload of one that is kept
	late    uint32  // packets before it for which the disk was too late
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1500); return &b }}

// keep returns a copy that may wait for others.
func (p *packet) keep() *packet {
	kept, buf := *p, buffers.Get().(*[]byte)
	*buf = append((*buf)[:0], p.payload...)
	kept.payload, kept.raw = *buf, buf
	return &kept
}

func (p *packet) release() {
	if p.raw != nil {
		buffers.Put(p.raw)
		p.raw, p.payload = nil, nil
	}
}

// reorder puts packets into sequence and gives up on missing ones after a while.
type reorder struct {
	slots     [reorderSlots]*packet
	held      int
	next      uint16 // the sequence number to come
	started   bool
	holeSince time.Time // when the hole at next was first seen; zero without one
	broken    bool      // the next packet out follows a gap
	skipped   uint32    // packets that were given up, as far as their numbers tell
}

// pushResult says what became of a packet.
type pushResult int

const (
	pushed pushResult = iota
	pushLate
	pushDuplicate
	pushFull // too far ahead: pop with force, then push again
)

// straight reports whether a packet is the one to come and nothing waits, so that it
// need not wait either.
func (r *reorder) straight(p *packet) (gap, ok bool) {
	if !r.started || r.held > 0 || p.seq != r.next {
		return false, false
	}
	gap, r.broken = r.broken, false
	r.next++
	return gap, true
}

// push keeps a packet until it is its turn.
func (r *reorder) push(p *packet) pushResult {
	if !r.started {
		r.started, r.next, r.broken = true, p.seq, true
	}
	ahead := int16(p.seq - r.next)
	switch {
	case ahead >= seqJump || ahead <= -seqJump:
		if r.held > 0 {
			return pushFull
		}
		r.next, r.broken, r.holeSince = p.seq, true, time.Time{}
	case ahead < 0:
		return pushLate
	case ahead >= reorderSlots:
		if r.held > 0 {
			return pushFull
		}
		r.next, r.broken, r.holeSince = p.seq, true, time.Time{}
	}
	slot := &r.slots[p.seq%reorderSlots]
	if *slot != nil {
		return pushDuplicate
	}
	*slot = p
	r.held++
	return pushed
}

// pop returns the next packet, and whether packets before it are missing. It
// skips a hole that is older than reorderWait at now, and any hole with force.
func (r *reorder) pop(now time.Time, force bool) (p *packet, gap bool) {
	if r.held == 0 {
		return nil, false
	}
	if r.slots[r.next%reorderSlots] == nil {
		if r.holeSince.IsZero() {
			r.holeSince = now
		}
		if !force && now.Sub(r.holeSince) < reorderWait {
			return nil, false
		}
		for r.slots[r.next%reorderSlots] == nil {
			r.next++
			r.skipped++
		}
		r.broken = true
	}
	slot := &r.slots[r.next%reorderSlots]
	p, gap = *slot, r.broken
	*slot = nil
	r.held--
	r.next++
	r.holeSince, r.broken = time.Time{}, false
	return p, gap
}
