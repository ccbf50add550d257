package sfu

import "time"

// The joints of an outgoing stream that are remembered, a power of two: each
// switch, resumption and left-out frame is one. 128 are four seconds of a stream
// of 30 pictures a second that goes without its upper layers, longer than a
// packet is asked for again. Audio has joints only where it is muted.
const (
	videoSegments = 128
	audioSegments = 8
)

// joinTolerance is how far the timestamp that clocks and reports give for a
// joint may lie from the one that the time of arrival gives.
const joinTolerance = 2 * time.Second

// segment is a run of packets of one stream whose numbers differ from the
// outgoing ones by constants, and of which the same layers are sent. Sequence
// numbers are without wrap.
type segment struct {
	src    int64 // the first source number
	out    int64 // the number it leaves with
	epoch  uint32
	ts     uint32
	pid    uint16
	frame  uint16
	tl0    uint8
	keyIdx uint8
	layer  Layer
	c      ceiling
	// lowered says that c is less than before, from the picture with the source
	// timestamp at on: packets of that picture that the first of it overtook lie in
	// the segment before.
	lowered bool
	at      uint32
}

func (s *segment) number(ext int64) int64 { return s.out + ext - s.src }

func (s *segment) of(p *Packet) bool { return s.layer == p.Layer && s.epoch == p.epoch }

// munger renumbers packets of several streams into one without joints (a plain
// value: packets in, numbers out). What leaves is a function of the packet and
// its segment alone. Because segments are kept, a packet that is asked for again
// leaves with exactly the bytes it had the first time. SRTP in GCM mode depends
// on that: the same number with other content would give the key away.
type munger struct {
	segs  []segment // ring, the newest at (count-1) % len
	count int
	// closePIDs makes picture ids run on where frames are left out. VP8 decoders
	// wait for missing ids (RFC 7741 section 4.2); in VP9 references count in them.
	closePIDs bool

	next    int64  // the outgoing number after the highest so far
	top     int64  // the highest outgoing number that was sent
	head    int64  // the highest source number of the newest segment
	picture uint32 // its newest source timestamp
	dropped uint32 // that of the last frame left out
	drops   bool   // dropped is set
	ts      uint32
	arrival time.Time
	pid     uint16
	frame   uint16
	tl0     uint8
	keyIdx  uint8
}

// numbers are what a packet leaves with.
type numbers struct {
	out    int64 // sequence number without wrap
	ts     uint32
	pid    uint16
	frame  uint16
	tl0    uint8
	keyIdx uint8
	c      ceiling // that it is sent under
}

// verdict says what becomes of a packet.
type verdict uint8

const (
	leaveOut verdict = iota // nobody will miss it
	send
	// fill sends the number with an empty payload: it was kept for a packet that
	// was overtaken and then was not one to be sent. A hole would hold the
	// receiver's decoder up.
	fill
)

func (m *munger) current() *segment { return &m.segs[(m.count-1)&(len(m.segs)-1)] }

// nth returns a segment, 0 the newest.
func (m *munger) nth(i int) *segment { return &m.segs[(m.count-1-i)&(len(m.segs)-1)] }

// follows reports whether the packet continues the stream as it is.
func (m *munger) follows(p *Packet) bool { return m.count > 0 && m.current().of(p) }

// push starts a segment.
func (m *munger) push(s segment) {
	m.segs[m.count&(len(m.segs)-1)] = s
	m.count++
	m.next = s.out
	m.head = s.src - 1
}

// begin joins a packet to the end of the stream: the next sequence number,
// picture id and so on, and the timestamp with the offset ts.
func (m *munger) begin(p *Packet, ts uint32, c ceiling) {
	s := segment{layer: p.Layer, epoch: p.epoch, src: p.ext, ts: ts, c: c}
	d := &p.desc
	if m.count > 0 {
		s.out = m.next
		// Numbers that are kept for overtaken packets may be pictures of their own.
		kept := uint16(m.next - 1 - m.top)
		s.pid, s.tl0 = m.pid+1+kept-d.pid, m.tl0+1+uint8(kept)-d.tl0
		s.keyIdx, s.frame = m.keyIdx+1-d.keyIdx, m.frame+1+kept-d.frame
	} else {
		// A receiver that loses the first packets would miss a wrap among them
		// (RFC 3711 section 3.3.1): begin in the lower half.
		s.out = 1<<16 | p.ext&0x7fff
		m.ts, m.arrival = p.TS, p.Arrival
		m.pid, m.tl0, m.keyIdx, m.frame = d.pid, d.tl0, d.keyIdx, d.frame
	}
	m.push(s)
	m.picture, m.drops = p.TS, false
}

// offset returns the timestamp offset with which a packet continues the stream.
// from is the offset that clocks or reports give, if any (known); the time of
// arrival decides when that is missing or absurd.
func (m *munger) offset(p *Packet, rate uint32, from uint32, known bool) uint32 {
	if m.count == 0 {
		return 0
	}
	gap := p.Arrival.Sub(m.arrival)
	expected := m.ts + uint32(int64(gap.Seconds()*float64(rate)))
	out := expected
	tolerance := int32(joinTolerance.Seconds() * float64(rate))
	if off := int32(p.TS + from - expected); known && off < tolerance && off > -tolerance {
		out = p.TS + from
	}
	if int32(out-m.ts) <= 0 {
		out = m.ts + 1 // a receiver takes time that runs back for a broken stream
	}
	return out - p.TS
}

// take decides on a packet of the current stream, and numbers it. The numbers of
// a packet that is left out are closed over.
func (m *munger) take(p *Packet, want ceiling) (n numbers, v verdict) {
	if p.ext <= m.head {
		return m.takeLate(p)
	}
	s := m.current()
	fresh := int32(p.TS-m.picture) > 0
	if fresh { // also one that is left out: its number may have to be filled
		m.picture = p.TS
		m.reach(p.TS+s.ts, p.Arrival)
	}
	c := s.c.after(p, want, fresh)
	if c != s.c {
		joint := *s
		joint.src, joint.out, joint.c = p.ext, s.number(p.ext), c
		joint.lowered, joint.at = c.spatial < s.c.spatial || c.temporal < s.c.temporal, p.TS
		m.push(joint)
		s = m.current()
	}
	switch {
	case len(p.Payload) == 0:
		m.skip(p, 0)
		return n, leaveOut
	case !c.admits(p):
		m.skip(p, m.dropPicture(p))
		return n, leaveOut
	}
	n = s.numbers(s.number(p.ext), p)
	m.head = p.ext
	m.next, m.top = n.out+1, n.out
	m.advance(p, &n)
	return n, send
}

// dropPicture returns how many picture ids to close over: one at the first
// packet of a picture that is left out.
func (m *munger) dropPicture(p *Packet) uint16 {
	if !m.closePIDs || m.drops && m.dropped == p.TS {
		return 0
	}
	m.dropped, m.drops = p.TS, true
	return 1
}

// advance notes the newest numbers, after which the next segment begins. They
// need not be those of the last packet: it may be late, or a picture that is
// shown before the one it was sent after.
func (m *munger) advance(p *Packet, n *numbers) {
	d := &p.desc
	m.reach(n.ts, p.Arrival)
	if d.pidAt != 0 && (n.pid-m.pid)&d.pidMask <= d.pidMask/2 {
		m.pid = n.pid & d.pidMask
	}
	if d.tl0At != 0 && int8(n.tl0-m.tl0) > 0 {
		m.tl0 = n.tl0
	}
	if int16(n.frame-m.frame) > 0 {
		m.frame = n.frame
	}
	if d.keyAt != 0 {
		m.keyIdx = n.keyIdx
	}
}

func (m *munger) reach(ts uint32, arrival time.Time) {
	if int32(ts-m.ts) > 0 {
		m.ts, m.arrival = ts, arrival
	}
}

// skip leaves a packet out: the one after it gets its number, and picture ids
// from there on are less by pids.
func (m *munger) skip(p *Packet, pids uint16) {
	s := m.current()
	if s.src == p.ext {
		s.src++
		s.pid -= pids
		m.head = p.ext
		return
	}
	joint := *s
	joint.src, joint.out = p.ext+1, s.number(p.ext)
	joint.lowered = false
	joint.pid -= pids
	m.push(joint)
}

// takeLate numbers a packet that was overtaken, in the place that was kept for
// it. What a pause or a switch left out has no number and stays out.
func (m *munger) takeLate(p *Packet) (n numbers, v verdict) {
	end := m.next
	for i := range min(m.count, len(m.segs)) {
		s := m.nth(i)
		if s.of(p) && s.src <= p.ext {
			out := s.number(p.ext)
			if out >= end {
				return n, leaveOut
			}
			n, v = m.judge(i, out, p)
			m.top = max(m.top, out)
			if v == send {
				m.advance(p, &n)
			}
			return n, v
		}
		end = s.out
	}
	return n, leaveOut
}

// judge says how a packet that has a number in the i-th segment left or leaves.
func (m *munger) judge(i int, out int64, p *Packet) (n numbers, v verdict) {
	s := m.nth(i)
	n = s.numbers(out, p)
	if i > 0 {
		if next := m.nth(i - 1); next.lowered && next.of(p) && int32(p.TS-next.at) >= 0 {
			n.c = next.c
		}
	}
	if len(p.Payload) == 0 || !n.c.admits(p) {
		return n, fill
	}
	return n, send
}

// origin is where a packet that was sent came from.
type origin struct {
	segment int // from the newest, which is 0
	layer   Layer
	epoch   uint32
	ext     int64
	out     int64
}

// source finds the origin of a packet that was sent.
func (m *munger) source(seq uint16) (o origin, ok bool) {
	if m.count == 0 {
		return o, false
	}
	newest := m.next - 1
	out := newest + int64(int16(seq-uint16(newest)))
	if out > newest {
		return o, false
	}
	for i := range min(m.count, len(m.segs)) {
		if s := m.nth(i); s.out <= out {
			return origin{i, s.layer, s.epoch, s.src + out - s.out, out}, true
		}
	}
	return o, false
}

func (s *segment) numbers(out int64, p *Packet) numbers {
	d := &p.desc
	return numbers{
		out: out, ts: p.TS + s.ts,
		pid: d.pid + s.pid, frame: d.frame + s.frame,
		tl0: d.tl0 + s.tl0, keyIdx: d.keyIdx + s.keyIdx,
		c: s.c,
	}
}
