package sfu

import (
	"math/rand/v2"
	"testing"

	"github.com/pion/rtcp"
)

// FuzzIngest gives arbitrary packets of every codec to a track with a receiver
// that takes all there is, to one without anything, and to another node: nothing
// may panic, and what leaves must be well formed.
func FuzzIngest(f *testing.F) {
	s := newSource(0)
	f.Add(uint8(0), s.packet(true), s.packet(false))
	f.Add(uint8(0), withExtension(s.packet(true)), s.padding())
	f.Add(uint8(1), rawRTP(1, 1, 1, []byte{0xa8, 0x81, 0x02, 0x00, 0x00}), []byte{0x90})
	f.Add(uint8(2), rawRTP(1, 1, 1, []byte{24, 0xff, 0xff, 0x67}), rawRTP(2, 1, 1, []byte{28}))
	f.Add(uint8(3), rawRTP(1, 1, 1, []byte{0x18}), []byte{0xbf, 96, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 255})
	f.Add(uint8(5), rawRTP(1, 1, 1, []byte{0x80 | 111, 0, 0, 2, 111, 1, 2, 3}), rawRTP(2, 1, 1, []byte{0x80 | 111, 0, 0}))
	for _, kind := range []format{formatVP9, formatAV1} {
		e := newEncoder(rand.New(rand.NewPCG(1, 1)), kind, true)
		list := e.unit(0)
		f.Add(uint8(kind-2)|0x80, list[0].raw, list[len(list)-1].raw)
	}
	mimes := []string{"video/VP8", "video/VP9", "video/H264", "video/AV1", "audio/opus", "audio/red"}
	f.Fuzz(func(t *testing.T, kind uint8, a, b []byte) {
		cfg := UpTrackConfig{
			Kind: Video, Codec: Codec{MimeType: mimes[int(kind&0x0f)%len(mimes)], ClockRate: 90000}, SVC: kind&0x80 != 0,
			Extensions: Extensions{AudioLevel: 1, VideoOrientation: 2, PlayoutDelay: 5, AbsCaptureTime: 6, DependencyDescriptor: 12},
		}
		up, w := NewUpTrack(cfg), &checker{t: t}
		full := rtxBinding
		full.Writer, full.PlainOpus, full.Extensions = w, true, cfg.Extensions
		full.Extensions.TransportCC, full.Extensions.MID = 3, 4
		var downs []*DownTrack
		for _, binding := range []Binding{{SSRC: 7, PayloadType: 96, OpusPayloadType: 111, Writer: w}, full} {
			d := NewDownTrack(up, DownConfig{})
			d.Bind(binding)
			downs = append(downs, d)
		}
		up.AddSink(&thinned{t: new(Thinner), there: NewUpTrack(cfg), wants: 0b011})
		for i, raw := range [][]byte{a, b, a, b} {
			ingest(up, 0, raw, start)
			for _, d := range downs {
				d.SetLimit(Limit{Spatial: Layer(i & 1), Temporal: uint8(i & 1)})
				d.Tick(start, &Scratch{})
				d.HandleRTCP(nack(w.seq, w.seq-1, w.seq-2), start, &Scratch{})
				d.Pad(500, &Scratch{})
			}
		}
	})
}

// checker fails when it is given what is no RTP packet.
type checker struct {
	t   *testing.T
	seq uint16
}

func (c *checker) Write(_ Out, rtp []byte, stampAt int) error {
	h, err := parseHeader(rtp)
	if err != nil || stampAt != 0 && (stampAt < headerSize || stampAt+stampSize > h.start) {
		c.t.Errorf("wrote % x, stamp at %d: %v", rtp, stampAt, err)
	}
	if h.ssrc == 7 {
		c.seq = h.seq
	}
	return nil
}

// FuzzDependencies gives arbitrary dependency descriptors, one after the other,
// to the same stream.
func FuzzDependencies(f *testing.F) {
	e := newEncoder(rand.New(rand.NewPCG(1, 1)), formatAV1, true)
	key := ExtensionValue(e.unit(0)[0].raw, 12)
	delta := ExtensionValue(e.unit(0)[0].raw, 12)
	f.Add(key, delta)
	f.Add(delta, key[:7])
	f.Add([]byte{0xc0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0}, key)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var d dependencies
		for _, raw := range [][]byte{a, b, a} {
			if len(raw) < ddFixed {
				continue
			}
			if fr, ok := d.parse(raw); ok && (int(fr.spatial) >= maxTemplates || int(fr.temporal) >= maxTemplates) {
				t.Errorf("frame %+v", fr)
			}
		}
	})
}

// FuzzRTCP gives arbitrary feedback to a receiver.
func FuzzRTCP(f *testing.F) {
	for _, p := range []rtcp.Packet{
		&rtcp.TransportLayerNack{MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: 65530, LostPackets: 0xffff}}},
		&rtcp.PictureLossIndication{MediaSSRC: 7},
		&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{{SSRC: 7, LastSenderReport: 1, Delay: 0xffffffff}}},
	} {
		raw, err := p.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		pkts, err := rtcp.Unmarshal(raw)
		if err != nil {
			return
		}
		c := newCamera(1)
		d := (&receiver{t: t}).follow(c.up)
		c.run(4, d)
		d.HandleRTCP(pkts, c.now, &Scratch{})
	})
}
