package transport

import (
	"cmp"
	"errors"
	"slices"

	"github.com/domicile/domicile/node/stream"
)

// flushStreams writes what is for streams: all packets of a client in one write, so
// that TLS makes one record of a frame.
func (b *Batch) flushStreams() {
	for i := range b.messages {
		if m := &b.messages[i]; m.to.group == nil {
			b.streamed = append(b.streamed, m)
		}
	}
	if len(b.streamed) == 0 {
		return
	}
	slices.SortStableFunc(b.streamed, func(x, y *message) int { return cmp.Compare(x.to.tunnel.id, y.to.tunnel.id) })
	for rest := b.streamed; len(rest) > 0; {
		n := 1
		for size := rest[0].len; n < len(rest) && rest[n].to.tunnel == rest[0].to.tunnel; n++ {
			if size += rest[n].len; size > maxSegmented {
				break
			}
		}
		b.writeStream(rest[:n])
		rest = rest[n:]
	}
	clear(b.streamed)
	b.streamed = b.streamed[:0]
}

// writeStream writes messages of one client. Nothing waits.
func (b *Batch) writeStream(ms []*message) {
	t := ms[0].to.tunnel
	if t.closed.Load() {
		b.dropped(DropUnreachable, ms)
		return
	}
	data := b.arena[ms[0].off : ms[0].off+ms[0].len]
	if len(ms) > 1 {
		b.joined = b.joined[:0]
		for _, m := range ms {
			b.joined = append(b.joined, b.arena[m.off:m.off+m.len]...)
		}
		data = b.joined
	}
	switch err := t.cfg.Stream.Send(data); {
	case errors.Is(err, stream.ErrFull):
		b.dropped(DropStreamFull, ms)
	case err != nil:
		b.dropped(DropUnreachable, ms)
	}
}

// reply puts a datagram to a client without a path into the batch.
func (b *Batch) reply(to Tuple, datagram []byte) {
	if to.group == nil || len(datagram) > maxReserve {
		b.engine.drops.add(DropUnreachable)
		return
	}
	room := b.Reserve(len(datagram)) // may flush, and then nobody is asked any more
	copy(room, datagram)
	b.commit(b.stranger(to), len(datagram))
}

// stranger is a path that lives until the flush.
func (b *Batch) stranger(to Tuple) *path {
	n := len(b.asked)
	if n == cap(b.asked) {
		return &path{group: to.group, name: to.name}
	}
	b.asked = b.asked[:n+1]
	p := &b.asked[n]
	p.group, p.name = to.group, to.name
	p.plain.Store(false)
	return p
}
