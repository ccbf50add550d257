package sfu

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

var (
	start   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	vp8Cfg  = UpTrackConfig{ID: "TR_v", Kind: Video, Codec: Codec{MimeType: "video/VP8", ClockRate: 90000}}
	opusCfg = UpTrackConfig{ID: "TR_a", Kind: Audio, Codec: Codec{MimeType: "audio/opus", ClockRate: 48000, Channels: 2}}
)

// source makes the packets of one layer of a VP8 camera.
type source struct {
	ssrc uint32
	seq  uint16
	ts   uint32
	pid  uint16
	tl0  uint8
}

func newSource(l Layer) *source {
	return &source{
		ssrc: 1000 + uint32(l), seq: 65530 + 1000*uint16(l), ts: 0xffff0000 + 1e6*uint32(l),
		pid: 0x7ffd - 100*uint16(l), tl0: 250 + 10*uint8(l),
	}
}

// packet makes one that is a frame of its own.
func (s *source) packet(key bool) []byte {
	b := rawRTP(s.seq, s.ts, s.ssrc, vp8Payload(s.pid, s.tl0, key, byte(s.seq)))
	s.seq++
	s.ts += 3000
	s.pid = (s.pid + 1) & 0x7fff
	s.tl0++
	return b
}

// padding makes a packet that holds nothing.
func (s *source) padding() []byte {
	b := rawRTP(s.seq, s.ts, s.ssrc, append(make([]byte, 99), 100))
	b[0] |= 0x20
	s.seq++
	return b
}

func rawRTP(seq uint16, ts, ssrc uint32, payload []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(payload))
	putHeader(b, true, 96, seq, ts, ssrc)
	return append(b, payload...)
}

// withExtension adds a one-byte header extension (RFC 8285), as browsers send.
func withExtension(b []byte) []byte {
	b = slices.Insert(slices.Clone(b), headerSize, 0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0)
	b[0] |= 0x10
	return b
}

func vp8Payload(pid uint16, tl0 uint8, key bool, body byte) []byte {
	frame := byte(1)
	if key {
		frame = 0
	}
	return []byte{0x90, 0xe0, 0x80 | byte(pid>>8), byte(pid), tl0, 0x20, frame, body, body}
}

// outPacket is what a receiver got.
type outPacket struct {
	seq      uint16
	ts       uint32
	pid      uint16
	tl0      uint8
	keyframe bool
	body     byte
	raw      []byte
}

// receiver keeps what a DownTrack writes.
type receiver struct {
	t       *testing.T
	got     []outPacket
	reports []SenderReport
	fail    error
}

func (r *receiver) Write(_ Out, raw []byte, _ int) error {
	if r.fail != nil {
		return r.fail
	}
	h, err := parseHeader(raw)
	if err != nil || h.start != headerSize || h.end != len(raw) {
		r.t.Errorf("DownTrack wrote a packet with more than a plain header: % x (%v)", raw, err)
		return nil
	}
	p := outPacket{seq: h.seq, ts: h.ts, raw: slices.Clone(raw)}
	if d, ok := parseVP8(raw[headerSize:]); ok {
		p.pid, p.tl0, p.keyframe = d.pid, d.tl0, d.keyframe
		p.body = raw[len(raw)-1]
	}
	r.got = append(r.got, p)
	return nil
}

// follow returns a DownTrack of up that writes to the receiver.
func (r *receiver) follow(up *UpTrack) *DownTrack {
	d := NewDownTrack(up, DownConfig{Report: func(sr SenderReport, _ Out) { r.reports = append(r.reports, sr) }})
	d.Bind(Binding{SSRC: 7, PayloadType: 96, Writer: r})
	return d
}

// writerFunc is a Writer that is one function.
type writerFunc func(rtp []byte) error

func (f writerFunc) Write(_ Out, rtp []byte, _ int) error { return f(rtp) }

// ingest gives one packet to a track.
func ingest(up *UpTrack, l Layer, raw []byte, at time.Time) {
	up.Ingest(l, []Inbound{{raw, at}}, &Scratch{})
}

// continuous fails unless the stream has no joint that a decoder could see.
func (r *receiver) continuous() {
	r.t.Helper()
	for i := 1; i < len(r.got); i++ {
		a, b := r.got[i-1], r.got[i]
		if b.seq != a.seq+1 {
			r.t.Errorf("packet %d has sequence number %d after %d", i, b.seq, a.seq)
		}
		if int32(b.ts-a.ts) <= 0 {
			r.t.Errorf("packet %d has timestamp %d after %d", i, b.ts, a.ts)
		}
		if b.pid != (a.pid+1)&0x7fff {
			r.t.Errorf("packet %d has picture id %d after %d", i, b.pid, a.pid)
		}
		if b.tl0 != a.tl0+1 {
			r.t.Errorf("packet %d has TL0PICIDX %d after %d", i, b.tl0, a.tl0)
		}
	}
}

// camera is a simulcast publisher with an UpTrack, on a clock of its own.
type camera struct {
	up     *UpTrack
	layers []*source
	now    time.Time
	asked  []Layer
	key    [MaxLayers]bool // the next packet of the layer is a keyframe
}

func newCamera(layers int) *camera {
	c := &camera{up: NewUpTrack(vp8Cfg), now: start}
	for l := range layers {
		c.layers = append(c.layers, newSource(Layer(l)))
		c.key[l] = true
	}
	c.up.OnKeyframeRequest(func(l Layer) {
		c.asked = append(c.asked, l)
		c.key[l] = true
	})
	return c
}

// frame sends one packet on each layer and moves the clock by a frame.
func (c *camera) frame() {
	for l, s := range c.layers {
		ingest(c.up, Layer(l), withExtension(s.packet(c.key[l])), c.now)
		c.key[l] = false
	}
	c.now = c.now.Add(time.Second / 30)
}

// run sends frames and ticks every third.
func (c *camera) run(frames int, downs ...*DownTrack) {
	for i := range frames {
		c.frame()
		if i%3 == 2 {
			c.up.Tick(c.now)
			for _, d := range downs {
				d.Tick(c.now, &Scratch{})
			}
		}
	}
}

func ntp(t time.Time) uint64 {
	return uint64(t.Unix()+2208988800)<<32 | uint64(t.Nanosecond())<<32/1e9
}

func seqOf(raw []byte) uint16 { return binary.BigEndian.Uint16(raw[2:]) }
