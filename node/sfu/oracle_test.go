package sfu

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

var oracleSeeds = flag.Uint64("oracle.seeds", 36, "how many meetings of each codec TestDecoderFollowsWhateverHappens plays")

// decoder is a receiver that keeps everything and forgives nothing.
type decoder struct {
	fail    error
	format  format
	got     map[int64][]byte // by sequence number without wrap
	first   int64
	highest int64
	now     time.Time
}

func (d *decoder) Write(_ Out, rtp []byte, stampAt int) error {
	seq := rtp[2:4]
	n := int64(seq[0])<<8 | int64(seq[1])
	if len(d.got) == 0 {
		d.first, d.highest = n, n
	}
	n = d.highest + int64(int16(uint16(n)-uint16(d.highest)))
	if old, ok := d.got[n]; ok && string(old) != string(rtp) {
		d.fail = fmt.Errorf("number %d left with two contents:\n% x\n% x", n, old, rtp)
	}
	d.got[n] = slices.Clone(rtp)
	d.highest = max(d.highest, n)
	return nil
}

// holes are the numbers that are missing.
func (d *decoder) holes() (list []int64) {
	for n := d.first; n <= d.highest; n++ {
		if d.got[n] == nil {
			list = append(list, n)
		}
	}
	return list
}

// receivedPacket is one as the decoder reads it.
type receivedPacket struct {
	n      int64
	h      header
	pic    *picture // nil: it holds nothing
	index  int
	pid    uint16
	number uint16
}

func (d *decoder) read(n int64, all map[uint32]*picture) (receivedPacket, error) {
	raw := d.got[n]
	h, err := parseHeader(raw)
	p := receivedPacket{n: n, h: h}
	if err != nil || h.start == h.end {
		return p, err
	}
	body := raw[h.end-6 : h.end]
	p.pic = all[uint32(body[0])<<24|uint32(body[1])<<16|uint32(body[2])<<8|uint32(body[3])]
	p.index = int(body[4])
	if p.pic == nil {
		return p, fmt.Errorf("packet %d is of no picture", n)
	}
	switch d.format {
	case formatVP8:
		desc, _ := parseVP8(raw[h.start:h.end])
		p.pid = desc.pid
	case formatVP9:
		desc, _ := parseVP9(raw[h.start:h.end], true)
		p.pid = desc.pid
	case formatAV1:
		dd := ExtensionValue(raw, 9)
		if len(dd) < ddFixed {
			return p, fmt.Errorf("packet %d has no dependency descriptor", n)
		}
		p.number = uint16(dd[1])<<8 | uint16(dd[2])
	}
	return p, nil
}

// check says what is wrong with all that came.
func (d *decoder) check(e *encoder) error {
	if d.fail != nil {
		return d.fail
	}
	var list []receivedPacket
	for n := d.first; n <= d.highest; n++ {
		if d.got[n] == nil {
			continue
		}
		p, err := d.read(n, e.all)
		if err != nil {
			return err
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		return nil
	}
	shown, cut := make(map[*picture]receivedPacket), make(map[*picture]bool)
	count := make(map[*picture]int)
	last := list[0]
	for i, p := range list {
		if i > 0 && int32(p.h.ts-last.h.ts) < 0 {
			return fmt.Errorf("time runs back from %d to %d at packet %d", last.h.ts, p.h.ts, p.n)
		}
		if p.pic == nil {
			continue
		}
		// A keyframe may follow on a unit whose end was lost.
		if last.pic != nil && len(p.pic.needs) > 0 && last.pic.unit != p.pic.unit && last.h.ts == p.h.ts {
			return fmt.Errorf("two units at one time at packet %d", p.n)
		}
		if err := d.continuous(last, p); err != nil {
			return err
		}
		// A keyframe may follow on a unit whose end was lost.
		if last.pic != nil && len(p.pic.needs) > 0 && last.pic.unit != p.pic.unit && last.n+1 == p.n && count[last.pic] == last.pic.packets && !last.h.marker {
			return fmt.Errorf("unit %d ends with packet %d (s%d), which has no marker", last.pic.unit, last.n, last.pic.spatial)
		}
		if len(p.pic.needs) == 0 && last.pic != nil && last.pic.stream != p.pic.stream {
			cut[last.pic] = true // the keyframe of another layer makes good for its end
		}
		if count[p.pic] == 0 {
			shown[p.pic] = p
		}
		count[p.pic]++
		last = p
	}
	newest := last.pic.unit
	for pic, p := range shown {
		if pic.unit+2 >= newest || cut[pic] {
			continue // the rest may be under way
		}
		if err := d.decodable(pic, p, count, shown); err != nil {
			return err
		}
	}
	return nil
}

// continuous checks the numbers that a decoder counts pictures with.
func (d *decoder) continuous(a, b receivedPacket) error {
	if a.pic == nil || a.pic.unit == b.pic.unit || d.format != formatVP8 {
		return nil
	}
	// Lost packets may hide pictures; nothing may hide more than their count.
	step, holes := (b.pid-a.pid)&0x7fff, b.n-a.n-1
	if step == 0 || int64(step) > 1+holes && len(b.pic.needs) > 0 {
		return fmt.Errorf("picture id %d after %d at packet %d, %d packets missing between", b.pid, a.pid, b.n, holes)
	}
	return nil
}

func (d *decoder) decodable(pic *picture, p receivedPacket, count map[*picture]int, shown map[*picture]receivedPacket) error {
	if count[pic]+pic.lost < pic.packets {
		return fmt.Errorf("picture %d at packet %d: %d of %d packets came, %d were lost", pic.id, p.n, count[pic], pic.packets, pic.lost)
	}
	for _, need := range pic.needs {
		q, ok := shown[need]
		switch {
		case !ok && need.lost == 0:
			return fmt.Errorf("picture %d (s%d t%d) at packet %d needs %d (s%d t%d), which did not come",
				pic.id, pic.spatial, pic.temporal, p.n, need.id, need.spatial, need.temporal)
		case !ok:
		case d.format == formatVP9 && (p.pid-q.pid)&0x7fff != (pic.pid-need.pid)&0x7fff:
			return fmt.Errorf("picture %d is %d picture ids after what it needs, not %d", pic.id, p.pid-q.pid, pic.pid-need.pid)
		case d.format == formatAV1 && p.number-q.number != pic.number-need.number:
			return fmt.Errorf("picture %d is %d frame numbers after what it needs, not %d", pic.id, p.number-q.number, pic.number-need.number)
		}
	}
	return nil
}

// meeting is a publisher, its UpTrack, a DownTrack and the decoder behind it.
type meeting struct {
	rnd  *rand.Rand
	e    *encoder
	up   *UpTrack
	down *DownTrack
	dec  *decoder
	now  time.Time
	held []sentPacket // overtaken on their way
	out  Scratch
}

func newMeeting(seed uint64, f format, svc bool) *meeting {
	rnd := rand.New(rand.NewPCG(seed, uint64(f)))
	m := &meeting{rnd: rnd, e: newEncoder(rnd, f, svc), now: start}
	m.up = NewUpTrack(m.e.config())
	m.up.OnKeyframeRequest(func(l Layer) { m.e.state[l].key = true })
	m.down = NewDownTrack(m.up, DownConfig{})
	m.dec = &decoder{format: f, got: make(map[int64][]byte)}
	m.down.Bind(Binding{SSRC: 7, PayloadType: 96, Extensions: Extensions{DependencyDescriptor: 9}, Writer: m.dec})
	return m
}

// step is one temporal unit of each stream.
func (m *meeting) step(i int, clean bool) {
	for l := range Layer(m.e.streams) {
		if !m.e.svc && int(l) >= m.e.active {
			continue
		}
		m.carry(l, m.e.unit(l), clean)
	}
	m.now = m.now.Add(time.Second / 30)
	if i%3 == 0 {
		m.up.Tick(m.now)
		m.down.Tick(m.now, &m.out)
	}
	m.ask()
}

// carry takes packets to the UpTrack in bursts, some late, twice, or not at all.
func (m *meeting) carry(l Layer, list []sentPacket, clean bool) {
	var burst []Inbound
	for _, p := range list {
		switch r := m.rnd.IntN(40); {
		case clean, p.structure: // without a structure, everybody gets everything
			burst = append(burst, Inbound{p.raw, m.now})
		case r == 0 && !m.up.Muted():
			p.pic.lost++
		case r == 1:
			m.held = append(m.held, p)
		case r == 2:
			burst = append(burst, Inbound{p.raw, m.now}, Inbound{p.raw, m.now})
		default:
			burst = append(burst, Inbound{p.raw, m.now})
		}
	}
	m.up.Ingest(l, burst, &m.out)
	m.held = slices.DeleteFunc(m.held, func(p sentPacket) bool {
		if m.up.Muted() || m.rnd.IntN(3) > 0 {
			return m.up.Muted()
		}
		m.up.Ingest(p.stream, []Inbound{{p.raw, m.now}}, &m.out)
		return true
	})
}

// ask asks again for what is missing.
func (m *meeting) ask() {
	var nack rtcp.TransportLayerNack
	nack.MediaSSRC = 7
	for n := max(m.dec.first, m.dec.highest-60); n < m.dec.highest; n++ {
		if m.dec.got[n] == nil {
			nack.Nacks = append(nack.Nacks, rtcp.NackPair{PacketID: uint16(n)})
		}
	}
	if len(nack.Nacks) > 0 {
		m.down.HandleRTCP([]rtcp.Packet{&nack}, m.now, &m.out)
	}
}

// deliver lets everything arrive that is under way.
func (m *meeting) deliver() {
	for _, p := range m.held {
		if !m.up.Muted() {
			m.up.Ingest(p.stream, []Inbound{{p.raw, m.now}}, &m.out)
		}
	}
	m.held = nil
}

func (m *meeting) disturb() {
	if m.rnd.IntN(20) == 0 { // nothing is silent for long
		m.up.SetMuted(false)
		m.down.SetPaused(false)
	}
	switch m.rnd.IntN(60) {
	case 0, 1:
		m.down.SetMaxLayer(Layer(m.rnd.IntN(MaxLayers)))
	case 2, 3, 4, 5:
		l := Limit{Spatial: Layer(m.rnd.IntN(MaxLayers)), Temporal: uint8(m.rnd.IntN(MaxTemporal)), Pause: m.rnd.IntN(10) == 0}
		if l.Pause {
			m.deliver() // a picture that a pause cuts is no fault
		}
		m.down.SetLimit(l)
	case 6:
		m.deliver() // nothing of before stays under way
		m.up.SetMuted(!m.up.Muted())
	case 7:
		m.deliver()
		m.down.SetPaused(m.rnd.IntN(3) == 0)
	case 8:
		m.deliver()
		if !m.up.Muted() {
			m.e.restart(Layer(m.rnd.IntN(m.e.streams)))
		}
	case 9:
		m.e.active = 1 + m.rnd.IntN(3)
		if !m.e.svc {
			m.now = m.now.Add(100 * time.Millisecond)
		}
	case 10:
		m.now = m.now.Add(time.Duration(m.rnd.IntN(300)) * time.Millisecond)
	}
}

func TestDecoderFollowsWhateverHappens(t *testing.T) {
	for name, kind := range map[string]struct {
		f   format
		svc bool
	}{"VP8 simulcast": {formatVP8, false}, "VP9 SVC": {formatVP9, true}, "AV1 SVC": {formatAV1, true}} {
		t.Run(name, func(t *testing.T) {
			for seed := range *oracleSeeds {
				m := newMeeting(seed, kind.f, kind.svc)
				for i := range 600 {
					m.step(i, seed%3 == 0)
					m.disturb()
				}
				m.deliver()
				m.ask()
				if err := m.dec.check(m.e); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if seed%3 == 0 && len(m.dec.holes()) > 0 {
					t.Fatalf("seed %d: numbers %v are missing though nothing was lost", seed, m.dec.holes())
				}
				if len(m.dec.got) < 100 {
					t.Fatalf("seed %d: only %d packets came", seed, len(m.dec.got))
				}
			}
		})
	}
}
