package room

import (
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

// Dynacast: publishers send what somebody in the whole mesh watches. What is
// wanted here and by the nodes that are served is the UpTrack's Wanted; each
// node asks for no more than it needs itself, so it is the mesh's.

const (
	// dynacastDelay is how long a layer has to be unwanted before its publisher
	// is told to stop: LiveKit's figure. Starting again costs a keyframe and a
	// second of a poor picture, so a viewer who scrolls past must not cost it.
	dynacastDelay = 5 * time.Second
	// none is the highest wanted layer of what nobody wants.
	none int8 = -1
	// all is the highest layer there can be.
	all = int8(sfu.MaxLayers - 1)
)

// dynacast decides when the publisher of one codec is told about a change of the
// highest layer that is wanted: at once when it rises, after dynacastDelay when
// it falls. Lower layers are always among what is wanted: whoever loses
// bandwidth needs them at once.
type dynacast struct {
	told int8 // what the publisher sends
	// While less is wanted than told: since when, and the most since then.
	below time.Time
	peak  int8
}

// update takes what is wanted now and reports whether told has changed.
func (d *dynacast) update(want int8, now time.Time) bool {
	switch {
	case want > d.told:
		d.told, d.below = want, time.Time{}
		return true
	case want == d.told:
		d.below = time.Time{}
		return false
	case d.below.IsZero():
		d.below, d.peak = now, want
		return false
	}
	d.peak = max(d.peak, want)
	if now.Sub(d.below) < dynacastDelay {
		return false
	}
	d.told, d.below, d.peak = d.peak, now, want
	return true
}

// top is the highest layer of a set, none for the empty one.
func top(s sfu.LayerSet) int8 {
	for l := all; l >= 0; l-- {
		if s.Has(sfu.Layer(l)) {
			return l
		}
	}
	return none
}

// doDynacast tells publishers here what is wanted of their tracks.
func (r *Room) doDynacast(now time.Time) {
	for _, t := range r.tracks {
		if t.node == r.deps.Self.Name && t.base == "" && t.up != nil {
			r.doSubscribed(t)
			if t.kind() == sfu.Video && r.steer(t, now) {
				r.tellQualities(t)
			}
		}
	}
}

// steer updates what is asked of a track's publisher, codec by codec, and
// reports whether that has changed.
func (r *Room) steer(t *track, now time.Time) (changed bool) {
	if d := t.dynacast[t.media.Codec.MimeType]; d != nil && len(t.dynacast) == 1 && len(t.lacked) == 0 && !t.varied {
		return d.update(top(t.up.Wanted()), now) // the usual case, asked often
	}
	for mime, want := range r.wantedCodecs(t, now) {
		d := t.dynacast[mime]
		if d == nil {
			d = &dynacast{told: none}
			if mime == t.media.Codec.MimeType {
				d.told = all // clients begin with everything
			}
			if t.dynacast == nil {
				t.dynacast = map[string]*dynacast{}
			}
			t.dynacast[mime] = d
		}
		changed = d.update(want, now) || changed
	}
	return changed
}

// wantedCodecs is the highest layer wanted of each codec of a track. One that is
// not published yet is wanted whole or not at all.
func (r *Room) wantedCodecs(t *track, now time.Time) map[string]int8 {
	want := map[string]int8{t.media.Codec.MimeType: top(t.up.Wanted())}
	for mime, at := range t.lacked {
		if now.Sub(at) <= lackHolds {
			want[mime] = all
		} else {
			delete(t.lacked, mime)
		}
	}
	for _, v := range r.variants(t) {
		delete(t.lacked, v.media.Codec.MimeType)
		want[v.media.Codec.MimeType] = top(v.up.Wanted())
	}
	for mime := range t.dynacast {
		if _, said := want[mime]; !said {
			want[mime] = none
		}
	}
	return want
}

// tellQualities sends a publisher what is wanted of its track.
func (r *Room) tellQualities(t *track) {
	p := r.byIdentity(t.ownerIdentity)
	if p == nil || p.sid != t.ownerSID || len(t.dynacast) == 0 {
		return
	}
	p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_SubscribedQualityUpdate{
		SubscribedQualityUpdate: qualityUpdate(t)}})
}

// qualityUpdate is the message for the publisher, its first codec first.
func qualityUpdate(t *track) *livekit.SubscribedQualityUpdate {
	m := &livekit.SubscribedQualityUpdate{TrackSid: string(t.id)}
	for mime, d := range t.dynacast {
		m.SubscribedCodecs = append(m.SubscribedCodecs, &livekit.SubscribedCodec{Codec: shortOf(mime), Qualities: qualities(t, d.told)})
	}
	first := shortOf(t.media.Codec.MimeType)
	slices.SortFunc(m.SubscribedCodecs, func(a, b *livekit.SubscribedCodec) int {
		if (a.Codec == first) != (b.Codec == first) {
			if a.Codec == first {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Codec, b.Codec)
	})
	m.SubscribedQualities = m.SubscribedCodecs[0].Qualities //nolint:staticcheck // older clients read these
	return m
}

// qualities says which of the three are to be sent. A picture with one layer is
// sent whole or not at all: clients disagree on what its one quality is called.
func qualities(t *track, told int8) (list []*livekit.SubscribedQuality) {
	if len(t.info.Layers) <= 1 && told > none {
		told = all
	}
	for q := range int8(sfu.MaxLayers) {
		list = append(list, &livekit.SubscribedQuality{Quality: livekit.VideoQuality(q), Enabled: q <= told})
	}
	return list
}

// doSubscribed tells a publisher once that somebody receives its track.
func (r *Room) doSubscribed(t *track) {
	if t.subscribed || !t.watched() {
		return
	}
	t.subscribed = true
	if p := r.byIdentity(t.ownerIdentity); p != nil && p.sid == t.ownerSID {
		p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_TrackSubscribed{
			TrackSubscribed: &livekit.TrackSubscribed{TrackSid: string(t.id)}}})
	}
}
