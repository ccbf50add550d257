package room

import "time"

// A policy may have every meeting recorded (`recording.start: always`). The room's home
// sees to it: as soon as somebody is there, and again when a recording has ended while
// people are. Who is recorded is decided as in any recording: nobody who was not told,
// or has not agreed where that is asked for.

// beginAgain is how soon a recording is asked for again that did not begin, or ended: an
// origin may be back then, or have room on its disk. A recording that goes on elsewhere
// has begun by then, or does not.
const beginAgain = 10 * time.Second

// always reports whether the policy has the room recorded whenever somebody is in it.
func (r *Room) always() bool {
	p, err := r.deps.Gate().Bundle().PolicyFor(r.record.Tenant, r.record.Policy)
	return err == nil && p.Recording.Allowed && p.Recording.Always
}

// doAlways has a recording begin by the policy, if none of the whole room is under way.
func (r *Room) doAlways(now time.Time) {
	cur := r.record.Recording
	switch {
	case r.ended || r.deps.Begin == nil || r.home.name != r.deps.Self.Name || r.count() == 0:
	case cur != nil && cur.Whole() || !r.always():
	case !r.home.begun.IsZero() && now.Sub(r.home.begun) < beginAgain:
	default:
		r.home.begun = now
		r.deps.Begin(r.record)
	}
}

// NotBegun tells the room that the recording its policy asks for does not begin, and why.
func (r *Room) NotBegun(why string) {
	r.post(func() {
		problem := "the policy has every meeting recorded, and this one is not: " + why
		if r.ended || r.home.name != r.deps.Self.Name || r.record.Recording != nil || r.record.RecordingProblem == problem {
			return
		}
		r.log.Warn("a recording by the policy does not begin", "error", why)
		r.setRecord(func(rec *Record) { rec.RecordingProblem = problem })
	})
}
