package sfu

import (
	"sync"
	"sync/atomic"
)

// Tap hands the packets of one UpTrack to another, which so becomes a copy of it
// until the Tap is closed. What it gets after another Tap's packets begins anew,
// as after a publisher's restart, and its receivers join it at a keyframe.
type Tap struct {
	from, to *UpTrack // static, like ids
	ids      *[256]uint8
	closed   atomic.Bool
}

// NewTap begins to hand packets on. Both tracks have the same codec and are
// either both SVC or both not; to is a relayed track.
func NewTap(from, to *UpTrack) *Tap {
	t := &Tap{from: from, to: to, ids: renumbering(from.cfg.Extensions, to.cfg.Extensions)}
	to.OnWanted(func(LayerSet) { from.WantsChanged() })
	from.AddSink(t)
	return t
}

// Close ends it. Packets that are under way at this moment may still pass.
func (t *Tap) Close() {
	t.closed.Store(true)
	t.from.RemoveSink(t)
}

// From returns the track whose packets pass.
func (t *Tap) From() *UpTrack { return t.from }

// Wants implements Sink.
func (t *Tap) Wants() LayerSet { return t.to.Wanted() }

// Report implements Sink.
func (t *Tap) Report(l Layer, sr SenderReport) {
	if !t.closed.Load() {
		t.to.Report(l, sr)
	}
}

// tapRoom is what a goroutine needs to hand a burst on.
type tapRoom struct {
	burst []Inbound
	raw   []byte
}

var tapRooms = sync.Pool{New: func() any { return new(tapRoom) }}

// Offer implements Sink.
func (t *Tap) Offer(burst []Packet, out Out) {
	if t.closed.Load() || len(burst) == 0 {
		return
	}
	room := tapRooms.Get().(*tapRoom)
	for i := range burst {
		raw := burst[i].Raw
		if t.ids != nil {
			raw = room.renumbered(raw, t.ids)
		}
		room.burst = append(room.burst, Inbound{Raw: raw, Arrival: burst[i].Arrival})
	}
	t.to.Ingest(burst[0].Layer, room.burst, out)
	clear(room.burst)
	room.burst, room.raw = room.burst[:0], room.raw[:0]
	tapRooms.Put(room)
}

// renumbering maps the ids of one side's header extensions to the other's, and
// all others to 0, which is padding. It returns nil if both are the same.
func renumbering(from, to Extensions) *[256]uint8 {
	a, b := from.carried(), to.carried()
	if a == b {
		return nil
	}
	ids := new([256]uint8)
	for k := range a {
		if a[k] != 0 {
			ids[a[k]] = b[k]
		}
	}
	return ids
}

// renumbered returns a copy of a packet with other ids for its header extensions.
func (r *tapRoom) renumbered(raw []byte, ids *[256]uint8) []byte {
	at := len(r.raw)
	r.raw = append(r.raw, raw...)
	out := r.raw[at:]
	eachElement(raw, func(id uint8, s span) bool {
		putElementID(out, s, raw, ids[id])
		return true
	})
	return out
}

// putElementID gives an element another id. One that the form of the header has
// no place for becomes padding.
func putElementID(rtp []byte, s span, raw []byte, id uint8) {
	head := s.at - 1 // one-byte form
	two := isTwoByte(raw)
	if two {
		head = s.at - 2
	}
	switch {
	case id == 0, !two && id >= 15:
		clear(rtp[head : s.at+uint16(s.len)])
	case two:
		rtp[head] = id
	default:
		rtp[head] = id<<4 | s.len - 1
	}
}

// isTwoByte reports which form the header extension of a packet has.
func isTwoByte(raw []byte) bool {
	return raw[headerSize+4*int(raw[0]&0x0f)] == twoByte>>8
}
