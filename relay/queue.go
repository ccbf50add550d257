package relay

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// queue holds the packet records of a track, or of one layer of it, between the
// publisher's read loop and the goroutine that sends. Both sides hold the lock
// for a copy or a swap only. It drops its oldest record when it is full.
//
// Records lie one behind the other as wire.NextPacket reads them, so that what
// take returns can be written to a stream as it is.
type queue struct {
	// Static.
	maxPackets, maxBytes int
	room                 int              // bytes kept free in front of the first record
	clock                func() time.Time // nil: no marks are kept

	// Guarded by mu.
	mu    sync.Mutex
	buf   []byte
	head  int // start of the oldest record in buf
	n     int // records
	marks []mark
	ts    uint32
}

// mark says when the first record of an RTP timestamp was pushed.
type mark struct {
	ts uint32
	at time.Time
}

func newQueue(maxPackets, maxBytes, room int, clock func() time.Time) *queue {
	return &queue{maxPackets: maxPackets, maxBytes: maxBytes, room: room, clock: clock}
}

// push copies a record made of head and body and returns how many old ones it
// pushed out. A record longer than the queue is refused by the caller.
func (q *queue) push(head, body []byte, last bool) (dropped int) {
	n := len(head) + len(body)
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n > 0 && (q.n >= q.maxPackets || len(q.buf)-q.head+wire.PacketOverhead+n > q.maxBytes) {
		q.dropOldest()
		dropped++
	}
	q.makeRoom()
	if q.clock != nil {
		q.mark(body)
	}
	at := len(q.buf)
	q.buf = append(q.buf, 0, 0)
	wire.PutPacket(q.buf[at:], n, last)
	q.buf = append(q.buf, head...)
	q.buf = append(q.buf, body...)
	q.n++
	return dropped
}

func (q *queue) dropOldest() {
	_, _, rest, _ := wire.NextPacket(q.buf[q.head:])
	q.head = len(q.buf) - len(rest)
	q.n--
}

// makeRoom puts the front room before the first record and moves the records
// down when the dropped ones in front of them take as much as the queue may.
func (q *queue) makeRoom() {
	switch {
	case q.n == 0:
		q.buf = grow(q.buf, q.room)
		q.head, q.marks = q.room, q.marks[:0]
	case q.head > q.maxBytes:
		q.buf = q.buf[:q.room+copy(q.buf[q.room:], q.buf[q.head:])]
		q.head = q.room
	}
}

// grow returns b with length n, whatever it held.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n, 4096)
	}
	return b[:n]
}

// mark remembers when a new timestamp began. Timestamps whose records were
// dropped are forgotten when the marks outnumber the records.
func (q *queue) mark(rtp []byte) {
	ts := binary.BigEndian.Uint32(rtp[4:])
	if q.n > 0 && ts == q.ts {
		return
	}
	q.ts = ts
	if len(q.marks) >= q.maxPackets {
		q.marks = append(q.marks[:0], q.marks[len(q.marks)-q.n:]...)
	}
	q.marks = append(q.marks, mark{ts, q.clock()})
}

// batch is what take took: records from buf[head:], valid until it is given back
// with the next take.
type batch struct {
	buf   []byte
	head  int
	n     int
	marks []mark
}

// take empties the queue into b, whose memory the queue uses from now on.
func (q *queue) take(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.buf, q.buf = q.buf, b.buf[:0]
	b.marks, q.marks = q.marks, b.marks[:0]
	b.head, q.head = q.head, 0
	b.n, q.n = q.n, 0
}

// since returns when the frame of an RTP timestamp began to wait. Marks before
// it are forgotten: frames are asked for in their order.
func (b *batch) since(ts uint32) (time.Time, bool) {
	for i, m := range b.marks {
		if m.ts == ts {
			b.marks = b.marks[i:]
			return m.at, true
		}
	}
	return time.Time{}, false
}

// len returns the number of records.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n
}
