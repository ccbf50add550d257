package jsep

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// settle ends the taking of a description: senders get their numbers, and what
// changed is told.
func (p *Peer) settle(st *state, restarted bool) Change {
	c := Change{Remote: *st.remote, ICERestarted: restarted}
	for i := range st.sections {
		s := &st.sections[i]
		p.bind(s, &c)
		s.in = s.incoming()
		if s.in != nil {
			s.in.New = !s.in.follows(p.before(i))
			c.Incoming = append(c.Incoming, *s.in)
		}
	}
	for i := range p.stable.sections {
		if in := p.before(i); in != nil && (st.sections[i].in == nil || st.sections[i].in.New) {
			c.Gone = append(c.Gone, *in)
			delete(p.prefers, in.TrackID)
		}
	}
	c.Unbound = append(c.Unbound, p.unbound(st)...)
	return c
}

// before is what the client sent in a section until now.
func (p *Peer) before(i int) *Incoming {
	if i >= len(p.stable.sections) {
		return nil
	}
	return p.stable.sections[i].in
}

// follows reports whether a track is the one that was in its section before.
func (in *Incoming) follows(before *Incoming) bool {
	return before != nil && in.MID == before.MID && in.TrackID == before.TrackID && in.StreamID == before.StreamID
}

// connect checks the client's transport against what it was. The certificate
// stays for the life of a connection; ICE credentials that change restart ICE
// (RFC 8839 section 4.4.1.1).
func (s *state) connect(d *description, lead bool) (restarted bool, err error) {
	if len(d.remote.Fingerprints) == 0 {
		return false, errors.New("no section can be taken")
	}
	wants := d.remote.Setup == "passive"
	if s.remote == nil {
		s.active = wants || lead && d.remote.Setup == "actpass"
	} else {
		if !slices.Equal(s.remote.Fingerprints, d.remote.Fingerprints) {
			return false, errors.New("the fingerprint is another one than before")
		}
		if d.remote.Setup != "actpass" && wants != s.active {
			return false, fmt.Errorf("setup %q turns the roles of DTLS around", d.remote.Setup)
		}
		restarted = s.remote.Ufrag != d.remote.Ufrag || s.remote.Pwd != d.remote.Pwd
	}
	if s.active {
		d.remote.Setup = "passive"
	}
	s.remote = &d.remote
	return restarted, nil
}

// bind gives a section's sender its numbers and tells them if they are new.
func (p *Peer) bind(s *section, c *Change) {
	if s.snd == nil || s.snd.refused || s.snd.bound.Unsupported && p.role == offers {
		return // the client was asked once
	}
	at := *s.snd
	if !s.rejected && !s.taken.dir.receives() {
		if at.bound.Key != "" {
			c.Unbound = append(c.Unbound, at.sender.Key)
		}
		at.refused, at.bound = true, Binding{}
		s.snd = &at
		return
	}
	if b := s.binding(); b != at.bound {
		at.bound = b
		s.snd = &at
		c.Bound = append(c.Bound, b)
	}
}

// binding is how a section's sender is sent.
func (s *section) binding() Binding {
	at := s.snd
	b := Binding{Key: at.sender.Key, MID: s.mid, Codec: at.sender.Codec, CNAME: cname(at.streamID)}
	var formats []Format
	if !s.rejected {
		formats = s.taken.formats
	}
	f, ok := pick(at.sender.Codec, formats)
	opus, _ := pick(Codec{MimeType: mimeOpus, ClockRate: 48000}, formats)
	if red := strings.EqualFold(at.sender.Codec.MimeType, mimeRED); red && ok {
		b.OpusPayloadType = opus.PayloadType
	} else if red && opus.PayloadType != 0 {
		f, ok, b.PlainOpus = opus, true, true
	}
	if !ok {
		b.Unsupported = true
		return b
	}
	b.Codec, b.PayloadType, b.SSRC, b.Feedback = f.Codec, f.PayloadType, at.ssrc, f.Feedback
	b.Feedback.TransportCC = b.Feedback.TransportCC && s.kind == Video
	b.Extensions = s.taken.ext.only(s.kind, give)
	if !b.Feedback.TransportCC {
		b.Extensions.TransportCC = 0 // numbers that nobody would report on
	}
	if f.RTX != 0 && at.rtx != 0 {
		b.RTXSSRC, b.RTXPayloadType = at.rtx, f.RTX
	}
	return b
}

// unbound lists the senders that had numbers and have no section any more.
func (p *Peer) unbound(st *state) []Key {
	var keys []Key
	placed := st.placed()
	for _, s := range p.stable.sections {
		if s.snd == nil || s.snd.bound.Key == "" {
			continue
		}
		if k := s.snd.sender.Key; !placed[k] && p.wished(k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// ownStream names the track in its stream, "owner|track", also where it was to
// share one with others. A browser goes on calling a section's track by the id
// of the first one in it; clients then find the new one by its stream alone.
func ownStream(streamID, trackID string) string { return cname(streamID) + "|" + trackID }

// cname is the owner of a stream: tracks of one owner share a clock.
func cname(streamID string) string {
	owner, _, _ := strings.Cut(streamID, "|")
	return owner
}
