package sfu

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
)

const (
	// reportInterval is the least often that a receiver gets a sender report.
	reportInterval = time.Second
	// resendBudget bounds the retransmissions between two ticks: about 10 Mbit/s.
	// A receiver that loses more than that is not helped by more packets.
	resendBudget = 100
)

// DownConfig says who hears about a DownTrack.
type DownConfig struct {
	// Report takes sender reports on the outgoing stream's clock, from Tick; may
	// be nil.
	Report func(sr SenderReport, out Out)
}

// Binding is what was negotiated with the receiver, and the way to it.
type Binding struct {
	SSRC        uint32
	PayloadType uint8
	// RTXSSRC and RTXPayloadType are those of RFC 4588. SSRC 0: none, packets are
	// sent again as they were.
	RTXSSRC        uint32
	RTXPayloadType uint8
	Extensions     Extensions
	MID            string // sent if Extensions has an id for it
	// PlainOpus says that the receiver takes no redundancy (RFC 2198).
	PlainOpus bool
	Writer    Writer
}

// Limit is what the bandwidth allows: the highest layers, or nothing.
type Limit struct {
	Spatial  Layer
	Temporal uint8
	Pause    bool
}

// Unlimited is the Limit of a receiver that takes everything.
var Unlimited = Limit{Spatial: MaxLayers - 1, Temporal: MaxTemporal - 1}

// DownTrack is one receiver's copy of an UpTrack: it picks a layer and makes
// one stream without joints of what the publisher sends.
//
// All methods may be called from any goroutine. Nothing is shared with other
// receivers but the UpTrack's cache.
type DownTrack struct {
	up     *UpTrack // static, like report and the rate
	report func(SenderReport, Out)
	rate   uint32
	wants  atomic.Uint32 // a LayerSet, written under mu

	// Guarded by mu, which also puts the writes in order.
	mu      sync.Mutex
	bound   Binding
	limit   Limit
	max     Layer
	target  Layer // the highest available layer up to max
	paused  bool
	closed  bool
	live    bool // the stream follows the newest segment; if not it waits for a keyframe
	m       munger
	resends int
	sr      sentReport
	stats   DownStats
}

// sentReport remembers the last sender report, for the round-trip time.
type sentReport struct {
	middle uint32 // the middle 32 bits of its NTP time
	at     time.Time
}

// NewDownTrack returns a copy of up and adds it to up's sinks; Close removes it.
func NewDownTrack(up *UpTrack, cfg DownConfig) *DownTrack {
	d := &DownTrack{
		up: up, report: cfg.Report, rate: max(up.cfg.Codec.ClockRate, 1),
		limit: Unlimited, max: MaxLayers - 1, resends: resendBudget,
	}
	d.mu.Lock()
	d.steer()
	d.mu.Unlock()
	up.AddSink(d)
	return d
}

// Bind says where the packets go once that is negotiated. A new SSRC begins at
// the next keyframe.
func (d *DownTrack) Bind(b Binding) {
	d.change(func() { d.bound, d.live = b, false })
}

// SetMaxLayer bounds the layer. If no layer so small exists, the smallest is sent.
func (d *DownTrack) SetMaxLayer(l Layer) {
	d.change(func() { d.max = min(l, MaxLayers-1) })
}

// SetLimit bounds what is sent to what the bandwidth allows.
func (d *DownTrack) SetLimit(l Limit) {
	d.change(func() {
		d.limit = l
		d.live = d.live && !l.Pause
	})
}

// SetPaused stops and resumes the stream. When SetPaused(true) returns, nothing
// more is written.
func (d *DownTrack) SetPaused(paused bool) {
	d.change(func() {
		d.paused = paused
		d.live = d.live && !paused
	})
}

// Close ends the stream for good. When it returns, nothing more is written.
func (d *DownTrack) Close() {
	d.change(func() { d.closed = true })
	d.up.RemoveSink(d)
}

// Up returns the track that this is a copy of.
func (d *DownTrack) Up() *UpTrack { return d.up }

func (d *DownTrack) change(edit func()) {
	d.mu.Lock()
	edit()
	changed := d.steer()
	d.mu.Unlock()
	if changed {
		d.up.WantsChanged()
	}
}

// settle returns when no packet is being written.
func (d *DownTrack) settle() {
	d.mu.Lock()
	defer d.mu.Unlock()
}

// Wants implements Sink.
func (d *DownTrack) Wants() LayerSet { return LayerSet(d.wants.Load()) }

func (d *DownTrack) idle() bool {
	return d.closed || d.paused || d.limit.Pause || d.bound.Writer == nil
}

// steer chooses the target and what is wanted to get there. It reports whether
// the latter changed.
func (d *DownTrack) steer() bool {
	allowed := LayerSet(1<<(min(d.max, d.limit.Spatial)+1) - 1)
	choice := d.up.Available()
	switch {
	case choice == 0:
		choice = allowed
	case choice&allowed == 0:
		choice &= -choice // the smallest
	default:
		choice &= allowed
	}
	d.target = Layer(bits.Len8(uint8(choice)) - 1)
	var wants LayerSet
	switch {
	case d.idle():
	case d.live:
		wants = LayerSet(0).With(d.m.current().layer).With(d.target)
	default: // the first picture counts more than the best one
		wants = choice
	}
	return LayerSet(d.wants.Swap(uint32(wants))) != wants
}

// Offer implements Sink: choose, renumber, write.
func (d *DownTrack) Offer(burst []Packet, out Out) {
	changed := false
	d.mu.Lock()
	for i := range burst {
		changed = d.offer(&burst[i], out) || changed
	}
	d.mu.Unlock()
	if changed {
		d.up.WantsChanged()
	}
}

func (d *DownTrack) offer(p *Packet, out Out) (wantsChanged bool) {
	if d.idle() {
		return false
	}
	var desc vp8
	if d.up.format == formatVP8 {
		desc, _ = parseVP8(p.Payload)
	}
	if !d.live || !d.m.follows(p) {
		if !d.joins(p) {
			return false
		}
		d.begin(p, &desc)
		wantsChanged = d.steer()
	}
	if n, ok := d.m.take(p, &desc); ok {
		d.send(p.Marker, p.Payload, n, &desc, out)
	}
	return wantsChanged
}

// joins reports whether the stream may go on with this packet: a keyframe (any
// packet of a codec that has none) of the layer that is wanted, or of any while
// there is no picture yet.
func (d *DownTrack) joins(p *Packet) bool {
	if d.live && p.Layer == d.m.current().layer {
		d.live = false // its numbering began anew
	}
	return p.Keyframe && (!d.live || p.Layer == d.target) && d.Wants().Has(p.Layer)
}

func (d *DownTrack) begin(p *Packet, desc *vp8) {
	from, known := d.clock(p)
	if d.m.count > 0 && d.m.current().layer != p.Layer {
		d.stats.Switches++
	}
	d.m.begin(p, desc, d.m.offset(p, d.rate, from, known))
	d.live = true
	d.sr.at = time.Time{} // the clock may have moved: report at the next tick
}

// clock returns the timestamp offset that continues the outgoing clock: within
// a layer the old one, between layers the one that the sender reports of both
// give (they share the publisher's wall clock).
func (d *DownTrack) clock(p *Packet) (offset uint32, known bool) {
	if d.m.count == 0 {
		return 0, false
	}
	old := d.m.current()
	if old.layer == p.Layer {
		return old.ts, true
	}
	a, b := d.up.lastReport(old.layer), d.up.lastReport(p.Layer)
	if a == nil || b == nil {
		return 0, false
	}
	ticks := float64(int64(b.NTP-a.NTP)) / (1 << 32) * float64(d.rate)
	return a.RTP + uint32(int64(ticks)) - b.RTP + old.ts, true
}

func (d *DownTrack) send(marker bool, payload []byte, n numbers, desc *vp8, out Out) {
	rtp := out.Reserve(headerSize + len(payload))
	putHeader(rtp, marker, d.bound.PayloadType, n.seq, n.ts, d.bound.SSRC)
	copy(rtp[headerSize:], payload)
	desc.patch(rtp[headerSize:], n.pid, n.tl0)
	if err := d.bound.Writer.Write(out, rtp, 0); err != nil {
		d.stats.WriteErrors++
		return
	}
	d.stats.Packets++
	d.stats.Bytes += uint64(len(payload))
}

// Report implements Sink: the receiver gets reports from Tick, made of the
// newest that the UpTrack has.
func (d *DownTrack) Report(Layer, SenderReport) {}

// convert puts a sender report on the outgoing clock, carried forward to now.
// The publisher's wall clock stays: its camera and microphone share it, which
// is what keeps lips and voice together.
func (d *DownTrack) convert(l Layer, sr SenderReport, now time.Time) (SenderReport, bool) {
	if d.idle() || !d.live || d.m.current().layer != l {
		return sr, false
	}
	elapsed := max(now.Sub(sr.Arrival), 0)
	sr.NTP += uint64(elapsed.Seconds() * (1 << 32))
	sr.RTP += d.m.current().ts + uint32(int64(elapsed.Seconds()*float64(d.rate)))
	sr.Packets = uint32(d.stats.Packets)
	sr.Octets = uint32(d.stats.Bytes)
	sr.Arrival = now
	d.sr = sentReport{middle: uint32(sr.NTP >> 16), at: now}
	return sr, true
}

// Tick is called by the owner about every 100 ms: it follows the layers that
// come and go, and asks for the keyframe that a switch waits for until it comes.
func (d *DownTrack) Tick(now time.Time, out Out) {
	d.mu.Lock()
	d.resends = resendBudget
	changed := d.steer()
	waiting, target := d.waiting(), d.target
	sr, due := d.dueReport(now)
	d.mu.Unlock()
	if changed {
		d.up.WantsChanged()
	}
	if waiting {
		d.up.RequestKeyframe(target, now)
	}
	if due && d.report != nil {
		d.report(sr, out)
	}
}

func (d *DownTrack) waiting() bool {
	return !d.idle() && (!d.live || d.m.current().layer != d.target)
}

func (d *DownTrack) dueReport(now time.Time) (SenderReport, bool) {
	if !d.live || now.Sub(d.sr.at) < reportInterval {
		return SenderReport{}, false
	}
	l := d.m.current().layer
	sr := d.up.lastReport(l)
	if sr == nil {
		return SenderReport{}, false
	}
	return d.convert(l, *sr, now)
}

// HandleRTCP takes the receiver's feedback. Reports about other streams are
// passed over.
func (d *DownTrack) HandleRTCP(pkts []rtcp.Packet, now time.Time, out Out) {
	d.mu.Lock()
	keyframe := false
	for _, pkt := range pkts {
		keyframe = d.handle(pkt, now, out) || keyframe
	}
	layer := d.target
	if d.live {
		layer = d.m.current().layer
	}
	keyframe = keyframe && !d.idle()
	d.mu.Unlock()
	if keyframe {
		d.up.RequestKeyframe(layer, now)
	}
}

// handle reports whether the receiver needs a keyframe.
func (d *DownTrack) handle(pkt rtcp.Packet, now time.Time, out Out) (keyframe bool) {
	switch pkt := pkt.(type) {
	case *rtcp.TransportLayerNack:
		if pkt.MediaSSRC == d.bound.SSRC {
			d.resendAll(pkt.Nacks, out)
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

func (d *DownTrack) resendAll(pairs []rtcp.NackPair, out Out) {
	for _, pair := range pairs {
		mask := uint32(pair.LostPackets)<<1 | 1
		for i := uint16(0); mask != 0; i, mask = i+1, mask>>1 {
			if mask&1 != 0 {
				d.resend(pair.PacketID+i, out)
			}
		}
	}
}

// packets lends room for a packet from the cache.
var packets = sync.Pool{New: func() any { return new([maxRTP]byte) }}

// resend writes a packet again, from the UpTrack's cache.
func (d *DownTrack) resend(seq uint16, out Out) {
	d.stats.Nacks++
	s, ext, ok := d.m.source(seq)
	if !ok || d.idle() || d.resends == 0 {
		return
	}
	src := packets.Get().(*[maxRTP]byte)
	defer packets.Put(src)
	size, ok := d.up.cached(s.layer, s.epoch, ext, src[:])
	if !ok {
		return
	}
	h, err := parseHeader(src[:size])
	if err != nil {
		return
	}
	d.resends--
	d.stats.Resent++
	payload := src[h.start:h.end]
	var desc vp8
	if d.up.format == formatVP8 {
		desc, _ = parseVP8(payload)
	}
	d.send(h.marker, payload, s.numbers(s.number(ext), h.ts, &desc), &desc, out)
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
