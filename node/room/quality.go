package room

import (
	"errors"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/quality"
	"github.com/domicile/domicile/residency"
)

// Connection quality is judged where somebody is served, every quality.Interval,
// from what arrived of their tracks and what their client reports of others'
// (node/sfu/quality). Changes are told to everybody in the room; to the other
// nodes all of it is told now and then, so that a lost message heals.
const (
	qualityAgain = 6 * quality.Interval
	// maxQualities bounds the participants of whom one node may speak.
	maxQualities = maxRemote
)

// Qualities says how good the connections of a node's participants are.
type Qualities struct {
	List []Quality `json:"list"`
}

// Quality is that of one participant.
type Quality struct {
	SID   string        `json:"sid"`
	Level quality.Level `json:"level"`
	Score float32       `json:"score"` // mean opinion score, 1 to 4.5
}

func (q *Qualities) check() error {
	if len(q.List) > maxQualities {
		return errors.New("qualities of too many participants")
	}
	for _, x := range q.List {
		if x.Level > quality.Excellent || !(x.Score >= 1 && x.Score <= 5) {
			return errors.New("a quality is out of range")
		}
	}
	return nil
}

// judge is one participant's quality in the making. Owned by Serve.
type judge struct {
	at   time.Time
	ups  map[sfu.TrackID]*judgedUp
	down map[*sfu.DownTrack]*judgedDown
}

// judgedUp is a track that a participant publishes.
type judgedUp struct {
	stream  *quality.Stream
	packets uint64 // by the UpTrack: what was sent again is among them
	bytes   uint64
	counts  sfu.Counts
}

// judgedDown is a track that a participant receives.
type judgedDown struct {
	stream *quality.Stream
	stats  sfu.DownStats
}

func newJudge() *judge {
	return &judge{ups: map[sfu.TrackID]*judgedUp{}, down: map[*sfu.DownTrack]*judgedDown{}}
}

// mediaOf says how a codec takes loss.
func mediaOf(c sfu.Codec) quality.Media {
	red, fec := strings.EqualFold(c.MimeType, "audio/red"), strings.Contains(c.SDPFmtpLine, "useinbandfec=1")
	switch {
	case !strings.HasPrefix(strings.ToLower(c.MimeType), "audio/"):
		return quality.Video
	case red:
		return quality.OpusRED
	case fec:
		return quality.OpusFEC
	}
	return quality.Opus
}

// published judges what came of a published track.
func (j *judge) published(up *sfu.UpTrack, counts sfu.Counts, span time.Duration, alive bool) quality.Verdict {
	var packets, bytes uint64
	for _, l := range up.Stats().Layers {
		packets, bytes = packets+l.Packets, bytes+l.Bytes
	}
	u := j.ups[up.ID()]
	if u == nil {
		u = &judgedUp{stream: quality.NewStream(mediaOf(up.Codec())), packets: packets, bytes: bytes, counts: counts}
		j.ups[up.ID()] = u
		return u.stream.Verdict()
	}
	came, expected := packets-u.packets, since(counts.Expected, u.counts.Expected)
	w := quality.Window{Span: span, Received: came, Lost: since(expected, came), Jitter: counts.Jitter, Bits: 8 * (bytes - u.bytes), Alive: alive}
	if up.Muted() || up.Wanted() == 0 || came == 0 && alive { // dynacast, or a pause of its sender
		w.State = quality.Off
	}
	u.packets, u.bytes, u.counts = packets, bytes, counts
	return u.stream.Update(w)
}

// received judges what a client reports of a track that it is sent.
func (j *judge) received(d *sfu.DownTrack, span time.Duration, alive bool) quality.Verdict {
	now, x := d.Stats(), j.down[d]
	if x == nil {
		x = &judgedDown{stream: quality.NewStream(mediaOf(d.Up().Codec())), stats: now}
		j.down[d] = x
		return x.stream.Verdict()
	}
	sent := now.Packets - x.stats.Packets
	lost := since(since(uint64(now.Lost), uint64(x.stats.Lost)), now.Resent-x.stats.Resent)
	w := quality.Window{Span: span, Received: since(sent, lost), Lost: min(lost, sent), RTT: now.RTT, Jitter: now.Jitter, Alive: alive}
	if now.Live && now.Target > now.Layer {
		w.Missing = float64(now.Target - now.Layer)
	}
	switch {
	case now.Limited:
		w.State = quality.Starved
	case now.Paused || sent == 0 && alive:
		w.State = quality.Off
	}
	x.stats = now
	return x.stream.Update(w)
}

// since is the growth of a counter, 0 for one that began anew.
func since(now, before uint64) uint64 {
	if now < before {
		return 0
	}
	return now - before
}

// doJudge judges a participant by the worst of its streams.
func (p *Participant) doJudge(ups []*sfu.UpTrack, now time.Time) {
	j, span := p.judge, now.Sub(p.judge.at)
	if j.at.IsZero() {
		span = quality.Interval
	}
	j.at = now
	alive := !p.mediaDown
	counts := p.session.Received()
	var list []quality.Verdict
	for _, up := range ups {
		list = append(list, j.published(up, counts[up.ID()], span, alive))
	}
	for _, d := range p.subs {
		list = append(list, j.received(d, span, alive))
	}
	if !alive {
		list = append(list, quality.Verdict{Level: quality.Lost, Reason: quality.ByLost})
	}
	j.forget(p, ups)
	v := quality.Worst(list...)
	p.room.post(func() { p.room.doVerdict(p, v) })
}

// forget drops what is published or received no more.
func (j *judge) forget(p *Participant, ups []*sfu.UpTrack) {
	there := map[sfu.TrackID]bool{}
	for _, up := range ups {
		there[up.ID()] = true
	}
	for id := range j.ups {
		if !there[id] {
			delete(j.ups, id)
		}
	}
	for d := range j.down {
		if p.subs[publicID(d.Up().ID())] != d {
			delete(j.down, d)
		}
	}
}

// doQuality asks for verdicts, and tells what has changed since the last tick.
func (r *Room) doQuality(now time.Time) {
	if now.Sub(r.judged) >= quality.Interval {
		r.judged = now
		for _, p := range r.locals {
			ups := r.upsOf(p)
			p.post(func() { p.doJudge(ups, now) })
		}
	}
	if len(r.verdicts) > 0 {
		r.tellQuality(r.verdicts)
		r.announceQuality(r.verdicts)
		r.verdicts = nil
	}
	if now.Sub(r.qualitySaid) >= qualityAgain {
		r.qualitySaid = now
		r.announceQuality(r.ownQualities())
	}
}

// upsOf lists what a participant publishes.
func (r *Room) upsOf(p *Participant) (list []*sfu.UpTrack) {
	for _, ti := range p.info.Tracks {
		if t := r.tracks[sfu.TrackID(ti.Sid)]; t != nil && t.up != nil {
			list = append(list, t.up)
		}
	}
	return list
}

// doVerdict takes a verdict that has been made, if the participant is still there.
func (r *Room) doVerdict(p *Participant, v quality.Verdict) {
	if r.locals[p.identity] != p || !r.board.Update(p.sid, v) {
		return
	}
	p.quality = Quality{SID: p.sid, Level: v.Level, Score: v.MOS()}
	r.verdicts = append(r.verdicts, p.quality)
	if v.Level < quality.Good {
		r.log.Info("a connection is bad", "participant", p.sid, "quality", v.Level.String(), "reason", string(v.Reason), "figure", v.Figure)
	}
}

func (r *Room) ownQualities() (list []Quality) {
	for _, p := range r.locals {
		if p.quality.SID != "" {
			list = append(list, p.quality)
		}
	}
	return list
}

// announceQuality tells the other nodes.
func (r *Room) announceQuality(list []Quality) {
	if len(list) == 0 {
		return
	}
	body := encode(Qualities{List: list})
	for name := range r.remotes {
		r.sendTo(name, KindQuality, body) //nolint:errcheck // told again
	}
}

// doQualities takes a node's word on its own participants.
func (r *Room) doQualities(from residency.NodeName, q Qualities) {
	m := r.remotes[from]
	if m == nil {
		return
	}
	var changed []Quality
	for _, x := range q.List {
		if p := m.participants[x.SID]; p != nil && p.quality != x {
			p.quality = x
			changed = append(changed, x)
		}
	}
	r.tellQuality(changed)
}

// tellQuality sends qualities to everybody here.
func (r *Room) tellQuality(list []Quality) {
	if msg := r.qualityUpdate(list); msg != nil {
		r.tellAll(msg)
	}
}

// tellQualitiesTo tells one who joins or comes back.
func (r *Room) tellQualitiesTo(p *Participant) {
	list := r.ownQualities()
	for _, m := range r.remotes {
		for _, x := range m.participants {
			if x.quality.SID != "" {
				list = append(list, x.quality)
			}
		}
	}
	if msg := r.qualityUpdate(list); msg != nil {
		p.send(msg)
	}
}

// qualityUpdate makes the message, without those whom clients do not know; nil if
// there is nothing to tell.
func (r *Room) qualityUpdate(list []Quality) *livekit.SignalResponse {
	m := &livekit.ConnectionQualityUpdate{}
	for _, q := range list {
		if !r.hidden(q.SID) {
			m.Updates = append(m.Updates, &livekit.ConnectionQualityInfo{ParticipantSid: q.SID, Quality: levels[q.Level], Score: q.Score})
		}
	}
	if len(m.Updates) == 0 {
		return nil
	}
	return &livekit.SignalResponse{Message: &livekit.SignalResponse_ConnectionQuality{ConnectionQuality: m}}
}

// levels are the protocol's names of the levels.
var levels = [...]livekit.ConnectionQuality{
	quality.Lost: livekit.ConnectionQuality_LOST, quality.Poor: livekit.ConnectionQuality_POOR,
	quality.Good: livekit.ConnectionQuality_GOOD, quality.Excellent: livekit.ConnectionQuality_EXCELLENT,
}
