package sfu

import "time"

// Offer implements Sink: choose, renumber, write.
func (d *DownTrack) Offer(burst []Packet, out Out) {
	changed := false
	d.mu.Lock()
	if !d.idle() {
		for i := range burst {
			changed = d.offer(&burst[i], out) || changed
		}
	}
	d.mu.Unlock()
	if changed {
		d.up.WantsChanged()
	}
}

func (d *DownTrack) offer(p *Packet, out Out) (wantsChanged bool) {
	if !d.live || !d.m.follows(p) {
		joined, changed := d.join(p, out)
		if wantsChanged = changed; !joined {
			return wantsChanged
		}
	}
	if p.serial <= d.rejoin {
		return wantsChanged // the cache had it
	}
	if !d.svc {
		d.pass(p, out)
		return wantsChanged
	}
	before := d.sent()
	d.pass(p, out)
	if d.sent() != before {
		d.stats.Switches++
		wantsChanged = d.steer() || wantsChanged
	}
	return wantsChanged
}

// pass sends a packet of the current stream on, or leaves it out.
func (d *DownTrack) pass(p *Packet, out Out) {
	if n, v := d.m.take(p, d.want()); v != leaveOut {
		d.write(p, &n, v, out)
	}
}

// join makes the stream go on with this packet, if it can: any packet of audio,
// a keyframe of the stream that is wanted, or of any while there is no picture
// yet; or with what the cache has of it.
func (d *DownTrack) join(p *Packet, out Out) (joined, wantsChanged bool) {
	if d.live && p.Layer == d.m.current().layer {
		d.live = false // its numbering began anew
	}
	switch {
	case d.live && p.Layer != d.stream():
		return false, false
	case !d.live && !d.svc && !d.Wants().Has(p.Layer):
		return false, false
	case d.up.cfg.Kind != Video:
		d.begin(p)
		return true, d.steer()
	case p.Keyframe:
		// With what overtook it, which this receiver was not given.
		d.play(p.Layer, p.epoch, p.ext, out)
		return d.live, d.steer()
	case d.live:
		wantsChanged = d.replay(p.Layer, p.Arrival, out)
	default:
		wantsChanged = d.restart(p.Arrival, out)
	}
	return d.live && d.m.follows(p), wantsChanged
}

// restart begins the stream with what the cache has, of the best layer that can
// be begun.
func (d *DownTrack) restart(now time.Time, out Out) (wantsChanged bool) {
	if d.svc {
		return d.replay(0, now, out)
	}
	for l := int(d.target); l >= 0 && !d.live; l-- {
		if d.Wants().Has(Layer(l)) {
			wantsChanged = d.replay(Layer(l), now, out) || wantsChanged
		}
	}
	return wantsChanged
}

// replay begins with the last keyframe of a stream and all packets since, if
// the cache has them, they are few, and time does not run back. The receiver
// then need not wait until the publisher is asked for another keyframe.
func (d *DownTrack) replay(l Layer, now time.Time, out Out) (wantsChanged bool) {
	k, ok := d.up.replay(l, now)
	if !ok || d.m.count > 0 && !d.continues(l, k.ts) {
		return false
	}
	d.play(l, k.epoch, k.ext, out)
	return d.steer()
}

// play begins the stream with a keyframe in the cache and what is there of the
// packets since. Whatever comes into the cache later is offered in its turn.
func (d *DownTrack) play(l Layer, epoch uint32, keyframe int64, out Out) {
	room := packets.Get().(*[maxRTP]byte)
	defer packets.Put(room)
	last, serial := d.up.layers[l].cache.since(epoch, keyframe)
	for ext := keyframe; ext <= last; ext++ {
		p, ok := d.up.cached(l, epoch, ext, room[:])
		switch {
		case ext == keyframe && !ok:
			return // muted meanwhile
		case !ok || p.serial > serial:
			continue
		case ext == keyframe:
			d.begin(&p)
		}
		d.pass(&p, out)
		d.stats.Replayed++
	}
	d.rejoin = serial
}

// continues reports whether a picture of the stream comes after what was sent.
func (d *DownTrack) continues(l Layer, ts uint32) bool {
	from, known := d.clock(l)
	return known && int32(ts+from-d.m.ts) > 0
}

func (d *DownTrack) begin(p *Packet) {
	from, known := d.clock(p.Layer)
	if d.m.count > 0 && d.m.current().layer != p.Layer {
		d.stats.Switches++
	}
	d.m.begin(p, d.m.offset(p, d.rate, from, known), d.want())
	d.live = true
	d.rejoin = 0
	if d.named == 0 {
		d.named = d.m.next + namedPackets
	}
	d.sr.at = time.Time{} // the clock may have moved: report at the next tick
}

// clock returns the timestamp offset that continues the outgoing clock with a
// stream: the old one within it, between streams the one that the sender
// reports of both give (they share the publisher's wall clock).
func (d *DownTrack) clock(l Layer) (offset uint32, known bool) {
	if d.m.count == 0 {
		return 0, false
	}
	old := d.m.current()
	if old.layer == l {
		return old.ts, true
	}
	a, b := d.up.lastReport(old.layer), d.up.lastReport(l)
	if a == nil || b == nil {
		return 0, false
	}
	ticks := float64(int64(b.NTP-a.NTP)) / (1 << 32) * float64(d.rate)
	return a.RTP + uint32(int64(ticks)) - b.RTP + old.ts, true
}
