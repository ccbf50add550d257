package room

import (
	"errors"
	"strings"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

var errNoLink = errors.New("no link to the node")

// refusal is a verdict as an error.
type refusal residency.Verdict

func (v refusal) Error() string { return v.Reason }

// subscription is what a participant needs to receive a track.
type subscription struct {
	up     *sfu.UpTrack
	id     sfu.TrackID
	stream string                // "PA_…|TR_…", by which clients find the owner
	layers []*livekit.VideoLayer // of the picture, as its publisher announced them
	screen bool                  // a shared screen
	stereo bool                  // sound whose channels differ
}

// desires reports whether the participant asks to receive a track.
func (p *Participant) desires(t *track) bool {
	if !p.info.Permission.CanSubscribe || p.sid == t.ownerSID {
		return false
	}
	if w, chosen := p.wanted[t.id]; chosen {
		return w
	}
	return p.join.AutoSubscribe
}

// syncProtocol is the first version of the client protocol whose clients find a
// track by its own id, so that its stream may be shared with others.
const syncProtocol = 10

// streamID names the stream in which a client gets a track. Browsers keep the
// tracks of one stream in sync, lips and voice, so a camera and its microphone
// share one; other clients find the track's id in the stream's.
func (p *Participant) streamID(t *track) string {
	if s := t.info.Stream; s != "" && p.join.SDK == "js" && p.join.Protocol >= syncProtocol &&
		!strings.EqualFold(p.join.Browser, "firefox") {
		return t.ownerSID + "|" + s
	}
	return t.ownerSID + "|" + string(t.id)
}

// maxChoices bounds what a client may choose or set, in tracks.
const maxChoices = 10_000

// wantedSIDs lists the tracks that a client names, in either of the two forms.
func wantedSIDs(s *livekit.UpdateSubscription) []string {
	sids := s.GetTrackSids()
	for _, pt := range s.GetParticipantTracks() {
		sids = append(sids, pt.GetTrackSids()...)
	}
	return sids
}

// doSubscription follows the client's explicit choices.
func (r *Room) doSubscription(p *Participant, s *livekit.UpdateSubscription) {
	if r.locals[p.identity] != p {
		return
	}
	sids := wantedSIDs(s)
	if len(sids)+len(p.wanted) > maxChoices {
		return
	}
	for _, sid := range sids {
		id := sfu.TrackID(sid)
		p.wanted[id] = s.GetSubscribe()
		switch t := r.tracks[id]; {
		case !s.GetSubscribe():
			p.unsubscribe(id)
		case t == nil || t.base != "":
			p.send(subscriptionError(id, livekit.SubscriptionError_SE_TRACK_NOTFOUND))
		default:
			r.offerTo(t, p)
		}
	}
}

func subscriptionError(id sfu.TrackID, e livekit.SubscriptionError) *livekit.SignalResponse {
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_SubscriptionResponse{
		SubscriptionResponse: &livekit.SubscriptionResponse{TrackSid: string(id), Err: e}}}
}

// subscribe posts any number of subscriptions as one event: those of a large
// room would overflow the inbox of somebody who has just joined.
func (p *Participant) subscribe(list ...subscription) {
	p.post(func() {
		p.session.Together(func() {
			for _, s := range list {
				p.doSubscribe(s)
			}
		})
	})
}

func (p *Participant) doSubscribe(s subscription) {
	if old := p.subs[s.id]; old != nil {
		if old.Up() == s.up {
			return
		}
		p.doUnsubscribe(s.id) // the track went and came back
	}
	d, err := p.session.Subscribe(rtc.Subscription{Up: s.up, StreamID: s.stream, TrackID: string(s.id), Screen: s.screen, Stereo: s.stereo})
	if err != nil {
		p.log.Warn("subscribing", "track", s.id, "error", err)
		p.send(subscriptionError(s.id, livekit.SubscriptionError_SE_CODEC_UNSUPPORTED))
		return
	}
	p.subs[s.id], p.layers[s.id] = d, s.layers
	p.applySetting(s.id)
}

func (p *Participant) unsubscribe(id sfu.TrackID) {
	p.post(func() { p.doUnsubscribe(id) })
}

// unsubscribeFrom ends the reception of a track in this codec.
func (p *Participant) unsubscribeFrom(t *track) {
	up, id := t.heard(), t.public()
	p.post(func() {
		if d := p.subs[id]; d != nil && d.Up() == up {
			p.doUnsubscribe(id)
		}
	})
}

func (p *Participant) doUnsubscribe(id sfu.TrackID) {
	d := p.subs[id]
	if d == nil {
		return
	}
	delete(p.subs, id)
	delete(p.layers, id)
	if err := p.session.Unsubscribe(d); err != nil {
		p.log.Warn("unsubscribing", "track", id, "error", err)
	}
}
