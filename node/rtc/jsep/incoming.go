package jsep

import (
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// Incoming is what a client sends in one section.
type Incoming struct {
	MID  string
	Kind Kind
	// StreamID and TrackID are those of a=msid (RFC 8830); the track id is the cid
	// under which the client announced the track. Either may be empty.
	StreamID string
	TrackID  string
	// Formats are what the client may send, the preferred one first.
	Formats []Format
	// RIDs are the simulcast layers in the client's order (RFC 8853), paused ones
	// among them. Their SSRCs are learnt from packets.
	RIDs []string
	// Streams are the SSRCs that are announced, in the order of their SIM group if
	// there is one.
	Streams    []Stream
	Extensions Extensions
	// New says that the description before had no such track in the section.
	New bool
}

// Stream is an RTP stream and the one that repairs it.
type Stream struct {
	SSRC uint32
	RTX  uint32 // 0: not announced
}

// readRIDs lists the layers that a section sends. The order of a=simulcast counts,
// where there is one; of alternatives ("a,b") the first is taken.
func readRIDs(attributes []sdp.Attribute) (rids []string, simulcast bool) {
	order := ""
	for _, a := range attributes {
		switch f := strings.Fields(a.Value); {
		case a.Key == "rid" && len(f) >= 2 && f[1] == "send" && token(f[0]) && !slices.Contains(rids, f[0]) && len(rids) < maxRIDs:
			rids = append(rids, f[0])
		case a.Key == "simulcast":
			order = sendList(f)
		}
	}
	if order == "" {
		return rids, false
	}
	var sorted []string
	for alternatives := range strings.SplitSeq(order, ";") {
		rid, _, _ := strings.Cut(alternatives, ",")
		rid = strings.TrimPrefix(rid, "~")
		if slices.Contains(rids, rid) && !slices.Contains(sorted, rid) {
			sorted = append(sorted, rid)
		}
	}
	return sorted, len(sorted) > 0
}

// sendList finds the streams in "send a;b recv c", in either order. Firefox wrote
// "send rid=a;b" once.
func sendList(fields []string) string {
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "send" {
			return strings.TrimPrefix(fields[i+1], "rid=")
		}
	}
	return ""
}

// readStreams lists the SSRCs of a section (RFC 5576) without those that repair
// others. An SSRC that another section has is theirs.
func (r *reader) readStreams(attributes []sdp.Attribute) (streams []Stream) {
	order, rtx, repairs := readGroups(attributes)
	for _, a := range attributes {
		number, _, _ := strings.Cut(a.Value, " ")
		if n, err := strconv.ParseUint(number, 10, 32); a.Key == sdp.AttrKeySSRC && err == nil {
			order = append(order, uint32(n))
		}
	}
	for _, ssrc := range order {
		s := Stream{ssrc, rtx[ssrc]}
		if s.SSRC == 0 || repairs[s.SSRC] || r.ssrcs[s.SSRC] || r.ssrcs[s.RTX] || len(streams) == maxSSRCs {
			continue
		}
		streams = append(streams, s)
		r.ssrcs[s.SSRC] = true
		r.ssrcs[s.RTX] = s.RTX != 0
	}
	return streams
}

// readGroups reads the order of simulcast layers and what repairs what.
func readGroups(attributes []sdp.Attribute) (order []uint32, rtx map[uint32]uint32, repairs map[uint32]bool) {
	rtx, repairs = make(map[uint32]uint32), make(map[uint32]bool)
	for _, a := range attributes {
		if a.Key != sdp.AttrKeySSRCGroup {
			continue
		}
		semantics, list := ssrcGroup(a.Value)
		switch {
		case semantics == "FID" && len(list) == 2:
			rtx[list[0]], repairs[list[1]] = list[1], true
		case semantics == "SIM":
			order = append(order, list...)
		case strings.HasPrefix(semantics, "FEC") && len(list) == 2:
			repairs[list[1]] = true
		}
	}
	return order, rtx, repairs
}

func ssrcGroup(value string) (semantics string, list []uint32) {
	fields := strings.Fields(value)
	if len(fields) == 0 {
		return "", nil
	}
	for _, f := range fields[1:min(len(fields), 1+maxSSRCs)] {
		n, err := strconv.ParseUint(f, 10, 32)
		if err != nil {
			return "", nil
		}
		list = append(list, uint32(n))
	}
	return fields[0], list
}

// readMSID reads "a=msid:stream track" (RFC 8830), or "a=ssrc:1234 msid:stream
// track", which old clients have. What is no token is not told on.
func readMSID(attributes []sdp.Attribute) (stream, track string) {
	for _, key := range []string{sdp.AttrKeyMsid, sdp.AttrKeySSRC} {
		for _, a := range attributes {
			f := strings.Fields(a.Value)
			if key == sdp.AttrKeySSRC && len(f) > 1 {
				f = f[1:]
				var ok bool
				if f[0], ok = strings.CutPrefix(f[0], "msid:"); !ok {
					continue
				}
			}
			if a.Key == key && len(f) > 0 {
				return tokenOr(f[0]), tokenOr(append(f, "")[1])
			}
		}
	}
	return "", ""
}

func tokenOr(s string) string {
	if token(s) {
		return s
	}
	return ""
}

// incoming makes of a section what it says of the client's track, nil for none.
func (s *section) incoming() *Incoming {
	if s.rejected || s.kind > Video || s.taken == nil || !s.taken.dir.sends() || len(s.taken.formats) == 0 {
		return nil
	}
	m := s.taken
	return &Incoming{
		MID: s.mid, Kind: s.kind, StreamID: m.stream, TrackID: m.track, Formats: m.formats,
		RIDs: m.rids, Streams: m.streams, Extensions: m.ext.only(s.kind, take),
	}
}
