package sfu

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// stallAfter is how long the other layers of a local track may run on without a
// layer until it counts as gone. Shorter, and a screen that stands still makes
// its viewers switch; longer, and they look at a frozen picture.
const stallAfter = 1500 * time.Millisecond

// UpTrackConfig says what a track carries. It never changes, but for Relayed.
type UpTrackConfig struct {
	ID    TrackID
	Kind  Kind
	Codec Codec
	// Relayed says that the track comes from another node, which then tells
	// which layers there are (SetAvailable); a local track finds out by itself.
	// SetRelayed changes it when the publisher moves between nodes.
	Relayed bool
	// Extensions are the header extensions that the publisher negotiated.
	Extensions Extensions
	// REDPayloadType is that of redundant audio (RFC 2198) in the publisher's
	// packets of such a track; those of another type are plain Opus. 0: all are.
	REDPayloadType uint8
	// SVC says that one stream carries all the spatial layers.
	SVC bool
	// Screen says that the picture is of a screen, which goes before cameras.
	Screen bool
}

// UpTrack is one published track on this node, whether its publisher is served
// here or the packets come from another node.
//
// All methods may be called from any goroutine. Each layer has its own lock
// that is held while one of its packets goes through the sinks; t.mu guards the
// list of sinks and the callbacks and is never held while a callback runs.
type UpTrack struct {
	cfg    UpTrackConfig // static, like format and ids
	format format
	ids    [carried]uint8 // of the header extensions
	layers [MaxLayers]upLayer

	sinks     atomic.Pointer[fanout] // immutable, replaced under mu
	muted     atomic.Bool
	relayed   atomic.Bool
	available atomic.Uint32 // a LayerSet
	malformed atomic.Uint64
	requester atomic.Pointer[func(Layer)]

	meter meter

	mu          sync.Mutex
	rates       history
	told        Rates // of a relayed track
	onAvailable teller
	onWanted    teller
}

// fanout is an immutable list of sinks, sorted by what they want.
type fanout struct {
	all     []Sink
	byLayer [MaxLayers][]Sink
	wanted  LayerSet
}

// NewUpTrack returns a track without sinks.
func NewUpTrack(cfg UpTrackConfig) *UpTrack {
	t := &UpTrack{cfg: cfg, format: formatOf(cfg.Codec), ids: cfg.Extensions.carried()}
	for i := range t.layers {
		t.layers[i].cacheLen = videoCache
		if cfg.Kind == Audio {
			t.layers[i].cacheLen = audioCache
		}
	}
	t.sinks.Store(&fanout{})
	t.relayed.Store(cfg.Relayed)
	return t
}

// ID returns the track's name.
func (t *UpTrack) ID() TrackID { return t.cfg.ID }

// Kind returns audio or video.
func (t *UpTrack) Kind() Kind { return t.cfg.Kind }

// Codec returns what the track carries.
func (t *UpTrack) Codec() Codec { return t.cfg.Codec }

// SVC reports whether one stream carries all the spatial layers.
func (t *UpTrack) SVC() bool { return t.cfg.SVC }

// Relayed reports whether the track comes from another node.
func (t *UpTrack) Relayed() bool { return t.relayed.Load() }

// SetRelayed says that the track comes from another node from now on, or does not
// any more. Its receivers, its cache and its numbers stay.
func (t *UpTrack) SetRelayed(relayed bool) { t.relayed.Store(relayed) }

// Ingest takes RTP packets of one stream in the order of their arrival: l is its
// simulcast layer, 0 if there is one stream. Cache, then each sink that wants the
// layer, which sends through out. A packet that cannot be read, a duplicate and
// one that is too late are counted and dropped.
func (t *UpTrack) Ingest(l Layer, burst []Inbound, out Out) {
	if !t.carries(l) {
		t.malformed.Add(uint64(len(burst)))
		return
	}
	if found := t.forward(l, burst, out); found&^t.Available() != 0 && !t.Relayed() {
		t.changeAvailable(func(s LayerSet) LayerSet { return s | found })
	}
}

// carries reports whether there is a stream l: one of SVC has all layers.
func (t *UpTrack) carries(l Layer) bool {
	return l == 0 || l < MaxLayers && t.cfg.Kind == Video && !t.cfg.SVC
}

// forward returns the layers that the packets are of.
func (t *UpTrack) forward(l Layer, burst []Inbound, out Out) (found LayerSet) {
	u := &t.layers[l]
	u.ingest.Lock()
	defer u.ingest.Unlock()
	if t.muted.Load() {
		u.count.muted.Add(uint64(len(burst)))
		return LayerSet(0).With(l)
	}
	u.burst = u.burst[:0]
	for i := range burst {
		if p := u.next(); t.take(u, p, l, &burst[i]) {
			found = found.With(p.Spatial)
		} else {
			u.burst = u.burst[:len(u.burst)-1]
		}
	}
	if len(u.burst) == 0 {
		return 0
	}
	for _, s := range t.sinks.Load().byLayer[l] {
		s.Offer(u.burst, out)
	}
	return found
}

// plainOpus reports whether a packet of a track of redundant audio has none.
func (t *UpTrack) plainOpus(pt uint8) bool {
	return t.cfg.REDPayloadType != 0 && pt != t.cfg.REDPayloadType
}

// take reads a packet into p.
func (t *UpTrack) take(u *upLayer, p *Packet, l Layer, in *Inbound) bool {
	h, err := parseHeader(in.Raw)
	if err != nil {
		t.malformed.Add(1)
		return false
	}
	*p = Packet{
		Layer: l, Raw: in.Raw, Payload: in.Raw[h.start:h.end], start: uint16(h.start),
		Type: h.pt, Seq: h.seq, TS: h.ts, Marker: h.marker, Arrival: in.Arrival,
	}
	if !u.number(p, h.ssrc) {
		u.count.stale.Add(1)
		return false
	}
	u.add(p, t)
	t.meter.note(p)
	return true
}

// Report takes a sender report of a layer and hands it to every sink.
func (t *UpTrack) Report(l Layer, sr SenderReport) {
	if !t.carries(l) || t.muted.Load() {
		return
	}
	t.layers[l].report.Store(&sr)
	for _, s := range t.sinks.Load().all {
		s.Report(l, sr)
	}
}

// lastReport returns the newest sender report of a layer, or nil.
func (t *UpTrack) lastReport(l Layer) *SenderReport { return t.layers[l].report.Load() }

// AddSink adds a receiver.
func (t *UpTrack) AddSink(s Sink) {
	t.changeSinks(func(all []Sink) []Sink { return append(all, s) })
}

// RemoveSink removes a receiver. Packets that are under way at this moment may
// still reach it.
func (t *UpTrack) RemoveSink(s Sink) {
	t.changeSinks(func(all []Sink) []Sink {
		if i := slices.Index(all, s); i >= 0 {
			return slices.Delete(all, i, i+1)
		}
		return all
	})
}

// WantsChanged asks every sink again what it wants.
func (t *UpTrack) WantsChanged() {
	t.changeSinks(func(all []Sink) []Sink { return all })
}

func (t *UpTrack) changeSinks(edit func([]Sink) []Sink) {
	t.mu.Lock()
	next := &fanout{all: edit(slices.Clone(t.sinks.Load().all))}
	for _, s := range next.all {
		wants := s.Wants()
		next.wanted |= wants
		for l := range next.byLayer {
			if wants.Has(Layer(l)) || t.cfg.SVC && l == 0 && wants != 0 {
				next.byLayer[l] = append(next.byLayer[l], s)
			}
		}
	}
	t.sinks.Store(next)
	t.mu.Unlock()
	t.tell(&t.onWanted, t.Wanted)
}

// Wanted returns the layers that at least one sink wants.
func (t *UpTrack) Wanted() LayerSet { return t.sinks.Load().wanted }

// WantedBy returns the layers that at least one of some sinks wants.
func (t *UpTrack) WantedBy(counts func(Sink) bool) (wanted LayerSet) {
	for _, s := range t.sinks.Load().all {
		if counts(s) {
			wanted |= s.Wants()
		}
	}
	return wanted
}

// OnWanted sets the function that is told when Wanted changes, one call at a
// time and the latest value last; at once if anything is wanted already.
func (t *UpTrack) OnWanted(f func(LayerSet)) {
	t.mu.Lock()
	t.onWanted.set(f)
	t.mu.Unlock()
	t.tell(&t.onWanted, t.Wanted)
}

// Cached copies the packet of a layer with a sequence number into buf, as it
// arrived. A muted track has none: a muted microphone must not be heard through
// a retransmission either.
func (t *UpTrack) Cached(l Layer, seq uint16, buf []byte) (n int, ok bool) {
	if l >= MaxLayers || t.muted.Load() {
		return 0, false
	}
	u := &t.layers[l]
	return u.cache.find(u.epoch.Load(), seq, buf)
}

// cached returns a packet of a stream; its bytes go to buf.
func (t *UpTrack) cached(l Layer, epoch uint32, ext int64, buf []byte) (p Packet, ok bool) {
	if t.muted.Load() {
		return p, false
	}
	return t.layers[l].cache.get(epoch, ext, buf)
}

// replay says whether a receiver can be started with the packets in the cache,
// and from which on.
func (t *UpTrack) replay(l Layer, now time.Time) (keyStart, bool) {
	if t.muted.Load() {
		return keyStart{}, false
	}
	u := &t.layers[l]
	return u.cache.replay(u.epoch.Load(), now)
}

// RequestKeyframe asks the publisher for a keyframe of a layer. Requests are
// merged: one in keyframeInterval passes, those between are made good by Tick
// unless a keyframe came meanwhile.
func (t *UpTrack) RequestKeyframe(l Layer, now time.Time) {
	if t.cfg.SVC {
		l = 0 // one stream
	}
	if t.cfg.Kind != Video || l >= MaxLayers || t.muted.Load() {
		return
	}
	f := t.requester.Load()
	if f != nil && t.layers[l].ask.due(now) {
		(*f)(l)
	}
}

// OnKeyframeRequest sets the function that carries keyframe requests to the
// publisher, or to the node that the track comes from.
func (t *UpTrack) OnKeyframeRequest(f func(Layer)) { t.requester.Store(&f) }

// SetMuted stops and resumes the track. When SetMuted(true) returns, no packet
// of the track is on its way to a sink's writer and none will be. It must not be
// called from a sink.
func (t *UpTrack) SetMuted(muted bool) {
	if t.muted.Swap(muted) == muted {
		return
	}
	for i := range t.layers {
		t.layers[i].stop()
		t.layers[i].ask.pending.Store(!muted && t.Wanted().Has(Layer(i)) && t.carries(Layer(i)))
	}
	for _, s := range t.sinks.Load().all {
		if d, ok := s.(*DownTrack); ok {
			d.settle()
		}
	}
}

// Muted reports whether the track is muted.
func (t *UpTrack) Muted() bool { return t.muted.Load() }

// Available returns the layers that exist now. Of a local track these are the
// layers that had packets while the others had; a track that is silent
// altogether keeps its layers, since there is nothing better to switch to.
func (t *UpTrack) Available() LayerSet { return LayerSet(t.available.Load()) }

// SetAvailable says which layers a relayed track has.
func (t *UpTrack) SetAvailable(s LayerSet) {
	if t.Relayed() {
		t.changeAvailable(func(LayerSet) LayerSet { return s })
	}
}

// OnAvailable sets the function that is told when Available changes, one call
// at a time and the latest value last; at once if a layer is available already.
func (t *UpTrack) OnAvailable(f func(LayerSet)) {
	t.mu.Lock()
	t.onAvailable.set(f)
	t.mu.Unlock()
	t.tell(&t.onAvailable, t.Available)
}

func (t *UpTrack) changeAvailable(edit func(LayerSet) LayerSet) {
	t.mu.Lock()
	t.available.Store(uint32(edit(t.Available())))
	t.mu.Unlock()
	t.tell(&t.onAvailable, t.Available)
}

// Tick is called by the owner about every 100 ms.
func (t *UpTrack) Tick(now time.Time) {
	t.sample(now)
	if !t.Relayed() && !t.muted.Load() {
		t.dropStalled()
	}
	for l := range t.layers {
		if t.layers[l].ask.pending.Load() {
			t.RequestKeyframe(Layer(l), now)
		}
	}
}

func (t *UpTrack) dropStalled() {
	live := t.meter.live()
	if have := t.Available(); have&live != have {
		t.changeAvailable(func(s LayerSet) LayerSet { return s & live })
	}
}

// teller tells one function a value that changes. Guarded by UpTrack.mu.
type teller struct {
	f    func(LayerSet)
	told LayerSet
	busy bool
}

func (w *teller) set(f func(LayerSet)) { w.f, w.told = f, 0 }

// tell calls the teller's function until it knows the current value. Whoever
// comes while a call runs leaves the news to it.
func (t *UpTrack) tell(w *teller, current func() LayerSet) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.busy {
		return
	}
	w.busy = true
	for f, v := w.f, current(); f != nil && v != w.told; f, v = w.f, current() {
		w.told = v
		t.mu.Unlock()
		f(v)
		t.mu.Lock()
	}
	w.busy = false
}
