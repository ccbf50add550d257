package sfu

import (
	"encoding/binary"
	"math/rand/v2"
)

// picture is a frame as an encoder made it, with what a decoder needs before it.
type picture struct {
	id       uint32
	unit     uint32 // temporal unit
	stream   Layer
	spatial  uint8
	temporal uint8
	ts       uint32
	pid      uint16
	number   uint16
	needs    []*picture
	packets  int
	lost     int // of them
}

// encoder makes the streams of one scalable or simulcast publisher.
type encoder struct {
	rnd       *rand.Rand
	format    format
	svc       bool
	keyMode   bool // layers rest upon each other in keyframes only (L3T3_KEY)
	streams   int
	spatials  int
	all       map[uint32]*picture
	units     uint32
	state     [MaxLayers]encoderState // of each stream
	active    int                     // the streams, or spatial layers, that are made now
	structure uint8                   // id offset of the templates
	steady    bool                    // nothing is left to chance
}

func (e *encoder) chance(of int) bool { return !e.steady && e.rnd.IntN(of) == 0 }

type encoderState struct {
	ssrc     uint32
	seq      uint16
	ts       uint32
	pid      uint16
	tl0      uint8
	keyIdx   uint8
	number   uint16
	phase    int
	spatials int                              // of the last unit
	key      bool                             // the next unit is to be a keyframe
	last     [MaxLayers][MaxTemporal]*picture // newest of each layer that may be referred to
}

func newEncoder(rnd *rand.Rand, f format, svc bool) *encoder {
	e := &encoder{rnd: rnd, format: f, svc: svc, streams: 3, spatials: 1, all: make(map[uint32]*picture), active: 3}
	if svc {
		e.streams, e.spatials = 1, 3
	}
	e.keyMode = rnd.IntN(2) == 0
	for l := range e.state {
		e.restart(Layer(l))
	}
	return e
}

// restart gives a stream another SSRC and other numbers.
func (e *encoder) restart(l Layer) {
	e.state[l] = encoderState{
		ssrc: e.rnd.Uint32(), seq: uint16(e.rnd.Uint32()), ts: e.rnd.Uint32(), pid: uint16(e.rnd.Uint32()) & 0x7fff,
		tl0: uint8(e.rnd.Uint32()), number: uint16(e.rnd.Uint32()), key: true,
	}
}

func (e *encoder) config() UpTrackConfig {
	mime := map[format]string{formatVP8: "video/VP8", formatVP9: "video/VP9", formatAV1: "video/AV1"}[e.format]
	return UpTrackConfig{
		ID: "TR_v", Kind: Video, Codec: Codec{MimeType: mime, ClockRate: 90000}, SVC: e.svc,
		Extensions: Extensions{DependencyDescriptor: 12},
	}
}

// sentPacket is one on its way from the publisher.
type sentPacket struct {
	stream Layer
	raw    []byte
	pic    *picture
	// structure says that the packet brings the structure of a dependency descriptor.
	structure bool
}

// unit makes one temporal unit of a stream.
func (e *encoder) unit(l Layer) (list []sentPacket) {
	st := &e.state[l]
	e.units++
	key := st.key || e.chance(150)
	temporal := [4]uint8{0, 2, 1, 2}[st.phase%4]
	if key {
		st.key, st.phase, temporal = false, 0, 0
		st.last = [MaxLayers][MaxTemporal]*picture{}
		st.keyIdx++
	}
	st.phase++
	if temporal == 0 {
		st.tl0++
	}
	// A barrier: nothing above this temporal layer refers to what was before.
	barrier, own := e.steady || e.chance(2), e.chance(2)
	spatials := e.spatials
	if e.svc {
		spatials = e.active
	}
	for s := st.spatials; s < spatials; s++ { // as encoders do: a layer that comes back refers to nothing of before it went
		st.last[s] = [MaxTemporal]*picture{}
	}
	st.spatials = spatials
	var below *picture
	for s := range uint8(spatials) {
		pic := &picture{
			id: uint32(len(e.all) + 1), unit: e.units, stream: l, spatial: s, temporal: temporal,
			ts: st.ts, pid: st.pid, number: st.number, packets: 1 + e.rnd.IntN(3),
		}
		e.all[pic.id] = pic
		past := e.refer(pic, st, own)
		fresh := !key && len(past) == 0 // a layer that begins, or one that begins anew
		if fresh && s == 0 {
			panic("no reference for the lowest layer")
		}
		pic.needs = past
		if below != nil && (key || fresh || !e.keyMode) {
			pic.needs = append(pic.needs, below)
		}
		if barrier || key || fresh {
			for t := int(temporal) + 1; t < MaxTemporal; t++ {
				st.last[s][t] = nil
			}
		}
		st.last[s][temporal] = pic
		list = append(list, e.packets(st, pic, key, barrier, past)...)
		st.number++
		below = pic
	}
	list[len(list)-1].raw[1] |= 0x80
	st.ts += 3000
	st.pid = (st.pid + 1) & 0x7fff
	return list
}

// refer chooses what a picture refers to in its own spatial layer: the newest of
// a lower temporal layer, and of its own if it wishes so.
func (e *encoder) refer(pic *picture, st *encoderState, own bool) (list []*picture) {
	layer := &st.last[pic.spatial]
	if pic.temporal == 0 && pic.spatial > 0 && e.chance(20) && !e.keyMode {
		*layer = [MaxTemporal]*picture{} // a point to switch up without a keyframe
		return nil
	}
	var newest *picture
	for t := range pic.temporal {
		if p := layer[t]; p != nil && (newest == nil || p.id > newest.id) {
			newest = p
		}
	}
	if pic.temporal == 0 {
		newest = layer[0]
	}
	if newest != nil {
		list = append(list, newest)
	}
	if p := layer[pic.temporal]; own && pic.temporal > 0 && p != nil {
		list = append(list, p)
	}
	return list
}

func (e *encoder) packets(st *encoderState, pic *picture, key, barrier bool, past []*picture) (list []sentPacket) {
	sync := pic.temporal > 0
	for _, p := range past {
		sync = sync && p.temporal < pic.temporal
	}
	for i := range pic.packets {
		first, last := i == 0, i == pic.packets-1
		var payload, dd []byte
		switch e.format {
		case formatVP8:
			payload = e.vp8(st, pic, key, first, sync)
		case formatVP9:
			payload = e.vp9(st, pic, first, last, sync, len(past) > 0)
		case formatAV1:
			payload = []byte{0x10}
			if !first {
				payload[0] |= 0x80
			}
			if key && first && pic.spatial == 0 {
				payload[0] |= 0x08
			}
			dd = e.dependency(pic, key, barrier, first, last)
		}
		var body [6]byte
		binary.BigEndian.PutUint32(body[:], pic.id)
		body[4], body[5] = byte(i), byte(pic.packets)
		raw := rawRTP(st.seq, pic.ts, st.ssrc, append(payload, body[:]...))
		raw[1] &= 0x7f
		if !e.svc && last {
			raw[1] |= 0x80
		}
		if dd != nil {
			raw = withDependency(raw, 12, dd)
		}
		st.seq++
		list = append(list, sentPacket{pic.stream, raw, pic, dd != nil && key && first && pic.spatial == 0})
	}
	return list
}

func (e *encoder) vp8(st *encoderState, pic *picture, key, first, sync bool) []byte {
	b := []byte{0x80, 0xf0, 0x80 | byte(pic.pid>>8), byte(pic.pid), st.tl0, pic.temporal<<6 | st.keyIdx&0x1f, 1}
	if first {
		b[0] |= 0x10
	}
	if sync {
		b[5] |= 0x20
	}
	if key {
		b[6] = 0
	}
	return b
}

func (e *encoder) vp9(st *encoderState, pic *picture, first, last, sync, inter bool) []byte {
	b := []byte{0xa0, 0x80 | byte(pic.pid>>8), byte(pic.pid), pic.temporal<<5 | pic.spatial<<1, st.tl0}
	if inter {
		b[0] |= 0x40
	}
	if first {
		b[0] |= 0x08
	}
	if last {
		b[0] |= 0x04
	}
	if sync {
		b[3] |= 0x10
	}
	return b
}

// dependency makes a dependency descriptor that states its indications itself.
func (e *encoder) dependency(pic *picture, key, barrier, first, last bool) []byte {
	var w bitWriter
	structure := key && first && pic.spatial == 0
	if structure {
		e.structure = (e.structure + 9) & 63
	}
	w.bit(first)
	w.bit(last)
	w.write(uint32(e.structure+pic.spatial*3+pic.temporal)&63, 6)
	w.write(uint32(pic.number), 16)
	w.bit(structure)
	w.write(0, 1)
	w.bit(true) // indications of its own
	w.write(0, 2)
	if structure {
		w.structure(e.structure)
	}
	for s := range uint8(3) {
		for t := range uint8(3) {
			w.write(indication(pic, s, t, key, barrier), 2)
		}
	}
	return w.bytes()
}

func indication(pic *picture, s, t uint8, key, barrier bool) uint32 {
	switch {
	case pic.spatial > s || pic.temporal > t:
		return 0
	case key, pic.spatial == s && (barrier || pic.temporal == t && pic.temporal == 0):
		return dtiSwitch
	case pic.temporal == t:
		return 1
	}
	return 3
}

// structure writes nine templates of three spatial and three temporal layers,
// each decode target being one of them.
func (w *bitWriter) structure(offset uint8) {
	w.write(uint32(offset), 6)
	w.write(9-1, 5)
	for i := range 9 {
		switch {
		case i == 8:
			w.write(3, 2)
		case i%3 == 2:
			w.write(2, 2)
		default:
			w.write(1, 2)
		}
	}
	for i := range 9 {
		for k := range 9 {
			if i/3 <= k/3 && i%3 <= k%3 {
				w.write(3, 2)
			} else {
				w.write(0, 2)
			}
		}
	}
	for range 9 {
		w.write(0, 1) // no frame differences
	}
	w.write(0, 3) // no chains: ns(10) of 0
	w.write(0, 1) // no resolutions
}

type bitWriter struct {
	b    []byte
	bits int
}

func (w *bitWriter) bit(v bool) {
	if v {
		w.write(1, 1)
	} else {
		w.write(0, 1)
	}
}

func (w *bitWriter) write(v uint32, n int) {
	for i := n - 1; i >= 0; i-- {
		if w.bits%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.bits/8] |= byte(v>>i&1) << (7 - w.bits%8)
		w.bits++
	}
}

func (w *bitWriter) bytes() []byte { return w.b }

func withDependency(raw []byte, id uint8, dd []byte) []byte {
	var b block
	b.add(id, dd)
	ext := make([]byte, b.len())
	b.put(ext)
	out := append([]byte(nil), raw[:headerSize]...)
	out[0] |= 0x10
	return append(append(out, ext...), raw[headerSize:]...)
}
