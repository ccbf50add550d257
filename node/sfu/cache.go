package sfu

import (
	"sync"
	"time"
)

// The packets kept for each stream: a power of two, so that a sequence number
// names its slot. 512 packets are 1.7 s of 3 Mbit/s video, several round trips;
// 128 packets are 2.5 s of audio.
const (
	videoCache = 512
	audioCache = 128
)

// What a receiver may be started with from the cache, in place of a new
// keyframe: less than a second of an ordinary stream. More would take the path
// longer to carry than a keyframe takes to be asked for.
const (
	maxReplayPackets = 256
	maxReplayBytes   = 300_000
	maxReplayAge     = 2 * time.Second
)

// packetCache keeps the last packets of one stream, as they arrived, for every
// receiver that asks again. The ingest writes, receivers that lost something
// read; nobody else takes its lock.
type packetCache struct {
	mu    sync.Mutex
	slots []Packet // made with the first packet; Raw is the slot's, reused; epoch 0: empty
	key   keyStart
	count uint64 // of the packets put
	epoch uint32 // of the newest packet
	last  int64  // the highest number of that epoch
}

// keyStart is where the last keyframe began.
type keyStart struct {
	epoch uint32
	ext   int64
	at    time.Time
	ts    uint32
	count int // packets and bytes put since, itself included
	bytes int
}

// stale reports whether a packet is kept already, or a newer one in its place.
// Only the ingest, which alone writes, may ask without the lock.
func (c *packetCache) stale(epoch uint32, ext int64) bool {
	if c.slots == nil {
		return false
	}
	s := &c.slots[ext&int64(len(c.slots)-1)]
	return s.epoch == epoch && s.ext >= ext
}

// put keeps a copy of p, which is not stale.
func (c *packetCache) put(size int, p *Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		c.slots = make([]Packet, size)
	}
	c.count++
	p.serial = c.count
	s := &c.slots[p.ext&int64(len(c.slots)-1)]
	raw := s.Raw
	*s = *p
	s.Raw = append(raw[:0], p.Raw...)
	s.Payload = s.Raw[p.start : int(p.start)+len(p.Payload)]
	c.note(p)
}

func (c *packetCache) note(p *Packet) {
	if c.epoch != p.epoch {
		c.epoch, c.last = p.epoch, p.ext
	}
	c.last = max(c.last, p.ext)
	k := &c.key
	switch {
	case p.Keyframe && (k.epoch != p.epoch || p.ext > k.ext):
		// What overtook it counts too.
		*k = keyStart{epoch: p.epoch, ext: p.ext, at: p.Arrival, ts: p.TS}
		for ext := p.ext; ext <= c.last; ext++ {
			if s := c.at(p.epoch, ext); s != nil {
				k.count++
				k.bytes += len(s.Raw)
			}
		}
	case k.epoch == p.epoch && p.ext > k.ext:
		k.count++
		k.bytes += len(p.Raw)
	}
}

// at returns the slot of a packet, or nil.
func (c *packetCache) at(epoch uint32, ext int64) *Packet {
	if c.slots == nil || ext < 0 {
		return nil
	}
	s := &c.slots[ext&int64(len(c.slots)-1)]
	if s.epoch != epoch || s.ext != ext {
		return nil
	}
	return s
}

// replay returns the numbers from the last keyframe to the newest packet if all
// packets between are there and they are few.
func (c *packetCache) replay(epoch uint32, now time.Time) (first keyStart, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.key
	whole := c.epoch == epoch && int64(k.count) == c.last-k.ext+1
	few := k.count <= min(maxReplayPackets, len(c.slots)) && k.bytes <= maxReplayBytes
	return k, k.epoch == epoch && epoch != 0 && whole && few && now.Sub(k.at) <= maxReplayAge
}

// since returns the highest number after a keyframe, and the serial of the newest
// packet.
func (c *packetCache) since(epoch uint32, keyframe int64) (last int64, serial uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		return keyframe, c.count
	}
	return max(c.last, keyframe), c.count
}

// get copies a packet; its bytes go to buf.
func (c *packetCache) get(epoch uint32, ext int64, buf []byte) (p Packet, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.at(epoch, ext)
	if s == nil || len(buf) < len(s.Raw) {
		return p, false
	}
	p = *s
	p.Raw = buf[:copy(buf, s.Raw)]
	p.Payload = p.Raw[p.start : int(p.start)+len(s.Payload)]
	return p, true
}

// find copies the newest packet with the sequence number into buf.
func (c *packetCache) find(epoch uint32, seq uint16, buf []byte) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		return 0, false
	}
	s := &c.slots[int(seq)&(len(c.slots)-1)]
	if s.epoch != epoch || s.Seq != seq || len(buf) < len(s.Raw) {
		return 0, false
	}
	return copy(buf, s.Raw), true
}
