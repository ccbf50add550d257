package relay_test

import (
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
)

// load is tracks that are played for a while.
type load struct {
	cameras, layers, voices int
	perFrame                int // packets of 1150 bytes in a frame of the highest layer; of each below half
	warm, measured          time.Duration
}

// played is what became of a load.
type played struct {
	frames, whole, late int
	voices, heard       int
	delays, voiceDelays []time.Duration // sorted, of what was whole
	tx, rx              relay.Stats
}

func (p *played) percentile(d []time.Duration, share float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return d[min(int(share*float64(len(d))), len(d)-1)]
}

// plays plays a load over a link: 30 frames a second of each camera, 50 packets of
// each voice. What is offered in the time that is measured counts.
func plays(t *testing.T, ab, ba *relay.Link, ld load) *played {
	t.Helper()
	type source struct {
		track *relay.Track
		sink  *relaytest.Sink
	}
	make1 := func(video bool) source {
		s := source{openTrack(t, ab, video), relaytest.NewSink()}
		bind(t, ba, s.track.Alias(), s.sink)
		return s
	}
	var cameras, voices []source
	for range ld.cameras {
		cameras = append(cameras, make1(true))
	}
	for range ld.voices {
		voices = append(voices, make1(false))
	}
	begun := time.Now()
	offered := map[uint32]time.Time{} // of cameras' frames
	spoken := map[uint32]time.Time{}
	var seqs [8]uint16
	const step = 5 * time.Millisecond
	for i := range int((ld.warm + ld.measured) / step) {
		at := begun.Add(time.Duration(i) * step)
		time.Sleep(time.Until(at))
		for c, s := range cameras { // cameras are not in step with each other
			if (i+c)%7 != 0 { // 28.6 a second
				continue
			}
			ts := uint32(i)*8 + uint32(c%8)
			for layer := range ld.layers {
				n := max(ld.perFrame>>(ld.layers-1-layer), 1)
				for p := range n {
					s.track.Offer(uint8(layer), p == n-1, relaytest.RTP(seqs[layer], ts, p == n-1, 1150))
					seqs[layer]++
				}
			}
			offered[ts] = time.Now()
		}
		for v, s := range voices {
			if (i+v)%4 == 0 {
				s.track.Offer(0, true, relaytest.RTP(uint16(i/4), uint32(i), true, 120))
				spoken[uint32(i)] = time.Now()
			}
		}
	}
	time.Sleep(time.Second)
	out := &played{tx: ab.Stats(), rx: ba.Stats()}
	counts := begun.Add(ld.warm)
	for c, s := range cameras {
		got := map[[2]uint32][]time.Time{}
		for len(s.sink.Packets) > 0 {
			p := <-s.sink.Packets
			k := [2]uint32{uint32(p.Layer), p.TS}
			got[k] = append(got[k], p.At)
		}
		for ts, at := range offered {
			if ts%8 != uint32(c%8) || at.Before(counts) || (int(ts/8)+c)%7 != 0 {
				continue
			}
			for layer := range ld.layers {
				out.frames++
				if a := got[[2]uint32{uint32(layer), ts}]; len(a) >= max(ld.perFrame>>(ld.layers-1-layer), 1) {
					out.whole++
					out.delays = append(out.delays, slices.MaxFunc(a, time.Time.Compare).Sub(at))
				}
			}
		}
	}
	for v, s := range voices {
		for ts, at := range spoken {
			if !at.Before(counts) && (int(ts)+v)%4 == 0 {
				out.voices++
			}
		}
		for len(s.sink.Packets) > 0 {
			if p := <-s.sink.Packets; !spoken[p.TS].Before(counts) {
				out.heard++
				out.voiceDelays = append(out.voiceDelays, p.At.Sub(spoken[p.TS]))
			}
		}
	}
	slices.Sort(out.delays)
	slices.Sort(out.voiceDelays)
	t.Logf("%d of %d frames whole, p50 %s p99 %s; %d of %d voices, p50 %s p99 %s; %+v", out.whole, out.frames, out.percentile(out.delays, 0.5), out.percentile(out.delays, 0.99),
		out.heard, out.voices, out.percentile(out.voiceDelays, 0.5), out.percentile(out.voiceDelays, 0.99), *out.tx.UDP)
	t.Logf("tx drops %v, rx drops %v %+v", out.tx.Drops, out.rx.Drops, *out.rx.UDP)
	return out
}

// On a path that loses one packet in a hundred all arrives, and soon.
func TestLossIsRepaired(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 20 * time.Millisecond, Loss: 0.01}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := onUDP(t, mesh)
		p := plays(t, ab, ba, load{cameras: 5, layers: 1, perFrame: 8, voices: 20, warm: 2 * time.Second, measured: 3 * time.Second})
		if p.whole != p.frames || p.heard != p.voices {
			t.Errorf("%d of %d frames, %d of %d packets of sound", p.whole, p.frames, p.heard, p.voices)
		}
		if d := p.percentile(p.delays, 0.99); d > 80*time.Millisecond {
			t.Errorf("99 %% of the frames took up to %s, want 20 ms and one and a half round trips of 40", d)
		}
	})
}

// At a bottleneck the highest layers are left out, sound is whole, and what passes
// has not waited long.
func TestBottleneckThinsPictures(t *testing.T) {
	path := relaytest.Path{Delay: 20 * time.Millisecond, Rate: 4_000_000, Queue: 300 * time.Millisecond}
	simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := onUDP(t, mesh)
		p := plays(t, ab, ba, load{cameras: 4, layers: 3, perFrame: 8, voices: 10, warm: 5 * time.Second, measured: 10 * time.Second})
		if p.heard < p.voices {
			t.Errorf("%d of %d packets of sound", p.heard, p.voices)
		}
		if d := p.percentile(p.voiceDelays, 0.99); d > 120*time.Millisecond {
			t.Errorf("99 %% of the sound took up to %s, want 20 ms and a queue of 100", d)
		}
		if p.tx.Drops["thinned"] == 0 {
			t.Errorf("drops %v, want layers left out", p.tx.Drops)
		}
	})
}
