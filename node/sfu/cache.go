package sfu

import "sync"

// The packets kept for each layer: a power of two, so that a sequence number
// names its slot. 512 packets are 1.7 s of 3 Mbit/s video, several round trips;
// 128 packets are 2.5 s of audio.
const (
	videoCache = 512
	audioCache = 128
)

// packetCache keeps the last packets of one layer, as they arrived, for every
// receiver that asks again. The ingest writes, receivers that lost something
// read; nobody else takes its lock.
type packetCache struct {
	mu    sync.Mutex
	slots []cached // made with the first packet
}

type cached struct {
	ext   int64
	epoch uint32 // 0: empty
	raw   []byte // reused when the slot is
}

// put keeps a copy of raw. It reports false for a packet that is kept already.
func (c *packetCache) put(size int, epoch uint32, ext int64, raw []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		c.slots = make([]cached, size)
	}
	s := &c.slots[ext&int64(len(c.slots)-1)]
	if s.epoch == epoch && s.ext >= ext {
		return false
	}
	s.epoch, s.ext = epoch, ext
	s.raw = append(s.raw[:0], raw...)
	return true
}

// get copies a packet into buf.
func (c *packetCache) get(epoch uint32, ext int64, buf []byte) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil || ext < 0 {
		return 0, false
	}
	s := &c.slots[ext&int64(len(c.slots)-1)]
	if s.epoch != epoch || s.ext != ext || len(buf) < len(s.raw) {
		return 0, false
	}
	return copy(buf, s.raw), true
}

// find copies the newest packet with the sequence number into buf.
func (c *packetCache) find(epoch uint32, seq uint16, buf []byte) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots == nil {
		return 0, false
	}
	s := &c.slots[int(seq)&(len(c.slots)-1)]
	if s.epoch != epoch || uint16(s.ext) != seq || len(buf) < len(s.raw) {
		return 0, false
	}
	return copy(buf, s.raw), true
}
