package room

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// NewID makes a random identifier such as "TR_…" with 71 bits of entropy.
func NewID(prefix string) string {
	const alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	b := make([]byte, 12)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return prefix + string(b)
}

// pendingTracks are the tracks that the client has announced and whose media
// has not arrived. Announcement and media race, so media waits for a while.
type pendingTracks struct {
	mu      sync.Mutex
	list    []*pendingTrack
	changed chan struct{} // closed and renewed at every change
	closed  bool
}

type pendingTrack struct {
	cid     string
	info    *livekit.TrackInfo
	variant bool         // a published track in another codec
	up      *sfu.UpTrack // of a track that goes on here; see takeover.go
}

func newPendingTracks() *pendingTracks { return &pendingTracks{changed: make(chan struct{})} }

// add notes an announced track; it reports false when there are too many.
func (t *pendingTracks) add(cid string, info *livekit.TrackInfo) bool {
	return t.put(&pendingTrack{cid: cid, info: info})
}

// addVariant notes that a published track will come in another codec as well.
func (t *pendingTracks) addVariant(cid string, info *livekit.TrackInfo) bool {
	return t.put(&pendingTrack{cid: cid, info: info, variant: true})
}

func (t *pendingTracks) put(p *pendingTrack) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) >= maxTracks {
		return false
	}
	t.list = append(t.list, p)
	t.notify()
	return true
}

// mute changes a track that is not published yet.
func (t *pendingTracks) mute(sid string, muted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.list {
		if p.info.Sid == sid && !p.variant {
			p.info.Muted = muted
		}
	}
}

func (t *pendingTracks) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.notify()
}

func (t *pendingTracks) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// take returns the announced track that media belongs to: the one with its
// client id, else the first of its kind. It waits for the announcement up to
// the given time.
func (t *pendingTracks) take(cid string, kind sfu.Kind, wait time.Duration) *pendingTrack {
	timeout := time.NewTimer(wait)
	defer timeout.Stop()
	for {
		t.mu.Lock()
		found, changed, closed := t.match(cid, kind), t.changed, t.closed
		t.mu.Unlock()
		if found != nil || closed {
			return found
		}
		select {
		case <-changed:
		case <-timeout.C:
			return nil
		}
	}
}

func (t *pendingTracks) match(cid string, kind sfu.Kind) *pendingTrack {
	i := slices.IndexFunc(t.list, func(p *pendingTrack) bool { return p.cid == cid })
	if i < 0 {
		i = slices.IndexFunc(t.list, func(p *pendingTrack) bool {
			return !p.variant && (p.info.Type == livekit.TrackType_AUDIO) == (kind == sfu.Audio)
		})
	}
	if i < 0 {
		return nil
	}
	found := t.list[i]
	t.list = slices.Delete(t.list, i, i+1)
	return found
}

// doAddTrack answers an announced track with its server id.
func (p *Participant) doAddTrack(req *livekit.AddTrackRequest) {
	if reason := p.mayPublish(req); reason != "" {
		p.refuseTrack(req, livekit.RequestResponse_NOT_ALLOWED, reason)
		return
	}
	if req.Sid != "" {
		p.room.post(func() { p.room.doAddCodec(p, req) })
		return
	}
	info := trackInfo(req)
	reply := proto.CloneOf(info)
	if !p.pending.add(req.Cid, info) {
		p.refuseTrack(req, livekit.RequestResponse_LIMIT_EXCEEDED, "too many tracks wait for their media")
		return
	}
	p.prefer(req)
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_TrackPublished{
		TrackPublished: &livekit.TrackPublishedResponse{Cid: req.Cid, Track: reply}}})
}

func (p *Participant) refuseTrack(req *livekit.AddTrackRequest, why livekit.RequestResponse_Reason, text string) {
	p.log.Info("track is refused", "reason", text)
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_RequestResponse{
		RequestResponse: &livekit.RequestResponse{Reason: why, Message: text,
			Request: &livekit.RequestResponse_AddTrack{AddTrack: req}}}})
}

func (p *Participant) mayPublish(req *livekit.AddTrackRequest) string {
	perm := permission(p.token.Load())
	switch {
	case !perm.CanPublish:
		return "the token does not grant canPublish"
	case !mayPublishSource(perm, req.Source):
		return "the token does not grant publishing " + req.Source.String()
	case len(req.Cid) == 0 || len(req.Cid) > 256 || len(req.Name) > 256 || len(req.Layers) > 8 || len(req.SimulcastCodecs) > 4 || !validStream(req.Stream):
		return "the track's description is too large or lacks its client id"
	}
	return p.room.encrypts(req)
}

// validStream accepts what may stand in the msid of somebody else's SDP, or
// nothing.
func validStream(s string) bool { return s == "" || validSID(s) }

// trackInfo makes a track's record from its announcement, echoing its fields.
func trackInfo(req *livekit.AddTrackRequest) *livekit.TrackInfo {
	info := &livekit.TrackInfo{
		Sid: NewID("TR_"), Type: req.Type, Name: req.Name, Muted: req.Muted,
		Width: req.Width, Height: req.Height, Source: req.Source, Layers: req.Layers,
		Simulcast: len(req.Layers) > 1, DisableDtx: req.DisableDtx, DisableRed: true,
		Stereo: req.Stereo, Encryption: req.Encryption, Stream: req.Stream,
		BackupCodecPolicy: req.BackupCodecPolicy, AudioFeatures: req.AudioFeatures,
	}
	if info.Stream == "" {
		info.Stream = streamOf(req.Source)
	}
	if info.Codecs = codecInfos(req); len(info.Codecs) > 0 {
		layers := info.Codecs[0].Layers
		info.Layers, info.Simulcast = layers, len(layers) > 1
	}
	return info
}

// streamOf bundles what belongs together when the client does not say so.
func streamOf(s livekit.TrackSource) string {
	switch s {
	case livekit.TrackSource_CAMERA, livekit.TrackSource_MICROPHONE:
		return "camera"
	case livekit.TrackSource_SCREEN_SHARE, livekit.TrackSource_SCREEN_SHARE_AUDIO:
		return "screen_share"
	}
	return ""
}

// Publish implements rtc.Events.
func (e events) Publish(in rtc.Incoming) *sfu.UpTrack {
	found := e.p.pending.take(in.CID, in.Kind, publishWait)
	if found == nil {
		e.p.log.Warn("media of an unannounced track is ignored", "kind", in.Kind.String())
		return nil
	}
	if found.up != nil {
		e.p.room.post(func() { e.p.room.doComes(e.p, found.up) })
		return found.up
	}
	info, p := found.info, e.p
	id := sfu.TrackID(info.Sid)
	if found.variant {
		if id = variantID(id, in.Codec.MimeType); id == "" {
			return nil
		}
	}
	media := TrackRecord{Codec: in.Codec, Extensions: in.Extensions, SVC: in.SVC, RED: in.REDPayloadType}
	up := newUp(id, in.Kind, info, media, false)
	published := func() { p.room.doPublished(p, info, media, up) }
	if found.variant {
		published = func() { p.room.doVariant(p, media, up) }
	} else {
		settle(info, in)
		up.SetMuted(info.Muted)
	}
	if !p.room.post(published) {
		return nil
	}
	return up
}

// newUp makes the UpTrack of a track, here or from elsewhere.
func newUp(id sfu.TrackID, kind sfu.Kind, info *livekit.TrackInfo, m TrackRecord, relayed bool) *sfu.UpTrack {
	return sfu.NewUpTrack(sfu.UpTrackConfig{ID: id, Kind: kind, Codec: m.Codec, Relayed: relayed,
		Extensions: m.Extensions, REDPayloadType: m.RED, SVC: m.SVC, Screen: info.Source == livekit.TrackSource_SCREEN_SHARE})
}

// settle writes into a track's record what its media turned out to be.
func settle(info *livekit.TrackInfo, in rtc.Incoming) {
	info.MimeType, info.Mid = in.Codec.MimeType, in.MID
	if len(info.Codecs) > 0 {
		info.Codecs[0].MimeType, info.Codecs[0].Mid = in.Codec.MimeType, in.MID
	}
}

// Unpublish implements rtc.Events.
func (e events) Unpublish(up *sfu.UpTrack) {
	e.p.room.post(func() { e.p.room.doUnpublished(e.p, up.ID()) })
}

// doPublished makes a track part of the room once its media arrives.
func (r *Room) doPublished(p *Participant, info *livekit.TrackInfo, media TrackRecord, up *sfu.UpTrack) {
	if r.locals[p.identity] != p || !mayPublishSource(p.info.Permission, info.Source) {
		return // it has left, or the right was taken away while the media was on its way
	}
	t := &track{
		id: up.ID(), node: r.deps.Self.Name, ownerSID: p.sid, ownerIdentity: p.identity, poke: r.poke,
		info: info, media: media, up: up, allow: p.allow,
		serving: map[residency.NodeName]*outgoing{},
	}
	if muted, said := p.muted[t.id]; said { // while the media was on its way
		delete(p.muted, t.id)
		info.Muted = muted
		up.SetMuted(muted)
	}
	r.giveVoice(t)
	t.media.Available = up.Available()
	r.tracks[t.id] = t
	t.watch()
	p.change(func(i *livekit.ParticipantInfo) {
		i.Tracks = append(i.Tracks, info)
		i.IsPublisher = true
	})
	r.doUpdated(p)
	r.offerTrack(t)
	r.log.Info("track published", "participant", p.sid, "track", t.id, "codec", media.Codec.MimeType, "source", info.Source.String())
}

// doVariant adds a track's other codec to the room once its media arrives.
func (r *Room) doVariant(p *Participant, media TrackRecord, up *sfu.UpTrack) {
	base, _, _ := variantOf(up.ID())
	t := r.tracks[base]
	if r.locals[p.identity] != p || t == nil || t.ownerSID != p.sid || r.tracks[up.ID()] != nil {
		return
	}
	v := &track{
		id: up.ID(), base: base, node: t.node, ownerSID: p.sid, ownerIdentity: p.identity, poke: r.poke,
		info: t.info, media: media, up: up, allow: p.allow,
		serving: map[residency.NodeName]*outgoing{},
	}
	up.SetMuted(t.info.Muted)
	v.media.Available = up.Available()
	r.tracks[v.id], t.varied = v, true
	v.watch()
	p.version++
	r.announce(Participants{Presence: r.presence(), Changed: []ParticipantRecord{r.localRecord(p)}})
	r.offerTrack(v)
	r.log.Info("track published in another codec", "participant", p.sid, "track", base, "codec", media.Codec.MimeType)
}

func (r *Room) doUnpublished(p *Participant, id sfu.TrackID) {
	t := r.tracks[id]
	if t == nil || t.ownerSID != p.sid || t.node != r.deps.Self.Name || r.locals[p.identity] != p {
		return // it has left, with its tracks; or it is a ghost whose participant has come back meanwhile
	}
	r.dropTrack(id)
	if t.base != "" {
		r.doUpdated(p)
		return
	}
	p.change(func(i *livekit.ParticipantInfo) {
		i.Tracks = slices.DeleteFunc(i.Tracks, func(ti *livekit.TrackInfo) bool { return ti.Sid == string(id) })
	})
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_TrackUnpublished{
		TrackUnpublished: &livekit.TrackUnpublishedResponse{TrackSid: string(id)}}})
	r.doUpdated(p)
}

// doMute stops or restarts a track at its source: a muted one is not forwarded,
// whatever the client still sends (R13).
func (r *Room) doMute(p *Participant, id sfu.TrackID, muted bool) {
	p.pending.mute(string(id), muted)
	t := r.tracks[id]
	if t == nil && r.locals[p.identity] == p && len(p.muted) < maxTracks {
		p.muted[id] = muted
	}
	if t == nil || t.ownerSID != p.sid || t.node != r.deps.Self.Name || t.base != "" {
		return
	}
	for _, x := range append(r.variants(t), t) {
		r.setMuted(x, muted)
	}
	r.changeTrack(p, t, func(ti *livekit.TrackInfo) { ti.Muted = muted })
}

// changeTrack replaces the record of a participant's track by a changed copy,
// and tells everybody.
func (r *Room) changeTrack(p *Participant, t *track, change func(*livekit.TrackInfo)) {
	p.change(func(i *livekit.ParticipantInfo) {
		for _, ti := range i.Tracks {
			if ti.Sid == string(t.id) {
				change(ti)
				t.info = ti
			}
		}
	})
	for _, v := range r.variants(t) {
		v.info = t.info
	}
	r.doUpdated(p)
}

// permission is what a token grants, in the protocol's form.
func permission(g *control.Grants) *livekit.ParticipantPermission {
	v := g.Video
	return &livekit.ParticipantPermission{
		CanSubscribe: v.GetCanSubscribe(), CanPublish: v.GetCanPublish(), CanPublishData: v.GetCanPublishData(),
		CanPublishSources: v.GetCanPublishSources(), Hidden: v.Hidden,
		CanUpdateMetadata: v.GetCanUpdateOwnMetadata(),
	}
}

// publishCodecs are the codecs this node forwards.
func publishCodecs() []*livekit.Codec {
	return []*livekit.Codec{{Mime: "audio/opus"}, {Mime: "video/VP8"}, {Mime: "video/H264"}, {Mime: "video/VP9"}, {Mime: "video/AV1"}}
}
