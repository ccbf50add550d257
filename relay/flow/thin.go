package flow

import "time"

const (
	// thinPart is what of the estimate the media may take: the rest is for repairs,
	// feedback and the estimate's own error.
	thinPart = 0.92
	// restorePart is what must fit before a layer comes back, and restoreEvery how
	// long after the last change where the path's limit is known: what a layer that
	// comes and goes costs is a keyframe each time. Where it is not, all that fits
	// comes back at once.
	restorePart  = 0.85
	restoreEvery = time.Second
)

// Stream is one layer of a track of video.
type Stream struct {
	Rate float64 // bit/s offered; of what is held back the last that is known
	Held bool    // it is not sent
}

// Thinner chooses what is left out when a path does not carry all: whole layers,
// the highest first and of those the largest. The zero value has left out nothing.
type Thinner struct{ changed time.Time }

// Thin holds streams back until those that are left fit into estimate beside rest,
// which is never left out, or lets some go again. Streams of a layer stand at its
// index. Of all the lowest layers one is always left. limited says that the estimate
// is the path's limit, and not only what was tried. It reports whether something
// changed.
func (t *Thinner) Thin(layers [][]*Stream, estimate, rest float64, limited bool, now time.Time) bool {
	budget := estimate*thinPart - rest
	sum := 0.0
	for _, streams := range layers {
		for _, s := range streams {
			if !s.Held {
				sum += s.Rate
			}
		}
	}
	changed := false
	for sum > budget {
		s := largest(layers)
		if s == nil {
			break
		}
		s.Held, changed = true, true
		sum -= s.Rate
	}
	for again := !changed && (!limited || now.Sub(t.changed) >= restoreEvery); again; again = !limited {
		s := least(layers)
		if s == nil || sum+s.Rate > estimate*restorePart-rest {
			break
		}
		s.Held, changed = false, true
		sum += s.Rate
	}
	if changed {
		t.changed = now
	}
	return changed
}

// largest is the next to be held back, nil if only one is left.
func largest(layers [][]*Stream) *Stream {
	left := 0
	for i := len(layers) - 1; i >= 0; i-- {
		var most *Stream
		for _, s := range layers[i] {
			if s.Held || s.Rate == 0 {
				continue
			}
			left++
			if most == nil || s.Rate > most.Rate {
				most = s
			}
		}
		if most != nil && (i > 0 || left > 1) {
			return most
		}
	}
	return nil
}

// least is the next to be let go: of the lowest layer the smallest.
func least(layers [][]*Stream) *Stream {
	for _, streams := range layers {
		var s *Stream
		for _, x := range streams {
			if x.Held && (s == nil || x.Rate < s.Rate) {
				s = x
			}
		}
		if s != nil {
			return s
		}
	}
	return nil
}
