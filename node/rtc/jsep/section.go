package jsep

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// reader reads the sections of one description in their order.
type reader struct {
	red     bool
	session []sdp.Attribute // what holds for all sections that say nothing else
	ids     *extensionMap
	ssrcs   map[uint32]bool // of the sections before
	mids    map[string]bool
}

func (r *reader) read(m *sdp.MediaDescription) (*media, error) {
	sec := &media{
		name: m.MediaName.Media, protos: m.MediaName.Protos, formatList: m.MediaName.Formats,
		kind: kindOf(m), dir: sends | receives,
	}
	if sec.mid, sec.named = m.Attribute(sdp.AttrKeyMID); sec.named {
		if !token(sec.mid) {
			return nil, fmt.Errorf("read SDP: mid %.40q: want 1 to %d characters", sec.mid, maxToken)
		}
		if r.mids[sec.mid] {
			return nil, fmt.Errorf("read SDP: two sections are called %q", sec.mid)
		}
		r.mids[sec.mid] = true
	}
	_, only := m.Attribute("bundle-only")
	sec.closed = sec.kind == other || m.MediaName.Port.Value == 0 && !only
	if sec.kind <= Video && !sec.closed {
		r.readMedia(m, sec)
	}
	return sec, nil
}

func kindOf(m *sdp.MediaDescription) Kind {
	switch protos := strings.Join(m.MediaName.Protos, "/"); {
	case m.MediaName.Media == "application" && strings.HasSuffix(protos, "DTLS/SCTP") &&
		slices.Equal(m.MediaName.Formats, []string{"webrtc-datachannel"}):
		return data
	case !rtpProfile(m.MediaName.Protos):
		return other
	case m.MediaName.Media == "audio":
		return Audio
	case m.MediaName.Media == "video":
		return Video
	}
	return other
}

// rtpProfile takes every profile of RTP: that media is encrypted is said by the
// fingerprint, whatever stands there (RFC 9429 section 5.1.2).
func rtpProfile(protos []string) bool {
	n := len(protos)
	return n >= 2 && protos[n-2] == "RTP" && slices.Contains([]string{"AVP", "AVPF", "SAVP", "SAVPF"}, protos[n-1])
}

// readMedia reads a section of audio or video. What it cannot read there it
// leaves out, as RFC 8866 section 5.13 has it.
func (r *reader) readMedia(m *sdp.MediaDescription, sec *media) {
	sec.formats, sec.stereo = readFormats(sec.kind, m, r.red)
	sec.readProperties(r.session)
	sec.readProperties(m.Attributes)
	for _, a := range m.Attributes {
		if a.Key == sdp.AttrKeyExtMap {
			r.ids.take(a.Value, sec.mixed, &sec.ext)
		}
	}
	sec.ext = sec.ext.only(sec.kind, take|give)
	if !sec.dir.sends() {
		return
	}
	sec.stream, sec.track = readMSID(m.Attributes)
	if sec.rids, sec.simulcast = readRIDs(m.Attributes); len(sec.rids) == 0 {
		sec.streams = r.readStreams(m.Attributes)
	}
}

func (m *media) readProperties(attributes []sdp.Attribute) {
	for _, a := range attributes {
		switch a.Key {
		case "sendrecv":
			m.dir = sends | receives
		case "sendonly":
			m.dir = sends
		case "recvonly":
			m.dir = receives
		case "inactive":
			m.dir = 0
		case sdp.AttrKeyRTCPRsize:
			m.rsize = true
		case sdp.AttrKeyExtMapAllowMixed:
			m.mixed = true
		}
	}
}

// rtpFormat is what the lines of a section say of one payload type.
type rtpFormat struct {
	name     string
	rate     uint32
	channels uint16
	fmtp     string
	fb       Feedback
}

// readFormats returns the formats that we carry, in the order of the m= line.
func readFormats(k Kind, m *sdp.MediaDescription, red bool) (formats []Format, stereo bool) {
	all := describeFormats(m)
	rtx := repairFormats(m, all)
	seen := make(map[uint8]bool)
	for _, number := range m.MediaName.Formats {
		pt, ok := payloadType(number)
		d := all[pt]
		if !ok || d == nil || seen[pt] {
			continue
		}
		seen[pt] = true
		if c := d.codec(k); c.taken(red) {
			stereo = stereo || c.MimeType == mimeOpus && c.stereo()
			formats = append(formats, Format{PayloadType: pt, RTX: rtx[pt], Codec: c, Feedback: d.fb.forKind(k)})
		}
	}
	return onePacketization(redundant(formats)), stereo
}

// repairFormats finds the payload type of each format's retransmissions (RFC 4588).
func repairFormats(m *sdp.MediaDescription, all map[uint8]*rtpFormat) map[uint8]uint8 {
	rtx := make(map[uint8]uint8)
	for _, number := range m.MediaName.Formats {
		pt, ok := payloadType(number)
		if d := all[pt]; ok && d != nil && strings.EqualFold(d.name, "rtx") {
			if apt, ok := payloadType(fmtpOr(d.fmtp, "apt", "")); ok && rtx[apt] == 0 {
				rtx[apt] = pt
			}
		}
	}
	return rtx
}

// codec is the codec of a format, without a MIME type if it is none of ours.
func (f *rtpFormat) codec(k Kind) Codec {
	c := Codec{MimeType: canonical(k, f.name, f.rate), ClockRate: f.rate, SDPFmtpLine: f.fmtp}
	if k == Audio {
		if c.Channels = f.channels; f.channels != 2 { // RFC 7587 section 7
			c.MimeType = ""
		}
	}
	return c
}

// redundant keeps only such RED as repeats Opus ("111/111", RFC 2198 section 5).
func redundant(formats []Format) []Format {
	return slices.DeleteFunc(slices.Clone(formats), func(red Format) bool {
		if red.Codec.MimeType != mimeRED {
			return false
		}
		for of := range strings.SplitSeq(red.Codec.SDPFmtpLine, "/") {
			pt, ok := payloadType(of)
			if !ok || !slices.ContainsFunc(formats, func(f Format) bool { return f.PayloadType == pt && f.Codec.MimeType == mimeOpus }) {
				return true
			}
		}
		return false
	})
}

// onePacketization leaves the single NAL units of H.264 (packetization mode 0)
// to those who have nothing else.
func onePacketization(formats []Format) []Format {
	mode := func(f Format, mode string) bool {
		return f.Codec.MimeType == mimeH264 && fmtpOr(f.Codec.SDPFmtpLine, "packetization-mode", "0") == mode
	}
	if !slices.ContainsFunc(formats, func(f Format) bool { return mode(f, "1") }) {
		return formats
	}
	return slices.DeleteFunc(formats, func(f Format) bool { return mode(f, "0") })
}

// payloadType reads a number that can be told from RTCP on one port
// (RFC 5761 section 4).
func payloadType(s string) (uint8, bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil && n < 128 && (n < 64 || n > 95)
}

func describeFormats(m *sdp.MediaDescription) map[uint8]*rtpFormat {
	all := make(map[uint8]*rtpFormat)
	for _, a := range m.Attributes {
		number, rest, _ := strings.Cut(a.Value, " ")
		pt, ok := payloadType(number)
		if a.Key != "rtpmap" || !ok || all[pt] != nil {
			continue
		}
		all[pt] = readRTPMap(rest)
	}
	for _, a := range m.Attributes {
		number, rest, _ := strings.Cut(a.Value, " ")
		rest = strings.TrimSpace(rest)
		pt, ok := payloadType(number)
		f := all[pt]
		switch {
		case a.Key == "fmtp" && ok && f != nil:
			f.fmtp = rest
		case a.Key == "rtcp-fb" && number == "*":
			for _, f := range all {
				f.fb.take(rest)
			}
		case a.Key == "rtcp-fb" && ok && f != nil:
			f.fb.take(rest)
		}
	}
	return all
}

// readRTPMap reads "VP8/90000" or "opus/48000/2".
func readRTPMap(s string) *rtpFormat {
	parts := strings.Split(strings.TrimSpace(s), "/")
	f := &rtpFormat{name: parts[0], channels: 1}
	if len(parts) > 1 {
		if n, err := strconv.ParseUint(parts[1], 10, 32); err == nil {
			f.rate = uint32(n)
		}
	}
	if len(parts) > 2 {
		if n, err := strconv.ParseUint(parts[2], 10, 16); err == nil {
			f.channels = uint16(n)
		}
	}
	return f
}

func (f *Feedback) take(s string) {
	switch s {
	case "nack":
		f.NACK = true
	case "nack pli":
		f.PLI = true
	case "ccm fir":
		f.FIR = true
	case "transport-cc":
		f.TransportCC = true
	case "goog-remb":
		f.REMB = true
	}
}

// forKind leaves of what a client offers what we do.
func (f Feedback) forKind(k Kind) Feedback {
	if k == Audio {
		return Feedback{NACK: f.NACK, TransportCC: f.TransportCC}
	}
	f.REMB = f.REMB && !f.TransportCC
	return f
}
