package relay

import "time"

// A link whose two nodes share tracks is watched closely. Its nodes ask each other
// often enough that a silence of suspectAfter means something:
//
//	beat            share of packets lost   chance that suspectAfter passes without one
//	25 ms, in order          0              none: five would have to be late
//	10 ms, overtaking        5 %            e^-23 for each packet, once in a year
//	 5 ms, overtaking        5 %            e^-46
//
// where overtaking means a jitter of 100 ms, behind which arrivals are as good as
// random. So a path that shows gaps is asked more often, and one that is calm less;
// the limit stays, and with it how long a dead node is believed to live.
const (
	suspectAfter = 125 * time.Millisecond // 200 ms, less two beats and 25 ms of the way
	pressAfter   = 60 * time.Millisecond  // a gap that asks for a faster beat

	calmBeat  = 25 * time.Millisecond // 40 packets a second each way, or what media needs anyhow
	firstBeat = 10 * time.Millisecond // until the path is known
	leastBeat = 5 * time.Millisecond

	firstCalm = 10 * time.Second // without a gap, before the first beat is slowed
	calmFor   = 30 * time.Second // likewise, after a gap
	// settle is what a closer watch waits before it suspects: the longest round trip
	// until the first answer, and the peer's next look.
	settle = time.Second
	// steadyFor is how long packets have to arrive without a gap of pressAfter before a
	// suspicion ends, so that a path that flaps is not taken for one that works.
	steadyFor = 100 * time.Millisecond
)

// vigil judges a peer by whether packets arrive from it. It reads no clock. A
// silence first makes the peer suspect: whoever has another way takes it, and nothing
// is given up. A longer one is the link's end.
//
// Silence is counted only while this process is awake: between two looks that are far
// apart, it stood still itself.
type vigil struct {
	idle  time.Duration // the beat of a link that is not watched closely
	limit time.Duration // of silence, before the peer is dead

	beat    time.Duration // until the next look
	looked  time.Time
	packets uint64
	silent  time.Duration
	pressed bool          // this silence has made the beat faster already
	steady  time.Duration // for which packets have arrived without a gap

	close   bool
	closeAt time.Time // since then
	calmAt  time.Time // then the beat is slowed

	deaf    time.Time // until then the peer counts as hearing nothing of this node
	suspect bool
}

func newVigil(idle, limit time.Duration, now time.Time) vigil {
	return vigil{idle: idle, limit: limit, beat: idle, looked: now}
}

// glance is what a look finds.
type glance struct {
	packets uint64 // received on the link so far, of whatever kind
	deaf    bool   // since the last look the peer has said that it hears nothing
	close   bool   // the nodes share tracks
}

// look takes in what was found and reports whether the peer is dead. It is to be
// called again after v.beat.
func (v *vigil) look(now time.Time, g glance) (dead bool) {
	v.count(now, g.packets)
	if g.deaf {
		v.deaf = now.Add(suspectAfter)
	}
	v.draw(now, g.close)
	v.pace(now)
	v.judge(now)
	return v.silent >= v.limit
}

// count notes how long nothing has arrived.
func (v *vigil) count(now time.Time, packets uint64) {
	awake := min(max(now.Sub(v.looked), 0), 2*v.beat)
	v.looked = now
	if packets != v.packets {
		v.packets, v.silent, v.pressed = packets, 0, false
		v.steady += awake
		return
	}
	v.silent += awake
	if v.steady += awake; v.silent >= pressAfter {
		v.steady = 0
	}
}

// draw begins to watch closely, or leaves it.
func (v *vigil) draw(now time.Time, close bool) {
	if close == v.close {
		return
	}
	v.close, v.beat, v.suspect = close, v.idle, v.suspect && close
	if close {
		v.beat, v.closeAt, v.calmAt = min(v.idle, firstBeat), now, now.Add(firstCalm)
	}
}

// pace asks more often where packets come with gaps, and less where they do not.
func (v *vigil) pace(now time.Time) {
	switch {
	case !v.close:
	case v.silent >= pressAfter && !v.pressed:
		v.pressed, v.beat, v.calmAt = true, max(v.beat/2, min(leastBeat, v.idle)), now.Add(calmFor)
	case !now.Before(v.calmAt) && v.silent < pressAfter:
		v.beat, v.calmAt = min(2*v.beat, calmBeat, v.idle), now.Add(calmFor)
	}
}

func (v *vigil) judge(now time.Time) {
	switch {
	case !v.close || now.Sub(v.closeAt) < settle:
	case v.hearsNothing() || now.Before(v.deaf):
		v.suspect = true
	case v.steady >= steadyFor:
		v.suspect = false
	}
}

// hearsNothing reports whether the peer's silence makes it suspect; it is told so,
// for it may be this direction alone that is cut.
func (v *vigil) hearsNothing() bool { return v.close && v.silent >= suspectAfter }
