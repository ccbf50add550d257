package sfu

import "encoding/binary"

// Thinner takes the spatial layers that nobody wants out of an SVC stream on its
// way to another node, and closes the gaps in its sequence numbers, so that only
// what is watched there travels. Everything else stays as the publisher sent it:
// the other node reads it like a publisher's. A plain value: packets in, packets
// out. Not safe for concurrent use.
//
// Packets of other streams need none: there a layer is a stream of its own.
type Thinner struct {
	m   munger
	buf [maxRTP]byte // the packet last returned
}

// NewThinner returns a Thinner before its first packet.
func NewThinner() *Thinner {
	return &Thinner{m: munger{segs: make([]segment, videoSegments)}}
}

// Take returns a packet as it is to travel when layers are wanted there, valid
// until the next one. It reports false for one that stays here. A higher layer begins where a decoder
// can follow: whoever waits for it asks for a keyframe.
func (t *Thinner) Take(p *Packet, layers LayerSet) (raw []byte, marker, ok bool) {
	want := ceiling{uint8(layers.highest()), MaxTemporal - 1}
	if !t.m.follows(p) {
		t.begin(p, want)
	}
	n, v := t.m.take(p, want)
	if v == leaveOut {
		return nil, false, false
	}
	raw = t.buf[:copy(t.buf[:], p.Raw)]
	marker = p.Marker || p.desc.ends && p.desc.spatial == n.c.spatial
	if v == fill {
		raw, marker = raw[:p.start], false
		raw[0] &^= 0x20 // its padding stays here, too
	}
	raw[1] = raw[1] & 0x7f
	if marker {
		raw[1] |= 0x80
	}
	binary.BigEndian.PutUint16(raw[2:], uint16(n.out))
	return raw, marker, true
}

// begin takes the publisher's times over: its reports travel, too.
func (t *Thinner) begin(p *Packet, want ceiling) {
	if !p.Keyframe {
		want.spatial = 0
	}
	t.m.begin(p, 0, want)
}
