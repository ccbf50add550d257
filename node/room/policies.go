package room

import (
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// What is asked again when the policies change, and what runs out by itself.

// PolicyChanged makes the room ask the gate again about everything it sends,
// receives, keeps and serves. It never blocks.
func (r *Room) PolicyChanged() {
	select {
	case r.rules <- struct{}{}:
	default:
	}
}

func (r *Room) doPolicyChanged() {
	if !r.stays() {
		return
	}
	e := r.deps.Gate().Epoch()
	changed := e != r.epoch
	r.epoch = e
	r.recheckPassing()
	for name, m := range r.remotes {
		if changed {
			m.doubt(r.deps.Now())
		}
		r.recheck(name)
	}
	if changed {
		r.repeat()
	}
	if r.unsaved && r.home.name == r.deps.Self.Name {
		r.save()
	}
	r.doHome(r.deps.Now())
	r.doReconcile()
}

// stays ends what this node may not do in the room any more: serving it at all,
// recording it. It reports whether the room goes on.
func (r *Room) stays() bool {
	if r.ended {
		return false
	}
	if v := r.here(); !v.Allow {
		r.log.Warn("this node may not serve the room any more", "rule", v.Rule, "reason", v.Reason)
		r.noteSentAway(v)
		r.doEnd(livekit.DisconnectReason_STATE_MISMATCH) // clients come again and are told where to go
		return false
	}
	r.recheckRecording()
	r.recheckEncryption()
	return true
}

// recheckRecording lets the recording go on by a new permit, or stops it.
func (r *Room) recheckRecording() {
	if r.recorder == nil {
		return
	}
	_, permit, err := r.mayRecord()
	if err == nil {
		err = r.recorder.rec.Renew(permit)
	}
	if err != nil {
		r.recorder.rec.Revoke()
		r.doStopRecording(policyStopped)
	}
}

// noteSentAway lets the node know why everybody here has to go.
func (r *Room) noteSentAway(v residency.Verdict) {
	for identity := range r.locals {
		if r.deps.SentAway != nil {
			r.deps.SentAway(r.name, identity, v)
		}
	}
}

// reaskEvery is how often the gate is asked without a cause: certificates, bundles
// and transfer bases end without anybody saying so.
const reaskEvery = 500 * time.Millisecond

// doReask ends what has run out, and what is in doubt for too long.
func (r *Room) doReask(now time.Time) {
	if now.Sub(r.reasked) < reaskEvery {
		return
	}
	r.reasked = now
	if !r.stays() {
		return
	}
	r.dropUnlisted()
	r.recheckPassing()
	for name := range r.remotes {
		r.recheck(name)
	}
	if r.unsaved && r.home.name == r.deps.Self.Name && now.Sub(r.savedAt) >= saveAgain {
		r.save()
	}
}

// recheckServing lets a track go on to a node by a new permit, or stops it. A node
// that has not followed to the epoch in force yet gets the time that relay gives it.
func (r *Room) recheckServing(t *track, peer residency.NodeName, permit residency.Permit, v residency.Verdict) {
	o := t.serving[peer]
	switch {
	case o == nil || v.Rule == residency.RuleEpoch:
	case !v.Allow:
		t.stopServing(peer, v.Reason)
	case o.track.Renew(permit) != nil:
		r.startOver(t, peer)
	}
}

// notesEpoch notes since when a node goes by other policies, and reports whether
// that is too long for what still flows.
func (r *Room) notesEpoch(peer residency.NodeName, v residency.Verdict) (late bool) {
	m := r.remotes[peer]
	if m == nil || v.Rule != residency.RuleEpoch {
		if m != nil {
			m.apart = time.Time{}
		}
		return m == nil && v.Rule == residency.RuleEpoch
	}
	if m.apart.IsZero() {
		m.apart = r.deps.Now()
	}
	return r.deps.Now().Sub(m.apart) >= followWait
}

// startOver ends the flow of a track to a node that may still have it, and says so:
// the node asks for it anew.
func (r *Room) startOver(t *track, peer residency.NodeName) {
	t.stopServing(peer, "starts over")
	r.sendTo(peer, KindTrackClosed, encode(TrackClosed{Track: t.id, Reason: "starts over", Again: true}))
}

// doRevoked lets go of what relay has stopped by itself: a permit ended, or the other
// node did not follow to the epoch in force in time.
func (r *Room) doRevoked() {
	for _, t := range r.tracks {
		for peer, o := range t.serving {
			if o.track.Revoked() != "" {
				r.startOver(t, peer)
			}
		}
	}
}

// here asks the gate whether this node may serve those who are in the room here.
func (r *Room) here() residency.Verdict {
	gate := r.deps.Gate()
	p := r.presenceBy(gate)
	v := residency.Verdict{Allow: true}
	for _, c := range []residency.Class{residency.ClassMedia, residency.ClassSignalling} {
		if v.Allow && p.Participants > 0 {
			_, v = r.askBy(gate, p.Node, c, p.Outside)
		}
	}
	return v
}

// repeat tells every node again what it may have missed: what waited in a link
// when the policies changed had a permit of the old epoch, and did not leave.
func (r *Room) repeat() {
	for name, m := range r.remotes {
		if m.refused == "" {
			r.introduce(name, false)
			r.tellHeads(name)
		}
	}
	r.home.toldAt = time.Time{}
}

// recheckReceiving renews the permit by which a track comes in, or ends it. What a
// node may not send is not taken from a third either.
func (r *Room) recheckReceiving(t *track, peer residency.NodeName, permit residency.Permit, v residency.Verdict) {
	if t.way.feed(peer) == nil && t.node != peer {
		return
	}
	if !v.Allow && t.node == peer {
		r.loseAllWays(t)
		return
	}
	for _, f := range t.way.feeds() {
		if f.from == peer && (!v.Allow || f.link != nil && f.link.Rebind(permit, f.alias) != nil) {
			r.loseWays(t, peer)
			return
		}
	}
}

// beside is what speaks against media of a node that goes by other policies, beside
// that: for the difference alone what flows is given time, for nothing else.
func (r *Room) beside(peer residency.NodeName, v residency.Verdict) residency.Verdict {
	m := r.remotes[peer]
	node, _, ok := r.deps.Peer(peer)
	if !ok || m == nil {
		return v
	}
	gate := r.deps.Gate()
	if other := gate.Decide(r.asking(node, gate.Epoch(), residency.ClassMedia, m.outside(r.deps.Now()))); !other.Allow {
		return other
	}
	return v
}

// recheck asks the gate again whether media may go to a node and come from it. What
// still may goes on as it is, under a new permit; the rest stops.
func (r *Room) recheck(peer residency.NodeName) {
	permit, v := r.permit(peer, residency.ClassMedia)
	late := r.notesEpoch(peer, v)
	if v.Rule == residency.RuleEpoch {
		v = r.beside(peer, v)
	}
	for _, t := range r.tracks {
		if o := t.serving[peer]; o != nil && late {
			r.startOver(t, peer)
		}
		r.recheckServing(t, peer, permit, v)
		r.recheckReceiving(t, peer, permit, v)
		t.plan.due = t.plan.due || !v.Allow && t.plan.demands[peer] != nil
	}
	m := r.remotes[peer]
	switch _, v := r.permit(peer, residency.ClassSignalling); {
	case !v.Allow && m != nil && !m.presence.Present():
		// it is leaving, as it should
	case !v.Allow:
		if m != nil {
			m.doubt(r.deps.Now()) // it may be unable to say goodbye
		}
		r.noteRefusal(peer, v)
	case m != nil && m.refused != "":
		m.refused = ""
		r.introduce(peer, true) // both may have missed what changed meanwhile
	}
}
