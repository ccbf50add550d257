// Package speakers decides from the audio levels that publishers put into their
// packets (RFC 6464) who speaks in a room: whom clients are told about (Active),
// and, in a room of many open microphones, whose sound is forwarded (Loudest).
//
// Levels are the publisher's word: who claims to be loud is heard, and it is for a
// moderator to mute them.
//
// It hears nothing: levels lie in the header, so end-to-end encrypted sound is
// judged like any other. It moves no packets, starts no goroutine and reads no
// clock.
//
// # In a mesh
//
// Levels travel with the packets, since links carry whole RTP packets. A node
// keeps two selections of a room. One is among its own publishers only, and
// what it picks is all that leaves for other nodes: a node gets at most Places
// tracks from each other node. The other is among everything that arrives, own
// and relayed, and decides what the attendees here get. A voice among the
// loudest of the whole room is among the loudest of its own node, so the first
// selection takes nothing from the second. No node tells another its choice:
// all apply one rule to the same levels, and differ for as long as packets are
// under way. Whoever stops at the first selection falls silent at the second,
// whose hangover began with the same last word.
package speakers

import "time"

// Silence is the level of digital silence, in -dBov; 0 is the loudest.
const Silence uint8 = 127

// Sample is what one packet says about the sound it holds.
type Sample struct {
	TS    uint32 // RTP timestamp
	Level uint8  // -dBov, 0 to 127
	Voice bool   // the sender heard a voice in it
	Known bool   // the packet has a level; if not, Level and Voice mean nothing
	Size  int    // bytes of payload
}

const (
	// longestFrame is the longest Opus packet (RFC 6716 section 2.1.4). A longer
	// step of the clock is a pause of the sender (DTX), and the packet after it
	// holds a usual frame.
	longestFrame = 120 * time.Millisecond
	usualFrame   = 20 * time.Millisecond
	// newClock is how far the clock may step back before it counts as another
	// one, of a sender that started anew. Reordering stays far below.
	newClock = 5 * time.Second
	// longestStep bounds what one packet can pass for, whatever its timestamp says.
	longestStep = 10 * time.Second
)

// timeline follows the RTP clock of a track.
type timeline struct {
	rate    uint32 // Hz
	started bool
	newest  uint32
}

// step moves to a packet's timestamp. It returns the time since the packet
// before it, and how much of that the packet holds as sound; it reports false for a
// packet from before the newest, and a second one of the same instant.
func (t *timeline) step(ts uint32) (elapsed, sound time.Duration, ok bool) {
	ahead := int32(ts - t.newest)
	back := time.Duration(-int64(ahead)) * time.Second / time.Duration(t.rate)
	switch {
	case !t.started, back > newClock:
		t.started, t.newest = true, ts
		return usualFrame, usualFrame, true
	case ahead <= 0:
		return 0, 0, false
	}
	t.newest = ts
	elapsed = min(time.Duration(ahead)*time.Second/time.Duration(t.rate), longestStep)
	if elapsed > longestFrame {
		return elapsed, usualFrame, true
	}
	return elapsed, elapsed, true
}

// flag learns whether a sender uses the voice flag at all. Many leave it 0
// ("vad=off", RFC 6464 section 4): its absence means something only from a
// sender that has set it before.
type flag bool

func (f *flag) voiced(s Sample) bool {
	*f = *f || flag(s.Voice)
	return s.Voice || !bool(*f)
}
