package sfu

import "encoding/binary"

// namedPackets is how many packets of a stream have the MID with them: enough
// that one arrives. Afterwards the receiver knows the SSRC (RFC 9143 section 15).
const namedPackets = 100

// outgoing is a packet that is about to be built.
type outgoing struct {
	p       *Packet
	n       *numbers
	payload []byte
	pt      uint8
	rename  uint8 // of the blocks of redundant audio; 0: as they are
	marker  bool
}

// write sends a packet, in room that out gives.
func (d *DownTrack) write(p *Packet, n *numbers, v verdict, out Out) {
	if p.Keyframe && d.up.cfg.Kind == Video {
		d.keyOut = max(d.keyOut, n.out)
	}
	if v == send && d.plain && p.elements.has&d.passes == 0 && n.out >= d.named {
		d.writePlain(p, n, out)
		return
	}
	o := d.shape(p, n, v)
	if d.put(&o, out) {
		d.stats.Packets++
		d.stats.Bytes += uint64(len(o.payload))
	}
}

// stampBlock is how long the header extension is that has a stamp only.
const stampBlock = 8

// writePlain is write for nearly all packets of a single layer: no header
// extension but perhaps the stamp. It writes what put would, in half the time.
func (d *DownTrack) writePlain(p *Packet, n *numbers, out Out) {
	start, stampAt := headerSize, 0
	if d.stamped {
		start, stampAt = headerSize+stampBlock, headerSize+5
	}
	rtp := out.Reserve(start + len(p.Payload))
	putHeader(rtp, p.Marker, d.bound.PayloadType, uint16(n.out), n.ts, d.bound.SSRC)
	if d.stamped {
		rtp[0] |= 0x10
		binary.BigEndian.PutUint64(rtp[headerSize:], oneByte<<48|1<<32|uint64(d.bound.Extensions.TransportCC<<4|1)<<24)
	}
	copy(rtp[start:], p.Payload)
	p.desc.patch(rtp[start:], n)
	if d.hand(rtp, stampAt, out) {
		d.stats.Packets++
		d.stats.Bytes += uint64(len(p.Payload))
	}
}

// shape decides what a packet looks like, the same whenever it is sent.
func (d *DownTrack) shape(p *Packet, n *numbers, v verdict) outgoing {
	o := outgoing{p: p, n: n, payload: p.Payload, pt: d.bound.PayloadType, marker: p.Marker}
	switch {
	case v == fill:
		o.payload, o.marker = nil, false
	case d.svc:
		o.marker = o.marker || p.desc.ends && p.desc.spatial == n.c.spatial
	case d.up.format == formatRED:
		o.payload, o.pt, o.rename = d.shapeRED(p)
	}
	return o
}

// shapeRED gives receivers that take no redundancy the primary block; a packet
// of the publisher that has none anyway stays what it is.
func (d *DownTrack) shapeRED(p *Packet) (payload []byte, pt, rename uint8) {
	plain := d.up.plainOpus(p.Type)
	payload, pt = p.Payload, d.bound.PayloadType
	switch opus := d.bound.OpusPayloadType; {
	case d.bound.PlainOpus && !plain:
		payload, _ = redPrimary(payload)
	case d.bound.PlainOpus, opus == 0:
	case plain:
		pt = opus
	default:
		rename = opus
	}
	return payload, pt, rename
}

// noStamp is what stands for a transport-wide sequence number until the Writer
// puts it in.
var noStamp [stampSize]byte

// extend collects the header extensions, the stamp first.
func (d *DownTrack) extend(b *block, o *outgoing) {
	if d.stamped {
		b.add(d.bound.Extensions.TransportCC, noStamp[:])
	}
	if o.n.out < d.named && d.bound.Extensions.MID != 0 && d.bound.MID != "" {
		b.add(d.bound.Extensions.MID, d.mid)
	}
	if len(o.payload) == 0 {
		return // the frame that they describe is not there
	}
	for k, left := 0, o.p.elements.has&d.passes; left != 0; k, left = k+1, left>>1 {
		if left&1 != 0 {
			b.add(d.ids[k], o.p.elements.at[k].of(o.p.Raw))
			b.numbered = k == extDependency // the last of all
		}
	}
}

// put builds a packet and hands it to the Writer.
func (d *DownTrack) put(o *outgoing, out Out) bool {
	var b block
	d.extend(&b, o)
	start := headerSize + b.len()
	rtp := out.Reserve(start + len(o.payload))
	putHeader(rtp, o.marker, o.pt, uint16(o.n.out), o.n.ts, d.bound.SSRC)
	stampAt := d.putBlock(rtp, &b, o)
	d.putPayload(rtp[start:], o)
	return d.hand(rtp, stampAt, out)
}

// putBlock writes the header extensions and returns where the stamp goes.
func (d *DownTrack) putBlock(rtp []byte, b *block, o *outgoing) (stampAt int) {
	if b.count == 0 {
		return 0
	}
	rtp[0] |= 0x10
	first := headerSize + b.put(rtp[headerSize:])
	if b.numbered { // the frame number's place is that of the fixed part
		binary.BigEndian.PutUint16(rtp[headerSize+b.last+1:], o.n.frame)
	}
	if !d.stamped {
		return 0
	}
	return first
}

func (d *DownTrack) putPayload(b []byte, o *outgoing) {
	if copy(b, o.payload) == 0 {
		return
	}
	o.p.desc.patch(b, o.n)
	if o.rename != 0 {
		redRename(b, o.rename)
	}
}

func (d *DownTrack) hand(rtp []byte, stampAt int, out Out) bool {
	if err := d.bound.Writer.Write(out, rtp, stampAt); err != nil {
		d.stats.WriteErrors++
		return false
	}
	return true
}
