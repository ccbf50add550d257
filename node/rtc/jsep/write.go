package jsep

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// write writes a state as a description of ours:
//
//	v=0
//	o=- <session> <version> IN IP4 127.0.0.1
//	a=group:BUNDLE 0 1 …        everything on one transport (RFC 8843)
//	a=ice-lite                  we answer connectivity checks and send none
//	a=fingerprint:…
//	m=application … | m=audio … | m=video …
//	  a=setup, a=mid, a=ice-ufrag, a=ice-pwd
//	  formats, header extensions, RIDs we receive, the track we send
//	  a=candidate …             in the first section that is not rejected
func (p *Peer) write(st *state, l Local) (string, error) {
	if err := l.check(); err != nil {
		return "", err
	}
	if p.role != answers {
		p.version++
	}
	d := &sdp.SessionDescription{
		Origin: sdp.Origin{
			Username: "-", SessionID: p.cfg.SessionID, SessionVersion: p.version,
			NetworkType: "IN", AddressType: "IP4", UnicastAddress: "127.0.0.1",
		},
		SessionName:      "-",
		TimeDescriptions: []sdp.TimeDescription{{}},
	}
	p.writeSession(d, st, l)
	w := writer{p: p, st: st, l: l}
	for i := range st.sections {
		d.MediaDescriptions = append(d.MediaDescriptions, w.section(&st.sections[i]))
	}
	raw, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("write SDP: %w", err)
	}
	return string(raw), nil
}

func (l Local) check() error {
	if !token(l.Ufrag) || !token(l.Pwd) || len(strings.Fields(l.Fingerprint)) != 2 {
		return fmt.Errorf("credentials %q and fingerprint %q are not whole", l.Ufrag, l.Fingerprint)
	}
	return nil
}

func (p *Peer) writeSession(d *sdp.SessionDescription, st *state, l Local) {
	bundle := []string{"BUNDLE"}
	mixed := p.role != answers
	for _, s := range st.sections {
		if !s.rejected {
			bundle = append(bundle, s.mid)
			mixed = mixed || s.taken.mixed
		}
	}
	if st.bundled {
		d.WithValueAttribute(sdp.AttrKeyGroup, strings.Join(bundle, " "))
	}
	d.WithPropertyAttribute(sdp.AttrKeyICELite)
	d.WithValueAttribute(sdp.AttrKeyICEOptions, "trickle ice2")
	if mixed {
		d.WithPropertyAttribute(sdp.AttrKeyExtMapAllowMixed)
	}
	d.WithValueAttribute(sdp.AttrKeyMsidSemantic, "WMS *")
	d.WithValueAttribute("fingerprint", l.Fingerprint)
}

// writer writes the sections of one description in their order.
type writer struct {
	p      *Peer
	st     *state
	l      Local
	videos int  // sections of video so far
	begun  bool // the candidates are written
}

func (w *writer) section(s *section) *sdp.MediaDescription {
	if s.rejected {
		return refusal(s)
	}
	m := &sdp.MediaDescription{
		MediaName:             sdp.MediaName{Media: s.kind.String(), Port: sdp.RangedPort{Value: 9}},
		ConnectionInformation: nowhere(),
	}
	m.WithValueAttribute(sdp.AttrKeyConnectionSetup, w.setup())
	if s.mid != "" {
		m.WithValueAttribute(sdp.AttrKeyMID, s.mid)
	}
	m.WithICECredentials(w.l.Ufrag, w.l.Pwd)
	if s.kind == data {
		w.data(m, s)
	} else {
		w.media(m, s)
	}
	if !w.begun {
		w.begun = true
		for _, c := range w.l.Candidates {
			m.WithValueAttribute(sdp.AttrKeyCandidate, c)
		}
		m.WithPropertyAttribute(sdp.AttrKeyEndOfCandidates)
	}
	return m
}

// refusal keeps the place of a section (RFC 3264 section 6).
func refusal(s *section) *sdp.MediaDescription {
	m := &sdp.MediaDescription{
		MediaName:             sdp.MediaName{Media: s.taken.name, Protos: s.taken.protos, Formats: []string{"0"}},
		ConnectionInformation: nowhere(),
	}
	if len(s.taken.formatList) > 0 {
		m.MediaName.Formats = s.taken.formatList[:1]
	}
	if s.mid != "" {
		m.WithValueAttribute(sdp.AttrKeyMID, s.mid)
	}
	return m.WithPropertyAttribute("inactive")
}

// nowhere stands where clients expect an address that none of them uses.
func nowhere() *sdp.ConnectionInformation {
	return &sdp.ConnectionInformation{NetworkType: "IN", AddressType: "IP4", Address: &sdp.Address{Address: "0.0.0.0"}}
}

// setup is our part in the DTLS handshake (RFC 8842 section 5): offers leave the
// choice to the client.
func (w *writer) setup() string {
	switch {
	case w.p.role != answers:
		return "actpass"
	case w.st.active:
		return "active"
	}
	return "passive"
}

// dataPort is the SCTP port that everybody uses.
const dataPort = 5000

func (w *writer) data(m *sdp.MediaDescription, s *section) {
	m.MediaName.Protos = []string{"UDP", "DTLS", "SCTP"}
	if s.taken != nil {
		m.MediaName.Protos = s.taken.protos
	}
	m.MediaName.Formats = []string{"webrtc-datachannel"}
	m.WithValueAttribute("sctp-port", strconv.Itoa(dataPort))
	m.WithValueAttribute("max-message-size", strconv.FormatUint(uint64(w.p.cfg.MaxMessage), 10))
}

func (w *writer) media(m *sdp.MediaDescription, s *section) {
	m.MediaName.Protos = []string{"UDP", "TLS", "RTP", "SAVPF"}
	m.WithPropertyAttribute(sdp.AttrKeyRTCPMux)
	if w.p.role == answers {
		w.answer(m, s)
	} else {
		w.offer(m, s)
	}
}

func (w *writer) offer(m *sdp.MediaDescription, s *section) {
	m.WithPropertyAttribute(sdp.AttrKeyRTCPRsize)
	for _, f := range w.p.offerFormats(s, w.videos) {
		writeFormat(m, f)
	}
	if s.kind == Video {
		w.videos++
	}
	writeValues(m, sdp.AttrKeyExtMap, offeredExtensions(s.kind).lines())
	if !s.sends() {
		m.WithPropertyAttribute("inactive")
		return
	}
	m.WithPropertyAttribute("sendonly")
	writeTrack(m, s, s.snd.rtx)
}

func (w *writer) answer(m *sdp.MediaDescription, s *section) {
	t := s.taken
	m.MediaName.Protos = t.protos
	if t.rsize {
		m.WithPropertyAttribute(sdp.AttrKeyRTCPRsize)
	}
	for _, f := range t.formats {
		f.Codec.SDPFmtpLine = answerFmtp(f, t.stereo)
		f.Feedback.TransportCC = f.Feedback.TransportCC && (s.kind == Video || t.dir.sends())
		writeFormat(m, f)
	}
	// All that are known, whoever sends: what Chromium is refused in one section it
	// does not offer in later ones, and simulcast does without its RIDs then.
	writeValues(m, sdp.AttrKeyExtMap, t.ext.lines())
	m.WithPropertyAttribute(s.answerDirection().String())
	writeLayers(m, t)
	if s.sends() {
		writeTrack(m, s, s.snd.bound.RTXSSRC)
	}
}

func (s *section) answerDirection() (d direction) {
	if s.taken.dir.sends() {
		d |= receives
	}
	if s.sends() {
		d |= sends
	}
	return d
}

// writeLayers accepts all layers, paused ones too (RFC 8853 section 5.3.2).
func writeLayers(m *sdp.MediaDescription, t *media) {
	for _, rid := range t.rids {
		m.WithValueAttribute("rid", rid+" recv")
	}
	if t.simulcast {
		m.WithValueAttribute("simulcast", "recv "+strings.Join(t.rids, ";"))
	}
}

func writeFormat(m *sdp.MediaDescription, f Format) {
	_, name, _ := strings.Cut(f.Codec.MimeType, "/")
	m.WithCodec(f.PayloadType, name, f.Codec.ClockRate, f.Codec.Channels, f.Codec.SDPFmtpLine)
	writeValues(m, "rtcp-fb", f.Feedback.lines(f.PayloadType))
	if f.RTX != 0 {
		m.WithCodec(f.RTX, "rtx", f.Codec.ClockRate, 0, fmt.Sprintf("apt=%d", f.PayloadType))
	}
}

// writeTrack names the track and its SSRCs (RFC 8830, RFC 5576).
func writeTrack(m *sdp.MediaDescription, s *section, rtx uint32) {
	at := s.snd
	m.WithValueAttribute(sdp.AttrKeyMsid, at.streamID+" "+at.sender.TrackID)
	ssrcs := []uint32{at.ssrc}
	if rtx != 0 {
		ssrcs = append(ssrcs, rtx)
		m.WithValueAttribute(sdp.AttrKeySSRCGroup, fmt.Sprintf("FID %d %d", at.ssrc, rtx))
	}
	for _, ssrc := range ssrcs {
		m.WithValueAttribute(sdp.AttrKeySSRC, fmt.Sprintf("%d cname:%s", ssrc, cname(at.streamID)))
	}
}

func writeValues(m *sdp.MediaDescription, key string, values []string) {
	for _, v := range values {
		m.WithValueAttribute(key, v)
	}
}
