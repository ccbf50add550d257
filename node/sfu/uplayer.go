package sfu

import (
	"sync"
	"sync/atomic"
	"time"
)

// maxDropout is how far a sequence number may run ahead before the packet is
// taken for a restart (RFC 3550 appendix A.1).
const maxDropout = 3000

// upLayer is one layer of an UpTrack. Layers share nothing, so that the read
// loops of three simulcast streams do not wait for each other.
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

	// Written by the ingest, read by everyone.
	epoch  atomic.Uint32
	last   atomic.Int64 // arrival of the newest packet, Unix nanoseconds
	report atomic.Pointer[SenderReport]
	ask    keyframeAsk
	count  layerCounters
}

type layerCounters struct {
	packets, bytes, keyframes, stale, restarts, muted atomic.Uint64
}

// accept numbers a packet and keeps it in the cache. It reports false for a
// duplicate, a packet that is too late, and one whose number jumps.
func (u *upLayer) accept(h header, raw []byte) (ext int64, ok bool) {
	if !u.started || u.restart || h.ssrc != u.ssrc {
		return u.begin(h, raw), true
	}
	ahead := int64(int16(h.seq - uint16(u.highest)))
	if ahead > maxDropout || ahead <= -int64(u.cacheLen) {
		if u.odd == int32(h.seq) {
			return u.begin(h, raw), true
		}
		u.odd = int32(h.seq + 1)
		return 0, false
	}
	u.odd = -1
	ext = u.highest + ahead
	if !u.cache.put(u.cacheLen, u.epoch.Load(), ext, raw) {
		return 0, false
	}
	u.highest = max(u.highest, ext)
	return ext, true
}

// begin starts a new epoch with the packet.
func (u *upLayer) begin(h header, raw []byte) int64 {
	if u.started {
		u.count.restarts.Add(1)
	}
	u.started, u.restart, u.ssrc, u.odd = true, false, h.ssrc, -1
	u.highest = 1<<16 + int64(h.seq) // room for packets from before the first
	u.cache.put(u.cacheLen, u.epoch.Add(1), u.highest, raw)
	return u.highest
}

// add puts a packet into the burst that the sinks see.
func (u *upLayer) add(l Layer, f format, h header, ext int64, in Inbound) {
	payload := in.Raw[h.start:h.end]
	p := Packet{
		Layer: l, Raw: in.Raw, Payload: payload,
		Seq: h.seq, TS: h.ts, Marker: h.marker,
		Keyframe: f.keyframe(payload),
		Arrival:  in.Arrival,
		ext:      ext, epoch: u.epoch.Load(),
	}
	u.burst = append(u.burst, p)
	u.count.packets.Add(1)
	u.count.bytes.Add(uint64(len(in.Raw)))
	if p.Keyframe {
		u.ask.answered()
		u.count.keyframes.Add(1)
	}
	u.last.Store(in.Arrival.UnixNano())
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
