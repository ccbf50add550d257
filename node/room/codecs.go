package room

import (
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// A track may be published in a second codec, for those who cannot decode the
// first. To clients it is one track, TR_x; in the mesh the second codec is a
// track of its own, TR_x|vp8, with an UpTrack, packets and subscriptions like
// any other, and it stands in its participant's record beside the first.
//
// It is not sent before somebody needs it: their node asks the publisher's for
// the track that does not exist yet, that node asks the publisher (dynacast.go),
// and the new track is announced to everybody.
const (
	variantMark = "|"
	// lackHolds is how long a wish for a codec that is not published counts
	// without being repeated; it is, every askAgain.
	lackHolds = 3 * askAgain
)

// videoCodecs are the codecs this node forwards, by the short names that
// clients use.
var videoCodecs = []struct{ short, mime string }{
	{"vp8", "video/VP8"}, {"h264", "video/H264"}, {"vp9", "video/VP9"}, {"av1", "video/AV1"},
}

// mimeOf is the MIME type of a codec by its short name or MIME type; text that
// names none comes back as it is.
func mimeOf(codec string) string {
	for _, c := range videoCodecs {
		if strings.EqualFold(codec, c.short) || strings.EqualFold(codec, c.mime) {
			return c.mime
		}
	}
	return codec
}

// shortOf is the short name of a codec, "" if it is none of video.
func shortOf(mime string) string {
	for _, c := range videoCodecs {
		if strings.EqualFold(mime, c.mime) {
			return c.short
		}
	}
	return ""
}

// variantID names a track in another codec; "" if there is no such codec.
func variantID(id sfu.TrackID, mime string) sfu.TrackID {
	short := shortOf(mimeOf(mime))
	if short == "" {
		return ""
	}
	return id + variantMark + sfu.TrackID(short)
}

// variantOf splits the name of a variant into the track and the codec's MIME type.
func variantOf(id sfu.TrackID) (base sfu.TrackID, mime string, ok bool) {
	b, short, ok := strings.Cut(string(id), variantMark)
	mime = mimeOf(short)
	return sfu.TrackID(b), mime, ok && validSID(b) && short != "" && shortOf(mime) == short
}

// publicID is the id by which clients know a track in any codec.
func publicID(id sfu.TrackID) sfu.TrackID {
	base, _, _ := strings.Cut(string(id), variantMark)
	return sfu.TrackID(base)
}

// public is the track's id as clients know it.
func (t *track) public() sfu.TrackID {
	if t.base != "" {
		return t.base
	}
	return t.id
}

// offers reports whether the track's publisher has announced a codec.
func (t *track) offers(mime string) bool {
	return slices.ContainsFunc(t.info.Codecs, func(c *livekit.SimulcastCodecInfo) bool { return strings.EqualFold(c.MimeType, mime) })
}

// variants are the track in its other codecs.
func (r *Room) variants(t *track) (list []*track) {
	if !t.varied {
		return nil
	}
	for _, c := range videoCodecs {
		if v := r.tracks[t.id+variantMark+sfu.TrackID(c.short)]; v != nil {
			list = append(list, v)
		}
	}
	return list
}

// decodable picks the form of a track that somebody can decode: the codec it was
// published in, else another one. It returns nil while that one has to be
// published first, and says so by lacks; the client is told if there is none.
func (r *Room) decodable(t *track, p *Participant) *track {
	if !p.cannot[t.media.Codec.MimeType] {
		return t
	}
	for _, v := range r.variants(t) {
		if !p.cannot[v.media.Codec.MimeType] {
			return v
		}
	}
	for _, c := range t.info.Codecs {
		if shortOf(c.MimeType) != "" && !p.cannot[c.MimeType] {
			t.lacks(c.MimeType, r.deps.Now())
			p.lacking[t.id] = true
			return nil
		}
	}
	if !p.hopeless[t.id] {
		p.hopeless[t.id] = true
		p.send(subscriptionError(t.id, livekit.SubscriptionError_SE_CODEC_UNSUPPORTED))
	}
	return nil
}

// lacks notes that somebody waits for the track in another codec.
func (t *track) lacks(mime string, now time.Time) {
	if t.lacked == nil {
		t.lacked = map[string]time.Time{}
	}
	t.lacked[mime] = now
}

// Unsupported implements rtc.Events: the client cannot decode the track's codec.
func (e events) Unsupported(d *sfu.DownTrack) {
	mime := d.Up().Codec().MimeType
	e.p.room.post(func() { e.p.room.doUnsupported(e.p, mime) })
}

// doUnsupported gives a client other forms of the tracks that it cannot decode.
func (r *Room) doUnsupported(p *Participant, mime string) {
	if r.locals[p.identity] != p || p.cannot[mime] || shortOf(mimeOf(mime)) == "" {
		return
	}
	p.cannot[mime] = true
	r.log.Info("client does not decode a codec", "participant", p.sid, "codec", mime)
	for _, t := range r.tracks {
		if t.media.Codec.MimeType != mime {
			continue
		}
		p.unsubscribeFrom(t)
		if base := r.tracks[t.public()]; base != nil {
			r.offerTo(base, p)
		}
	}
}

// giveCodecs gives those who wait for a track in another codec what has come,
// and keeps their wishes alive.
func (r *Room) giveCodecs() {
	for _, p := range r.locals {
		for id := range p.lacking {
			if t := r.tracks[id]; t == nil || !p.desires(t) {
				delete(p.lacking, id)
			} else if r.decodable(t, p) != nil {
				delete(p.lacking, id)
				r.offerTo(t, p)
			}
		}
	}
}

// askCodecs repeats the wishes for codecs that are not published yet at the
// publishers' nodes.
func (r *Room) askCodecs(now time.Time) {
	for _, t := range r.tracks {
		if t.node == r.deps.Self.Name {
			continue
		}
		for mime, at := range t.lacked {
			if now.Sub(at) > lackHolds {
				delete(t.lacked, mime)
				continue
			}
			r.sendTo(t.node, KindSubscribe, encode(Subscribe{Track: variantID(t.id, mime), Layers: 1}))
		}
	}
}

// doLacked takes note, at the publisher's node, that another node waits for a
// codec which is not published yet.
func (r *Room) doLacked(from residency.NodeName, id sfu.TrackID) {
	base, mime, ok := variantOf(id)
	t := r.tracks[base]
	if !ok || t == nil || t.node != r.deps.Self.Name || !t.offers(mime) || r.remotes[from] == nil || !r.mayServe(t, from) {
		return
	}
	if _, v := r.permit(from, residency.ClassMedia); v.Allow {
		t.lacks(mime, r.deps.Now())
	}
}

// doAddCodec answers a publisher that adds a codec to its track, as it was asked to.
func (r *Room) doAddCodec(p *Participant, req *livekit.AddTrackRequest) {
	t := r.tracks[sfu.TrackID(req.Sid)]
	if r.locals[p.identity] != p || t == nil || t.ownerSID != p.sid || t.base != "" || t.kind() != sfu.Video {
		p.refuseTrack(req, livekit.RequestResponse_NOT_FOUND, "there is no such track to add a codec to")
		return
	}
	cid := req.Cid
	if c := req.SimulcastCodecs; len(c) > 0 && c[0].Cid != "" {
		cid = c[0].Cid
	}
	if !p.pending.addVariant(cid, t.info) {
		p.refuseTrack(req, livekit.RequestResponse_LIMIT_EXCEEDED, "too many tracks wait for their media")
		return
	}
	p.prefer(req)
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_TrackPublished{
		TrackPublished: &livekit.TrackPublishedResponse{Cid: req.Cid, Track: t.info}}})
}

// prefer has the client publish in the codec that it announced: the answer says
// which one comes first, and a browser sends that one. Speech comes with
// redundancy (RFC 2198) unless the client does not want it.
func (p *Participant) prefer(req *livekit.AddTrackRequest) {
	want := map[string]string{}
	for i, c := range req.SimulcastCodecs {
		cid := c.Cid
		if cid == "" && i == 0 {
			cid = req.Cid
		}
		if cid != "" && shortOf(mimeOf(c.Codec)) != "" {
			want[cid] = mimeOf(c.Codec)
		}
	}
	if req.Type == livekit.TrackType_AUDIO && !req.DisableRed && !req.Stereo && req.Encryption == livekit.Encryption_NONE {
		want[req.Cid] = "audio/red"
	}
	for cid, mime := range want {
		if err := p.session.Prefer(cid, mime); err != nil {
			p.log.Debug("codec is not preferred", "error", err)
		}
	}
}

// codecInfos are the codecs of an announced track, the preferred one first, in
// the form in which they stand in its record.
func codecInfos(req *livekit.AddTrackRequest) (list []*livekit.SimulcastCodecInfo) {
	for _, c := range req.SimulcastCodecs {
		layers := c.Layers
		if len(layers) == 0 {
			layers = req.Layers
		}
		list = append(list, &livekit.SimulcastCodecInfo{MimeType: mimeOf(c.Codec), Cid: c.Cid, Layers: layers, VideoLayerMode: c.VideoLayerMode})
	}
	return list
}
