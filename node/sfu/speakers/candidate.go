package speakers

import (
	"sync/atomic"
	"time"
)

// Candidate is one audio track in a selection.
type Candidate struct {
	// Static.
	id string
	of *Loudest

	// Owned by whoever calls Observe, one call at a time.
	line       timeline
	flag       flag
	onset      uint32 // timestamp at which the sound began that lasts
	forwarding bool   // the answer for the packet before this
	first      uint32 // timestamp of the first packet forwarded since the entry
	sent       uint32 // newest timestamp forwarded, or muted, if any was
	everSent   bool

	// Written by Observe, read by the others' calls of it.
	envelope atomic.Uint64 // loudness, and when it was that: see pack
	heard    atomic.Int64  // newest packet that sounds, Unix ms
	levels   atomic.Bool   // the packets have levels
	waiting  atomic.Int64  // since when a track without levels finds no place, Unix ms; 0: does not wait

	// Written under of.mu.
	seated atomic.Bool
	since  atomic.Int64 // when it took its place, Unix ms
	why    atomic.Uint32
	muted  atomic.Bool
}

// Decision is the answer for one packet.
type Decision struct {
	Forward bool
	// Enter says that forwarding begins with this packet. Before it the packets
	// in the cache with timestamps from From on are forwarded, oldest first.
	Enter bool
	From  uint32
	Why   Reason
}

// Selected reports whether the track is forwarded now.
func (c *Candidate) Selected() bool {
	return !c.muted.Load() && (c.seated.Load() || c.of.open.Load())
}

// Why returns the reason for what Selected says.
func (c *Candidate) Why() Reason {
	switch {
	case c.muted.Load():
		return Muted
	case c.of.open.Load():
		return Open
	}
	return Reason(c.why.Load())
}

// Observe takes a packet of the track and decides whether it is forwarded. A
// packet is observed once, and not those that Enter brings from the cache.
func (c *Candidate) Observe(s Sample, now time.Time) Decision {
	if c.muted.Load() {
		return c.pass(s.TS)
	}
	ms := now.UnixMilli()
	loud, sounds, fresh := c.hear(s, ms)
	switch {
	case !fresh: // late: it follows those of its time
		return Decision{Forward: c.forwarding && int32(s.TS-c.first) >= 0, Why: c.Why()}
	case sounds && !c.seated.Load():
		c.of.contend(c, loud, ms)
	case c.seated.Load() && c.of.over(c, ms) && c.of.mu.TryLock():
		c.of.stand(c, Ended)
		c.of.mu.Unlock()
	}
	return c.decide(s.TS)
}

// pass lets a packet of a muted track go by, so that it does not come from the
// cache later either.
func (c *Candidate) pass(ts uint32) Decision {
	if _, _, fresh := c.line.step(ts); fresh {
		c.sent, c.everSent = ts, true
	}
	c.forwarding = false
	return Decision{Why: Muted}
}

// hear takes note of a packet: how loud it is, whether that is a sound, and
// whether it is newer than those before.
func (c *Candidate) hear(s Sample, ms int64) (loud int64, sounds, fresh bool) {
	_, sound, fresh := c.line.step(s.TS)
	if !fresh {
		return 0, false, false
	}
	if s.Known != c.levels.Load() && s.Known {
		c.levels.Store(true)
		c.waiting.Store(0)
	}
	if c.levels.Load() {
		loud = int64(Silence-min(s.Level, Silence)) * decibel
		sounds = s.Known && c.flag.voiced(s) && loud >= audible
		if !s.Known {
			loud = 0
		}
	} else {
		sounds = s.Size > emptyPayload
	}
	c.envelope.Store(pack(follow(c.loudness(ms), loud, sound), ms))
	if sounds {
		if ms-c.heard.Load() > newSpurt {
			c.onset = s.TS
		}
		c.heard.Store(ms)
	}
	return loud, sounds, true
}

// decide is the answer for a packet that is the newest.
func (c *Candidate) decide(ts uint32) Decision {
	d := Decision{Forward: c.Selected(), Why: c.Why(), From: ts}
	if d.Forward && !c.forwarding {
		d.Enter, d.From = true, c.from(ts)
		c.first = d.From
	}
	if d.Forward {
		c.sent, c.everSent = ts, true
	}
	c.forwarding = d.Forward
	return d
}

// from is the timestamp with which forwarding begins: a little before the sound
// that lasts, not further back than PreRoll, and never what was forwarded already.
func (c *Candidate) from(ts uint32) uint32 {
	back := min(int32(ts-c.onset)+c.ticks(lead), c.ticks(PreRoll))
	if !c.seated.Load() || back < 0 {
		back = 0
	}
	if since := int32(ts - c.sent); c.everSent && since > 0 {
		back = min(back, since-1)
	}
	return ts - uint32(back)
}

func (c *Candidate) ticks(d time.Duration) int32 {
	return int32(d * time.Duration(c.line.rate) / time.Second)
}

// refused notes that a track without levels has to wait.
func (c *Candidate) refused(ms int64) {
	if Reason(c.why.Load()) != Displaced {
		c.why.Store(uint32(NoPlace))
	}
	if !c.levels.Load() {
		c.waiting.CompareAndSwap(0, ms)
	}
}

// place returns the index of the track's place, or -1.
func (c *Candidate) place() int {
	for i := range c.of.places {
		if c.of.places[i].Load() == c {
			return i
		}
	}
	return -1
}

// loudness is the track's envelope, fallen since its newest packet.
func (c *Candidate) loudness(ms int64) int64 {
	v, at := unpack(c.envelope.Load())
	return max(0, v-release*max(0, ms-at))
}

// follow moves an envelope to a packet's loudness: up by attack for as long as
// the packet sounds, down not at all, since time has done that.
func follow(envelope, loud int64, sound time.Duration) int64 {
	if loud <= envelope {
		return envelope
	}
	return min(loud, envelope+attack*sound.Milliseconds())
}

// An envelope is one word, so that others read it whole: 16 bits of loudness
// above 48 bits of Unix milliseconds.
func pack(loudness, ms int64) uint64 { return uint64(loudness)<<48 | uint64(ms)&(1<<48-1) }

func unpack(w uint64) (loudness, ms int64) { return int64(w >> 48), int64(w & (1<<48 - 1)) }
