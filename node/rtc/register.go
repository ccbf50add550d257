package rtc

import (
	"slices"

	"github.com/domicile/domicile/node/rtc/jsep"
	"github.com/domicile/domicile/node/sfu"
)

// register says whose a packet of an unknown SSRC is. It is made anew with each
// description, so that a flood of strange packets costs a look into a table each,
// however many sections there are.
type register struct {
	ids   jsep.Extensions // the same in all sections (RFC 8843 section 9.1)
	mids  map[string]*section
	ssrcs map[uint32]place
	types map[uint8]*section // nil: several sections may send it
}

// place is a layer of a section.
type place struct {
	section *section
	layer   sfu.Layer
}

func newRegister(sections map[string]*section) register {
	g := register{mids: sections, ssrcs: make(map[uint32]place), types: make(map[uint8]*section)}
	for _, s := range sections {
		g.ids = union(g.ids, s.in.Extensions)
		g.addStreams(s)
		for _, f := range s.in.Formats {
			g.addType(f.PayloadType, s)
			g.addType(f.RTX, s)
		}
	}
	return g
}

// union has the ids of sections that read packets' names and stamps.
func union(a, b jsep.Extensions) jsep.Extensions {
	return jsep.Extensions{
		MID: max(a.MID, b.MID), RID: max(a.RID, b.RID), RepairedRID: max(a.RepairedRID, b.RepairedRID),
		TransportCC: max(a.TransportCC, b.TransportCC),
	}
}

// addStreams notes the announced SSRCs: audio has one, video one for each layer.
func (g *register) addStreams(s *section) {
	layers := sfu.MaxLayers
	if s.in.Kind == jsep.Audio {
		layers = 1
	}
	for i, st := range s.in.Streams[:min(len(s.in.Streams), layers)] {
		g.ssrcs[st.SSRC] = place{s, sfu.Layer(i)}
		if st.RTX != 0 {
			g.ssrcs[st.RTX] = place{s, sfu.Layer(i)}
		}
	}
}

// adopt notes SSRCs that another node knew. What the description says goes before.
func (g *register) adopt(known map[string][]Stream) {
	for _, s := range g.mids {
		for _, st := range known[s.in.TrackID] {
			if _, said := g.ssrcs[st.SSRC]; !said && st.Layer < sfu.MaxLayers {
				g.ssrcs[st.SSRC] = place{s, st.Layer}
			}
		}
	}
}

func (g *register) addType(pt uint8, s *section) {
	if pt == 0 {
		return
	}
	if other, ok := g.types[pt]; ok && other != s {
		s = nil
	}
	g.types[pt] = s
}

// find says whose a packet is: by what the description says of SSRCs, by the MID and
// RID that the first packets of a stream carry (RFC 8843 section 9.2, RFC 8852), or
// because only one section can have sent it.
func (g *register) find(rtp []byte) (place, bool) {
	if p, ok := g.ssrcs[ssrcOf(rtp)]; ok {
		return p, true
	}
	if s := g.mids[string(sfu.ExtensionValue(rtp, g.ids.MID))]; s != nil {
		return g.named(s, rtp)
	}
	s := g.types[payloadType(rtp)]
	if s == nil || len(s.in.RIDs) > 0 || len(s.in.Streams) > 0 {
		return place{}, false
	}
	return place{section: s}, true
}

// named reads of which layer of a section a packet is.
func (g *register) named(s *section, rtp []byte) (place, bool) {
	if len(s.in.RIDs) == 0 {
		return place{section: s}, true
	}
	rid := sfu.ExtensionValue(rtp, g.ids.RepairedRID)
	if len(rid) == 0 {
		rid = sfu.ExtensionValue(rtp, g.ids.RID)
	}
	layer, ok := layerOf(string(rid), s.in.RIDs)
	return place{s, layer}, ok
}

// The names that LiveKit's clients give to layers: quarter, half, full, or numbers
// that count down.
var (
	letterRIDs = []string{"q", "h", "f"}
	numberRIDs = []string{"2", "1", "0"}
)

// layerOf maps a RID to a layer: as LiveKit's clients name them if all the offered
// ones are such names, else in the order of the offer.
func layerOf(rid string, offered []string) (sfu.Layer, bool) {
	if !slices.Contains(offered, rid) {
		return 0, false
	}
	order := offered
	for _, names := range [][]string{letterRIDs, numberRIDs} {
		if !slices.ContainsFunc(offered, func(o string) bool { return !slices.Contains(names, o) }) {
			order = names
		}
	}
	i := slices.Index(order, rid)
	return sfu.Layer(i), i < sfu.MaxLayers
}
