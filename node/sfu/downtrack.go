package sfu

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// reportInterval is the least often that a receiver gets a sender report.
const reportInterval = time.Second

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
	// Extensions are the ids that the receiver negotiated. TransportCC is used for
	// streams with RTX only: without, a packet that is sent again could not get
	// another stamp.
	Extensions Extensions
	MID        string // sent with the first packets if Extensions has an id for it
	// PlainOpus says that the receiver takes no redundancy (RFC 2198): PayloadType
	// is that of Opus.
	PlainOpus bool
	// OpusPayloadType is that of Opus where PayloadType is that of redundant audio.
	// 0: blocks keep the publisher's.
	OpusPayloadType uint8
	Writer          Writer
}

// Limit is what the bandwidth allows: the highest layers, or nothing.
type Limit struct {
	Spatial  Layer
	Temporal uint8
	Pause    bool
}

// Unlimited is the Limit of a receiver that takes everything.
var Unlimited = Limit{Spatial: MaxLayers - 1, Temporal: MaxTemporal - 1}

// DownTrack is one receiver's copy of an UpTrack: it picks layers and makes one
// stream without joints of what the publisher sends.
//
// All methods may be called from any goroutine. Nothing is shared with other
// receivers but the UpTrack's cache.
type DownTrack struct {
	up     *UpTrack // static, like report, rate and svc
	report func(SenderReport, Out)
	rate   uint32
	svc    bool
	wants  atomic.Uint32 // a LayerSet, written under mu

	// Guarded by mu, which also puts the writes in order.
	mu      sync.Mutex
	bound   Binding
	mid     []byte
	ids     [carried]uint8 // of the receiver's header extensions
	passes  uint8          // bit k: extension k is passed on
	stamped bool           // packets have room for a transport-wide sequence number
	plain   bool           // payloads go out as they are, numbers apart
	max     Layer          // what the client shows
	limit   Limit
	desired Layer // the least of both
	target  Layer // the highest available layer up to desired
	paused  bool
	closed  bool
	live    bool // the stream follows the newest segment; if not it waits for a keyframe
	m       munger
	keyOut  int64  // outgoing number of the last keyframe
	named   int64  // packets below this outgoing number have the MID
	rejoin  uint64 // packets up to this serial of the stream came from the cache already
	again   again
	sr      sentReport
	stats   DownStats
}

// sentReport remembers the last sender report, for the round-trip time.
type sentReport struct {
	middle uint32 // the middle 32 bits of its NTP time
	at     time.Time
}

// NewDownTrack returns a copy of up and adds it to up's sinks; Close removes it.
// It waits for Bind.
func NewDownTrack(up *UpTrack, cfg DownConfig) *DownTrack {
	d := &DownTrack{
		up: up, report: cfg.Report, rate: max(up.cfg.Codec.ClockRate, 1), svc: up.cfg.SVC,
		limit: Unlimited, max: MaxLayers - 1, again: again{budget: resendBudget},
	}
	d.m.closePIDs = up.format == formatVP8
	d.m.segs = make([]segment, videoSegments)
	if up.cfg.Kind == Audio {
		d.max = 0
		d.m.segs = make([]segment, audioSegments)
	}
	d.mu.Lock()
	d.steer()
	d.mu.Unlock()
	up.AddSink(d)
	return d
}

// Bind says where the packets go once that is negotiated. The stream begins
// there at the next keyframe, or with those in the cache.
func (d *DownTrack) Bind(b Binding) {
	d.change(func() {
		d.bound, d.live = b, false
		d.mid = []byte(b.MID)
		d.ids = b.Extensions.carried()
		d.passes = 0
		for k, id := range d.ids {
			if id != 0 {
				d.passes |= 1 << k
			}
		}
		d.stamped = b.Extensions.TransportCC != 0 && b.RTXSSRC != 0
		d.plain = !d.svc && d.up.format != formatRED && b.Extensions.TransportCC < 15
		d.named = 0
	})
}

// SetLimit bounds what is sent to what the bandwidth allows.
func (d *DownTrack) SetLimit(l Limit) {
	d.change(func() {
		d.limit = l
		d.live = d.live && !l.Pause
	})
}

// SetMaxLayer bounds the layer to what the client shows. If no layer so small
// exists, the smallest is sent.
func (d *DownTrack) SetMaxLayer(l Layer) {
	d.change(func() {
		if d.up.cfg.Kind == Video {
			d.max = min(l, MaxLayers-1)
		}
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

// Wants implements Sink: what is sent, what is about to be, and what would be if
// it were there, so that a publisher that stopped it starts it again. Nothing
// while the receiver wants none. A mute changes nothing: after it the first
// syllable must not wait for a subscription to travel.
func (d *DownTrack) Wants() LayerSet { return LayerSet(d.wants.Load()) }

func (d *DownTrack) idle() bool {
	return d.closed || d.paused || d.limit.Pause || d.bound.Writer == nil
}

// steer chooses the target and what is wanted to get there. It reports whether
// the latter changed.
func (d *DownTrack) steer() bool {
	d.desired = min(d.max, d.limit.Spatial, MaxLayers-1)
	allowed := LayerSet(1<<(d.desired+1) - 1)
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
		wants = LayerSet(0).With(d.sent()).With(d.target).With(d.desired)
	default: // the first picture counts more than the best one
		wants = choice.With(d.desired)
	}
	if d.svc && wants != 0 {
		wants = 1<<bits.Len8(uint8(wants)) - 1 // each layer rests upon those below
	}
	return LayerSet(d.wants.Swap(uint32(wants))) != wants
}

// sent returns the layer that the receiver gets, if it gets any.
func (d *DownTrack) sent() Layer {
	switch {
	case d.m.count == 0:
		return 0
	case d.svc:
		return Layer(min(d.m.current().c.spatial, MaxLayers-1))
	}
	return d.m.current().layer
}

// stream returns the stream that carries the target.
func (d *DownTrack) stream() Layer {
	if d.svc {
		return 0
	}
	return d.target
}

// want returns the ceiling within that stream.
func (d *DownTrack) want() ceiling {
	if d.svc {
		return ceiling{uint8(d.target), d.limit.Temporal}
	}
	return ceiling{0, d.limit.Temporal}
}

// waiting reports whether only a keyframe brings the stream to its target.
func (d *DownTrack) waiting() bool {
	return !d.idle() && (!d.live || d.sent() < d.target || d.m.current().layer != d.stream())
}

// Report implements Sink: the receiver gets reports from Tick, made of the
// newest that the UpTrack has.
func (d *DownTrack) Report(Layer, SenderReport) {}

// Tick is called by the owner about every 100 ms: it follows the layers that
// come and go, starts the stream from the cache if it can, and asks for the
// keyframe that a switch waits for until it comes.
func (d *DownTrack) Tick(now time.Time, out Out) {
	d.mu.Lock()
	d.again.budget = resendBudget
	changed := d.steer()
	if !d.live && !d.idle() && d.up.cfg.Kind == Video {
		changed = d.restart(now, out) || changed
	}
	waiting, stream := d.waiting(), d.stream()
	sr, due := d.dueReport(now)
	d.mu.Unlock()
	if changed {
		d.up.WantsChanged()
	}
	if waiting {
		d.up.RequestKeyframe(stream, now)
	}
	if due && d.report != nil {
		d.report(sr, out)
	}
}

func (d *DownTrack) dueReport(now time.Time) (SenderReport, bool) {
	if !d.live || d.idle() || now.Sub(d.sr.at) < reportInterval {
		return SenderReport{}, false
	}
	sr := d.up.lastReport(d.m.current().layer)
	if sr == nil {
		return SenderReport{}, false
	}
	return d.convert(*sr, now), true
}

// convert puts a sender report on the outgoing clock, carried forward to now.
// The publisher's wall clock stays: its camera and microphone share it, which
// is what keeps lips and voice together.
func (d *DownTrack) convert(sr SenderReport, now time.Time) SenderReport {
	elapsed := max(now.Sub(sr.Arrival), 0)
	sr.NTP += uint64(elapsed.Seconds() * (1 << 32))
	sr.RTP += d.m.current().ts + uint32(int64(elapsed.Seconds()*float64(d.rate)))
	sr.Packets = uint32(d.stats.Packets)
	sr.Octets = uint32(d.stats.Bytes)
	sr.Arrival = now
	d.sr = sentReport{middle: uint32(sr.NTP >> 16), at: now}
	return sr
}

// Demand is what the allocator must know of a stream.
type Demand struct {
	Max      Layer // what the client shows
	Rates    Rates
	Screen   bool
	Paused   bool // takes nothing: not bound yet, paused by the client, muted
	Spatial  Layer
	Temporal uint8
	Live     bool // Spatial and Temporal are sent now
}

// Demand returns what the stream would take.
func (d *DownTrack) Demand(now time.Time) Demand {
	rates := d.up.Rates(now)
	d.mu.Lock()
	defer d.mu.Unlock()
	m := Demand{
		Max: d.max, Rates: rates, Screen: d.up.cfg.Screen,
		Paused: d.closed || d.paused || d.bound.Writer == nil || d.up.Muted(),
		Live:   d.live, Spatial: d.sent(),
	}
	if d.m.count > 0 {
		m.Temporal = d.m.current().c.temporal
	}
	return m
}
