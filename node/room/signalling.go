package room

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
)

// doRequest handles one request of the client. An error ends the participant;
// what is merely wrong with a request is answered.
func (p *Participant) doRequest(req *livekit.SignalRequest) error {
	p.heardAt = p.room.deps.Now()
	switch m := req.Message.(type) {
	case *livekit.SignalRequest_Offer:
		return p.doOffer(m.Offer)
	case *livekit.SignalRequest_Answer:
		if err := p.session.Answer(m.Answer.GetSdp(), m.Answer.GetId()); err != nil {
			return fmt.Errorf("%w: %w", errAnswer, err)
		}
	case *livekit.SignalRequest_Trickle:
		p.doTrickle(m.Trickle)
	case *livekit.SignalRequest_AddTrack:
		p.doAddTrack(m.AddTrack)
	case *livekit.SignalRequest_Mute:
		p.room.post(func() { p.room.doClientMute(p, sfu.TrackID(m.Mute.GetSid()), m.Mute.GetMuted()) })
	case *livekit.SignalRequest_Subscription:
		p.room.post(func() { p.room.doSubscription(p, m.Subscription) })
	case *livekit.SignalRequest_TrackSetting:
		p.doTrackSetting(m.TrackSetting)
	case *livekit.SignalRequest_SyncState:
		if p.moving {
			return p.doSettle(m.SyncState)
		}
		p.room.post(func() { p.room.doSync(p, m.SyncState) })
	case *livekit.SignalRequest_Simulate:
		p.room.post(func() { p.room.doSimulate(p, m.Simulate) })
	case *livekit.SignalRequest_SubscriptionPermission:
		p.room.post(func() { p.room.doPermission(p, m.SubscriptionPermission) })
	case *livekit.SignalRequest_UpdateAudioTrack:
		p.room.post(func() { p.room.doAudioTrack(p, m.UpdateAudioTrack) })
	case *livekit.SignalRequest_UpdateVideoTrack:
		p.room.post(func() { p.room.doVideoTrack(p, m.UpdateVideoTrack) })
	case *livekit.SignalRequest_PublishDataTrackRequest:
		p.doDataTrack(m.PublishDataTrackRequest)
	case *livekit.SignalRequest_UpdateMetadata:
		p.room.post(func() { p.room.doMetadata(p, m.UpdateMetadata) })
	case *livekit.SignalRequest_Leave:
		return errLeft
	case *livekit.SignalRequest_Ping:
		p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Pong{Pong: p.heardAt.UnixMilli()}})
	case *livekit.SignalRequest_PingReq:
		p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_PongResp{PongResp: &livekit.Pong{
			LastPingTimestamp: m.PingReq.GetTimestamp(), Timestamp: p.heardAt.UnixMilli()}}})
	default:
		p.log.Debug("request is not handled", "request", fmt.Sprintf("%T", req.Message))
	}
	return nil
}

// doOffer answers the publisher's offer. A broken one ends this participant
// only; LiveKit clients then connect anew.
func (p *Participant) doOffer(offer *livekit.SessionDescription) error {
	if p.answersLate() {
		p.log.Info("the client would be answered too late, and resumes once more")
		return p.doLost()
	}
	answer, err := p.session.Publish(offer.GetSdp(), offer.GetId())
	if err != nil {
		return fmt.Errorf("%w: %w", errOffer, err)
	}
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Answer{
		Answer: &livekit.SessionDescription{Type: "answer", Sdp: answer.SDP, Id: offer.GetId(), MidToTrackId: answer.Tracks}}})
	if p.moving {
		p.answered = true
		p.room.post(func() { p.room.doArrived(p) })
	}
	return nil
}

func (p *Participant) doTrickle(t *livekit.TrickleRequest) {
	if t.GetCandidateInit() == "" {
		return // end of candidates
	}
	target := rtc.TargetPublisher
	if t.GetTarget() == livekit.SignalTarget_SUBSCRIBER {
		target = rtc.TargetSubscriber
	}
	if err := p.session.AddCandidate(target, t.GetCandidateInit()); err != nil {
		p.log.Debug("candidate is not used", "error", err)
	}
}

// events turns what the session reports into events of the participant.
type events struct{ p *Participant }

// State implements rtc.Events.
func (e events) State(t rtc.Target, state string) {
	if t == rtc.TargetPublisher || t == rtc.TargetSubscriber {
		e.p.post(func() { e.p.doMedia(t, state) })
	}
}

// Offer implements rtc.Events.
func (e events) Offer(sdp string, id uint32, tracks map[string]string) {
	e.p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Offer{
		Offer: &livekit.SessionDescription{Type: "offer", Sdp: sdp, Id: id, MidToTrackId: tracks}}})
}

// Sections implements rtc.Events.
func (e events) Sections(audio, video int) {
	e.p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_MediaSectionsRequirement{
		MediaSectionsRequirement: &livekit.MediaSectionsRequirement{NumAudios: uint32(audio), NumVideos: uint32(video)}}})
}

// StreamState implements rtc.Events.
func (e events) StreamState(d *sfu.DownTrack, paused bool) {
	id := d.Up().ID()
	// By way of the participant: whoever tells must not wait for the room.
	e.p.post(func() { e.p.room.post(func() { e.p.room.doStreamState(e.p, id, paused) }) })
}

// doStreamState tells the client that a track is paused for want of bandwidth, or
// goes on.
func (r *Room) doStreamState(p *Participant, id sfu.TrackID, paused bool) {
	id = publicID(id)
	if r.locals[p.identity] != p || r.tracks[id] == nil {
		return
	}
	p.starved[id] = paused
	p.send(r.streamStates(p, id))
}

// streamStates says which of a client's tracks are paused.
func (r *Room) streamStates(p *Participant, ids ...sfu.TrackID) *livekit.SignalResponse {
	m := &livekit.StreamStateUpdate{}
	for _, id := range ids {
		state := livekit.StreamState_ACTIVE
		if p.starved[id] {
			state = livekit.StreamState_PAUSED
		}
		m.StreamStates = append(m.StreamStates, &livekit.StreamStateInfo{
			ParticipantSid: r.tracks[id].ownerSID, TrackSid: string(id), State: state})
	}
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_StreamStateUpdate{StreamStateUpdate: m}}
}

// Data implements rtc.Events.
func (e events) Data(label string, payload []byte) {
	if len(payload) == 0 || len(payload) > maxDataPacket {
		e.p.log.Debug("data packet is dropped", "bytes", len(payload))
		return
	}
	reliable := label == "_reliable"
	if !e.p.mayData(reliable, len(payload)) {
		e.p.log.Debug("data packet is dropped", "bytes", len(payload))
		return
	}
	e.p.post(func() { e.p.doData(reliable, payload) })
}

// mayData keeps a client's data within bounds: links to other nodes carry it
// in front of everybody's signalling. Lossy data beyond them is dropped;
// reliable data waits here, which SCTP passes on to the client.
func (p *Participant) mayData(reliable bool, size int) bool {
	if !reliable {
		return p.data.AllowN(time.Now(), size)
	}
	at := p.data.ReserveN(time.Now(), size)
	if at.Delay() == 0 {
		return true
	}
	wait := time.NewTimer(at.Delay())
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-p.gone:
		return false
	}
}

func (p *Participant) doConnected() {
	if p.active && !p.moving {
		return
	}
	if p.moving {
		p.moving = false
		return
	}
	p.active = true
	p.room.post(func() {
		if p.room.locals[p.identity] != p {
			return
		}
		p.change(func(i *livekit.ParticipantInfo) { i.State = livekit.ParticipantInfo_ACTIVE })
		p.room.doUpdated(p)
	})
}

// doMetadata lets a participant change its own name, metadata and attributes
// where its token grants that.
func (r *Room) doMetadata(p *Participant, m *livekit.UpdateParticipantMetadata) {
	if r.locals[p.identity] != p {
		return
	}
	answer := &livekit.RequestResponse{RequestId: m.GetRequestId(),
		Request: &livekit.RequestResponse_UpdateMetadata{UpdateMetadata: m}}
	defer func() {
		p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RequestResponse{RequestResponse: answer}})
	}()
	if !p.info.Permission.CanUpdateMetadata && !onlyConsent(m) {
		answer.Reason, answer.Message = livekit.RequestResponse_NOT_ALLOWED, "the token does not grant canUpdateOwnMetadata"
		return
	}
	if !p.renamed.AllowN(r.deps.Now(), 1) {
		answer.Reason, answer.Message = livekit.RequestResponse_LIMIT_EXCEEDED, "too many changes, try again in a moment"
		return
	}
	attrs := maps.Clone(p.info.Attributes)
	for k, v := range m.Attributes {
		setAttribute(attrs, k, v)
	}
	agree(attrs, m.Attributes, r.told)
	if len(m.Name) > control.MaxNameBytes || control.ValidMetadata(m.Metadata) != nil || control.ValidAttributes(attrs) != nil {
		answer.Reason, answer.Message = livekit.RequestResponse_LIMIT_EXCEEDED, "name, metadata or attributes are too large"
		return
	}
	p.change(func(i *livekit.ParticipantInfo) {
		if m.Name != "" {
			i.Name = m.Name
		}
		if m.Metadata != "" {
			i.Metadata = m.Metadata
		}
		i.Attributes = attrs
	})
	r.doUpdated(p)
}

// setAttribute leaves alone what the node itself states about a participant.
func setAttribute(attrs map[string]string, k, v string) {
	switch {
	case strings.HasPrefix(k, "domicile."):
	case v == "":
		delete(attrs, k)
	default:
		attrs[k] = v
	}
}
