package sfu

const (
	// padBack is how many of the newest packets serve as padding: those that the
	// receiver is most likely to miss.
	padBack = 16
	// padSize is how much a packet of nothing but padding holds (RFC 3550 section
	// 5.1: the last byte counts them).
	padSize = 255
	// padPackets bounds what one call sends, whatever is asked for.
	padPackets = 64
)

// Pad sends about so many bytes that the receiver can do without, to find out
// whether the path carries them: recent packets again as RTX, or empty ones. It
// returns the bytes sent, 0 if the stream is not running or has no RTX.
func (d *DownTrack) Pad(bytes int, out Out) (sent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.idle() || !d.live || d.bound.RTXSSRC == 0 || d.up.Muted() {
		return 0
	}
	room := packets.Get().(*[maxRTP]byte)
	defer packets.Put(room)
	for i := range padPackets {
		if sent >= bytes {
			break
		}
		n := d.padWithRecent(uint16(d.m.next-1-int64(i%padBack)), room[:], out)
		if n == 0 {
			n = d.padWithNothing(out)
		}
		if n == 0 {
			break
		}
		d.stats.Padding += uint64(n)
		sent += n
	}
	return sent
}

func (d *DownTrack) padWithRecent(seq uint16, room []byte, out Out) int {
	from, ok := d.m.source(seq)
	if !ok {
		return 0
	}
	p, ok := d.up.cached(from.layer, from.epoch, from.ext, room)
	if !ok {
		return 0
	}
	n, v := d.m.judge(from.segment, from.out, &p)
	if v != send {
		return 0
	}
	o := d.shape(&p, &n, v)
	return d.putRTX(&o, out)
}

func (d *DownTrack) padWithNothing(out Out) int {
	var b block
	if d.stamped {
		b.add(d.bound.Extensions.TransportCC, noStamp[:])
	}
	start := headerSize + b.len()
	rtp := out.Reserve(start + padSize)
	putHeader(rtp, false, d.bound.RTXPayloadType, d.again.seq, d.m.ts, d.bound.RTXSSRC)
	rtp[0] |= 0x20
	d.again.seq++
	stampAt := 0
	if b.count > 0 {
		rtp[0] |= 0x10
		stampAt = headerSize + b.put(rtp[headerSize:])
	}
	clear(rtp[start:])
	rtp[len(rtp)-1] = padSize
	if !d.hand(rtp, stampAt, out) {
		return 0
	}
	return len(rtp)
}
