package sfu

import (
	"sync"
	"sync/atomic"
	"time"
)

// maxDropout is how far a sequence number may run ahead before the packet is
// taken for a restart (RFC 3550 appendix A.1).
const maxDropout = 3000

// upLayer is one stream of an UpTrack: a simulcast layer, or everything. Streams
// share nothing, so that the readers of three do not wait for each other.
type upLayer struct {
	cache    packetCache
	cacheLen int // static

	// Guarded by ingest, which is held while a packet goes through the sinks:
	// it makes a layer's packets come one at a time, and lets SetMuted wait for
	// those under way.
	ingest  sync.Mutex
	burst   []Packet // handed to the sinks, reused
	started bool
	ssrc    uint32
	highest int64 // extended sequence number
	odd     int32 // the sequence number that would confirm a restart, or -1
	restart bool  // the next packet begins a new epoch
	deps    dependencies

	// Written by the ingest, read by everyone.
	epoch  atomic.Uint32
	report atomic.Pointer[SenderReport]
	ask    keyframeAsk
	count  layerCounters
}

type layerCounters struct {
	packets, bytes, keyframes, stale, restarts, muted atomic.Uint64
}

// number extends a packet's sequence number and says in which epoch it counts. It
// reports false for a duplicate, a packet that is too late, and one whose number
// jumps.
func (u *upLayer) number(p *Packet, ssrc uint32) bool {
	if !u.started || u.restart || ssrc != u.ssrc {
		u.begin(p, ssrc)
		return true
	}
	ahead := int64(int16(p.Seq - uint16(u.highest)))
	if ahead > maxDropout || ahead <= -int64(u.cacheLen) {
		if u.odd == int32(p.Seq) {
			u.begin(p, ssrc)
			return true
		}
		u.odd = int32(p.Seq + 1)
		return false
	}
	u.odd = -1
	p.ext, p.epoch = u.highest+ahead, u.epoch.Load()
	if u.cache.stale(p.epoch, p.ext) {
		return false
	}
	u.highest = max(u.highest, p.ext)
	return true
}

// begin starts a new epoch with the packet.
func (u *upLayer) begin(p *Packet, ssrc uint32) {
	if u.started {
		u.count.restarts.Add(1)
	}
	u.started, u.restart, u.ssrc, u.odd = true, false, ssrc, -1
	u.highest = 1<<16 + int64(p.Seq) // room for packets from before the first
	p.ext, p.epoch = u.highest, u.epoch.Add(1)
}

// next returns room for a packet in the burst.
func (u *upLayer) next() *Packet {
	if len(u.burst) == cap(u.burst) {
		u.burst = append(u.burst, Packet{})
	} else {
		u.burst = u.burst[:len(u.burst)+1]
	}
	return &u.burst[len(u.burst)-1]
}

// add reads what is left to be read of a packet, and keeps it.
func (u *upLayer) add(p *Packet, t *UpTrack) {
	p.elements = findElements(p.Raw, &t.ids)
	var dependency []byte
	if s := p.elements.at[extDependency]; s.len >= ddFixed {
		dependency = s.of(p.Raw)
	} else {
		p.elements.has &^= 1 << extDependency
	}
	if t.format == formatRED && !t.plainOpus(p.Type) {
		if _, ok := redPrimary(p.Payload); !ok {
			p.Payload = nil // to receivers it is a packet of nothing
		}
	}
	p.desc = t.format.describe(p.Payload, dependency, &u.deps, t.cfg.SVC)
	if p.desc.adrift && p.ext < u.highest {
		p.Payload = nil // overtaken by more keyframes than are remembered: nobody can say what it was
	}
	p.Keyframe, p.Temporal = p.desc.keyframe, p.desc.temporal
	p.Spatial = p.Layer
	if t.cfg.SVC {
		p.Spatial = min(Layer(p.desc.spatial), MaxLayers-1)
	}
	u.cache.put(u.cacheLen, p)
	u.count.packets.Add(1)
	u.count.bytes.Add(uint64(len(p.Raw)))
	if p.Keyframe {
		u.ask.answered()
		u.count.keyframes.Add(1)
	}
}

// stop makes the next packet begin a new epoch, and returns when no packet is
// under way.
func (u *upLayer) stop() {
	u.ingest.Lock()
	defer u.ingest.Unlock()
	u.restart = true
}

// keyframeInterval is the least time between two keyframe requests for a layer.
// A keyframe is five to ten times a normal frame: more often than twice a second
// they would eat the rate that the picture needs.
const keyframeInterval = 500 * time.Millisecond

// keyframeAsk merges the keyframe requests of all receivers of a layer.
type keyframeAsk struct {
	last    atomic.Int64 // Unix nanoseconds of the last request passed on
	pending atomic.Bool  // somebody asked since, too early
}

// due reports whether a request is to be passed on now; if not it is remembered.
func (a *keyframeAsk) due(now time.Time) bool {
	last := a.last.Load()
	if last != 0 && now.UnixNano()-last < int64(keyframeInterval) {
		a.pending.Store(true)
		return false
	}
	if !a.last.CompareAndSwap(last, now.UnixNano()) {
		return false // somebody else asks at this very moment
	}
	a.pending.Store(false)
	return true
}

// answered forgets what was remembered: who still needs one asks again.
func (a *keyframeAsk) answered() { a.pending.Store(false) }
