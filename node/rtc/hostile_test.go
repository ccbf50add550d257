package rtc

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtcp"

	"github.com/domicile/domicile/node/sfu"
)

// FuzzPackets gives a session whatever a client that has its keys can send, RTP and
// RTCP in turn, while it also receives a picture.
//
//	| kind (8) | length (16) | packet | kind (8) | …   1: RTP, 2: RTCP, 3: time passes
func FuzzPackets(f *testing.F) {
	for _, seed := range hostileSeeds(f) {
		f.Add(seed)
	}
	e, err := NewEngine(Config{Media: loopback})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := e.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newPublisherOn(t, e, SessionConfig{Single: true, MaxTracks: 2}, offerOf(
			camera("a", "A", group), camera("l", "L", simulcast), microphone("m", "M")))
		d := b.watch()
		for len(in) >= 3 {
			kind, n := in[0], min(int(binary.BigEndian.Uint16(in[1:])), len(in)-3)
			pkt := append([]byte(nil), in[3:3+n]...)
			in = in[3+n:]
			switch kind % 4 {
			case 1:
				b.p.RTP(nil, pkt, b.now)
			case 2:
				b.p.feedback(pkt, b.now, b.out)
			case 3:
				b.now = b.now.Add(time.Duration(n) * time.Millisecond)
				b.p.recv.drained(b.out)
				b.p.tick(b.now, b.out)
			}
		}
		b.p.recv.drained(b.out)
		b.p.recv.mu.Lock()
		if n := len(b.p.recv.streams); n > 2*3*2 {
			t.Errorf("%d streams of two tracks", n)
		}
		b.p.recv.mu.Unlock()
		if got := d.Stats(); got.Resent > 1000 {
			t.Errorf("%d packets were sent again", got.Resent)
		}
	})
}

// watch lets the client receive a picture, as if it were negotiated.
func (b *publisher) watch() *sfu.DownTrack {
	up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: "T", Kind: sfu.Video, Codec: sfu.Codec{MimeType: "video/VP8", ClockRate: 90000}})
	d, err := b.s.Subscribe(Subscription{Up: up, StreamID: "PA|T", TrackID: "T"})
	if err != nil {
		b.t.Fatal(err)
	}
	d.Bind(sfu.Binding{SSRC: 1000, PayloadType: 96, RTXSSRC: 1001, RTXPayloadType: 97, Writer: nowhere{}})
	for seq := range uint16(50) {
		up.Ingest(0, []sfu.Inbound{{Raw: rtpKeyframe("video/VP8", seq), Arrival: b.now}}, b.out)
	}
	return d
}

type nowhere struct{}

func (nowhere) Write(sfu.Out, []byte, int) error { return nil }

func hostileSeeds(tb testing.TB) [][]byte {
	record := func(kind byte, pkt []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(pkt))), pkt...)
	}
	rtpOf := func(ssrc uint32, pt uint8, seq uint16, x ...any) []byte {
		p := media(ssrc, pt, seq, x...)
		p.Version = 2
		raw, err := p.Marshal()
		if err != nil {
			tb.Fatal(err)
		}
		return record(1, raw)
	}
	rtcpOf := func(pkts ...rtcp.Packet) []byte {
		raw, err := rtcp.Marshal(pkts)
		if err != nil {
			tb.Fatal(err)
		}
		return record(2, raw)
	}
	later := record(3, make([]byte, 100))
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	nacks := make([]rtcp.NackPair, 100)
	for i := range nacks {
		nacks[i] = rtcp.NackPair{PacketID: uint16(i), LostPackets: 0xffff}
	}
	return [][]byte{
		join(rtpOf(1, 96, 1), rtpOf(1, 96, 5), later, rtpOf(2, 97, 1), later),
		join(rtpOf(7, 96, 1, idMID, "l", idRID, "q"), rtpOf(8, 97, 1, idMID, "l", idRepaired, "q"), later),
		join(rtpOf(9, 111, 1, idTransport, "\x00\x01"), rtpOf(9, 111, 60000, idTransport, "\x80\x00"), later),
		join(rtcpOf(&rtcp.TransportLayerNack{MediaSSRC: 1000, Nacks: nacks}), later),
		join(rtcpOf(&rtcp.PictureLossIndication{MediaSSRC: 1000}, &rtcp.FullIntraRequest{FIR: []rtcp.FIREntry{{SSRC: 1000}}})),
		join(rtcpOf(&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1, SSRCs: []uint32{1000}}), later, later, later),
		join(rtpOf(1, 96, 1), rtcpOf(&rtcp.SenderReport{SSRC: 1, NTPTime: 1 << 40}, &rtcp.Goodbye{Sources: []uint32{1}}), later),
		join(rtcpOf(&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{{SSRC: 1000, FractionLost: 255, LastSenderReport: 1, Delay: 1 << 31}}})),
	}
}

// Streams, subscriptions and ends meet in every order; -race looks at them.
func TestEverythingAtOnce(t *testing.T) {
	e := newTestEngine(t)
	for range 5 {
		b := newPublisherOn(t, e, SessionConfig{Single: true}, offerOf(camera("a", "A", group), camera("l", "L", simulcast)))
		e.add(b.s) // ticks of the engine as well
		var all sync.WaitGroup
		up := sfu.NewUpTrack(sfu.UpTrackConfig{ID: "T", Kind: sfu.Video, Codec: sfu.Codec{MimeType: "video/VP8", ClockRate: 90000}})
		all.Go(func() {
			for i := range uint16(200) {
				b.take(1, media(1, 96, 2*i), media(7, 96, i, idMID, "l", idRID, "q"))
			}
		})
		all.Go(func() {
			out := e.Out()
			defer e.Return(out)
			for i := range uint16(200) {
				up.Ingest(0, []sfu.Inbound{{Raw: rtpKeyframe("video/VP8", i), Arrival: time.Now()}}, out)
			}
		})
		all.Go(func() {
			for range 20 {
				if d, err := b.s.Subscribe(Subscription{Up: up, StreamID: "PA|T", TrackID: "T"}); err == nil {
					d.Bind(sfu.Binding{SSRC: 1000, PayloadType: 96, Writer: nowhere{}})
					_ = b.s.Unsubscribe(d) // it may be closed already
				}
			}
		})
		all.Go(func() {
			for range 5 {
				_, _ = b.s.Publish(offerOf(camera("a", "B"), camera("l", "L", simulcast)), 0) // as above
				_, _ = b.s.Publish(offerOf(camera("a", "A"), camera("l", "M", simulcast)), 0)
			}
		})
		all.Go(func() {
			e.Settle()
			_, _ = b.s.Stats(), b.s.Received()
			b.s.Close()
			b.s.Close()
		})
		all.Wait()
		if n := len(b.p.send.all()); n != 0 && up.Stats().Sinks != 0 {
			t.Errorf("%d tracks are sent by a closed session", n)
		}
	}
}

// What waits in a batch at the time of a mute has left when Settle returns.
func TestSettleWaitsForLentBatches(t *testing.T) {
	e := newTestEngine(t)
	out := e.Out()
	settled := make(chan struct{})
	go func() {
		e.Settle()
		close(settled)
	}()
	eventually(t, "Settle to begin", func() bool {
		e.loans.mu.Lock()
		defer e.loans.mu.Unlock()
		return e.loans.turn == 1
	})
	later := e.Out() // of after the mute
	select {
	case <-settled:
		t.Error("it did not wait")
	default:
	}
	e.Return(out)
	wait(t, settled, "Settle, which must not wait for what began after it")
	e.Return(later)
}
