package transport

import (
	"errors"
	"time"
	"unsafe"
)

const (
	// arenaSize is how many bytes a batch holds before it flushes itself: 36 frames
	// of six packets, and little enough to stay in the core's second-level cache.
	arenaSize = 256 << 10
	// maxMessages is how many messages a batch holds before it flushes itself. An
	// audio packet for a room of 500 leaves in one call.
	maxMessages = 512
	// maxSegments and maxSegmented bound one message: the kernel takes 64 segments
	// (UDP_MAX_SEGMENTS before Linux 6.9) that fit an IP packet with its headers.
	maxSegments  = 64
	maxSegmented = 64000
	// maxReserve is the largest packet there is room for, in bytes.
	maxReserve = maxSegmented
	// maxTag is what sealing adds: 16 bytes for GCM, and 4 more for RTCP's index.
	maxTag = 20
)

var errTooLong = errors.New("packet is longer than a datagram")

// message is what the kernel is handed at a time: datagrams of one size to one
// client, one behind the other; the last may be shorter.
type message struct {
	to       *path
	off, len int // in the arena
	size     int // of each datagram but the last
	count    int // of datagrams
	open     bool
}

// fits tells whether n bytes more can go in the same message. A stream has no sizes.
func (m *message) fits(n int) bool {
	if m.to.group == nil {
		return m.len+n <= maxSegmented
	}
	return m.open && n <= m.size && m.count < maxSegments && m.len+n <= maxSegmented
}

// Batch gathers packets and sends them together. It belongs to one goroutine at a
// time: each Worker has one, others borrow theirs with Engine.Batch.
//
//	arena: | A 1100 | A 1100 | A 700 | B 1100 | B 1100 | reserved → |
//	        message of three          message of two
type Batch struct {
	engine   *Engine
	shard    int // picks among the sockets of an address
	arena    []byte
	used     int
	messages []message
	streamed []*message // those for streams, during a flush
	joined   []byte     // several of them as one write
	asked    []path     // those of strangers who are answered
	packets  int
	sender   *sender
	now      time.Time
}

// Now is when what the batch is filled from came, or when it was borrowed: a clock
// that costs nothing per packet.
func (b *Batch) Now() time.Time { return b.now }

func newBatch(e *Engine, shard int) *Batch {
	b := &Batch{engine: e, shard: shard, arena: make([]byte, arenaSize), messages: make([]message, 0, maxMessages), asked: make([]path, 0, maxRead)}
	b.sender = newSender(b)
	return b
}

// Reserve returns room for a packet of at most n bytes, with capacity for what
// sealing adds. It is valid until the next Reserve, Write, WriteRTCP or Flush;
// write the packet to its beginning and hand that to Write. What does not fit any
// more makes the batch flush itself.
func (b *Batch) Reserve(n int) []byte {
	if n > maxReserve {
		return make([]byte, n) // Write refuses it
	}
	if b.used+n+maxTag+maxWrap > len(b.arena) || len(b.messages) == maxMessages {
		b.Flush()
	}
	return b.arena[b.used : b.used+n : b.used+n+maxTag]
}

// place returns p where it can be sealed: itself if it lies in the room that was
// reserved last, which is what costs nothing, else a copy there.
func (b *Batch) place(p []byte) ([]byte, error) {
	if len(p) > maxReserve {
		return nil, errTooLong
	}
	if b.reserved(p) {
		return p, nil
	}
	room := b.Reserve(len(p))
	return room[:copy(room, p)], nil
}

// reserved tells whether p begins where the next packet has to lie.
func (b *Batch) reserved(p []byte) bool {
	return b.used < len(b.arena) && unsafe.SliceData(p) == &b.arena[b.used] && cap(p)-len(p) >= maxTag &&
		b.used+cap(p)+maxWrap <= len(b.arena) && len(b.messages) < maxMessages
}

// commit sends the n bytes at the end of the arena to a client, in the last
// message if it is one for the same client and its datagrams have that size. In a
// tunnel they are wrapped first; a stream takes any sizes.
func (b *Batch) commit(to *path, n int) {
	off := b.used
	if t := to.tunnel; t != nil {
		if !t.out.take(n, b.now) {
			b.engine.drops.add(DropOverRate)
			return
		}
		n = t.wrap.Load().around(b.arena[off:], n)
	}
	b.used += n
	b.packets++
	if last := len(b.messages) - 1; last >= 0 {
		m := &b.messages[last]
		if m.to == to && m.fits(n) {
			m.len += n
			m.count++
			m.open = n == m.size
			return
		}
	}
	b.messages = append(b.messages, message{to: to, off: off, len: n, size: n, count: 1, open: b.maySegment(to)})
}

func (b *Batch) maySegment(to *path) bool {
	return to.group != nil && !to.plain.Load() && !b.socket(to.group).plain.Load()
}

func (b *Batch) socket(g *group) *socket { return g.socks[b.shard%len(g.socks)] }

// send puts a datagram that is sealed already, or needs no seal, into the batch.
func (b *Batch) send(to *path, datagram []byte) {
	copy(b.Reserve(len(datagram)), datagram)
	b.commit(to, len(datagram))
}

// Flush hands everything to the kernel. It does not wait: what the socket's buffer
// does not take is dropped and counted, since media that waits comes too late.
func (b *Batch) Flush() {
	if len(b.messages) > 0 {
		for _, g := range b.engine.groups {
			for i := range b.messages {
				switch m := &b.messages[i]; {
				case m.to.group != g:
				case m.to.tunnel != nil && m.to.tunnel.closed.Load():
					b.engine.drops[DropUnreachable].Add(uint64(m.count))
				default:
					b.sender.add(m, b.arena)
				}
			}
			b.sender.flush(b.socket(g))
		}
		b.flushStreams()
		b.engine.sent.packets.Add(uint64(b.packets))
		b.engine.sent.messages.Add(uint64(len(b.messages)))
	}
	clear(b.messages) // keep no closed connection alive
	b.messages, b.asked, b.used, b.packets = b.messages[:0], b.asked[:0], 0, 0
}

func (b *Batch) dropped(why Drop, messages []*message) {
	for _, m := range messages {
		b.engine.drops[why].Add(uint64(m.count))
	}
}
