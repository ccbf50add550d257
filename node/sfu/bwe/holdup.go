package bwe

import "time"

const (
	// What something on the path holds up and lets go together, as radio does, arrives
	// fastTimes as fast as what we send does, where a queue that we fill spaces packets as
	// it serves them. If that is so for fastPart of what waits, of the last fastPackets, the
	// delay is no queue of ours.
	fastTimes, fastPart, fastPackets = 4, 0.5, 16
	// A queue that we fill beside that lifts even the quickest packets: those of a
	// floorTime by more than rise twice in a row, or those of floorMean such times by more
	// than slowRise.
	floorTime, floorMean = 250 * time.Millisecond, 4
	rise, slowRise       = 15 * time.Millisecond, 25 * time.Millisecond
)

// holdup knows whether what waits is held up by the path. What comes before something that
// was sent earlier has not waited behind it, and counts as let go.
type holdup struct {
	arrived      time.Duration                  // the newest packet
	fast         float64                        // share of what waits that arrives much faster than is sent,
	waited, idle int                            // of so many packets, and how many since did not wait
	floors       [1 + 2*floorMean]time.Duration // delay of the quickest of this floorTime and of those before
	floorN       int                            // how many of those before there are, while packets are held up
	floorAt      time.Duration
}

// observe takes the next packet, in order of sending. rate is what arrives, in bit/s.
func (h *holdup) observe(oneWay, arrived time.Duration, waits bool, bytes uint16, rate float64) {
	if h.arrived == 0 {
		h.floors[0] = oneWay
	}
	switch {
	case waits:
		h.idle, h.waited = 0, min(h.waited+1, fastPackets)
		h.fast -= h.fast / float64(h.waited)
		if (arrived-h.arrived).Seconds()*rate*fastTimes < 8*float64(bytes) {
			h.fast += 1 / float64(h.waited)
		}
	case h.idle < fastPackets:
		h.idle++
	default:
		h.waited, h.fast = 0, 0
	}
	h.arrived = arrived
	h.floors[0] = min(h.floors[0], oneWay)
}

// judge ends the observations of a feedback. usual is a delay that the next are
// compared with.
func (h *holdup) judge(at, usual time.Duration) {
	if at-h.floorAt < floorTime {
		return
	}
	copy(h.floors[1:], h.floors[:])
	h.floors[0], h.floorAt = usual, at
	if h.floorN = min(h.floorN+1, 2*floorMean); h.fast <= fastPart {
		h.floorN = 0
	}
}

// explains reports whether delays say nothing of a queue that we fill.
func (h *holdup) explains() bool { return h.fast > fastPart && !h.lifted() }

// lifted reports whether even the quickest packets wait longer and longer.
func (h *holdup) lifted() bool {
	f := h.floors[1 : 1+h.floorN]
	if len(f) >= 3 && f[0]-f[1] > rise && f[1]-f[2] > rise {
		return true
	}
	if len(f) < 2*floorMean {
		return false
	}
	var grew time.Duration
	for i := range floorMean {
		grew += f[i] - f[floorMean+i]
	}
	return grew > floorMean*slowRise
}
