package whip

import (
	"net/http"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"
)

// direction says which way media goes, seen from the client.
type direction int

const (
	ingest direction = iota // WHIP: the client sends
	egress                  // WHEP: the client receives
)

func (d direction) String() string {
	if d == ingest {
		return "WHIP"
	}
	return "WHEP"
}

// verb is what a client's sections have to do.
func (d direction) verb() string {
	if d == ingest {
		return "send"
	}
	return "receive"
}

// attribute is the direction that a client's sections should have.
func (d direction) attribute() string {
	if d == ingest {
		return "sendonly"
	}
	return "recvonly"
}

// rules are what an offer is measured against.
type rules struct {
	direction direction
	codecs    map[string][]string // by kind of media: "audio", "video"
}

// checkOffer decides whether an offer can be used at all, before it costs
// anything. A body that is no SDP is
// malformed (400); one that asks for what we do not do cannot be processed
// (422). It is all or nothing: RFC 9725, section 4.4.3, wants no answer that
// refuses one of the sections.
func (r rules) checkOffer(body string) (Offer, *Problem) {
	o := Offer{SDP: body}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(body); err != nil {
		return o, Refuse(http.StatusBadRequest, "the offer is no SDP: a line of it cannot be parsed")
	}
	used, problem := r.checkSections(&d)
	if problem != nil {
		return o, problem
	}
	if problem := checkBundle(&d, used); problem != nil {
		return o, problem
	}
	o.Credentials, problem = checkTransport(&d, used[0])
	for _, m := range used {
		o.Audio = o.Audio || m.MediaName.Media == "audio"
		o.Video = o.Video || m.MediaName.Media == "video"
	}
	return o, problem
}

// checkSections returns the sections in use: audio, video, and whatever data
// channel the client asks for besides.
func (r rules) checkSections(d *sdp.SessionDescription) ([]*sdp.MediaDescription, *Problem) {
	var used []*sdp.MediaDescription
	count := map[string]int{}
	for _, m := range d.MediaDescriptions {
		_, bundled := m.Attribute("bundle-only")
		if m.MediaName.Port.Value == 0 && !bundled {
			continue // refused by the client itself
		}
		if m.MediaName.Media != "application" {
			if problem := r.checkSection(d, m); problem != nil {
				return nil, problem
			}
			count[m.MediaName.Media]++
		}
		used = append(used, m)
	}
	switch {
	case count["audio"]+count["video"] == 0:
		return nil, unusable("the offer has no section with audio or video to %s", r.direction.verb())
	case count["audio"] > 1 || count["video"] > 1:
		return nil, unusable("the offer has %d audio and %d video sections; one of each is taken (RFC 9725, section 4.4.2)",
			count["audio"], count["video"])
	}
	return used, nil
}

// checkSection looks at one section with media.
func (r rules) checkSection(d *sdp.SessionDescription, m *sdp.MediaDescription) *Problem {
	kind := m.MediaName.Media
	codecs, known := r.codecs[kind]
	if !known {
		return unusable("the offer has a section with %.32q; only audio and video are taken", kind)
	}
	if way := directionOf(d, m); way != "sendrecv" && way != r.direction.attribute() {
		return unusable("the %s section is %s; a %s client's is %s", kind, way, r.direction, r.direction.attribute())
	}
	if !slices.Contains(m.MediaName.Protos, "TLS") && !slices.Contains(m.MediaName.Protos, "SAVPF") {
		return unusable("the %s section's protocol is %.64q; media is taken over DTLS-SRTP only", kind, strings.Join(m.MediaName.Protos, "/"))
	}
	if _, ok := m.Attribute("rtcp-mux"); !ok {
		return unusable("the %s section lacks rtcp-mux", kind)
	}
	if !offersOne(m, codecs) {
		return unusable("the %s section has no codec that is taken here, which are %s", kind, strings.Join(codecs, ", "))
	}
	return nil
}

// directionOf is a section's direction, the session's, or the default (RFC 8866,
// section 6.7).
func directionOf(d *sdp.SessionDescription, m *sdp.MediaDescription) string {
	ways := []string{"sendrecv", "sendonly", "recvonly", "inactive"}
	for _, attributes := range [][]sdp.Attribute{m.Attributes, d.Attributes} {
		for _, a := range attributes {
			if slices.Contains(ways, a.Key) {
				return a.Key
			}
		}
	}
	return "sendrecv"
}

// offersOne reports whether a section has one of the codecs. Their names are
// case-insensitive: GStreamer writes OPUS.
func offersOne(m *sdp.MediaDescription, codecs []string) bool {
	for _, a := range m.Attributes {
		if a.Key != "rtpmap" {
			continue
		}
		_, encoding, _ := strings.Cut(a.Value, " ")
		name, _, _ := strings.Cut(strings.TrimSpace(encoding), "/")
		if slices.ContainsFunc(codecs, func(c string) bool { return strings.EqualFold(c, name) }) {
			return true
		}
	}
	return false
}

// checkBundle wants all sections in one group, unless there is only one. The
// group may name sections that are not there: ffmpeg's always says "0 1".
func checkBundle(d *sdp.SessionDescription, used []*sdp.MediaDescription) *Problem {
	if len(used) == 1 {
		return nil
	}
	var group []string
	for _, a := range d.Attributes {
		if rest, ok := strings.CutPrefix(a.Value, "BUNDLE "); a.Key == "group" && ok {
			group = strings.Fields(rest)
			break
		}
	}
	for _, m := range used {
		if mid, _ := m.Attribute("mid"); !slices.Contains(group, mid) {
			return unusable("the %s section is not in the offer's BUNDLE group; the client has to use the max-bundle policy", m.MediaName.Media)
		}
	}
	return nil
}

// checkTransport looks at what ICE and DTLS need, in the section that carries
// the bundle's transport or before the sections.
func checkTransport(d *sdp.SessionDescription, m *sdp.MediaDescription) (Credentials, *Problem) {
	find := func(key string) string {
		if v, ok := m.Attribute(key); ok {
			return v
		}
		v, _ := d.Attribute(key)
		return v
	}
	c := Credentials{Ufrag: find("ice-ufrag"), Pwd: find("ice-pwd")}
	if !iceChars(c.Ufrag, minUfrag) || !iceChars(c.Pwd, minPwd) {
		return c, Refuse(http.StatusBadRequest, "the offer lacks a well-formed ice-ufrag and ice-pwd")
	}
	if find("fingerprint") == "" {
		return c, unusable("the offer has no fingerprint; media is taken over DTLS-SRTP only")
	}
	switch setup := find("setup"); setup {
	case "", "actpass", "active", "passive":
	default:
		return c, unusable("the offer's setup is %.32q; want actpass, active or passive", setup)
	}
	return c, nil
}

func unusable(format string, a ...any) *Problem {
	return Refuse(http.StatusUnprocessableEntity, format, a...)
}
