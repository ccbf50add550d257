// Package allocate divides the bits a second that a path carries among the
// pictures of one receiver: which spatial and which temporal layer of each, and
// which have to wait. It decides on values and `now`; it estimates no bandwidth,
// knows no packets, and audio is never its concern: what audio needs is taken
// off the budget before.
//
// The rules, in order:
//
//  1. Every visible picture gets its lowest step before any gets more, the
//     important first: screen shares, then cameras, each by priority. What does
//     not fit is paused and told so; but one picture always moves.
//  2. The rest raises, again screen shares first. Among equals everybody reaches
//     step k before anybody gets k+1.
//  3. What is held is given up as soon as it does not fit. A raise needs more:
//     the budget has to hold it with Headroom on top for the time Hold, and the
//     path must not be overused. A wish of the client (a new picture, a larger
//     tile, an end of a pause) need not wait, only fit.
package allocate

import (
	"cmp"
	"math"
	"slices"
	"time"
)

const (
	// MaxSpatial and MaxTemporal bound the layers of a picture: LiveKit clients
	// send up to three qualities, AV1 and VP9 up to three temporal layers, and
	// four are in the descriptors' room.
	MaxSpatial  = 3
	MaxTemporal = 4

	// DefaultHeadroom is how much more than a raise costs the budget must hold.
	// Encoders miss their target by about a tenth from second to second.
	DefaultHeadroom = 0.10

	// DefaultHold is how long it must hold it: longer than a jitter of the
	// estimate (a few hundred milliseconds), short enough to be no annoyance.
	DefaultHold = time.Second

	// maxHold bounds the hold after raises that had to be taken back.
	maxHold = 8 * time.Second

	// regret is how soon after a raise a fall counts as the raise's fault; then the
	// hold doubles. forget is how long without such a fall makes it short again.
	regret, forget = 5 * time.Second, 30 * time.Second
)

// Rates are bit/s of a picture by [spatial][temporal] layer, cumulative: what a
// receiver gets that is sent this layer and what it rests upon. 0 means unknown
// or not available now.
type Rates [MaxSpatial][MaxTemporal]float64

// Want is a picture that a receiver subscribed to.
type Want struct {
	ID       string
	Screen   bool
	Priority int   // among screens or among cameras; greater is more important
	Max      uint8 // spatial layer that the client shows; no more is given
	Rates    Rates
	Paused   bool  // by the client: costs nothing, gets nothing
	Current  Grant // what the last Plan said; the zero value for a new picture
}

// Reason says why a grant is what it is.
type Reason string

// The reasons of grants.
const (
	Full     Reason = "all that the client shows"
	Budget   Reason = "the budget carries no more"
	Waiting  Reason = "more fits, but has to fit for longer"
	Overused Reason = "no raise while the path is overused"
	NoRoom   Reason = "paused: even the lowest layer does not fit"
	Last     Reason = "over the budget, but one picture always moves"
	Unknown  Reason = "no rate known yet, lowest layer"
	Client   Reason = "paused by the client"
)

// Grant is what a picture may get.
type Grant struct {
	Spatial, Temporal uint8
	Pause             bool
	Rate              float64 // bit/s that this costs; 0 if unknown or paused
	Max               uint8   // Want.Max at that time: a greater one since is a wish
	Reason            Reason
}

// Input is what one Plan looks at.
type Input struct {
	Budget  float64 // bit/s for pictures; audio is taken off already
	Overuse bool    // the estimator sees queues growing
	Wants   []Want
	Now     time.Time
}

// Allocator divides a receiver's budget. The zero value works. It remembers
// only since when a raise fits and whether raises had to be taken back: grants
// come back to it as Want.Current. Not safe for concurrent use.
type Allocator struct {
	Headroom float64       // 0: DefaultHeadroom
	Hold     time.Duration // 0: DefaultHold

	fits   time.Time     // since when a raise fits; zero if none does
	raised time.Time     // last raise
	fell   time.Time     // last fall that was a raise's fault
	hold   time.Duration // Hold, or more after such falls

	tracks []track // of the last Plan, in the order of its Wants
	order  []int   // of tracks, the important first
}

// Plan appends a grant for every want, in order, to dst. It does not allocate
// if dst has room, once the Allocator has seen as many pictures.
func (a *Allocator) Plan(dst []Grant, in Input) []Grant {
	if math.IsNaN(in.Budget) {
		in.Budget = 0
	}
	a.load(in)
	a.fill(in.Budget, in.Overuse, true)
	patient := a.wait(in)
	if !patient {
		a.fill(in.Budget, in.Overuse, false)
	}
	a.learn(in.Now)
	for i := range in.Wants {
		dst = append(dst, a.grant(&in.Wants[i], &a.tracks[i], in.Overuse))
	}
	return dst
}

// More says, after a Plan, which budget the next raise would need and which one
// would give every picture all that is shown, bit/s with the headroom in both.
// Both are 0 if nobody lacks anything. The estimator is told, so that it probes
// for what is wanted and for no more.
func (a *Allocator) More() (next, all float64) {
	total, lacks := 0.0, false
	for i := range a.tracks {
		t := &a.tracks[i]
		total += t.cost(t.step)
		all += t.cost(t.top())
		lacks = lacks || t.step < t.top()
	}
	if !lacks {
		return 0, 0
	}
	for _, i := range a.order {
		t := &a.tracks[i]
		if t.step == t.top() {
			continue
		}
		if need := total - t.cost(t.step) + t.cost(t.step+1); next == 0 || need < next {
			next = need
		}
	}
	return a.withHeadroom(next), a.withHeadroom(all)
}

func (a *Allocator) withHeadroom(rate float64) float64 {
	return rate * (1 + cmp.Or(a.Headroom, DefaultHeadroom))
}

// load turns the wants into tracks and sorts them by importance.
func (a *Allocator) load(in Input) {
	a.tracks, a.order = a.tracks[:0], a.order[:0]
	for i := range in.Wants {
		a.tracks = append(a.tracks, newTrack(&in.Wants[i]))
		a.order = append(a.order, i)
	}
	slices.SortFunc(a.order, func(i, j int) int {
		v, w := &in.Wants[i], &in.Wants[j]
		if c := compareClass(v, w); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(v.ID, w.ID), cmp.Compare(i, j))
	})
	for n, i := range a.order {
		if n > 0 && compareClass(&in.Wants[a.order[n-1]], &in.Wants[i]) == 0 {
			a.tracks[i].class = a.tracks[a.order[n-1]].class
		} else {
			a.tracks[i].class = n
		}
	}
}

// compareClass orders by importance; 0 are equals among whom raises are fair.
func compareClass(v, w *Want) int {
	if v.Screen != w.Screen {
		if v.Screen {
			return -1
		}
		return 1
	}
	return cmp.Compare(w.Priority, v.Priority)
}

// fill sets the step of every track. Without raise nothing goes up but what the
// client wished just now.
func (a *Allocator) fill(budget float64, overuse, raise bool) {
	total, reserved := a.lowest(budget, overuse, raise)
	for n := 0; n < len(a.order); {
		end := n
		for end < len(a.order) && a.tracks[a.order[end]].class == a.tracks[a.order[n]].class {
			end++
		}
		total = a.raise(a.order[n:end], total, reserved, budget, overuse, raise)
		n = end
	}
}

// lowest gives every picture its lowest step as far as it goes. What is paused
// and would fit again, but has to wait, is reserved: others do not raise into it.
func (a *Allocator) lowest(budget float64, overuse, raise bool) (total, reserved float64) {
	moving := false
	for _, i := range a.order {
		t := &a.tracks[i]
		t.step = none
		if t.top() == none {
			moving = moving || t.unknown
			continue
		}
		need := total + t.cost(0)
		fits := need <= budget
		if t.held == none && !t.wish {
			if fits && !raise {
				reserved += t.cost(0)
			}
			fits = raise && !overuse && a.withHeadroom(need) <= budget
		}
		if fits {
			t.step, total, moving = 0, need, true
		}
	}
	if !moving {
		total += a.one()
	}
	return total, reserved
}

// one lets the picture move that costs least, whatever the budget: a receiver
// that sees nothing at all takes the call for broken. Who moves already costs a
// little less in the comparison, lest two take turns.
func (a *Allocator) one() float64 {
	best, least := none, math.Inf(1)
	for _, i := range a.order {
		t := &a.tracks[i]
		if t.top() == none {
			continue
		}
		cost := t.cost(0)
		if t.held == none {
			cost = a.withHeadroom(cost)
		}
		if cost < least {
			best, least = i, cost
		}
	}
	if best == none {
		return 0
	}
	a.tracks[best].step, a.tracks[best].last = 0, true
	return a.tracks[best].cost(0)
}

// raise lifts equals step by step. In each round those go first who hold the
// step already, so that a rest that serves only one stays with the one.
func (a *Allocator) raise(class []int, total, reserved, budget float64, overuse, raise bool) float64 {
	for k := 1; k < maxSteps; k++ {
		for _, holders := range [2]bool{true, false} {
			for _, i := range class {
				t := &a.tracks[i]
				if t.step != k-1 || t.top() < k || (t.held >= k) != holders {
					continue
				}
				need := total - t.cost(k-1) + t.cost(k)
				fits := need <= budget
				if !holders {
					fits = (raise || t.wish) && !overuse && a.withHeadroom(need+reserved) <= budget
				}
				if fits {
					t.step, total = k, need
				}
			}
		}
	}
	return total
}

// wait reports whether a raise that fits has fitted for long enough. It looks at
// the tracks as a fill with raises left them.
func (a *Allocator) wait(in Input) bool {
	fits := false
	for i := range a.tracks {
		fits = fits || a.tracks[i].step > a.tracks[i].held && !a.tracks[i].wish
	}
	if !fits {
		a.fits = time.Time{}
		return true // nothing goes up: the fill stands
	}
	if a.fits.IsZero() || in.Now.Before(a.fits) {
		a.fits = in.Now
	}
	return in.Now.Sub(a.fits) >= a.patience()
}

func (a *Allocator) patience() time.Duration {
	return max(a.hold, cmp.Or(a.Hold, DefaultHold))
}

// learn doubles the hold when a raise had to be taken back soon after.
func (a *Allocator) learn(now time.Time) {
	up, down := false, false
	for i := range a.tracks {
		t := &a.tracks[i]
		up = up || t.step > t.held && !t.wish
		down = down || t.step < min(t.held, t.top())
	}
	switch {
	case up:
		a.raised, a.fits = now, time.Time{}
	case down && !a.raised.IsZero() && now.Sub(a.raised) < regret:
		a.hold, a.fell, a.raised = min(2*a.patience(), maxHold), now, time.Time{}
	case a.hold > 0 && now.Sub(a.fell) > forget:
		a.hold = 0
	}
}

func (a *Allocator) grant(w *Want, t *track, overuse bool) Grant {
	switch {
	case w.Paused:
		return Grant{Pause: true, Max: w.Max, Reason: Client}
	case t.unknown:
		return Grant{Temporal: MaxTemporal - 1, Max: w.Max, Reason: Unknown}
	case t.step == none:
		return Grant{Pause: true, Max: w.Max, Reason: NoRoom}
	}
	s := t.steps[t.step]
	return Grant{Spatial: s.spatial, Temporal: s.temporal, Rate: s.rate, Max: w.Max, Reason: a.why(t, overuse)}
}

func (a *Allocator) why(t *track, overuse bool) Reason {
	switch {
	case t.last:
		return Last
	case t.step == t.top():
		return Full
	case overuse:
		return Overused
	case !a.fits.IsZero():
		return Waiting
	}
	return Budget
}
