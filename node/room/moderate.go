package room

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/sfu"
)

// What a moderator may do with the participants of a room. The node that serves
// a participant carries it out, and what it has answered is in force there.

var (
	// ErrAbsent is returned for a participant whom this node does not serve.
	ErrAbsent = errors.New("participant is not on this node")
	// ErrNoTrack is returned for a track that the participant does not publish.
	ErrNoTrack = errors.New("participant publishes no such track")
	// ErrUnmute is returned where nobody's microphone is opened for them.
	ErrUnmute = errors.New("a track is unmuted by its participant alone: rooms.remote_unmute is off")
	// ErrNotHome is returned by a node that does not write the room's record now.
	ErrNotHome = errors.New("another node is the room's home now")
)

// muteSettles is for how long a client's own unmute does not undo a moderator's
// mute: it was sent before the client had heard of that. Longer than a round trip,
// shorter than it takes somebody to press the button again.
const muteSettles = 2 * time.Second

// moderate runs f on a participant of this node.
func (r *Room) moderate(ctx context.Context, identity string, f func(*Participant) error) error {
	return r.call(ctx, func() error {
		p := r.byIdentity(identity)
		if p == nil {
			return ErrAbsent
		}
		return f(p)
	})
}

// MuteTrack mutes a track of a participant, or unmutes it where that is allowed, and
// tells the client. When it returns, no packet of a muted track is forwarded any more.
func (r *Room) MuteTrack(ctx context.Context, identity string, id sfu.TrackID, muted bool) (info *livekit.TrackInfo, err error) {
	err = r.moderate(ctx, identity, func(p *Participant) error {
		if info = p.ownTrack(id); info == nil {
			return ErrNoTrack
		}
		if !muted && !r.deps.RemoteUnmute {
			return ErrUnmute
		}
		if muted {
			p.silence(id, r.deps.Now())
		} else {
			delete(p.silenced, id)
			p.send(muteRequest(id, false))
		}
		if info.Muted != muted {
			r.doMute(p, id, muted)
			info = p.ownTrack(id)
		}
		return nil
	})
	return info, err
}

// ownTrack finds a track that the participant publishes or has announced.
func (p *Participant) ownTrack(id sfu.TrackID) *livekit.TrackInfo {
	for _, ti := range p.info.Tracks {
		if ti.Sid == string(id) {
			return ti
		}
	}
	return p.pending.info(string(id))
}

// info returns a copy of an announced track's record, nil if there is none.
func (t *pendingTracks) info(sid string) *livekit.TrackInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.list {
		if p.info.Sid == sid {
			return proto.CloneOf(p.info)
		}
	}
	return nil
}

func muteRequest(id sfu.TrackID, muted bool) *livekit.SignalResponse {
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_Mute{
		Mute: &livekit.MuteTrackRequest{Sid: string(id), Muted: muted}}}
}

// silence tells the client of a moderator's mute. One that has no connection now
// is told when it comes back.
func (p *Participant) silence(id sfu.TrackID, now time.Time) {
	if p.silenced == nil {
		p.silenced = map[sfu.TrackID]time.Time{}
	}
	maps.DeleteFunc(p.silenced, func(old sfu.TrackID, _ time.Time) bool { return p.ownTrack(old) == nil })
	if p.line.Load() == nil {
		now = time.Time{}
	}
	p.silenced[id] = now
	p.send(muteRequest(id, true))
}

// untold are the mutes that a client which comes back has not heard of. Clients
// correct a record of their tracks that differs from what they do, so it has to
// hear of them before it gets its record.
func (p *Participant) untold(now time.Time) (list []*livekit.SignalResponse) {
	for id, at := range p.silenced {
		if at.IsZero() {
			p.silenced[id] = now
			list = append(list, muteRequest(id, true))
		}
	}
	return list
}

// doClientMute follows a client's own mute, except where it answers what was
// before a moderator's.
func (r *Room) doClientMute(p *Participant, id sfu.TrackID, muted bool) {
	at, silenced := p.silenced[id]
	switch {
	case !silenced:
	case !muted && (at.IsZero() || r.deps.Now().Sub(at) < muteSettles):
		p.silence(id, r.deps.Now())
		return
	default:
		delete(p.silenced, id) // it has heard of it, and what it does now is its own
	}
	r.doMute(p, id, muted)
}

// UpdateParticipant changes a participant's name, metadata, attributes and
// permission; what is empty stays as it is, and an attribute with an empty value goes.
func (r *Room) UpdateParticipant(ctx context.Context, req *livekit.UpdateParticipantRequest) (info *livekit.ParticipantInfo, err error) {
	if err := control.ValidUpdate(req); err != nil {
		return nil, err
	}
	err = r.moderate(ctx, req.Identity, func(p *Participant) error {
		attrs := maps.Clone(p.info.Attributes)
		for k, v := range req.Attributes {
			setAttribute(attrs, k, v)
		}
		if err := control.ValidAttributes(attrs); err != nil {
			return err
		}
		if req.Permission != nil && req.Permission.Hidden != p.info.Permission.Hidden {
			return fmt.Errorf("%w: whether somebody is hidden cannot change while they are in the room", control.ErrInvalid)
		}
		r.doUpdate(p, req, attrs)
		info = p.info
		return nil
	})
	return info, err
}

func (r *Room) doUpdate(p *Participant, req *livekit.UpdateParticipantRequest, attrs map[string]string) {
	p.change(func(i *livekit.ParticipantInfo) {
		if req.Name != "" {
			i.Name = req.Name
		}
		if req.Metadata != "" {
			i.Metadata = req.Metadata
		}
		i.Attributes = attrs
		if perm := req.Permission; perm != nil {
			i.Permission.CanSubscribe, i.Permission.CanPublish = perm.CanSubscribe, perm.CanPublish
			i.Permission.CanPublishData, i.Permission.CanPublishSources = perm.CanPublishData, slices.Clone(perm.CanPublishSources)
			i.Permission.CanUpdateMetadata = perm.CanUpdateMetadata
		}
	})
	if req.Permission != nil {
		r.stopForbidden(p)
		r.doResubscribe(p)
	}
	p.grant()
	r.doUpdated(p)
}

// grant makes the token say what was changed: by it the participant's requests
// are judged, and with it a client connects anew.
func (p *Participant) grant() {
	token := *p.token.Load()
	token.Name, token.Metadata = p.info.Name, p.info.Metadata
	token.Video = token.Video.Clone()
	token.Video.UpdateFromPermission(p.info.Permission)
	p.token.Store(&token)
	p.post(func() { p.tokenEnds = time.Time{} }) // it is renewed with the next tick
}

// mayPublishSource reports whether a permission covers a kind of source.
func mayPublishSource(perm *livekit.ParticipantPermission, s livekit.TrackSource) bool {
	return perm.CanPublish && (len(perm.CanPublishSources) == 0 || slices.Contains(perm.CanPublishSources, s))
}

// stopForbidden ends the tracks that a participant may not publish any more. They
// are muted first: their receivers are taken away one after the other.
func (r *Room) stopForbidden(p *Participant) {
	for id, t := range r.tracks {
		if t.ownerSID != p.sid || t.node != r.deps.Self.Name || mayPublishSource(p.info.Permission, t.info.Source) {
			continue
		}
		r.setMuted(t, true)
		if t.base == "" { // its forms in other codecs go with it
			r.doUnpublished(p, id)
		}
	}
}

// doResubscribe brings a participant's subscriptions in line with what it chose and may.
func (r *Room) doResubscribe(p *Participant) {
	for _, t := range r.tracks {
		switch {
		case t.base != "":
		case p.desires(t):
			r.offerTo(t, p)
		default:
			p.unsubscribe(t.id)
		}
	}
}

// UpdateSubscriptions subscribes a participant to tracks, or ends that.
func (r *Room) UpdateSubscriptions(ctx context.Context, req *livekit.UpdateSubscriptionsRequest) error {
	s := &livekit.UpdateSubscription{TrackSids: req.TrackSids, ParticipantTracks: req.ParticipantTracks, Subscribe: req.Subscribe}
	return r.moderate(ctx, req.Identity, func(p *Participant) error {
		if n := len(wantedSIDs(s)) + len(p.wanted); n > maxChoices {
			return fmt.Errorf("%w: choices of %d tracks, at most %d are kept", control.ErrInvalid, n, maxChoices)
		}
		r.doSubscription(p, s)
		return nil
	})
}

// SendData sends data in the name of nobody in the room to all or some of the
// participants, on every node.
func (r *Room) SendData(ctx context.Context, req *livekit.SendDataRequest) error {
	if err := control.ValidData(req); err != nil {
		return err
	}
	return r.call(ctx, func() error {
		to, some := r.addressees(req)
		if some && len(to) == 0 {
			return nil // whom it names have left
		}
		pkt := &livekit.DataPacket{Kind: req.Kind, DestinationIdentities: to,
			Value: &livekit.DataPacket_User{User: &livekit.UserPacket{Payload: req.Data, Topic: req.Topic, Nonce: req.Nonce,
				DestinationIdentities: to}}} //nolint:staticcheck // older clients read these
		b, err := proto.Marshal(pkt)
		if err != nil || len(b) > maxDataPacket {
			return fmt.Errorf("%w: a data packet of %d bytes, at most %d are carried", control.ErrInvalid, len(b), maxDataPacket)
		}
		r.spread(Data{Reliable: req.Kind == livekit.DataPacket_RELIABLE, Server: true, Packet: b}, pkt)
		return nil
	})
}

// addressees are the identities that a request names, by identity or by sid, and
// whether it names any.
func (r *Room) addressees(req *livekit.SendDataRequest) (to []string, some bool) {
	sids := req.DestinationSids //nolint:staticcheck // older programs write these
	to = slices.Clone(req.DestinationIdentities)
	for _, p := range r.participants() {
		if slices.Contains(sids, p.Sid) {
			to = append(to, p.Identity)
		}
	}
	return to, len(to) > 0 || len(sids) > 0
}

// fromServer reports whether a packet is data of the API, in nobody's name. Any node
// of the room may send it: each takes calls of the API.
func fromServer(pkt *livekit.DataPacket) bool {
	u := pkt.GetUser()
	return u != nil && pkt.ParticipantSid == "" && pkt.ParticipantIdentity == "" &&
		u.ParticipantSid == "" && u.ParticipantIdentity == "" //nolint:staticcheck // older clients read these
}

// UpdateMetadata changes the room's metadata; only its home does so.
func (r *Room) UpdateMetadata(ctx context.Context, metadata string) (Record, error) {
	var rec Record
	if err := control.ValidMetadata(metadata); err != nil {
		return rec, err
	}
	err := r.call(ctx, func() error {
		if r.home.name != r.deps.Self.Name {
			return ErrNotHome
		}
		if r.record.Metadata != metadata {
			r.setRecord(func(rec *Record) { rec.Metadata = metadata })
		}
		rec = r.record
		return nil
	})
	return rec, err
}
