package room

import (
	"cmp"
	"context"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// A recording whose node is lost goes on at another origin, as a part of its own that
// says which it follows and how much may be in neither. The room's home sees to it: the
// one that was there, or the one that comes after it. Where no other origin may record
// the room, it ends, and people are told.

const (
	// recorderGrace is how long a node that records may be away, beyond the second after
	// which its link has ended: a link that is dialled again at once is no loss, and a
	// second longer costs a second of the recording.
	recorderGrace = time.Second
	// silentBefore is how long a node may have been dead when its link ends: a second of
	// silence, the time between two looks, and half of that again.
	silentBefore = 1500 * time.Millisecond
	// givenUp is how long a node may have been away when another becomes home for it that
	// was not in the room, and so has not seen since when: until gossip gives it up.
	givenUp = 3 * time.Second
	// nobodyWait is how long a home that has just begun waits for people before it gives
	// a recording of nobody up.
	nobodyWait = 15 * time.Second
)

// lostText is what people are told of a recording whose node is gone.
func lostText(node residency.NodeName, why string) string {
	return "the recording stopped: node " + string(node) + " is gone; what was recorded is kept there" + why
}

// doLostRecording looks whether the node that records is still there. The home sees to
// what follows; every other node remembers since when it is away, for it may be the
// home that is lost, and the next one has to state the whole gap.
func (r *Room) doLostRecording(now time.Time) {
	cur := cmp.Or(r.record.Recording, r.home.recorded)
	if r.ended || cur == nil || r.home.recorded == nil && r.records(cur.Node) {
		r.home.lost = time.Time{}
		return
	}
	r.noteLost(cur.Node, now)
	away := now.Sub(r.home.lost)
	switch {
	case r.home.name != r.deps.Self.Name || r.record.Recording == nil:
	case away < recorderGrace || r.count() == 0 && away < nobodyWait:
	case r.count() == 0 || r.deps.Continue == nil:
		r.setRecord(func(rec *Record) { rec.Recording, rec.RecordingProblem = nil, lostText(cur.Node, "") })
	default:
		after := vault.After{ID: vault.ID(cur.ID), Node: cur.Node, Part: max(cur.Part, 1) + 1, Gap: away + r.home.unseen + silentBefore}
		r.setRecord(func(rec *Record) {
			rec.Recording, rec.RecordingProblem = nil, lostText(cur.Node, "; it goes on at another")
		})
		r.home.begun = now
		rec := r.record
		rec.Recording = cur // with what it took of the room
		r.deps.Continue(rec, after)
	}
}

// noteLost notes since when the node that records is away.
func (r *Room) noteLost(node residency.NodeName, now time.Time) {
	if !r.home.lost.IsZero() {
		return
	}
	r.home.lost, r.home.unseen = now, givenUp
	if m := r.remotes[node]; m != nil && !m.lostAt.IsZero() {
		r.home.lost, r.home.unseen = m.lostAt, 0
	}
}

// records reports whether a node records the room, as far as is known at home.
func (r *Room) records(node residency.NodeName) bool {
	if node == r.deps.Self.Name {
		return r.recorder != nil
	}
	m := r.remotes[node]
	return r.home.nodes[node].Recorder && (m == nil || m.lostAt.IsZero())
}

// NotContinued tells the room that its recording does not go on anywhere, and why.
func (r *Room) NotContinued(after vault.After, why string) {
	r.post(func() {
		if !r.ended && r.record.Recording == nil && r.home.name == r.deps.Self.Name {
			r.setRecord(func(rec *Record) {
				rec.RecordingProblem = lostText(after.Node, "; it does not go on: "+why)
			})
		}
	})
}

// ContinueRecording begins to record the room on this node after another that did was
// lost. What is still known here of that recording does not count.
func (r *Room) ContinueRecording(ctx context.Context, after vault.After, list []Egress) (*Recording, error) {
	return r.startRecording(ctx, &after, list...)
}

// under returns the recording under way, but for the one that is gone on from.
func (r *Room) under(after *vault.After) *Recording {
	if cur := r.record.Recording; cur != nil && (after == nil || cur.ID != string(after.ID)) {
		return cur
	}
	return nil
}
