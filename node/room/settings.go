package room

import (
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

// lowestPriority is what clients may state at most; 1 is their highest.
const lowestPriority = 1000

// doTrackSetting chooses layer, priority and pause for what the client shows of a track.
func (p *Participant) doTrackSetting(s *livekit.UpdateTrackSettings) {
	if len(s.GetTrackSids()) > 1000 || len(p.settings) > maxChoices {
		return
	}
	for _, sid := range s.GetTrackSids() {
		id := sfu.TrackID(sid)
		p.settings[id] = s
		p.applySetting(id)
	}
}

func (p *Participant) applySetting(id sfu.TrackID) {
	d, s := p.subs[id], p.settings[id]
	if d == nil {
		return
	}
	d.SetPaused(p.pauses(id))
	if s == nil {
		return
	}
	d.SetMaxLayer(layerFor(s, p.layers[id]))
	priority := 0
	if n := s.GetPriority(); n > 0 {
		priority = lowestPriority + 1 - int(min(n, lowestPriority))
	}
	p.session.SetPriority(d, priority)
}

// pauses reports whether nothing of a track is to be sent.
func (p *Participant) pauses(id sfu.TrackID) bool { return p.absent || p.settings[id].GetDisabled() }

// The usual layers of LiveKit's clients, a quarter, half and the full picture of
// 720 lines, for tracks whose publisher does not say.
const quarter, half = 180, 360

// layerFor maps what a client wants to show to the smallest layer that fills it, by
// the shorter side: a picture may stand upright.
func layerFor(s *livekit.UpdateTrackSettings, layers []*livekit.VideoLayer) sfu.Layer {
	if side := shorter(s.GetWidth(), s.GetHeight()); side > 0 {
		return filling(side, layers)
	}
	switch s.GetQuality() {
	case livekit.VideoQuality_LOW:
		return 0
	case livekit.VideoQuality_MEDIUM:
		return 1
	}
	return sfu.MaxLayers - 1
}

func filling(side uint32, layers []*livekit.VideoLayer) sfu.Layer {
	sides := [sfu.MaxLayers]uint32{quarter, half}
	for _, l := range layers {
		if have := shorter(l.GetWidth(), l.GetHeight()); have > 0 && l.GetQuality() >= 0 && int(l.GetQuality()) < len(sides) {
			sides[l.GetQuality()] = have
		}
	}
	for l := range sfu.Layer(sfu.MaxLayers - 1) {
		if side <= sides[l] {
			return l
		}
	}
	return sfu.MaxLayers - 1
}

// shorter is the shorter of two sides; 0 stands for one that is not known.
func shorter(width, height uint32) uint32 {
	if width == 0 || height == 0 {
		return max(width, height)
	}
	return min(width, height)
}
