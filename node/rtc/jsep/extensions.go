package jsep

import (
	"fmt"
	"strconv"
	"strings"
)

// Extensions has the ids of RTP header extensions (RFC 8285) that a section
// negotiated; 0: not negotiated. Ids up to 14 fit headers of one byte; a client
// that announces extmap-allow-mixed may use others, up to 255.
type Extensions struct {
	MID                  uint8
	RID                  uint8
	RepairedRID          uint8
	AudioLevel           uint8
	TransportCC          uint8
	AbsSendTime          uint8
	VideoOrientation     uint8
	PlayoutDelay         uint8
	AbsCaptureTime       uint8
	DependencyDescriptor uint8
}

// use says in which direction an extension is negotiated, for each kind.
type use uint8

const (
	take use = 1 << iota // what a client may put on what it sends
	give                 // what we put on what we send
)

// extensions are those we know, with the ids of our offers: browsers' own
// numbers. Audio leaves without transport-wide numbers: it is kept out of the
// estimate, and so protected.
var extensions = []struct {
	uri   string
	id    uint8
	audio use
	video use
	field func(*Extensions) *uint8
}{
	{"urn:ietf:params:rtp-hdrext:ssrc-audio-level", 1, take | give, 0, func(e *Extensions) *uint8 { return &e.AudioLevel }},
	{"http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", 2, take, take, func(e *Extensions) *uint8 { return &e.AbsSendTime }},
	{"http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01", 3, take, take | give, func(e *Extensions) *uint8 { return &e.TransportCC }},
	{"urn:ietf:params:rtp-hdrext:sdes:mid", 4, take | give, take | give, func(e *Extensions) *uint8 { return &e.MID }},
	{"http://www.webrtc.org/experiments/rtp-hdrext/playout-delay", 5, 0, take | give, func(e *Extensions) *uint8 { return &e.PlayoutDelay }},
	{"http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time", 9, take | give, take | give, func(e *Extensions) *uint8 { return &e.AbsCaptureTime }},
	{"urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", 10, take, take, func(e *Extensions) *uint8 { return &e.RID }},
	{"urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", 11, take, take, func(e *Extensions) *uint8 { return &e.RepairedRID }},
	{"https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension", 12, 0, take | give, func(e *Extensions) *uint8 { return &e.DependencyDescriptor }},
	{"urn:3gpp:video-orientation", 13, 0, take | give, func(e *Extensions) *uint8 { return &e.VideoOrientation }},
}

// only keeps the extensions that a kind of media uses in a direction.
func (e Extensions) only(k Kind, u use) Extensions {
	var kept Extensions
	for _, x := range extensions {
		of := x.audio
		if k == Video {
			of = x.video
		}
		if of&u != 0 {
			*x.field(&kept) = *x.field(&e)
		}
	}
	return kept
}

// offeredExtensions are those of our offers.
func offeredExtensions(k Kind) Extensions {
	var e Extensions
	for _, x := range extensions {
		*x.field(&e) = x.id
	}
	return e.only(k, give)
}

// lines writes the extensions as values of a=extmap.
func (e Extensions) lines() []string {
	var out []string
	for _, x := range extensions {
		if id := *x.field(&e); id != 0 {
			out = append(out, fmt.Sprintf("%d %s", id, x.uri))
		}
	}
	return out
}

// extensionMap collects the ids of a description. Sections of a bundle must agree
// on them (RFC 8843 section 9.1); an extension that does not is left out where it
// comes second.
type extensionMap struct {
	ids  map[string]uint8 // by URI
	uris map[uint8]string
}

func newExtensionMap() *extensionMap {
	return &extensionMap{ids: make(map[string]uint8), uris: make(map[uint8]string)}
}

// take reads a value of a=extmap, "<id>[/<direction>] <uri> [<attributes>]". Our
// answers have no directions: it follows from those of the media which are used.
func (m *extensionMap) take(value string, mixed bool, e *Extensions) {
	fields := strings.Fields(value)
	if len(fields) < 2 {
		return
	}
	number, dir, _ := strings.Cut(fields[0], "/")
	if dir == "inactive" {
		return
	}
	n, err := strconv.ParseUint(number, 10, 8)
	id, uri := uint8(n), fields[1]
	if err != nil || id == 0 || id == 15 || id > 15 && !mixed {
		return // 15 is reserved, more needs headers of two bytes (RFC 8285 section 4)
	}
	if have, ok := m.ids[uri]; ok && have != id {
		return
	}
	if have, ok := m.uris[id]; ok && have != uri {
		return
	}
	m.ids[uri], m.uris[id] = id, uri
	for _, x := range extensions {
		if x.uri == uri {
			*x.field(e) = id
		}
	}
}
