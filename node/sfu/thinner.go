package sfu

// Thinner takes the spatial layers that nobody wants out of an SVC stream on its way to
// another node, so that only what is watched there travels. Of a packet that is left out
// the bare header goes on, 12 bytes: the numbers stay the publisher's on every way, and
// what comes by another way, or was thinned in another manner, fits. The other node reads
// it like a publisher's, and whoever watches there waits for a frame to begin with.
//
// Packets of other streams need none: there a layer is a stream of its own. Not safe for
// concurrent use.
type Thinner struct {
	buf [maxRTP]byte // the packet last returned
}

// Take returns a packet as it is to travel when layers are wanted there, and whether a
// picture ends with it; raw is valid until the next one.
func (t *Thinner) Take(p *Packet, layers LayerSet) (raw []byte, marker bool) {
	top := uint8(layers.highest())
	wanted := p.desc.spatial <= top && len(p.Payload) > 0
	if wanted {
		raw = t.buf[:copy(t.buf[:], p.Raw)]
		marker = p.Marker || p.desc.ends && p.desc.spatial == top
	} else {
		raw = t.buf[:copy(t.buf[:headerSize], p.Raw)]
		raw[0] = 2 << 6 // version 2; no padding, no extension, no sources
	}
	raw[1] = raw[1] & 0x7f
	if marker {
		raw[1] |= 0x80
	}
	return raw, marker
}
