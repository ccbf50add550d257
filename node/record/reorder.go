package record

import "time"

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

// packet is one media packet, kept by its owner.
type packet struct {
	seq     uint16
	ts      uint32
	marker  bool
	payload []byte
	arrival time.Time
	raw     *[]byte // pooled memory behind payload, nil if there is none
}

// reorder puts packets into sequence and gives up on missing ones after a while.
type reorder struct {
	slots     [reorderSlots]*packet
	held      int
	next      uint16 // the sequence number to come
	started   bool
	holeSince time.Time // when the hole at next was first seen; zero without one
	broken    bool      // the next packet out follows a gap
}

// pushResult says what became of a packet.
type pushResult int

const (
	pushed pushResult = iota
	pushLate
	pushDuplicate
	pushFull // too far ahead: pop with force, then push again
)

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
