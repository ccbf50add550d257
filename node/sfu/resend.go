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
	// A packet is not sent again within a round trip, since the receiver cannot
	// have missed it yet. As long as none is measured, it is taken for the shortest.
	minResendInterval = 20 * time.Millisecond
	maxResendInterval = 300 * time.Millisecond
	// resendSlots bounds the memory of what was sent again, a power of two: those
	// of a tick and a half.
	resendSlots = 128
)

// again is what a DownTrack remembers of packets sent again.
type again struct {
	budget int
	seq    uint16 // of the next RTX packet
	sent   [resendSlots]struct {
		seq uint16
		at  uint32 // milliseconds, with wrap; 0: never
	}
}

// allow reports whether a packet may be sent again now, and notes that it is.
func (a *again) allow(seq uint16, now time.Time, rtt time.Duration) bool {
	s := &a.sent[seq&(resendSlots-1)]
	ms := uint32(now.UnixMilli()) | 1
	wait := min(max(rtt, minResendInterval), maxResendInterval)
	if a.budget == 0 || s.at != 0 && s.seq == seq && ms-s.at < uint32(wait.Milliseconds()) {
		return false
	}
	a.budget--
	s.seq, s.at = seq, ms
	return true
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
	if !ok {
		return
	}
	p, ok := d.up.cached(from.layer, from.epoch, from.ext, room)
	if !ok || !d.again.allow(seq, now, d.stats.RTT) {
		return
	}
	n, v := d.m.judge(from.segment, from.out, &p)
	o := d.shape(&p, &n, v)
	if d.putAgain(&o, out) > 0 {
		d.stats.Resent++
	}
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
