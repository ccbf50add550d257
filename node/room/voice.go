package room

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/speakers"
)

// voice stands between an audio track and those who hear it: in a room with more
// open microphones than places, it passes the loudest on (node/sfu/speakers).
//
//	                      ┌─► away: among this node's own ──► other nodes
//	publisher ─► UpTrack ─┤
//	or link               └─► here: among all that arrives ─► heard, an UpTrack ─► attendees here
//
// heard has the selected packets alone. Between two selections it is muted, so
// that its receivers see one stream without joints, and what is selected begins
// with the packets of the first syllable from the UpTrack's cache.
type voice struct {
	// Static after construction.
	source *sfu.UpTrack
	heard  *sfu.UpTrack
	meter  *speakers.Meter     // of a publisher here
	here   *speakers.Candidate // for attendees here
	away   *speakers.Candidate // for other nodes; nil for what came from one: it was selected there

	nodes atomic.Pointer[[]sfu.Sink] // immutable, replaced by Room.run
	on    atomic.Bool                // heard is not muted

	// Owned by whoever ingests the source.
	in  []sfu.Inbound
	out []sfu.Packet
}

// newVoice puts a voice behind a track's UpTrack. It is the UpTrack's one sink
// but for recorders.
func (r *Room) newVoice(t *track) *voice {
	rate := t.media.Codec.ClockRate
	v := &voice{source: t.up, heard: newUp(t.id, sfu.Audio, t.info, t.media, false),
		here: r.selection.here.Add(string(t.id), rate)}
	if t.node == r.deps.Self.Name {
		r.measure(v, t)
	}
	v.nodes.Store(new([]sfu.Sink))
	v.on.Store(true)
	r.mute(v, t.info.Muted)
	v.heard.OnWanted(func(sfu.LayerSet) { v.source.WantsChanged() })
	v.source.AddSink(v)
	return v
}

// measure has a voice of this node compared with the others.
func (r *Room) measure(v *voice, t *track) {
	rate := t.media.Codec.ClockRate
	v.meter = r.selection.active.Add(speakers.Owner(t.ownerSID), rate)
	v.away = r.selection.away.Add(string(t.id), rate)
}

// dropVoice ends a voice.
func (r *Room) dropVoice(v *voice) {
	v.source.RemoveSink(v)
	r.selection.here.Remove(v.here)
	if v.away != nil {
		r.selection.away.Remove(v.away)
		r.selection.active.Remove(v.meter)
	}
}

// mute follows the source, which lets nothing through any more when this is called.
func (r *Room) mute(v *voice, muted bool) {
	r.selection.here.SetMuted(v.here, muted)
	if v.away != nil {
		r.selection.away.SetMuted(v.away, muted)
	}
	if muted {
		v.shut()
	}
}

// feed lets another node have what is selected for other nodes.
func (v *voice) feed(o sfu.Sink) {
	next := append(slices.Clone(*v.nodes.Load()), o)
	v.nodes.Store(&next)
	v.source.WantsChanged()
}

// starve ends that.
func (v *voice) starve(o sfu.Sink) {
	next := slices.DeleteFunc(slices.Clone(*v.nodes.Load()), func(x sfu.Sink) bool { return x == o })
	v.nodes.Store(&next)
	v.source.WantsChanged()
}

// wanted reports whether somebody is to hear it: an attendee here, or a node.
func (v *voice) wanted() bool { return v.heard.Wanted() != 0 || len(*v.nodes.Load()) > 0 }

// Wants implements sfu.Sink. A publisher here is listened to in any case, for
// the room wants to know who speaks.
func (v *voice) Wants() sfu.LayerSet {
	if v.meter != nil {
		return 1
	}
	return v.heard.Wanted()
}

// Offer implements sfu.Sink.
func (v *voice) Offer(burst []sfu.Packet, out sfu.Out) {
	v.in, v.out = v.in[:0], v.out[:0]
	for i := range burst {
		p := &burst[i]
		level, spoken, known := p.Level()
		s := speakers.Sample{TS: p.TS, Level: level, Voice: spoken, Known: known, Size: len(p.Payload)}
		if v.meter != nil {
			v.meter.Observe(s, p.Arrival)
			v.leave(p, v.away.Observe(s, p.Arrival))
		}
		v.hear(p, v.here.Observe(s, p.Arrival), out)
	}
	v.flush(out)
}

// hear passes a packet on to attendees here, if it is selected.
func (v *voice) hear(p *sfu.Packet, d speakers.Decision, out sfu.Out) {
	switch {
	case !d.Forward:
		v.flushHeard(out)
		v.shut()
		return
	case d.Enter:
		v.flushHeard(out)
		v.open()
		v.replay(p, d.From, func(raw []byte, _ bool) {
			v.in = append(v.in, sfu.Inbound{Raw: raw, Arrival: p.Arrival})
		}, func() { v.flushHeard(out) })
	default:
		v.open()
	}
	v.in = append(v.in, sfu.Inbound{Raw: p.Raw, Arrival: p.Arrival})
}

// leave passes a packet on to other nodes, if it is selected.
func (v *voice) leave(p *sfu.Packet, d speakers.Decision) {
	if !d.Forward || len(*v.nodes.Load()) == 0 {
		return
	}
	if d.Enter {
		v.replay(p, d.From, func(raw []byte, marker bool) {
			v.out = append(v.out, sfu.Packet{Raw: raw, Marker: marker})
		}, v.flushAway)
	}
	v.out = append(v.out, *p)
}

func (v *voice) flush(out sfu.Out) {
	v.flushHeard(out)
	v.flushAway()
}

func (v *voice) flushHeard(out sfu.Out) {
	if len(v.in) > 0 {
		v.heard.Ingest(0, v.in, out)
		v.in = v.in[:0]
	}
}

func (v *voice) flushAway() {
	if len(v.out) > 0 {
		for _, o := range *v.nodes.Load() {
			o.Offer(v.out, nil)
		}
		v.out = v.out[:0]
	}
}

// open and shut say whether attendees here get what comes. The lock of heard's
// receivers is waited for, for a moment, each time that the selection changes.
func (v *voice) open() {
	if !v.on.Load() {
		v.on.Store(true)
		v.heard.SetMuted(false)
	}
}

func (v *voice) shut() {
	if v.on.Load() {
		v.on.Store(false)
		v.heard.SetMuted(true)
	}
}

// replayed bounds the packets of PreRoll: at the shortest usual frame of 5 ms.
const replayed = 24

// replay holds the packets from before a selection.
type replay struct {
	buf [replayed][1500]byte
	len [replayed]int
}

var replays = sync.Pool{New: func() any { return new(replay) }}

// replay takes the packets before p with timestamps from `from` on out of the
// cache, oldest first, and lets done use them while they are valid.
func (v *voice) replay(p *sfu.Packet, from uint32, take func(raw []byte, marker bool), done func()) {
	r := replays.Get().(*replay)
	defer replays.Put(r)
	n := 0
	for seq := p.Seq - 1; n < replayed && p.Seq-seq <= 2*replayed; seq-- {
		size, ok := v.source.Cached(0, seq, r.buf[n][:])
		if !ok {
			continue
		}
		if int32(binary.BigEndian.Uint32(r.buf[n][4:])-from) < 0 {
			break
		}
		r.len[n] = size
		n++
	}
	for n--; n >= 0; n-- {
		raw := r.buf[n][:r.len[n]]
		take(raw, raw[1]&0x80 != 0)
	}
	done()
}

// Report implements sfu.Sink.
func (v *voice) Report(l sfu.Layer, sr sfu.SenderReport) {
	v.heard.Report(l, sr)
	for _, o := range *v.nodes.Load() {
		o.Report(l, sr)
	}
}
