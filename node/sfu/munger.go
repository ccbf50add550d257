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
		s.pid, s.tl0 = m.pid+1-d.pid, m.tl0+1-d.tl0
		s.keyIdx, s.frame = m.keyIdx+1-d.keyIdx, m.frame+1-d.frame
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
func (m *munger) take(p *Packet, want ceiling) (s *segment, n numbers, v verdict) {
	if p.ext <= m.head {
		return m.takeLate(p)
	}
	s = m.current()
	fresh := int32(p.TS-m.picture) > 0
	if fresh {
		m.picture = p.TS
	}
	c := s.c.after(p, want, fresh)
	switch {
	case len(p.Payload) == 0:
		m.skip(p, s.c, 0)
		return s, n, leaveOut
	case !c.admits(p):
		m.skip(p, c, m.dropPicture(p))
		return s, n, leaveOut
	case c != s.c:
		joint := *s
		joint.src, joint.out, joint.c = p.ext, s.number(p.ext), c
		m.push(joint)
		s = m.current()
	}
	n = s.numbers(s.number(p.ext), p)
	m.head = p.ext
	m.next = n.out + 1
	m.advance(p, &n)
	return s, n, send
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
	if int32(n.ts-m.ts) > 0 {
		m.ts, m.arrival = n.ts, p.Arrival
	}
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

// skip leaves a packet out: the one after it gets its number, and picture ids
// from there on are less by pids.
func (m *munger) skip(p *Packet, c ceiling, pids uint16) {
	s := m.current()
	if s.src == p.ext {
		s.src++
		s.c = c
		s.pid -= pids
		m.head = p.ext
		return
	}
	joint := *s
	joint.src, joint.out, joint.c = p.ext+1, s.number(p.ext), c
	joint.pid -= pids
	m.push(joint)
}

// takeLate numbers a packet that was overtaken, in the place that was kept for
// it. What a pause or a switch left out has no number and stays out.
func (m *munger) takeLate(p *Packet) (s *segment, n numbers, v verdict) {
	end := m.next
	for i := range min(m.count, len(m.segs)) {
		s = m.nth(i)
		if s.of(p) && s.src <= p.ext {
			out := s.number(p.ext)
			if out >= end {
				return s, n, leaveOut
			}
			n = s.numbers(out, p)
			if v = s.judge(p); v == send {
				m.advance(p, &n)
			}
			return s, n, v
		}
		end = s.out
	}
	return nil, n, leaveOut
}

// judge says how a packet of the segment that has a number left or leaves.
func (s *segment) judge(p *Packet) verdict {
	if len(p.Payload) == 0 || !s.c.admits(p) {
		return fill
	}
	return send
}

// source finds the segment and source number of a packet that was sent.
func (m *munger) source(seq uint16) (s *segment, ext, out int64, ok bool) {
	if m.count == 0 {
		return nil, 0, 0, false
	}
	newest := m.next - 1
	out = newest + int64(int16(seq-uint16(newest)))
	if out > newest {
		return nil, 0, 0, false
	}
	for i := range min(m.count, len(m.segs)) {
		if s = m.nth(i); s.out <= out {
			return s, s.src + out - s.out, out, true
		}
	}
	return nil, 0, 0, false
}

func (s *segment) numbers(out int64, p *Packet) numbers {
	d := &p.desc
	return numbers{
		out: out, ts: p.TS + s.ts,
		pid: d.pid + s.pid, frame: d.frame + s.frame,
		tl0: d.tl0 + s.tl0, keyIdx: d.keyIdx + s.keyIdx,
	}
}
