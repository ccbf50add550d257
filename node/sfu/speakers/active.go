package speakers

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What counts as speaking: the figures of LiveKit's server, whose clients draw
// their indicators for them.
const (
	// Interval is how often Update is to be called, and the span over which a
	// level is taken.
	Interval = 400 * time.Millisecond
	// activeLevel is the quietest sound that counts, in -dBov.
	activeLevel = 35
	// activeShare is the part of an Interval that has to be that loud: a click
	// or a cough is shorter.
	activeShare = 0.4
	// smoothing is the weight of the newest of two intervals in an exponential
	// mean, so that the indicator does not tremble.
	smoothing = 2.0 / 3
	// steps is the number of levels that clients are told apart.
	steps = 8
)

// Owner names who is heard: a participant's sid. One with two microphones is
// as loud as the louder.
type Owner string

// Speaker is what clients are told of somebody (LiveKit's SpeakerInfo).
type Speaker struct {
	Owner  Owner
	Level  float32 // linear amplitude, 0 to 1
	Active bool
}

// Active tells who speaks. A node asks it about its own publishers and tells
// clients and other nodes the changes.
//
// Each Meter is written by its track's read loop alone; mu guards the list and
// is not taken for a packet.
type Active struct {
	mu     sync.Mutex
	meters map[*Meter]struct{}
	told   map[Owner]Speaker // whom the last Update left as speaking
}

// NewActive returns a room in which nobody speaks.
func NewActive() *Active {
	return &Active{meters: map[*Meter]struct{}{}, told: map[Owner]Speaker{}}
}

// Meter measures one audio track.
type Meter struct {
	owner Owner // static

	// Owned by whoever calls Observe, one call at a time.
	line     timeline
	flag     flag
	loudest  uint8 // of the packets that count in this interval
	speaking time.Duration
	observed time.Duration

	// Written by Observe, read by Update.
	level atomic.Uint64 // smoothed, linear; the bits of a float64
	at    atomic.Int64  // of the newest packet, Unix nanoseconds
}

// Add begins to measure a track whose RTP clock has the given rate in Hz.
func (a *Active) Add(owner Owner, clockRate uint32) *Meter {
	m := &Meter{owner: owner, line: timeline{rate: max(clockRate, 1)}, loudest: Silence}
	a.mu.Lock()
	a.meters[m] = struct{}{}
	a.mu.Unlock()
	return m
}

// Remove ends a measurement. The next Update says that the owner is silent,
// unless another track is heard.
func (a *Active) Remove(m *Meter) {
	a.mu.Lock()
	delete(a.meters, m)
	a.mu.Unlock()
}

// Observe takes a packet of the track. One without a level says nothing.
func (m *Meter) Observe(s Sample, now time.Time) {
	if !s.Known {
		return
	}
	elapsed, sound, ok := m.line.step(s.TS)
	if !ok {
		return
	}
	if now.UnixNano()-m.at.Load() >= int64(2*Interval) {
		m.begin(0)
	}
	m.at.Store(now.UnixNano())
	m.observed += elapsed
	if m.flag.voiced(s) && s.Level <= activeLevel {
		m.speaking += sound
		m.loudest = min(m.loudest, s.Level)
	}
	if m.observed >= Interval {
		m.begin(m.interval())
	}
}

// interval is the smoothed level at the end of an interval: the loudest sound,
// reduced by the part of the interval that was quiet.
func (m *Meter) interval() float64 {
	share := float64(m.speaking) / float64(Interval)
	if share < activeShare {
		return 0
	}
	before := math.Float64frombits(m.level.Load())
	return before + (min(linear(m.loudest)*share, 1)-before)*smoothing
}

// begin starts an interval after one that ended with the given level.
func (m *Meter) begin(level float64) {
	m.level.Store(math.Float64bits(level))
	m.loudest, m.speaking, m.observed = Silence, 0, 0
}

// heard returns the level now: a track without packets is silent.
func (m *Meter) heard(now time.Time) float64 {
	if now.UnixNano()-m.at.Load() >= int64(2*Interval) {
		return 0
	}
	return math.Float64frombits(m.level.Load())
}

// Update returns what changed since the last call, who speaks first and the
// loudest of them first. Whoever fell silent is told once, with level 0. The
// owner calls it every Interval.
func (a *Active) Update(now time.Time) []Speaker {
	a.mu.Lock()
	defer a.mu.Unlock()
	speaking := a.speaking(now)
	var changed []Speaker
	for owner, s := range speaking {
		if a.told[owner] != s {
			changed = append(changed, s)
		}
	}
	for owner := range a.told {
		if _, still := speaking[owner]; !still {
			changed = append(changed, Speaker{Owner: owner})
		}
	}
	a.told = speaking
	slices.SortFunc(changed, louder)
	return changed
}

// Now returns everybody who spoke at the last Update, for a client that joins.
func (a *Active) Now() []Speaker {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []Speaker
	for _, s := range a.told {
		list = append(list, s)
	}
	slices.SortFunc(list, louder)
	return list
}

func (a *Active) speaking(now time.Time) map[Owner]Speaker {
	loud := map[Owner]Speaker{}
	for m := range a.meters {
		level := quantize(m.heard(now))
		if level > loud[m.owner].Level {
			loud[m.owner] = Speaker{Owner: m.owner, Level: level, Active: true}
		}
	}
	return loud
}

// quantize rounds a level up to one of the steps, 0 for one that does not count.
func quantize(level float64) float32 {
	if level < linear(activeLevel) {
		return 0
	}
	return float32(math.Ceil(level*steps) / steps)
}

// linear turns -dBov into an amplitude.
func linear(level uint8) float64 { return math.Pow(10, -float64(level)/20) }

func louder(a, b Speaker) int {
	return cmp.Or(cmp.Compare(b.Level, a.Level), cmp.Compare(a.Owner, b.Owner))
}
