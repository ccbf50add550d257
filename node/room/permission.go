package room

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// A publisher may say who is to receive its tracks. The node of each receiver
// goes by that, and so does the publisher's own: a track goes to no other node
// on which nobody may have it.
const (
	maxGrants      = 1000 // of one publisher; more are refused, not cut: that would let others in or out
	maxGrantTracks = maxTracks
)

// Permissions says who may receive a participant's tracks; nil: everybody.
type Permissions struct {
	Grants []Grant `json:"grants,omitempty"`
}

// Grant lets one participant have some tracks. It is named by sid, by identity,
// or both.
type Grant struct {
	SID      string        `json:"sid,omitempty"`
	Identity string        `json:"identity,omitempty"`
	All      bool          `json:"all,omitempty"`
	Tracks   []sfu.TrackID `json:"tracks,omitempty"`
}

// allow reports whether somebody may have a track.
func (p *Permissions) allow(who *livekit.ParticipantInfo, track sfu.TrackID) bool {
	return p == nil || slices.ContainsFunc(p.Grants, func(g Grant) bool {
		return g.names(who) && (g.All || slices.Contains(g.Tracks, track))
	})
}

func (g *Grant) names(who *livekit.ParticipantInfo) bool {
	if g.SID == "" && g.Identity == "" {
		return false
	}
	return (g.SID == "" || g.SID == who.Sid) && (g.Identity == "" || g.Identity == who.Identity)
}

func (p *Permissions) check() error {
	if p == nil {
		return nil
	}
	if len(p.Grants) > maxGrants {
		return fmt.Errorf("%d grants of subscriptions: at most %d", len(p.Grants), maxGrants)
	}
	for _, g := range p.Grants {
		if len(g.Tracks) > maxGrantTracks || g.SID != "" && !validSID(g.SID) || g.Identity != "" && control.ValidIdentity(g.Identity) != nil {
			return errors.New("a grant of subscriptions is malformed")
		}
	}
	return nil
}

// permissions reads a client's request.
func permissions(m *livekit.SubscriptionPermission) *Permissions {
	if m.GetAllParticipants() {
		return nil
	}
	out := &Permissions{}
	for _, t := range m.GetTrackPermissions() {
		g := Grant{SID: t.GetParticipantSid(), Identity: t.GetParticipantIdentity(), All: t.GetAllTracks()}
		for _, sid := range t.GetTrackSids() {
			g.Tracks = append(g.Tracks, sfu.TrackID(sid))
		}
		out.Grants = append(out.Grants, g)
	}
	return out
}

// doPermission takes a publisher's word on who may have its tracks. It holds here
// at once; the other nodes hear of it at once too, or with the next tick from a
// publisher who changes it all the time.
func (r *Room) doPermission(p *Participant, m *livekit.SubscriptionPermission) {
	if r.locals[p.identity] != p {
		return
	}
	allow := permissions(m)
	if err := allow.check(); err != nil {
		r.log.Warn("permissions of a publisher cannot be used: nobody gets its tracks", "participant", p.sid, "error", err)
		allow = &Permissions{}
	}
	p.allow = allow
	for _, t := range r.tracks {
		if t.ownerSID == p.sid {
			r.setAllow(t, allow)
		}
	}
	p.unannounced = true
	r.announceDue(p, r.deps.Now())
}

// announceDue tells the other nodes of a change that was held back.
func (r *Room) announceDue(p *Participant, now time.Time) {
	if p.unannounced && p.renamed.AllowN(now, 1) {
		p.unannounced = false
		p.version++
		r.announce(Participants{Presence: r.presence(), Changed: []ParticipantRecord{r.localRecord(p)}})
	}
}

// setAllow brings a track's receivers in line with what its publisher permits.
func (r *Room) setAllow(t *track, allow *Permissions) {
	t.allow = allow
	if t.base == "" {
		for _, p := range r.locals {
			r.offerTo(t, p)
		}
	}
	r.keepServing(t)
	if r.recorder != nil && allow != nil {
		r.recorder.drop(t.id, record.Permitted, r.deps.Now())
	}
}

// keepServing ends the flow of a track to nodes on which nobody may have it any more.
func (r *Room) keepServing(t *track) {
	for name := range t.serving {
		if !r.mayServe(t, name) {
			t.stopServing(name, "not permitted by the publisher")
			r.sendTo(name, KindTrackClosed, encode(TrackClosed{Track: t.id, Reason: "the publisher does not permit it"}))
		}
	}
	t.plan.due = true
}

// permitted reports whether somebody who wants a track may have it, and tells
// them what has changed about that.
func (r *Room) permitted(t *track, p *Participant) bool {
	allowed := t.allow.allow(p.info, t.id)
	if allowed == !p.refused[t.id] {
		return allowed
	}
	if allowed {
		delete(p.refused, t.id)
	} else {
		p.refused[t.id] = true
		p.unsubscribe(t.id)
	}
	p.send(permissionUpdate(t, allowed))
	return allowed
}

func permissionUpdate(t *track, allowed bool) *livekit.SignalResponse {
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_SubscriptionPermissionUpdate{
		SubscriptionPermissionUpdate: &livekit.SubscriptionPermissionUpdate{
			ParticipantSid: t.ownerSID, TrackSid: string(t.public()), Allowed: allowed}}}
}

// mayServe reports whether anybody on another node may have the track.
func (r *Room) mayServe(t *track, node residency.NodeName) bool {
	if t.allow == nil {
		return true
	}
	if m := r.remotes[node]; m != nil {
		for _, p := range m.participants {
			if t.allow.allow(p.info, t.public()) {
				return true
			}
		}
	}
	return false
}
