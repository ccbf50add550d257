package allocate

import "math"

// maxSteps bounds a ladder; none is the step of what is paused.
const (
	maxSteps = MaxSpatial * MaxTemporal
	none     = -1
)

// step is one rung: a pair of layers and what it costs.
type step struct {
	spatial, temporal uint8
	rate              float64
}

// track is a picture while a plan is made.
type track struct {
	steps   [maxSteps]step // worst first, each dearer than the one before
	n       int
	held    int  // step that it has now, none if paused
	step    int  // step that the plan gives
	class   int  // equal numbers are equally important
	wish    bool // the client wished more just now
	unknown bool // visible, but no rate is known
	last    bool // moves over the budget
}

func (t *track) top() int { return t.n - 1 }

func (t *track) cost(step int) float64 {
	if step < 0 {
		return 0
	}
	return t.steps[step].rate
}

func newTrack(w *Want) track {
	t := track{held: none, step: none}
	if w.Paused {
		return t
	}
	t.climb(w)
	t.unknown = t.n == 0
	t.wish = w.Current.Reason == "" || w.Current.Reason == Client || w.Current.Reason == Unknown || w.Max > w.Current.Max
	if w.Current.Reason != "" && !w.Current.Pause {
		t.held = t.find(w)
	}
	return t
}

// climb writes the ladder, and with it what is dropped first when bits are short.
//
// A camera loses temporal layers before it loses resolution, but not below half
// of its frames: with three temporal layers 2:2, 2:1, 1:2, 1:1, 0:2, 0:1, 0:0.
// A quarter of the frames at full size looks broken where a smaller picture
// that moves does not; only at the smallest size frames are all that is left.
//
// A screen share keeps its resolution to the last frame, since text has to be
// read: 2:2, 2:1, 2:0, 1:0, 0:0.
//
// A rung that costs no less than a better one is left out.
func (t *track) climb(w *Want) {
	cheaper := math.Inf(1)
	var down [maxSteps]step
	n := 0
	add := func(s, temporal int) {
		if r := w.Rates[s][temporal]; r > 0 && r < cheaper {
			down[n] = step{uint8(s), uint8(temporal), r}
			cheaper = r
			n++
		}
	}
	best := true // the best resolution that is there
	for s := min(int(w.Max), MaxSpatial-1); s >= 0; s-- {
		frames, count := temporals(&w.Rates[s])
		from := 0
		if !w.Screen && s > 0 {
			from = max(count-2, 0)
		}
		for k := count - 1; k >= from; k-- {
			if !w.Screen || best || k == 0 {
				add(s, frames[k])
			}
		}
		best = best && count == 0
	}
	for i := range n {
		t.steps[i] = down[n-1-i]
	}
	t.n = n
}

// temporals lists the temporal layers that make a difference, the slowest first.
// Of several that cost the same the last counts: rates are cumulative, and a
// stream that has fewer layers has nothing in the upper ones.
func temporals(rates *[MaxTemporal]float64) (layers [MaxTemporal]int, n int) {
	last := 0.0
	for t, r := range rates {
		if !(r > 0) || math.IsInf(r, 1) {
			continue
		}
		if n > 0 && r <= last {
			layers[n-1] = t
			continue
		}
		layers[n], last = t, r
		n++
	}
	return layers, n
}

// find returns the step of what is held: the same layers, or the better that are
// cheaper by now, or else the best below.
func (t *track) find(w *Want) int {
	c := w.Current
	var rate float64
	if c.Spatial < MaxSpatial && c.Temporal < MaxTemporal && c.Spatial <= w.Max {
		rate = w.Rates[c.Spatial][c.Temporal]
	}
	at := none
	for k := range t.n {
		s := &t.steps[k]
		if s.spatial < c.Spatial || s.spatial == c.Spatial && s.temporal <= c.Temporal {
			at = k
		} else if rate > 0 && (at == none || t.steps[at].spatial != c.Spatial || t.steps[at].temporal != c.Temporal) && s.rate <= rate {
			return k
		}
	}
	return max(at, min(0, t.top()))
}
