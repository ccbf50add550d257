package sfu

import (
	"testing"

	"github.com/pion/rtcp"
)

// FuzzIngest gives arbitrary packets of every codec to a track with a receiver:
// nothing may panic, and what leaves must be well formed.
func FuzzIngest(f *testing.F) {
	s := newSource(0)
	f.Add(uint8(0), s.packet(true), s.packet(false))
	f.Add(uint8(0), withExtension(s.packet(true)), s.padding())
	f.Add(uint8(1), rawRTP(1, 1, 1, []byte{0xa8, 0x81, 0x02, 0x00}), []byte{0x90})
	f.Add(uint8(2), rawRTP(1, 1, 1, []byte{24, 0xff, 0xff, 0x67}), rawRTP(2, 1, 1, []byte{28}))
	f.Add(uint8(3), rawRTP(1, 1, 1, []byte{0x18}), []byte{0xbf, 96, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 255})
	mimes := []string{"video/VP8", "video/VP9", "video/H264", "video/AV1", "audio/opus"}
	f.Fuzz(func(t *testing.T, codec uint8, a, b []byte) {
		cfg := UpTrackConfig{Kind: Video, Codec: Codec{MimeType: mimes[int(codec)%len(mimes)], ClockRate: 90000}}
		up := NewUpTrack(cfg)
		r := &receiver{t: t}
		d := r.follow(up)
		for _, raw := range [][]byte{a, b, a} {
			ingest(up, Layer(codec>>6), raw, start)
			d.Tick(start, &Scratch{})
		}
		for i := range r.got {
			d.HandleRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
				MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: r.got[i].seq}},
			}}, start, &Scratch{})
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
