package sfu

import "time"

// maxSegments is how many joints of an outgoing stream are remembered: each
// switch, resumption and dropped run of padding is one.
const maxSegments = 64

// joinTolerance is how far the timestamp that clocks and reports give for a
// joint may lie from the one that the time of arrival gives.
const joinTolerance = 2 * time.Second

// segment is a run of packets of one layer whose numbers differ from the
// outgoing ones by constants. Sequence numbers are without wrap.
type segment struct {
	layer Layer
	epoch uint32
	src   int64 // the first source number
	out   int64 // the number it leaves with
	ts    uint32
	pid   uint16
	tl0   uint8
}

func (s *segment) number(ext int64) int64 { return s.out + ext - s.src }

// munger renumbers packets of several layers into one stream without joints
// (a plain value: packets in, numbers out). Because the mapping is kept as
// segments, a packet that is asked for again leaves with exactly the bytes it
// had the first time. SRTP in GCM mode depends on that: the same number with
// other content would give the key away.
type munger struct {
	segs  [maxSegments]segment // ring, the newest at (count-1) % maxSegments
	count int

	next    int64 // the outgoing number after the highest so far
	head    int64 // the highest source number of the newest segment
	ts      uint32
	arrival time.Time
	pid     uint16
	tl0     uint8
}

// numbers are what a packet leaves with.
type numbers struct {
	seq uint16
	ts  uint32
	pid uint16
	tl0 uint8
}

func (m *munger) current() *segment { return &m.segs[(m.count-1)%maxSegments] }

// follows reports whether the packet continues the stream as it is.
func (m *munger) follows(p *Packet) bool {
	if m.count == 0 {
		return false
	}
	s := m.current()
	return s.layer == p.Layer && s.epoch == p.epoch
}

// push starts a segment.
func (m *munger) push(s segment) {
	m.segs[m.count%maxSegments] = s
	m.count++
	m.next = s.out
	m.head = s.src - 1
}

// begin joins a packet to the end of the stream: the next sequence number,
// picture id and TL0PICIDX, and the timestamp with the offset ts.
func (m *munger) begin(p *Packet, d *vp8, ts uint32) {
	s := segment{layer: p.Layer, epoch: p.epoch, src: p.ext, out: p.ext, ts: ts}
	if m.count > 0 {
		s.out = m.next
		s.pid = m.pid + 1 - d.pid
		s.tl0 = m.tl0 + 1 - d.tl0
	} else {
		m.ts, m.arrival, m.pid, m.tl0 = p.TS, p.Arrival, d.pid, d.tl0
	}
	m.push(s)
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

// take numbers a packet of the current segment. It reports false for a packet
// from before the stream began and for padding, which the stream closes over.
func (m *munger) take(p *Packet, d *vp8) (n numbers, ok bool) {
	if p.ext <= m.head {
		return m.takeLate(p, d)
	}
	s := m.current()
	out := s.number(p.ext)
	m.head = p.ext
	if len(p.Payload) == 0 {
		m.skip(p.ext, out)
		return n, false
	}
	n = s.numbers(out, p.TS, d)
	m.next = out + 1
	m.advance(p, d, n)
	return n, true
}

// advance notes the newest numbers, after which the next segment begins. They
// need not be those of the last packet: it may be late, or a picture that is
// shown before the one it was sent after.
func (m *munger) advance(p *Packet, d *vp8, n numbers) {
	if int32(n.ts-m.ts) > 0 {
		m.ts, m.arrival = n.ts, p.Arrival
	}
	if d.pidAt != 0 && (n.pid-m.pid)&d.pidMask <= d.pidMask/2 {
		m.pid = n.pid & d.pidMask
	}
	if d.tl0At != 0 && int8(n.tl0-m.tl0) > 0 {
		m.tl0 = n.tl0
	}
}

// skip leaves a padding packet out: the packet after it gets its number.
func (m *munger) skip(ext, out int64) {
	s := m.current()
	if s.src == ext {
		s.src++
		return
	}
	joint := *s
	joint.src, joint.out = ext+1, out
	m.push(joint)
}

// takeLate numbers a packet that was overtaken. Its number was kept free, so
// even padding goes out, empty: a hole would hold the receiver's decoder up.
// What a pause or a switch left out has no number and stays out.
func (m *munger) takeLate(p *Packet, d *vp8) (n numbers, ok bool) {
	end := m.next
	for i := range min(m.count, maxSegments) {
		s := &m.segs[(m.count-1-i)%maxSegments]
		if s.layer != p.Layer || s.epoch != p.epoch {
			return n, false
		}
		if s.src <= p.ext {
			out := s.number(p.ext)
			if out >= end {
				return n, false
			}
			n = s.numbers(out, p.TS, d)
			m.advance(p, d, n)
			return n, true
		}
		end = s.out
	}
	return n, false
}

// source finds the segment and source number of a packet that was sent.
func (m *munger) source(seq uint16) (s *segment, ext int64, ok bool) {
	if m.count == 0 {
		return nil, 0, false
	}
	newest := m.next - 1
	out := newest + int64(int16(seq-uint16(newest)))
	if out > newest {
		return nil, 0, false
	}
	for i := range min(m.count, maxSegments) {
		s := &m.segs[(m.count-1-i)%maxSegments]
		if s.out <= out {
			return s, s.src + out - s.out, true
		}
	}
	return nil, 0, false
}

func (s *segment) numbers(out int64, ts uint32, d *vp8) numbers {
	return numbers{seq: uint16(out), ts: ts + s.ts, pid: d.pid + s.pid, tl0: d.tl0 + s.tl0}
}
