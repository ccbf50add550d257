package bwe

import (
	"math"
	"time"
)

// Figures of the delay filter: draft-ietf-rmcat-gcc-02 sections 5.2 to 5.4,
// the slope in place of the draft's Kalman filter, and Carlucci et al., "Analysis
// and Design of the Google Congestion Control" (2016), for the threshold that
// adapts so that flows which fill queues do not starve us.
const (
	burst       = 5 * time.Millisecond  // packets sent within it are one group,
	spread      = 20 * time.Millisecond // unless the path spread them further than this
	window      = 20                    // groups a slope is fitted to,
	leastGroups = 8                     // or fewer at the start
	smoothing   = 0.9                   // of the accumulated delay
	gain        = 4                     // of the slope against the threshold
	maxGroups   = 60                    // confidence stops growing here
	firstGamma  = 12.5                  // ms, threshold at the start
	minGamma    = 6
	maxGamma    = 600
	gammaUp     = 0.0087 // per ms, when the slope is beyond the threshold
	gammaDown   = 0.039
	gammaIgnore = 15                    // ms beyond the threshold: a spike, teaches nothing
	overuseTime = 10 * time.Millisecond // an overuse lasts at least this
	// clockJump: arrivals this far apart, compared to sending, are no queue but
	// another clock.
	clockJump = 3 * time.Second
)

// group is packets that were sent in one burst.
type group struct {
	first, sent    time.Duration // sending of the first and the last packet
	begun, arrived time.Duration // arrival of the first and the last
	set            bool
}

// trend tells from the spacing of groups whether queues grow.
type trend struct {
	state     State
	current   group
	previous  group
	delay     float64 // accumulated, ms
	smooth    float64
	at        [window]float64 // ms
	value     [window]float64 // ms
	n         int             // groups so far
	firstAt   time.Duration
	slope     float64 // modified, ms, as compared with gamma
	lastSlope float64
	gamma     float64
	gammaAt   time.Duration
	over      time.Duration // how long the slope is beyond gamma
	overs     int
	ordered   time.Duration // sending time of the newest packet seen
}

func (t *trend) reset() { *t = trend{gamma: firstGamma} }

// packet takes a packet that arrived. It reports whether the receiver's clock
// jumped, after which delays mean something else.
func (t *trend) packet(sent, arrived time.Duration) (jumped bool) {
	if t.current.set && sent < t.current.first {
		return false // late: its group is closed
	}
	if !t.current.set {
		t.open(sent, arrived)
		return false
	}
	if sent-t.current.first <= burst && arrived-t.current.begun <= spread {
		t.current.sent = max(t.current.sent, sent)
		t.current.arrived = max(t.current.arrived, arrived)
		return false
	}
	jumped = t.close()
	t.open(sent, arrived)
	return jumped
}

func (t *trend) open(sent, arrived time.Duration) {
	t.current = group{first: sent, sent: sent, begun: arrived, arrived: arrived, set: true}
}

// close compares the group that is complete with the one before.
func (t *trend) close() (jumped bool) {
	defer func() { t.previous = t.current }()
	if !t.previous.set {
		return false
	}
	sent := t.current.sent - t.previous.sent
	arrived := t.current.arrived - t.previous.arrived
	if arrived-sent > clockJump || sent-arrived > clockJump {
		gamma := t.gamma
		t.reset()
		t.gamma = gamma
		return true
	}
	t.sample(ms(arrived-sent), max(sent, arrived), t.current.arrived)
	return false
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// sample adds the growth of delay between two groups, and judges.
func (t *trend) sample(growth float64, spacing, arrived time.Duration) {
	if t.n == 0 {
		t.firstAt = arrived
	}
	t.delay += growth
	t.smooth = smoothing*t.smooth + (1-smoothing)*t.delay
	t.at[t.n%window], t.value[t.n%window] = ms(arrived-t.firstAt), t.smooth
	t.n++
	if t.n < leastGroups {
		return
	}
	n := min(t.n, window)
	raw := fit(t.at[:n], t.value[:n])
	t.lastSlope, t.slope = t.slope, float64(min(t.n, maxGroups))*raw*gain
	t.judge(spacing)
	t.adapt(arrived)
}

// fit returns the slope of the line with the least squares through the points.
func fit(x, y []float64) float64 {
	var mx, my float64
	for i := range x {
		mx += x[i]
		my += y[i]
	}
	mx, my = mx/float64(len(x)), my/float64(len(x))
	var num, den float64
	for i := range x {
		num += (x[i] - mx) * (y[i] - my)
		den += (x[i] - mx) * (x[i] - mx)
	}
	if den < 1e-9 {
		return 0
	}
	return num / den
}

// judge says overuse only if the slope stays beyond the threshold and does not
// sink already (section 5.4).
func (t *trend) judge(spacing time.Duration) {
	switch {
	case t.slope > t.gamma:
		t.over += min(spacing, 100*time.Millisecond)
		t.overs++
		if t.over > overuseTime && t.overs > 1 && t.slope >= t.lastSlope {
			t.state, t.over, t.overs = Overuse, 0, 0
		}
	case t.slope < -t.gamma:
		t.state, t.over, t.overs = Underuse, 0, 0
	default:
		t.state, t.over, t.overs = Normal, 0, 0
	}
}

// adapt moves the threshold towards the slopes that are seen.
func (t *trend) adapt(arrived time.Duration) {
	dt := min(max(ms(arrived-t.gammaAt), 0), 100)
	t.gammaAt = arrived
	size := math.Abs(t.slope)
	if size > t.gamma+gammaIgnore {
		return
	}
	k := gammaDown
	if size > t.gamma {
		k = gammaUp
	}
	t.gamma = min(max(t.gamma+k*(size-t.gamma)*dt, minGamma), maxGamma)
}
