package sfu

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/pion/rtcp"
)

const (
	// resendBudget bounds the retransmissions between two ticks: about 10 Mbit/s.
	// A receiver that loses more than that is not helped by more packets.
	resendBudget = 100
	// defaultRepair is how many bit/s of retransmissions a stream may have as long
	// as nobody says what its path carries (SetRepair), and repairBurst how long
	// they may be saved up: losses come in bursts.
	defaultRepair = 10e6
	repairBurst   = 200 * time.Millisecond
	// repairLeast is what the burst holds at least, in bytes: a few packets.
	repairLeast = 4 * maxRTP
	// A packet is not sent again within a round trip and what varies of it, since
	// the receiver cannot have missed it yet. As long as none is measured, it is
	// taken for the shortest.
	minResendInterval = 20 * time.Millisecond
	maxResendInterval = time.Second
	// resendTries is how often a packet is sent again: on a path that loses every
	// fifth packet, one in six hundred is still missing then.
	resendTries = 3
	// resendAge is how old a picture may be to be repaired: browsers do not wait
	// longer for it.
	resendAge = time.Second
	// resendSlots bounds the memory of what was sent again, a power of two: those
	// of a tick and a half.
	resendSlots = 128
)

// again is what a DownTrack remembers of packets sent again.
type again struct {
	budget int     // packets until the next tick
	rate   float64 // bytes a second, 0: defaultRepair
	saved  float64 // bytes
	at     time.Time
	rtt    time.Duration // as the path's owner says; 0: as receiver reports say
	seq    uint16        // of the next RTX packet
	sent   [resendSlots]struct {
		seq   uint16
		tries uint8
		at    uint32 // milliseconds, with wrap; 0: never
	}
}

// save adds what has become allowed since the last time.
func (a *again) save(now time.Time) {
	rate := a.rate
	if rate == 0 {
		rate = defaultRepair / 8
	}
	full := max(rate*repairBurst.Seconds(), repairLeast)
	if a.at.IsZero() {
		a.saved = full
	} else {
		a.saved = min(a.saved+rate*now.Sub(a.at).Seconds(), full)
	}
	a.at = now
}

// refuses reports whether a packet may not be sent again now, whatever its size: it
// costs nothing to ask, before the packet is looked for.
func (a *again) refuses(seq uint16, now time.Time, rtt time.Duration) bool {
	if a.budget == 0 {
		return true
	}
	if a.rtt != 0 {
		rtt = a.rtt
	}
	wait := min(max(rtt+rtt/4, minResendInterval), maxResendInterval)
	s, since := &a.sent[seq&(resendSlots-1)], a.since(seq, now)
	return since < resendAge && (s.tries >= resendTries || since < wait)
}

// since is how long ago a packet was sent again; long, if it was not.
func (a *again) since(seq uint16, now time.Time) time.Duration {
	s := &a.sent[seq&(resendSlots-1)]
	if s.at == 0 || s.seq != seq {
		return time.Hour
	}
	return time.Duration((uint32(now.UnixMilli())|1)-s.at) * time.Millisecond
}

// allow reports whether there is room for a packet of so many bytes, and notes that
// it is sent again.
func (a *again) allow(seq uint16, size int, now time.Time) bool {
	a.save(now)
	if a.saved < float64(size) {
		return false
	}
	s := &a.sent[seq&(resendSlots-1)]
	if a.since(seq, now) >= resendAge {
		s.tries = 0
	}
	a.budget--
	a.saved -= float64(size)
	s.seq, s.at = seq, uint32(now.UnixMilli())|1
	s.tries++
	return true
}

// SetRepair says what of the path is free for retransmissions, in bit/s, and how
// long its round trip is, 0 if that is not known. On a path that is full they would
// displace what they repair; from now on only what can still be shown is sent again.
func (d *DownTrack) SetRepair(rate float64, rtt time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.again.rate, d.again.rtt = max(rate/8, 1), rtt
}

// packets lends room for a packet from the cache.
var packets = sync.Pool{New: func() any { return new([maxRTP]byte) }}

// HandleRTCP takes the receiver's feedback. Reports about other streams are
// passed over.
func (d *DownTrack) HandleRTCP(pkts []rtcp.Packet, now time.Time, out Out) {
	d.mu.Lock()
	keyframe := false
	for _, pkt := range pkts {
		keyframe = d.handle(pkt, now, out) || keyframe
	}
	stream := d.stream()
	if d.live {
		stream = d.m.current().layer
	}
	keyframe = keyframe && !d.idle()
	d.mu.Unlock()
	if keyframe {
		d.up.RequestKeyframe(stream, now)
	}
}

// handle reports whether the receiver needs a keyframe.
func (d *DownTrack) handle(pkt rtcp.Packet, now time.Time, out Out) (keyframe bool) {
	switch pkt := pkt.(type) {
	case *rtcp.TransportLayerNack:
		if pkt.MediaSSRC == d.bound.SSRC {
			d.resendAll(pkt.Nacks, now, out)
		}
	case *rtcp.PictureLossIndication:
		keyframe = pkt.MediaSSRC == d.bound.SSRC
	case *rtcp.FullIntraRequest:
		for _, e := range pkt.FIR {
			keyframe = keyframe || e.SSRC == d.bound.SSRC
		}
	case *rtcp.ReceiverReport:
		d.received(pkt.Reports, now)
	case *rtcp.SenderReport:
		d.received(pkt.Reports, now)
	}
	if keyframe {
		d.stats.KeyframeRequests++
	}
	return keyframe
}

func (d *DownTrack) resendAll(pairs []rtcp.NackPair, now time.Time, out Out) {
	if d.idle() {
		return
	}
	room := packets.Get().(*[maxRTP]byte)
	defer packets.Put(room)
	for _, pair := range pairs {
		mask := uint32(pair.LostPackets)<<1 | 1
		for i := uint16(0); mask != 0; i, mask = i+1, mask>>1 {
			if mask&1 != 0 {
				d.stats.Nacks++
				d.resend(pair.PacketID+i, now, room[:], out)
			}
		}
	}
}

// resend writes a packet again, from the UpTrack's cache.
func (d *DownTrack) resend(seq uint16, now time.Time, room []byte, out Out) {
	from, ok := d.m.source(seq)
	if !ok || d.again.refuses(seq, now, d.stats.RTT) {
		return
	}
	scarce := d.again.rate != 0
	if scarce && from.out < d.keyOut {
		return // a keyframe has come since: nothing is shown that rests upon this
	}
	p, ok := d.up.cached(from.layer, from.epoch, from.ext, room)
	if !ok {
		return
	}
	n, v := d.m.judge(from.segment, from.out, &p)
	if scarce && d.tooOld(n.ts) || !d.again.allow(seq, len(p.Raw), now) {
		return
	}
	o := d.shape(&p, &n, v)
	if d.putAgain(&o, out) > 0 {
		d.stats.Resent++
	}
}

// tooOld reports whether a picture would come too late to be shown.
func (d *DownTrack) tooOld(ts uint32) bool {
	return d.up.cfg.Kind == Video && int32(d.m.ts-ts) > int32(resendAge.Seconds()*float64(d.rate))
}

// putAgain writes a packet a second time, and returns its length: as RTX if that
// was negotiated, else byte by byte as it was.
func (d *DownTrack) putAgain(o *outgoing, out Out) int {
	if d.bound.RTXSSRC == 0 {
		if !d.put(o, out) {
			return 0
		}
		return headerSize + len(o.payload)
	}
	return d.putRTX(o, out)
}

// putRTX wraps a packet as RFC 4588 section 4 has it: another SSRC, sequence
// number and payload type, and the original number in front of the payload.
func (d *DownTrack) putRTX(o *outgoing, out Out) int {
	var b block
	d.extend(&b, o)
	start := headerSize + b.len()
	size := start + 2 + len(o.payload)
	rtp := out.Reserve(size)
	putHeader(rtp, o.marker, d.bound.RTXPayloadType, d.again.seq, o.n.ts, d.bound.RTXSSRC)
	d.again.seq++
	stampAt := d.putBlock(rtp, &b, o)
	binary.BigEndian.PutUint16(rtp[start:], uint16(o.n.out))
	d.putPayload(rtp[start+2:], o)
	if !d.hand(rtp, stampAt, out) {
		return 0
	}
	return size
}

func (d *DownTrack) received(reports []rtcp.ReceptionReport, now time.Time) {
	for _, r := range reports {
		if r.SSRC != d.bound.SSRC {
			continue
		}
		d.stats.FractionLost = float64(r.FractionLost) / 256
		d.stats.Lost = r.TotalLost
		d.stats.Jitter = time.Duration(float64(r.Jitter) / float64(d.rate) * float64(time.Second))
		if r.LastSenderReport == 0 || r.LastSenderReport != d.sr.middle {
			continue
		}
		held := time.Duration(float64(r.Delay) / (1 << 16) * float64(time.Second))
		d.stats.RTT = max(now.Sub(d.sr.at)-held, 0)
	}
}
