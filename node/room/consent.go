package room

import (
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// Who may be recorded (R9): nobody whose node has not told them that the room
// records, and where the policy asks for consent nobody who has not agreed to
// this very recording. Both are stated by the node that serves the participant
// and looked at by the node that records.

const (
	// ConsentAttribute is the attribute with which a participant agrees to be
	// recorded: its value is the recording's id, which the room's state has.
	// Every LiveKit client can set it for itself, whatever its token grants;
	// nobody can for somebody else. Taking it away is withdrawing.
	ConsentAttribute = "domicile.consent"

	// ConsentGiven is what a token's attribute says if whoever issued it has
	// collected the consent before, at registration for example. It holds until
	// the participant withdraws it.
	ConsentGiven = "given"
)

// capture is what decides whether a participant is recorded.
type capture struct {
	rule      residency.RecordingRule
	recording string // its id
	told      string // the recording that the participant has been told of
	consent   string // the participant's ConsentAttribute
	withdrawn bool   // they have agreed before and taken it back
}

// allowed reports whether the participant's tracks may be recorded now.
func (c capture) allowed() bool {
	switch {
	case c.recording == "":
		return false // or nothing said would be agreeing to it
	case (c.rule.Notice || c.rule.Consent) && c.told != c.recording:
		return false
	case !c.rule.Consent || c.agreed():
		return true
	}
	return false
}

// agreed reports whether the participant has agreed to the recording, whatever they
// were shown.
func (c capture) agreed() bool {
	return c.consent == c.recording || c.consent == ConsentGiven && !c.withdrawn
}

// capturable asks whether a track may be recorded now. A room whose policy is
// unknown records nobody.
func (r *Room) capturable(t *track) bool {
	policy, err := r.deps.Gate().Bundle().PolicyFor(r.record.Tenant, r.record.Policy)
	if err != nil || !policy.Recording.Allowed {
		return false
	}
	rc := r.recorder
	c := capture{rule: policy.Recording, recording: rc.state.ID, withdrawn: rc.withdrawn[t.ownerIdentity]}
	var owner *livekit.ParticipantInfo
	if l := r.locals[t.ownerIdentity]; t.node == r.deps.Self.Name && l != nil {
		owner, c.told = l.info, r.told
	} else if m := r.remotes[t.node]; m != nil && m.participants[t.ownerSID] != nil {
		owner, c.told = m.participants[t.ownerSID].info, m.presence.Told
	}
	if owner == nil {
		return false
	}
	c.consent = owner.Attributes[ConsentAttribute]
	return c.allowed()
}

// reviewRecording follows notices and consents: tracks that waited for them are
// recorded from now on, those of who has withdrawn no longer, and not again in the same
// recording.
func (r *Room) reviewRecording() {
	rc := r.recorder
	if rc == nil {
		return
	}
	for id, x := range rc.tracks {
		if t := r.tracks[id]; t != nil && !rc.stopped[id] && x.left.IsZero() && !r.capturable(t) {
			r.withdrawn(t)
			rc.withdrawn[t.ownerIdentity] = true
			rc.drop(id, record.Consent, r.deps.Now())
			r.log.Info("a participant's track is not recorded any more", "recording", rc.state.ID, "participant", t.ownerSID, "track", id)
		}
	}
	for id := range rc.withheld {
		if t := r.tracks[id]; t == nil {
			delete(rc.withheld, id)
		} else if rc.state.wants(t) && r.capturable(t) {
			delete(rc.withheld, id)
			r.recordTrack(t)
		}
	}
	r.noteConsents()
}

// withdrawn has what was recorded of somebody erased if they have taken their consent
// back and the policy says so. A notice that a node has not stated anew, or a policy
// that has changed, is no withdrawal.
func (r *Room) withdrawn(t *track) {
	policy, err := r.deps.Gate().Bundle().PolicyFor(r.record.Tenant, r.record.Policy)
	if err != nil || !policy.Recording.Consent || !policy.Recording.EraseWithdrawn || r.deps.Withdrawn == nil || r.recorder.withdrawn[t.ownerIdentity] {
		return
	}
	owner := r.ownerOf(t)
	if owner == nil {
		return
	}
	if c := owner.Attributes[ConsentAttribute]; c != r.recorder.state.ID && c != ConsentGiven {
		r.deps.Withdrawn(r.record, t.ownerIdentity)
	}
}

// ownerOf is whose track it is, as far as their node has said.
func (r *Room) ownerOf(t *track) *livekit.ParticipantInfo {
	if l := r.locals[t.ownerIdentity]; t.node == r.deps.Self.Name && l != nil {
		return l.info
	}
	if m := r.remotes[t.node]; m != nil && m.participants[t.ownerSID] != nil {
		return m.participants[t.ownerSID].info
	}
	return nil
}

// noteTold takes note that everybody here has been told of the recording under
// way, or of none, and lets the node that records know. Who joins later is told
// with the greeting.
func (r *Room) noteTold() {
	id := r.record.recordingID()
	if id == r.told {
		return
	}
	r.told = id
	r.announce(Participants{Presence: r.presence()})
}

// agree sets what a participant says about its consent to be recorded. Who says no is
// taken to answer to the recording that they were told of.
func agree(attrs map[string]string, said map[string]string, told string) {
	switch v, ok := said[ConsentAttribute]; {
	case !ok:
	case v == "":
		delete(attrs, ConsentAttribute)
		if told != "" {
			attrs[DeclinedAttribute] = told
		}
	case validSID(v) && v != ConsentGiven: // a client agrees to a recording, not to any
		attrs[ConsentAttribute] = v
		delete(attrs, DeclinedAttribute)
	}
}

// only reports whether a request says nothing but what the participant agrees to.
func onlyConsent(m *livekit.UpdateParticipantMetadata) bool {
	_, ok := m.Attributes[ConsentAttribute]
	return ok && len(m.Attributes) == 1 && m.Name == "" && m.Metadata == ""
}

// withhold notes that a track is not recorded until its participant may be.
func (rc *recorder) withhold(id sfu.TrackID) { rc.withheld[id] = true }
