package e2e

import (
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/netlab/impair"
)

// TestNarrowSubscriber takes a viewer's bandwidth away in the middle of a meeting:
// 300 kbit/s are left. The sound stays whole, the picture becomes smaller and goes
// on, and when the bandwidth is back the large picture is too.
func TestNarrowSubscriber(t *testing.T) {
	lab := netlab.NewImpaired(t)
	impaired := func(p impair.Profile) {
		t.Helper()
		if err := lab.ImpairInbound(p); err != nil {
			t.Fatal(err)
		}
	}
	impaired(impair.Profile{Delay: 20 * time.Millisecond})
	viewer, _ := meetImpaired(t, lab, options{"simulcast": true, "videoCodec": "vp8"})
	impaired(impair.Profile{Delay: 20 * time.Millisecond, Bottleneck: impair.Constant(300e3), Queue: 15_000})
	began := time.Now()
	viewer.until("sees a smaller picture", 15*time.Second, `const g = await grows(500); return g.frames > 2 && g.height < 540`)
	t.Logf("the smaller picture came after %s", time.Since(began).Round(100*time.Millisecond))
	// The queue that has built up until then drains.
	viewer.must(`await new Promise(r => setTimeout(r, 2000))`, nil)
	g := viewer.grows(10 * time.Second)
	if g.Frames < 50 || g.Height == 0 {
		t.Errorf("%d frames in ten seconds: the picture does not move", g.Frames)
	}
	if g.Samples < 9*48000 || g.Concealed > 0.02*g.Samples {
		t.Errorf("%.0f of %.0f samples of sound were made up, want at most 2 %%", g.Concealed, g.Samples)
	}
	in, _ := lab.Counts()
	t.Logf("in ten seconds: %+v; counted %+v", g, in)
	impaired(impair.Profile{Delay: 20 * time.Millisecond})
	began = time.Now()
	viewer.until("sees the large picture again", 30*time.Second, `const g = await grows(500); return g.frames > 2 && g.height === 540`)
	t.Logf("the large picture was back after %s", time.Since(began).Round(100*time.Millisecond))
}

// TestLossyNetwork is the short version of the network benchmark: with 5 % loss,
// jitter and reordering the picture goes on and nearly no sound is missing.
func TestLossyNetwork(t *testing.T) {
	lab := netlab.NewImpaired(t)
	viewer, _ := meetImpaired(t, lab, options{"simulcast": true, "videoCodec": "vp8"})
	bad := impair.Profile{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.05, Reorder: 0.02, ReorderBy: 15 * time.Millisecond}
	if err := lab.Impair(bad); err != nil {
		t.Fatal(err)
	}
	g := viewer.grows(10 * time.Second)
	if g.Frames < 100 || g.Frozen > 1.5 {
		t.Errorf("%d frames, frozen for %.1f s of ten", g.Frames, g.Frozen)
	}
	if g.Concealed > 0.03*g.Samples {
		t.Errorf("%.0f of %.0f samples of sound were made up, want at most 3 %%", g.Concealed, g.Samples)
	}
	in, _ := lab.Counts()
	t.Logf("%+v; counted %+v", g, in)
}
