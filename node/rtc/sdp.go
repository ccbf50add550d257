package rtc

import (
	"fmt"
	"strings"

	"github.com/pion/sdp/v3"

	"github.com/domicile/domicile/node/sfu"
)

// Bounds of a description from a client. A meeting of 500 with two tracks each
// stays under them when its m-lines are reused; parsing and answering cost time
// that grows faster than the description.
const (
	maxSDP           = 256 << 10 // bytes
	maxSDPLines      = 10_000
	maxSDPMedia      = 512
	maxSDPCandidates = 256
	maxCandidate     = 1024 // bytes of JSON
)

// parseSDP checks a description from a client before pion sees it.
func parseSDP(raw string) (*sdp.SessionDescription, error) {
	if len(raw) > maxSDP {
		return nil, fmt.Errorf("read SDP: %d bytes, at most %d are taken", len(raw), maxSDP)
	}
	var lines, media, candidates int
	for line := range strings.Lines(raw) {
		lines++
		switch {
		case strings.HasPrefix(line, "m="):
			media++
		case strings.HasPrefix(line, "a=candidate:"):
			candidates++
		}
	}
	switch {
	case lines > maxSDPLines:
		return nil, fmt.Errorf("read SDP: %d lines, at most %d are taken", lines, maxSDPLines)
	case media == 0:
		return nil, fmt.Errorf("read SDP: no media section")
	case media > maxSDPMedia:
		return nil, fmt.Errorf("read SDP: %d media sections, at most %d are taken", media, maxSDPMedia)
	case candidates > maxSDPCandidates:
		return nil, fmt.Errorf("read SDP: %d candidates, at most %d are taken", candidates, maxSDPCandidates)
	}
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(raw); err != nil {
		return nil, fmt.Errorf("read SDP: %w", err)
	}
	return d, nil
}

// ridsByMID lists the simulcast streams (RFC 8853) that each section sends.
func ridsByMID(d *sdp.SessionDescription) map[string][]string {
	rids := make(map[string][]string)
	for _, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		for _, a := range m.Attributes {
			if fields := strings.Fields(a.Value); a.Key == "rid" && len(fields) >= 2 && fields[1] == "send" {
				rids[mid] = append(rids[mid], fields[0])
			}
		}
	}
	return rids
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
	for i, r := range offered {
		if r == rid && i < sfu.MaxLayers {
			return sfu.Layer(i), true
		}
	}
	return 0, false
}

// answerOpus makes an answer ask for silence suppression, and for stereo at full
// rate where the offer of that section has it (RFC 7587 section 6.1).
func answerOpus(answer string, offer *sdp.SessionDescription) string {
	stereo := make(map[string]bool)
	for _, m := range offer.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		for _, a := range m.Attributes {
			if a.Key == "fmtp" && (fmtpHas(a.Value, "stereo=1") || fmtpHas(a.Value, "sprop-stereo=1")) {
				stereo[mid] = true
			}
		}
	}
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(answer); err != nil {
		return answer // ours; the client will say what is wrong with it
	}
	for _, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		addOpusParameters(m, stereo[mid])
	}
	out, err := d.Marshal()
	if err != nil {
		return answer
	}
	return string(out)
}

func fmtpHas(value, parameter string) bool {
	_, line, _ := strings.Cut(value, " ")
	for part := range strings.SplitSeq(line, ";") {
		if strings.TrimSpace(part) == parameter {
			return true
		}
	}
	return false
}

func addOpusParameters(m *sdp.MediaDescription, stereo bool) {
	if m.MediaName.Media != "audio" {
		return
	}
	pt := ""
	for _, a := range m.Attributes {
		if number, name, ok := strings.Cut(a.Value, " "); a.Key == "rtpmap" && ok && strings.HasPrefix(strings.ToLower(name), "opus/") {
			pt = number
		}
	}
	add := []string{"usedtx=1"}
	if stereo {
		add = append(add, "stereo=1", "maxaveragebitrate=510000")
	}
	for i, a := range m.Attributes {
		if a.Key != "fmtp" || pt == "" || !strings.HasPrefix(a.Value, pt+" ") {
			continue
		}
		for _, p := range add {
			if !fmtpHas(m.Attributes[i].Value, p) {
				m.Attributes[i].Value += ";" + p
			}
		}
	}
}
