package room

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency/vault"
)

// A room has one recording at a time. What it takes of the room is what anybody wants:
// the host, who wants everything, and egresses, which want everything, one participant
// or some tracks. Each is a view of the recording; it ends when nobody wants anything.

// Egress is what a program wants recorded of a room. It is never changed.
type Egress struct {
	ID        string        `json:"id"`                 // "": the host's, which is everything
	Identity  string        `json:"identity,omitempty"` // of one participant; "": of anybody
	Screen    bool          `json:"screen,omitempty"`   // with Identity: their screen instead of camera and microphone
	Tracks    []sfu.TrackID `json:"tracks,omitempty"`   // these alone; none: all
	AudioOnly bool          `json:"audio_only,omitempty"`
	VideoOnly bool          `json:"video_only,omitempty"`
	Info      []byte        `json:"info,omitempty"` // livekit.EgressInfo as it was when it began, protobuf
}

const (
	maxEgresses = 64 // of a room at once
	// egressGrace is how long what an egress records may be away: people reconnect.
	egressGrace = 20 * time.Second
)

var (
	// ErrEgresses says that a room has as many egresses as it may.
	ErrEgresses = fmt.Errorf("the room has %d egresses, which is the most", maxEgresses)
	// ErrNoEgress says that the room has no such egress.
	ErrNoEgress = errors.New("the room has no such egress")
	// ErrTaken says that a track's recording has ended in the recording under way.
	ErrTaken = errors.New("its recording has ended; it can be recorded anew when the recording under way is over")
)

// subject is what an egress asks of a track. It never changes.
type subject struct {
	id     sfu.TrackID
	owner  string // identity
	kind   livekit.TrackType
	source livekit.TrackSource
}

func (t *track) subject() subject {
	return subject{t.id, t.ownerIdentity, t.info.Type, t.info.Source}
}

// wants reports whether the egress wants a track.
func (e *Egress) wants(t subject) bool {
	audio := t.kind == livekit.TrackType_AUDIO
	switch {
	case e.AudioOnly && !audio, e.VideoOnly && audio:
		return false
	case len(e.Tracks) > 0:
		return slices.Contains(e.Tracks, t.id)
	case e.Identity == "":
		return true
	}
	screen := t.source == livekit.TrackSource_SCREEN_SHARE || t.source == livekit.TrackSource_SCREEN_SHARE_AUDIO
	return t.owner == e.Identity && screen == e.Screen
}

// everything reports whether nothing is left out.
func (e *Egress) everything() bool {
	return e.Identity == "" && len(e.Tracks) == 0 && !e.AudioOnly && !e.VideoOnly
}

// Whole reports whether the recording takes everything.
func (s *Recording) Whole() bool {
	return len(s.Egress) == 0 || slices.ContainsFunc(s.Egress, func(e Egress) bool { return e.everything() })
}

// wants reports whether anybody wants the track.
func (s *Recording) wants(t *track) bool {
	return len(s.Egress) == 0 || slices.ContainsFunc(s.Egress, func(e Egress) bool { return e.wants(t.subject()) })
}

// with is the recording with other egresses: the state is shared and does not change.
func (s *Recording) with(list []Egress) *Recording {
	next := *s
	next.Egress = list
	return &next
}

// sameEgresses compares whose they are: an egress does not change.
func (s *Recording) sameEgresses(other *Recording) bool {
	return slices.EqualFunc(s.Egress, other.Egress, func(a, b Egress) bool { return a.ID == b.ID })
}

// StartEgress begins to record on this node what an egress wants, in the recording
// under way here or in a new one. It returns when the egress began.
func (r *Room) StartEgress(ctx context.Context, e Egress) (*Recording, error) {
	return r.startRecording(ctx, nil, e)
}

// widen has the recording under way here take more; nil if there is none here.
func (r *Room) widen(more []Egress) (*Recording, error) {
	rc := r.recorder
	if rc == nil {
		return nil, nil
	}
	list := rc.state.Egress
	if len(list) == 0 {
		list = []Egress{{}} // the host's
	}
	if len(more) == 0 {
		if rc.state.Whole() && slices.ContainsFunc(list, func(e Egress) bool { return e.ID == "" }) {
			return rc.state, nil
		}
		more = []Egress{{}}
	}
	if len(list)+len(more) > maxEgresses {
		return nil, ErrEgresses
	}
	for _, e := range more {
		for _, id := range e.Tracks {
			if rc.stopped[id] {
				return nil, fmt.Errorf("track %q: %w", id, ErrTaken)
			}
		}
	}
	r.retake(append(slices.Clone(list), more...))
	r.egressesBegin(more)
	return rc.state, nil
}

// retake has the recorder take what a list of egresses wants.
func (r *Room) retake(list []Egress) {
	rc := r.recorder
	rc.state = rc.state.with(list)
	for id := range rc.tracks {
		if t := r.tracks[id]; t != nil && !rc.stopped[id] && !rc.state.wants(t) {
			rc.drop(id, 0, r.deps.Now())
		}
	}
	r.noteRecording(rc.state, "")
	r.reviewRecording()
}

// checkTracks refuses tracks that are not there.
func (r *Room) checkTracks(list []Egress) error {
	for _, e := range list {
		for _, id := range e.Tracks {
			if r.tracks[id] == nil {
				return fmt.Errorf("%w: %q", ErrNoTrack, id)
			}
		}
	}
	return nil
}

// StopEgress ends an egress that is recorded on this node. The recording goes on for
// who else wants something of it. Deps.Egress is told when everything is written.
func (r *Room) StopEgress(ctx context.Context, id string) error {
	return r.call(ctx, func() error { return r.doStopEgress(id) })
}

func (r *Room) doStopEgress(id string) error {
	rc := r.recorder
	if rc == nil {
		return ErrNoEgress
	}
	i := slices.IndexFunc(rc.state.Egress, func(e Egress) bool { return e.ID == id && id != "" })
	switch {
	case i < 0:
		return ErrNoEgress
	case len(rc.state.Egress) == 1:
		r.doStopRecording("")
		return nil
	}
	gone := rc.change(rc.state.Egress[i], EgressEnded)
	r.retake(slices.Delete(slices.Clone(rc.state.Egress), i, i+1))
	r.tellEgress(r.record, gone)
	return nil
}

// doEgress ends egresses of what has gone for good.
func (r *Room) doEgress(now time.Time) {
	rc := r.recorder
	for _, e := range rc.state.Egress {
		switch here, seen := r.presentFor(&e), rc.seen[e.ID]; {
		case e.Identity == "" && len(e.Tracks) == 0:
		case here:
			rc.seen[e.ID] = now
		case seen.IsZero() && len(e.Tracks) > 0:
			rc.seen[e.ID] = now // a recording that goes on elsewhere meets its tracks anew
		case !seen.IsZero() && now.Sub(seen) >= egressGrace:
			delete(rc.seen, e.ID)
			r.doStopEgress(e.ID) //nolint:errcheck // it is there
			return               // the others with the next tick: the list has changed
		}
	}
}

// presentFor reports whether something that the egress wants is there.
func (r *Room) presentFor(e *Egress) bool {
	for _, id := range e.Tracks {
		if r.tracks[id] != nil {
			return true
		}
	}
	return e.Identity != "" && slices.ContainsFunc(r.participants(), func(p *livekit.ParticipantInfo) bool { return p.Identity == e.Identity })
}

// EgressState says what has become of an egress.
type EgressState int

// The states.
const (
	EgressStarted EgressState = iota
	EgressEnded
)

// EgressChange is told when an egress begins or ends on this node.
type EgressChange struct {
	Egress    Egress
	State     EgressState
	Recording vault.ID
	Tracks    []vault.TrackID // of the recording that are the egress's
	Problem   string          // why it ended if nobody asked for it
}

// change says what has become of an egress.
func (rc *recorder) change(e Egress, s EgressState) EgressChange {
	c := EgressChange{Egress: e, State: s, Recording: rc.rec.ID()}
	for _, x := range rc.tracks {
		if e.wants(x.subject) {
			c.Tracks = append(c.Tracks, x.files...)
		}
	}
	return c
}

func (r *Room) tellEgress(rec Record, c EgressChange) {
	if r.deps.Egress != nil && c.Egress.ID != "" {
		r.deps.Egress(rec, c)
	}
}

func (r *Room) egressesBegin(list []Egress) {
	for _, e := range list {
		r.tellEgress(r.record, r.recorder.change(e, EgressStarted))
	}
}

// egressesEnd returns what tells of the end of a recording's egresses, when everything
// is written: in another goroutine than the room's.
func (r *Room) egressesEnd(rc *recorder, problem string) func() {
	rec := r.record
	var list []EgressChange
	for _, e := range rc.state.Egress {
		c := rc.change(e, EgressEnded)
		c.Problem = problem
		list = append(list, c)
	}
	return func() {
		for _, c := range list {
			r.tellEgress(rec, c)
		}
	}
}
