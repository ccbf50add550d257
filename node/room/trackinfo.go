package room

import (
	"slices"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

const (
	// maxFeatures bounds a client's list of audio features; there are seven.
	maxFeatures = 16
	// A client that reconnects does so with the newest token it has. tokenAhead
	// before that one ends, it gets another one, of tokenTTL: long enough for a
	// machine that sleeps through a break, short enough that who has been sent
	// away does not come back for long.
	tokenAhead = 5 * time.Minute
	tokenTTL   = 20 * time.Minute
)

// doAudioTrack takes a publisher's word on what is in its audio.
func (r *Room) doAudioTrack(p *Participant, m *livekit.UpdateLocalAudioTrack) {
	t := r.ownTrack(p, m.GetTrackSid(), sfu.Audio)
	reason, text := r.mayChange(p, t)
	if reason == livekit.RequestResponse_OK && len(m.GetFeatures()) > maxFeatures {
		reason, text = livekit.RequestResponse_INVALID_REQUEST, "too many features"
	}
	if reason != livekit.RequestResponse_OK {
		p.refuse(&livekit.RequestResponse{Reason: reason, Message: text,
			Request: &livekit.RequestResponse_UpdateAudioTrack{UpdateAudioTrack: m}})
		return
	}
	r.changeTrack(p, t, func(ti *livekit.TrackInfo) {
		ti.AudioFeatures = m.GetFeatures()
		ti.Stereo = slices.Contains(m.GetFeatures(), livekit.AudioTrackFeature_TF_STEREO)     //nolint:staticcheck // older clients read these
		ti.DisableDtx = slices.Contains(m.GetFeatures(), livekit.AudioTrackFeature_TF_NO_DTX) //nolint:staticcheck // likewise
	})
}

// doVideoTrack takes a publisher's word on the size of its picture.
func (r *Room) doVideoTrack(p *Participant, m *livekit.UpdateLocalVideoTrack) {
	t := r.ownTrack(p, m.GetTrackSid(), sfu.Video)
	if reason, text := r.mayChange(p, t); reason != livekit.RequestResponse_OK {
		p.refuse(&livekit.RequestResponse{Reason: reason, Message: text,
			Request: &livekit.RequestResponse_UpdateVideoTrack{UpdateVideoTrack: m}})
		return
	}
	r.changeTrack(p, t, func(ti *livekit.TrackInfo) { ti.Width, ti.Height = m.GetWidth(), m.GetHeight() })
}

// ownTrack finds a participant's published track, nil if there is none.
func (r *Room) ownTrack(p *Participant, sid string, kind sfu.Kind) *track {
	t := r.tracks[sfu.TrackID(sid)]
	if r.locals[p.identity] != p || t == nil || t.ownerSID != p.sid || t.base != "" || t.kind() != kind {
		return nil
	}
	return t
}

// mayChange bounds how often a participant may have everybody told of a change.
func (r *Room) mayChange(p *Participant, t *track) (livekit.RequestResponse_Reason, string) {
	switch {
	case t == nil:
		return livekit.RequestResponse_NOT_FOUND, "there is no such track"
	case !p.renamed.AllowN(r.deps.Now(), 1):
		return livekit.RequestResponse_LIMIT_EXCEEDED, "too many changes, try again in a moment"
	}
	return livekit.RequestResponse_OK, ""
}

// refuse answers a request that is not carried out.
func (p *Participant) refuse(answer *livekit.RequestResponse) {
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RequestResponse{RequestResponse: answer}})
}

// noDataTracks is the answer to clients that want to publish data tracks, which
// are neither encoded as DataPacket nor carried between nodes. Data packets are.
const noDataTracks = "this server carries no data tracks; data packets and streams work"

func (p *Participant) doDataTrack(m *livekit.PublishDataTrackRequest) {
	p.refuse(&livekit.RequestResponse{Reason: livekit.RequestResponse_NOT_ALLOWED, Message: noDataTracks,
		Request: &livekit.RequestResponse_PublishDataTrack{PublishDataTrack: m}})
}

// doToken renews a participant's token before it ends.
func (p *Participant) doToken(now time.Time) {
	if p.room.deps.Mint == nil || now.Before(p.tokenEnds.Add(-tokenAhead)) {
		return
	}
	p.tokenEnds = now.Add(tokenTTL)
	token, err := p.room.deps.Mint(*p.token.Load(), tokenTTL)
	if err != nil {
		p.log.Warn("renewing a token", "error", err)
		return
	}
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RefreshToken{RefreshToken: token}})
}
