package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// What is played is counted as what was offered, and what is missing is missed.
func TestLoadIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		load := Load{Cameras: 2, Layers: 2, PerFrame: 2, Size: 200, Voices: 3, Warm: 50 * time.Millisecond, Measured: 300 * time.Millisecond}
		begin := time.Now()
		x, n := NewListener(load, begin), 0
		load.Play(begin, func(track int, layer uint8, _ bool, rtp []byte) {
			if n++; n%10 != 0 {
				x.Take(track, layer, [][]byte{rtp})
			}
		}, func() {})
		h := x.Result(time.Second)
		if h.Frames != 36 || h.Whole == 0 || h.Whole >= h.Frames || h.Voices != 45 || h.VoicesHeard == 0 || h.VoicesHeard >= h.Voices+3 {
			t.Errorf("got %+v", h)
		}
		if all := load.Packets() * 0.3 * 0.9; float64(h.Packets) < all*0.7 || float64(h.Packets) > all*1.3 {
			t.Errorf("%d packets, want about %.0f", h.Packets, all)
		}
	})
}
