package rtc

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

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

// unwanted reports whether the room has refused the track.
func (t *incoming) unwanted() bool { return t.ready && t.up == nil }

// carries reports whether a packet of the type is in the track's codec; redundant
// audio may come without redundancy. A client that changes the codec has to publish
// anew.
func (t *incoming) carries(pt uint8) bool {
	return pt == t.format.PayloadType || t.opus != 0 && pt == t.opus
}

// negotiated follows what the client says that it sends. A track ends when its
// section ends or carries another one: these are returned.
func (r *receiving) negotiated(c jsep.Change) (ended []*incoming) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]*section, len(c.Incoming))
	for _, in := range c.Incoming {
		s := r.sections[in.MID]
		if s == nil || s.in.TrackID != in.TrackID || s.in.Kind != in.Kind {
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
	r.sections, r.names = next, newRegister(next)
	r.names.adopt(r.adopted)
	r.reconsider(len(ended) > 0)
	return ended
}

// reconsider follows a description: an SSRC may be another track's now, and where a
// track has ended there is room for one that was too many.
func (r *receiving) reconsider(room bool) {
	for ssrc, s := range r.streams {
		if at, ok := r.names.ssrcs[ssrc]; ok && at.section.track != s.track {
			delete(r.streams, ssrc)
		}
	}
	for _, s := range r.sections {
		s.refused = s.refused && !room
	}
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
	for l := range t.asks {
		t.asks[l].Store(0) // whoever holds the UpTrack still may ask in vain
	}
}

// unpublish tells that tracks are over, but for those of which the room has yet to
// hear: announce does that. Called without mu.
func (p *peer) unpublish(ended []*incoming) {
	for _, t := range ended {
		if up := p.recv.forget(t); up != nil {
			p.s.gate.pass(func() { p.s.events.Unpublish(up) })
		}
	}
}

func (r *receiving) forget(t *incoming) *sfu.UpTrack {
	r.mu.Lock()
	defer r.mu.Unlock()
	up := t.up
	t.up = nil
	return up
}

// resolve begins the stream of an unknown SSRC, if it is known whose it is.
func (r *receiving) resolve(rtp []byte) *stream {
	if r.closed {
		return nil
	}
	at, ok := r.names.find(rtp)
	if !ok {
		return nil
	}
	sec := at.section
	format, rtx := formatOf(sec.in, payloadType(rtp))
	if format != nil && !rtx && strings.EqualFold(sec.in.Formats[0].Codec.MimeType, "audio/red") {
		format = &sec.in.Formats[0] // whichever comes first, with or without redundancy
	}
	if format == nil || rtx && sec.track == nil || !r.track(sec, *format) {
		return nil
	}
	return r.admit(&stream{ssrc: ssrcOf(rtp), track: sec.track, layer: at.layer, rtx: rtx})
}

// admit begins a stream. One that was on the layer before is over, if it was of the
// same sort: the client gave it another SSRC. A layer so has two at most, whatever
// a client sends.
func (r *receiving) admit(s *stream) *stream {
	for ssrc, old := range r.streams {
		if old.track != s.track || old.layer != s.layer {
			continue
		}
		if old.rtx == s.rtx {
			delete(r.streams, ssrc)
		}
		old.repairs = nil // no longer what was repaired until now
	}
	r.streams[s.ssrc] = s
	r.changes++
	if s.rtx {
		return s
	}
	f := s.track.format
	s.recv = sfu.NewReceiver(sfu.ReceiverConfig{
		SSRC: s.ssrc, Kind: s.track.about.Kind, ClockRate: f.Codec.ClockRate, Nack: f.Feedback.NACK,
	})
	s.track.asks[s.layer].Store(s.ssrc)
	return s
}

// list is Session.Streams.
func (r *receiving) list(seen uint64) (map[sfu.TrackID][]Stream, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes == seen {
		return nil, seen
	}
	all := make(map[sfu.TrackID][]Stream)
	for ssrc, s := range r.streams {
		if up := s.track.up; up != nil {
			all[up.ID()] = append(all[up.ID()], Stream{SSRC: ssrc, Layer: s.layer})
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b Stream) int { return cmp.Or(cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.SSRC, b.SSRC)) })
	}
	return all, r.changes
}

// adopt is told before the first description.
func (r *receiving) adopt(known map[string][]Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopted = known
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
		switch f := &in.Formats[i]; {
		case pt == f.PayloadType:
			return f, false
		case pt == f.RTX && pt != 0:
			return f, true
		}
	}
	return nil, false
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
	out := p.s.engine.lend()
	stays := p.recv.admitted(t, up, out)
	p.s.engine.back(out)
	if stays || up == nil {
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
	r.changes++
	for _, s := range r.streams {
		if s.track == t && len(s.early) > 0 {
			s.release(up, r.p.s.engine.now(), out)
		}
	}
	return true
}

// release hands over what waited for the room's answer. Where it did not all fit, a
// keyframe has to follow it.
func (s *stream) release(up *sfu.UpTrack, now time.Time, out sfu.Out) {
	if up != nil {
		up.Ingest(s.layer, s.early, out)
		if s.cut {
			up.RequestKeyframe(s.layer, now)
		}
	}
	s.early, s.cut = nil, false
}

// askKeyframe sends a PLI (RFC 4585 section 6.3.1); a connection that is closing
// cannot be asked.
func (p *peer) askKeyframe(t *incoming, l sfu.Layer) {
	ssrc := t.asks[l].Load()
	if ssrc == 0 {
		return
	}
	out := p.s.engine.transport.Batch()
	p.recv.write(out, &rtcp.PictureLossIndication{SenderSSRC: p.recv.ssrc, MediaSSRC: ssrc})
	p.s.engine.transport.Release(out)
}

func (r *receiving) close() { r.p.unpublish(r.abandon()) }

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
