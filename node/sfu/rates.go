package sfu

import (
	"sync/atomic"
	"time"
)

// Rates are bit/s of a track by [spatial][temporal] layer, cumulative: what a
// receiver gets that is sent this layer and what it rests upon. A layer that does
// not come now has what it took last. 0: it never came.
type Rates [MaxLayers][MaxTemporal]float64

// meter counts what arrives of each layer. Written by the ingest.
type meter struct {
	bytes [MaxLayers][MaxTemporal]atomic.Uint64
	last  [MaxLayers]atomic.Int64 // arrival of the newest packet, Unix nanoseconds
}

func (m *meter) note(p *Packet) {
	m.bytes[p.Spatial][p.Temporal].Add(uint64(len(p.Raw)))
	m.last[p.Spatial].Store(p.Arrival.UnixNano())
}

// live returns the layers that had packets while the others had.
func (m *meter) live() (s LayerSet) {
	var newest int64
	for l := range m.last {
		newest = max(newest, m.last[l].Load())
	}
	for l := range m.last {
		if newest-m.last[l].Load() < int64(stallAfter) {
			s = s.With(Layer(l))
		}
	}
	return s
}

// Rates are measured over rateWindow: long enough to hold several frames, short
// enough to follow an encoder that adapts.
const (
	rateWindow  = time.Second
	rateSamples = 11 // of a tick each
)

// sample is a reading of the meter.
type sample struct {
	at    time.Time
	bytes [MaxLayers][MaxTemporal]uint64
}

// history is a ring of readings.
type history struct {
	ring  [rateSamples]sample
	count int
	rates Rates
}

// remember keeps what layers took that do not come now: one that a publisher
// stopped for want of viewers can then be asked for again without a guess.
func (r *Rates) remember(old Rates, stopped func(layer int) bool) {
	for s := range r {
		if r[s] == ([MaxTemporal]float64{}) || stopped(s) {
			r[s] = old[s]
		}
	}
}

// quietSamples is how many readings without a packet make a layer count as
// stopped: more than lie between two pictures, few enough that its rate over the
// window has not fallen by much.
const quietSamples = 3

// quiet reports whether nothing came of a layer in the last readings.
func (h *history) quiet(s *sample, layer int) bool {
	if h.count < quietSamples {
		return false
	}
	return h.ring[(h.count-quietSamples)%rateSamples].bytes[layer] == s.bytes[layer]
}

// add takes a reading, the first one of a tick, and reports whether it did.
func (h *history) add(s sample, svc bool) {
	oldest := h.ring[h.count%rateSamples]
	for i := max(h.count-rateSamples, 0); i < h.count; i++ {
		if o := h.ring[i%rateSamples]; s.at.Sub(o.at) <= rateWindow {
			oldest = o
			break
		}
		oldest = h.ring[i%rateSamples]
	}
	first := h.count == 0
	var quiet [MaxLayers]bool
	for l := range quiet {
		quiet[l] = h.quiet(&s, l)
	}
	h.ring[h.count%rateSamples] = s
	h.count++
	if span := s.at.Sub(oldest.at); !first && span > 0 {
		rates := ratesBetween(&oldest, &s, span, svc)
		rates.remember(h.rates, func(l int) bool { return quiet[l] })
		h.rates = rates
	}
}

func ratesBetween(a, b *sample, span time.Duration, svc bool) (r Rates) {
	var below [MaxTemporal]float64 // of the spatial layers underneath
	for s := range r {
		sum, own := 0.0, false
		for t := range r[s] {
			bytes := b.bytes[s][t] - a.bytes[s][t]
			own = own || bytes > 0
			sum += float64(bytes) * 8 / span.Seconds()
			r[s][t] = sum + below[t]
		}
		switch {
		case !own:
			r[s] = [MaxTemporal]float64{}
		case svc:
			below = r[s]
		}
	}
	return r
}

// sample is called from Tick.
func (t *UpTrack) sample(now time.Time) {
	s := sample{at: now}
	for l := range s.bytes {
		for k := range s.bytes[l] {
			s.bytes[l][k] = t.meter.bytes[l][k].Load()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rates.add(s, t.cfg.SVC)
}

// Rates returns what each layer takes to send: as measured, or of a relayed
// track as its first node told, which sees the layers that do not come here.
func (t *UpTrack) Rates(time.Time) Rates {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Relayed() && t.told != (Rates{}) {
		return t.told
	}
	return t.rates.rates
}

// SetRates says what the layers of a relayed track take.
func (t *UpTrack) SetRates(r Rates) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.remember(t.told, func(int) bool { return false })
	t.told = r
}
