package rtc

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/rtc/jsep"
	"github.com/domicile/domicile/node/sfu"
)

// incoming is a published track, all its streams together. A track is known once
// its first packet came; the room is asked what to do with it, and packets wait
// until it has answered.
type incoming struct {
	// Static after construction.
	about  Incoming
	format jsep.Format
	opus   uint8                        // payload type of Opus beside redundant audio, else 0
	asks   [sfu.MaxLayers]atomic.Uint32 // SSRC by layer, for keyframe requests

	// Guarded by receiving.mu.
	ready bool         // the room has answered
	up    *sfu.UpTrack // nil: not wanted, or over
	gone  bool         // the client sends it no more
}

// carries reports whether a packet of the type is in the track's codec; redundant
// audio may come without redundancy. A client that changes the codec has to publish
// anew.
func (t *incoming) carries(pt uint8) bool {
	return pt == t.format.PayloadType || t.opus != 0 && pt == t.opus
}

// negotiated follows what the client says that it sends. A track ends when its
// section ends or carries another one.
func (r *receiving) negotiated(c jsep.Change) {
	for _, t := range r.replace(c.Incoming) {
		r.p.unpublish(t)
	}
}

func (r *receiving) replace(now []jsep.Incoming) (ended []*incoming) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]*section, len(now))
	for _, in := range now {
		s := r.sections[in.MID]
		if s == nil || s.in.TrackID != in.TrackID {
			s = &section{}
		} else {
			delete(r.sections, in.MID)
		}
		s.in = in
		next[in.MID] = s
	}
	for _, s := range r.sections {
		if s.track != nil {
			r.end(s.track)
			ended = append(ended, s.track)
		}
	}
	r.sections = next
	return ended
}

// end forgets the streams of a track.
func (r *receiving) end(t *incoming) {
	t.gone = true
	for ssrc, s := range r.streams {
		if s.track == t {
			delete(r.streams, ssrc)
		}
	}
	r.dirty = slices.DeleteFunc(r.dirty, func(s *stream) bool { return s.track == t })
}

// unpublish tells that a track is over, unless the room has yet to hear of it:
// then announce does.
func (p *peer) unpublish(t *incoming) {
	p.recv.mu.Lock()
	up := t.up
	t.up = nil
	p.recv.mu.Unlock()
	if up != nil {
		p.s.gate.pass(func() { p.s.events.Unpublish(up) })
	}
}

// resolve finds whose the packets of an unknown SSRC are: by what the description
// says of SSRCs, by the MID and RID that the first packets of a stream carry (RFC
// 8843 section 9.2, RFC 8852), or because only one section can have sent them.
func (r *receiving) resolve(rtp []byte) *stream {
	if r.closed || len(r.streams) >= maxStreams {
		return nil
	}
	pt := payloadType(rtp)
	sec, s := r.announced(ssrcOf(rtp))
	if sec == nil {
		sec, s = r.named(rtp)
	}
	if sec == nil {
		sec, s = r.only(pt)
	}
	if sec == nil {
		return nil
	}
	format, rtx := formatOf(sec.in, pt)
	if format != nil && !rtx && strings.EqualFold(sec.in.Formats[0].Codec.MimeType, "audio/red") {
		format = &sec.in.Formats[0] // whichever comes first, with or without redundancy
	}
	if format == nil || rtx && sec.track == nil || !r.track(sec, *format) {
		return nil
	}
	s.ssrc, s.track, s.rtx, s.stampID = ssrcOf(rtp), sec.track, rtx, sec.in.Extensions.TransportCC
	r.admit(s)
	return s
}

// admit begins a stream. One that was on the layer before is over: the client
// gave it another SSRC.
func (r *receiving) admit(s *stream) {
	r.streams[s.ssrc] = s
	if s.rtx {
		return
	}
	for ssrc, old := range r.streams {
		if old != s && old.track == s.track && old.layer == s.layer && !old.rtx {
			delete(r.streams, ssrc)
		}
	}
	f := s.track.format
	s.recv = sfu.NewReceiver(sfu.ReceiverConfig{
		SSRC: s.ssrc, Kind: s.track.about.Kind, ClockRate: f.Codec.ClockRate, Nack: f.Feedback.NACK,
	})
	s.track.asks[s.layer].Store(s.ssrc)
}

// announced finds an SSRC that the description has.
func (r *receiving) announced(ssrc uint32) (*section, *stream) {
	for _, sec := range r.sections {
		for i, st := range sec.in.Streams {
			if st.SSRC == ssrc || st.RTX == ssrc && ssrc != 0 {
				return sec, &stream{layer: sfu.Layer(min(i, sfu.MaxLayers-1))}
			}
		}
	}
	return nil, nil
}

// named reads the names that a packet carries.
func (r *receiving) named(rtp []byte) (*section, *stream) {
	for _, sec := range r.sections {
		ids := sec.in.Extensions
		if string(sfu.ExtensionValue(rtp, ids.MID)) != sec.in.MID {
			continue
		}
		rid := sfu.ExtensionValue(rtp, ids.RID)
		if repaired := sfu.ExtensionValue(rtp, ids.RepairedRID); len(repaired) > 0 {
			rid = repaired
		}
		if layer, ok := layerOf(string(rid), sec.in.RIDs); ok && (len(rid) > 0 || len(sec.in.RIDs) == 0) {
			return sec, &stream{layer: layer}
		}
	}
	return nil, nil
}

// only finds the section that alone may send a payload type, without simulcast.
func (r *receiving) only(pt uint8) (found *section, s *stream) {
	for _, sec := range r.sections {
		if f, _ := formatOf(sec.in, pt); f == nil {
			continue
		}
		if found != nil || len(sec.in.RIDs) > 0 || len(sec.in.Streams) > 0 {
			return nil, nil
		}
		found = sec
	}
	return found, &stream{}
}

// primaryOf finds the stream that a stream of retransmissions repairs.
func (r *receiving) primaryOf(rtx *stream) *stream {
	for _, s := range r.streams {
		if s.track == rtx.track && s.layer == rtx.layer && !s.rtx {
			return s
		}
	}
	return nil
}

// formatOf finds the format with a payload type, and whether it is the number of
// its retransmissions.
func formatOf(in jsep.Incoming, pt uint8) (f *jsep.Format, rtx bool) {
	for i := range in.Formats {
		switch f := &in.Formats[i]; pt {
		case f.PayloadType:
			return f, false
		case f.RTX:
			return f, true
		}
	}
	return nil, false
}

// layerOf maps a RID to a layer as LiveKit's clients name them: quarter, half,
// full, or numbers that count down. Other names count up as the offer lists them.
func layerOf(rid string, offered []string) (sfu.Layer, bool) {
	switch rid {
	case "", "q", "2":
		return 0, true
	case "h", "1":
		return 1, true
	case "f", "0":
		return 2, true
	}
	if i := slices.Index(offered, rid); i >= 0 && i < sfu.MaxLayers {
		return sfu.Layer(i), true
	}
	return 0, false
}

// track makes sure that a section has a track, and asks the room about a new one.
// It reports false for more than the session may have.
func (r *receiving) track(sec *section, f jsep.Format) bool {
	if sec.track != nil {
		return true
	}
	if sec.refused {
		return false
	}
	if r.tracks() >= r.p.s.cfg.MaxTracks {
		r.ignored++
		sec.refused = true
		return false
	}
	sec.track = newIncoming(sec.in, f)
	r.p.tasks.Add(1)
	go r.p.announce(sec.track)
	return true
}

// tracks counts those whose media arrives.
func (r *receiving) tracks() (n int) {
	for _, sec := range r.sections {
		if sec.track != nil {
			n++
		}
	}
	return n
}

func newIncoming(in jsep.Incoming, f jsep.Format) *incoming {
	about := Incoming{
		CID: in.TrackID, StreamID: in.StreamID, MID: in.MID, RIDs: in.RIDs, Codec: sfu.Codec(f.Codec),
		Extensions: mediaExtensions(in.Extensions),
	}
	if in.Kind == jsep.Video {
		about.Kind = sfu.Video
	}
	mime := strings.ToLower(f.Codec.MimeType)
	about.SVC = (mime == "video/vp9" || mime == "video/av1") && len(in.RIDs) <= 1 && len(in.Streams) <= 1
	t := &incoming{about: about, format: f}
	if mime == "audio/red" {
		t.about.REDPayloadType, t.opus = f.PayloadType, opusType(in)
	}
	return t
}

func opusType(in jsep.Incoming) uint8 {
	for _, f := range in.Formats {
		if strings.EqualFold(f.Codec.MimeType, "audio/opus") {
			return f.PayloadType
		}
	}
	return 0
}

// mediaExtensions are the extensions that the media plane reads.
func mediaExtensions(e jsep.Extensions) sfu.Extensions {
	return sfu.Extensions{
		AudioLevel: e.AudioLevel, VideoOrientation: e.VideoOrientation, PlayoutDelay: e.PlayoutDelay,
		AbsCaptureTime: e.AbsCaptureTime, DependencyDescriptor: e.DependencyDescriptor,
		TransportCC: e.TransportCC, MID: e.MID,
	}
}

// announce asks the room what to do with a track, and hands over what came
// meanwhile.
func (p *peer) announce(t *incoming) {
	defer p.tasks.Done()
	var up *sfu.UpTrack
	p.s.gate.pass(func() { up = p.s.events.Publish(t.about) })
	if up != nil {
		up.OnKeyframeRequest(func(l sfu.Layer) { p.askKeyframe(t, l) })
	}
	out := p.s.engine.transport.Batch()
	defer p.s.engine.transport.Release(out)
	if p.recv.admitted(t, up, out) || up == nil {
		return
	}
	p.s.gate.pass(func() { p.s.events.Unpublish(up) })
}

// admitted notes the room's answer. It reports false if the track is over already.
func (r *receiving) admitted(t *incoming, up *sfu.UpTrack, out sfu.Out) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.ready = true
	if t.gone {
		return false
	}
	t.up = up
	for _, s := range r.streams {
		if s.track != t || len(s.early) == 0 {
			continue
		}
		if up != nil {
			up.Ingest(s.layer, s.early, out)
		}
		s.early = nil
	}
	return true
}

// askKeyframe sends a PLI (RFC 4585 section 6.3.1); a connection that is closing
// cannot be asked.
func (p *peer) askKeyframe(t *incoming, l sfu.Layer) {
	ssrc := t.asks[l].Load()
	if ssrc == 0 {
		return
	}
	out := p.s.engine.transport.Batch()
	p.writeRTCP(out, &rtcp.PictureLossIndication{SenderSSRC: p.recv.ssrc, MediaSSRC: ssrc})
	p.s.engine.transport.Release(out)
}

func (r *receiving) close() {
	for _, t := range r.abandon() {
		r.p.unpublish(t)
	}
}

func (r *receiving) abandon() (all []*incoming) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, sec := range r.sections {
		if sec.track != nil {
			r.end(sec.track)
			all = append(all, sec.track)
		}
	}
	return all
}
