package room

import (
	"errors"
	"strings"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

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
	stream string // "PA_…|TR_…", by which clients find the owner
	screen bool   // a shared screen
	stereo bool   // sound whose channels differ
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
	p.subs[s.id] = d
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
	if err := p.session.Unsubscribe(d); err != nil {
		p.log.Warn("unsubscribing", "track", id, "error", err)
	}
}

// doData takes a data packet of the client, states who sent it, and passes it on.
func (p *Participant) doData(reliable bool, b []byte) {
	if !permission(p.token.Load()).CanPublishData {
		return
	}
	pkt := &livekit.DataPacket{}
	if err := proto.Unmarshal(b, pkt); err != nil {
		p.log.Debug("data packet is dropped", "error", err)
		return
	}
	if reliable && pkt.Sequence != 0 {
		if pkt.Sequence <= p.lastReliable.Load() {
			return // replayed
		}
		p.lastReliable.Store(pkt.Sequence)
	}
	pkt.ParticipantSid, pkt.ParticipantIdentity = p.sid, p.identity
	pkt.Kind = livekit.DataPacket_LOSSY
	if reliable {
		pkt.Kind = livekit.DataPacket_RELIABLE
	}
	if u := pkt.GetUser(); u != nil {
		u.ParticipantSid, u.ParticipantIdentity = p.sid, p.identity //nolint:staticcheck // older clients read these
	}
	out, err := proto.Marshal(pkt)
	if err != nil {
		return
	}
	p.room.post(func() { p.room.doLocalData(p, reliable, pkt, out) })
}

// doLocalData delivers a participant's data here and on the other nodes.
func (r *Room) doLocalData(p *Participant, reliable bool, pkt *livekit.DataPacket, b []byte) {
	if r.locals[p.identity] == p && p.info.Permission.CanPublishData {
		r.spread(Data{Reliable: reliable, Packet: b}, pkt)
	}
}

// addressed reports whether somebody on the node is meant.
func (m *remote) addressed(pkt *livekit.DataPacket) bool {
	for _, p := range m.participants {
		if meant(pkt, p.info.Identity) {
			return true
		}
	}
	return false
}

func meant(pkt *livekit.DataPacket, identity string) bool {
	to := pkt.DestinationIdentities
	if len(to) == 0 {
		to = pkt.GetUser().GetDestinationIdentities() //nolint:staticcheck // older clients write these
	}
	if len(to) == 0 {
		return identity != pkt.ParticipantIdentity
	}
	for _, id := range to {
		if id == identity {
			return true
		}
	}
	return false
}

// doRemoteData delivers data of a participant that the sending node serves.
func (r *Room) doRemoteData(from residency.NodeName, d Data) {
	pkt := &livekit.DataPacket{}
	if err := proto.Unmarshal(d.Packet, pkt); err != nil {
		r.log.Warn("bad data packet of a node is dropped", "node", from, "error", err)
		return
	}
	m := r.remotes[from]
	if m == nil || !m.sent(pkt) && !(d.Server && fromServer(pkt)) {
		r.log.Warn("data packet in the name of nobody at its node is dropped", "node", from)
		return
	}
	if _, v := r.permit(from, residency.ClassChat); !v.Allow {
		r.noteRefusal(from, v)
		return
	}
	r.deliver(d.Reliable, pkt, d.Packet)
}

// sent reports whether the packet names a participant of this node as its
// sender, and nobody else in any of its fields.
func (m *remote) sent(pkt *livekit.DataPacket) bool {
	p := m.participants[pkt.ParticipantSid]
	if p == nil || pkt.ParticipantIdentity != p.info.Identity {
		return false
	}
	u := pkt.GetUser()
	return u == nil || u.ParticipantSid == pkt.ParticipantSid && u.ParticipantIdentity == pkt.ParticipantIdentity //nolint:staticcheck // older clients read these
}

// deliver hands data to the participants here that are meant.
func (r *Room) deliver(reliable bool, pkt *livekit.DataPacket, b []byte) {
	for _, p := range r.locals {
		if !p.info.Permission.CanSubscribe || !meant(pkt, p.identity) {
			continue
		}
		p.post(func() {
			if err := p.session.SendData(reliable, b); err != nil {
				p.log.Debug("data is not delivered", "error", err)
			}
		})
	}
}
