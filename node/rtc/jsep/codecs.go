package jsep

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Codec describes a format of media. Its fields are those of sfu.Codec.
type Codec struct {
	MimeType    string // "audio/opus", "audio/red", "video/VP8", …
	ClockRate   uint32 // Hz
	Channels    uint16 // of audio
	SDPFmtpLine string
}

// Format is a codec under the number it has in a connection.
type Format struct {
	PayloadType uint8
	RTX         uint8 // payload type of its retransmission format; 0: none
	Codec       Codec
	Feedback    Feedback
}

// Feedback is the RTCP that a format negotiated (RFC 4585, RFC 5104).
type Feedback struct {
	NACK        bool
	PLI         bool
	FIR         bool
	TransportCC bool
	REMB        bool // only where there is no TransportCC
}

// MIME types as they are written here, whatever case a client prefers.
const (
	mimeOpus = "audio/opus"
	mimeRED  = "audio/red"
	mimeVP8  = "video/VP8"
	mimeH264 = "video/H264"
	mimeVP9  = "video/VP9"
	mimeAV1  = "video/AV1"
)

const opusFmtp = "minptime=10;useinbandfec=1"

// offered are the formats of our offers. The payload types are browsers' own
// numbers, so that a trace of either side reads the same.
var offered = [2][]Format{
	Audio: {
		{111, 0, Codec{mimeOpus, 48000, 2, opusFmtp}, Feedback{NACK: true}},
		{63, 0, Codec{mimeRED, 48000, 2, "111/111"}, Feedback{}},
	},
	Video: {
		{96, 97, Codec{mimeVP8, 90000, 0, ""}, videoFeedback},
		{106, 107, Codec{mimeH264, 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"}, videoFeedback},
		{102, 103, Codec{mimeH264, 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"}, videoFeedback},
		{112, 113, Codec{mimeH264, 90000, 0, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f"}, videoFeedback},
		{98, 99, Codec{mimeVP9, 90000, 0, "profile-id=0"}, videoFeedback},
		{45, 46, Codec{mimeAV1, 90000, 0, ""}, videoFeedback},
	},
}

var videoFeedback = Feedback{NACK: true, PLI: true, FIR: true, TransportCC: true}

// clockRates has every codec that is taken: how fast its timestamps run.
var clockRates = map[string]uint32{
	mimeOpus: 48000, mimeRED: 48000, mimeVP8: 90000, mimeH264: 90000, mimeVP9: 90000, mimeAV1: 90000,
}

// canonical finds the MIME type of an encoding name, or "".
func canonical(k Kind, name string, rate uint32) string {
	for mime, r := range clockRates {
		if r == rate && strings.EqualFold(mime, k.String()+"/"+name) {
			return mime
		}
	}
	return ""
}

// taken reports whether a codec that a client names is one that we carry.
func (c Codec) taken(red bool) bool {
	switch c.MimeType {
	case mimeOpus, mimeVP8:
		return true
	case mimeRED:
		return red
	case mimeVP9:
		return fmtpOr(c.SDPFmtpLine, "profile-id", "0") == "0"
	case mimeAV1:
		return fmtpOr(c.SDPFmtpLine, "profile", "0") == "0"
	case mimeH264:
		return h264Profile(c.SDPFmtpLine) != ""
	}
	return false
}

// stereo reports whether a client's Opus has, or wants, two channels that differ.
func (c Codec) stereo() bool {
	return fmtpOr(c.SDPFmtpLine, "stereo", "") == "1" || fmtpOr(c.SDPFmtpLine, "sprop-stereo", "") == "1"
}

// h264Profile names the profile of a profile-level-id (RFC 6184 section 8.1), or
// returns "" for one that no browser decodes. Two spellings of constrained
// baseline are one profile.
func h264Profile(fmtp string) string {
	id, err := strconv.ParseUint(fmtpOr(fmtp, "profile-level-id", "42000a"), 16, 24)
	if err != nil {
		return ""
	}
	idc, iop := id>>16, id>>8&0xff
	switch {
	case idc == 0x42 && iop&0x40 != 0, idc == 0x4d && iop&0x80 != 0:
		return "constrained baseline"
	case idc == 0x42:
		return "baseline"
	case idc == 0x4d:
		return "main"
	case idc == 0x64 && iop&0x0c == 0x0c:
		return "constrained high"
	case idc == 0x64:
		return "high"
	}
	return ""
}

// likeness is 0 for another codec, more for parameters that matter alike.
func likeness(want, have Codec) int {
	if !strings.EqualFold(want.MimeType, have.MimeType) || want.ClockRate != have.ClockRate {
		return 0
	}
	score := 1
	if strings.EqualFold(want.MimeType, mimeH264) {
		if h264Profile(want.SDPFmtpLine) == h264Profile(have.SDPFmtpLine) {
			score += 2
		}
		if fmtpOr(want.SDPFmtpLine, "packetization-mode", "0") == fmtpOr(have.SDPFmtpLine, "packetization-mode", "0") {
			score++
		}
	}
	return score
}

// pick finds the format that carries a codec: with the same parameters if there
// is one, else the same codec.
func pick(want Codec, have []Format) (Format, bool) {
	best, score := Format{}, 0
	for _, f := range have {
		if s := likeness(want, f.Codec); s > score {
			best, score = f, s
		}
	}
	return best, score > 0
}

// first returns the formats with those of a MIME type in front.
func first(mime string, formats []Format) []Format {
	sorted := make([]Format, 0, len(formats))
	for _, front := range []bool{true, false} {
		for _, f := range formats {
			if strings.EqualFold(f.Codec.MimeType, mime) == front {
				sorted = append(sorted, f)
			}
		}
	}
	return sorted
}

// offerFormats lists what an offer says of a section, the sender's codec first.
// All others stay, so that another track can follow in the same section, unless
// there are many sections: then each says only what it needs.
func (p *Peer) offerFormats(s *section, nth int) []Format {
	formats := slices.Clone(offered[s.kind])
	if s.kind == Audio {
		formats = slices.DeleteFunc(formats, func(f Format) bool { return f.Codec.MimeType == mimeRED && !p.cfg.RED })
	}
	mime := mimeVP8
	if s.snd != nil {
		mime = s.snd.sender.Codec.MimeType
	}
	formats = first(mime, formats)
	if s.kind == Video && nth >= wideSections && strings.EqualFold(formats[0].Codec.MimeType, mime) {
		formats = slices.DeleteFunc(formats, func(f Format) bool { return !strings.EqualFold(f.Codec.MimeType, mime) })
	}
	if s.kind == Audio && s.snd != nil && s.snd.sender.Stereo {
		for i := range formats {
			if formats[i].Codec.MimeType == mimeOpus {
				formats[i].Codec.SDPFmtpLine += ";sprop-stereo=1"
			}
		}
	}
	return formats
}

// answerFmtp is what our answer says of a format that the client offered.
func answerFmtp(f Format, stereo bool) string {
	line := f.Codec.SDPFmtpLine
	switch f.Codec.MimeType {
	case mimeOpus:
		if stereo { // RFC 7587 section 6.1
			return opusFmtp + ";usedtx=1;stereo=1;maxaveragebitrate=510000"
		}
		return opusFmtp + ";usedtx=1"
	case mimeRED:
		return line
	case mimeVP9:
		return fmtpOnly(line, "profile-id")
	case mimeAV1:
		return fmtpOnly(line, "level-idx", "profile", "tier")
	case mimeH264:
		return fmtpOnly(line, "level-asymmetry-allowed", "packetization-mode", "profile-level-id")
	}
	return "" // limits of a receiver, which the client has and we have not
}

// lines writes the feedback of a format as values of a=rtcp-fb.
func (f Feedback) lines(pt uint8) []string {
	var out []string
	for _, fb := range []struct {
		on   bool
		name string
	}{
		{f.TransportCC, "transport-cc"}, {f.REMB, "goog-remb"}, {f.FIR, "ccm fir"}, {f.NACK, "nack"}, {f.PLI, "nack pli"},
	} {
		if fb.on {
			out = append(out, fmt.Sprintf("%d %s", pt, fb.name))
		}
	}
	return out
}

// fmtpOr returns the value of a format parameter in lower case, or another one.
func fmtpOr(line, key, or string) string {
	for part := range strings.SplitSeq(line, ";") {
		if k, v, ok := strings.Cut(strings.TrimSpace(part), "="); ok && strings.EqualFold(k, key) {
			return strings.ToLower(v)
		}
	}
	return or
}

// fmtpOnly keeps some parameters of a line, in their order.
func fmtpOnly(line string, keys ...string) string {
	var kept []string
	for part := range strings.SplitSeq(line, ";") {
		part = strings.TrimSpace(part)
		k, _, _ := strings.Cut(part, "=")
		if slices.Contains(keys, strings.ToLower(k)) {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, ";")
}
