package jsep

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/pion/sdp/v3"
)

// Bounds of a description from a client. An answer of Chromium's to an offer that
// fills all sections, half of them with video, has 420 KB and 12,000 lines; the
// dearest description within these bounds is read in 50 ms.
const (
	maxBytes      = 512 << 10
	maxLines      = 20_000
	maxSections   = 512
	maxCandidates = 256
	// maxToken bounds what we repeat in every answer, in bytes: mids, RIDs, ufrags.
	// RFC 8839 section 5.4 has 256 for the longest of them.
	maxToken = 256
	// maxRIDs and maxSSRCs bound the layers of a track; clients send up to three.
	maxRIDs  = 8
	maxSSRCs = 8
	// wideSections is how many video sections of an offer list every codec, some
	// 50 lines each; a client's answer, which is as long, has to stay in bounds.
	wideSections = 8
)

// direction is who sends in a section, as its author says it.
type direction uint8

const (
	sends direction = 1 << iota
	receives
)

func (d direction) sends() bool    { return d&sends != 0 }
func (d direction) receives() bool { return d&receives != 0 }

func (d direction) String() string {
	return [...]string{"inactive", "sendonly", "recvonly", "sendrecv"}[d&3]
}

// description is what a client says, as far as it matters here.
type description struct {
	remote  Remote
	media   []*media
	bundled bool // there is a BUNDLE group
}

// media is one section of it. It is not changed once it is read.
type media struct {
	name       string
	protos     []string
	formatList []string // of the m= line, for the refusal
	kind       Kind
	mid        string
	named      bool // there is an a=mid
	closed     bool // port 0, or outside the bundle: to be rejected
	dir        direction
	rsize      bool
	mixed      bool // two-byte header extensions
	formats    []Format
	ext        Extensions
	stereo     bool // Opus was offered with two channels
	rids       []string
	simulcast  bool // there is an a=simulcast
	streams    []Stream
	stream     string // of a=msid
	track      string
}

// parse checks the size of a description and reads it.
func parse(raw string, red bool) (*description, error) {
	if err := measure(raw); err != nil {
		return nil, err
	}
	parsed := &sdp.SessionDescription{}
	if err := parsed.UnmarshalString(raw); err != nil {
		return nil, fmt.Errorf("read SDP: %w", err)
	}
	return read(parsed, red)
}

func measure(raw string) error {
	if len(raw) > maxBytes {
		return fmt.Errorf("read SDP: %d bytes, at most %d are taken", len(raw), maxBytes)
	}
	if !utf8.ValidString(raw) { // RFC 8866 section 4.5; protobufs would not carry our answer
		return errors.New("read SDP: it is not UTF-8")
	}
	var lines, sections, candidates int
	for line := range strings.Lines(raw) {
		lines++
		switch {
		case strings.HasPrefix(line, "m="):
			sections++
		case strings.HasPrefix(line, "a=candidate:"):
			candidates++
		}
	}
	switch {
	case lines > maxLines:
		return fmt.Errorf("read SDP: %d lines, at most %d are taken", lines, maxLines)
	case sections == 0:
		return errors.New("read SDP: no media section")
	case sections > maxSections:
		return fmt.Errorf("read SDP: %d media sections, at most %d are taken", sections, maxSections)
	case candidates > maxCandidates:
		return fmt.Errorf("read SDP: %d candidates, at most %d are taken", candidates, maxCandidates)
	}
	return nil
}

func read(d *sdp.SessionDescription, red bool) (*description, error) {
	out := &description{}
	group := bundleOf(d)
	out.bundled = group != nil
	r := reader{red: red, session: d.Attributes, ids: newExtensionMap(), ssrcs: make(map[uint32]bool), mids: make(map[string]bool)}
	for _, m := range d.MediaDescriptions {
		sec, err := r.read(m)
		if err != nil {
			return nil, err
		}
		out.media = append(out.media, sec)
	}
	if tag := closeOutside(out.media, group); tag >= 0 {
		var err error
		if out.remote, err = readRemote(d, d.MediaDescriptions[tag]); err != nil {
			return nil, err
		}
	}
	for i, m := range out.media {
		if m.kind == data && !m.closed {
			return out, readSCTP(d.MediaDescriptions[i], &out.remote)
		}
	}
	return out, nil
}

// bundleOf returns the mids of the BUNDLE group (RFC 8843), nil without one.
func bundleOf(d *sdp.SessionDescription) []string {
	for _, a := range d.Attributes {
		if fields := strings.Fields(a.Value); a.Key == sdp.AttrKeyGroup && len(fields) > 0 && fields[0] == "BUNDLE" {
			return fields[1:]
		}
	}
	return nil
}

// closeOutside closes the sections that would need a transport of their own, and
// returns the one that describes the transport of all others, -1 if all are closed.
func closeOutside(all []*media, group []string) int {
	if group == nil {
		tag := slices.IndexFunc(all, func(m *media) bool { return !m.closed })
		for i, m := range all {
			m.closed = i != tag
		}
		return tag
	}
	place := make(map[string]int, len(all))
	for i, m := range all {
		if m.named {
			place[m.mid] = i
		}
	}
	tag, bundled := -1, make([]bool, len(all))
	for _, mid := range group {
		i, ok := place[mid]
		if !ok {
			continue // ffmpeg's group says "0 1", whether there are two sections or one
		}
		bundled[i] = true
		if tag < 0 && !all[i].closed {
			tag = i
		}
	}
	for i, m := range all {
		m.closed = m.closed || !bundled[i]
	}
	return tag
}

// readRemote reads the transport: what a section says goes before what stands
// above all sections.
func readRemote(d *sdp.SessionDescription, m *sdp.MediaDescription) (Remote, error) {
	get := func(key string) string {
		if v, ok := m.Attribute(key); ok {
			return v
		}
		v, _ := d.Attribute(key)
		return v
	}
	r := Remote{Ufrag: get("ice-ufrag"), Pwd: get("ice-pwd"), Setup: get("setup")}
	if r.Setup == "" {
		r.Setup = "active" // RFC 4145 section 4
	}
	switch {
	case !token(r.Ufrag):
		return r, fmt.Errorf("read SDP: ice-ufrag %.40q: want 1 to %d characters", r.Ufrag, maxToken)
	case !token(r.Pwd):
		return r, fmt.Errorf("read SDP: ice-pwd of %d characters, want 1 to %d", len(r.Pwd), maxToken)
	case r.Setup != "active" && r.Setup != "passive" && r.Setup != "actpass":
		return r, fmt.Errorf("read SDP: setup %.40q, want \"active\", \"passive\" or \"actpass\"", r.Setup)
	}
	r.Fingerprints = fingerprints(m.Attributes)
	if len(r.Fingerprints) == 0 {
		r.Fingerprints = fingerprints(d.Attributes)
	}
	if len(r.Fingerprints) == 0 {
		return r, errors.New("read SDP: no fingerprint")
	}
	return r, nil
}

// maxFingerprints bounds the hashes of one certificate; there are five algorithms.
const maxFingerprints = 8

func fingerprints(attributes []sdp.Attribute) []Fingerprint {
	var out []Fingerprint
	for _, a := range attributes {
		if a.Key != "fingerprint" || len(out) == maxFingerprints {
			continue
		}
		if f := strings.Fields(a.Value); len(f) == 2 {
			out = append(out, Fingerprint{strings.ToLower(f[0]), strings.ToUpper(f[1])})
		}
	}
	return out
}

// readSCTP reads what RFC 8841 says of data channels.
func readSCTP(m *sdp.MediaDescription, r *Remote) error {
	port, ok := m.Attribute("sctp-port")
	if !ok {
		return errors.New("read SDP: data channels without sctp-port")
	}
	n, err := strconv.ParseUint(strings.TrimSpace(port), 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("read SDP: sctp-port %.40q, want 1 to 65535", port)
	}
	r.SCTPPort, r.MaxMessage = uint16(n), defaultMaxMessage // RFC 8841 section 6.1
	if v, ok := m.Attribute("max-message-size"); ok {
		n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32)
		if err != nil {
			return fmt.Errorf("read SDP: max-message-size %.40q, want a number of bytes", v)
		}
		if r.MaxMessage = uint32(n); n == 0 {
			r.MaxMessage = math.MaxUint32 // no limit
		}
	}
	return nil
}

// token reports whether something that we repeat, here or to others, is neither
// empty nor endless and has nothing but visible ASCII.
func token(s string) bool {
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
