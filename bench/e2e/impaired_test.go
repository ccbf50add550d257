package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/netlab/impair"
	"github.com/domicile/domicile/internal/steady"
)

// The limits of these tests are on what the network's faults cost. A machine that
// is busy costs something as well, and how much is not the product's doing: so
// frames are counted against those that the publisher sent meanwhile, and sound that
// was made up against what was made up on the good network just before. What is left
// of a picture and of the sound on a machine at rest is measured by make bench-network.

// tooMany is the share of packets that a narrow way may drop once the node has found
// out how narrow it is: none on a machine at rest. One without time to spare sends
// what has gathered all at once, and a queue of 15 kB is soon full. A node that does
// not care loses half and more.
const tooMany = 0.2

// TestNarrowSubscriber takes a viewer's bandwidth away in the middle of a meeting:
// 300 kbit/s are left. The sound stays whole, the picture becomes smaller and goes
// on, and when the bandwidth is back the large picture is too.
func TestNarrowSubscriber(t *testing.T) {
	lab := parallelLab(t, netlab.NewImpaired)
	impaired := func(p impair.Profile) {
		t.Helper()
		if err := lab.ImpairInbound(p); err != nil {
			t.Fatal(err)
		}
	}
	impaired(impair.Profile{Delay: 20 * time.Millisecond})
	viewer, publisher := meetImpaired(t, lab, options{"simulcast": true, "videoCodec": "vp8"})
	before := viewer.grows(3 * time.Second)
	impaired(impair.Profile{Delay: 20 * time.Millisecond, Bottleneck: impair.Constant(300e3), Queue: 15_000})
	watch(viewer, publisher, "sees a smaller picture", 15*time.Second, func(g growth, s sending) bool {
		return g.Frames > 0 && g.Height < s.Height
	})
	// The queue that has built up until then drains.
	viewer.must(`await new Promise(r => setTimeout(r, 2000))`, nil)
	steady.Measure(t, late, func() string {
		was, _ := lab.Counts()
		g, s := together(6*time.Second, viewer, publisher)
		in, _ := lab.Counts()
		t.Logf("in six seconds: %+v of %+v; before: %+v; counted %+v, then %+v", g, s, before, was, in)
		// What a way does not carry is not sent into it.
		if dropped := float64(in.QueueFull - was.QueueFull); dropped > tooMany*(dropped+float64(in.Passed-was.Passed)) {
			return fmt.Sprintf("%.0f packets found the queue full: the node sends more than the way carries", dropped)
		}
		// Where it is narrow every second frame may be left out, and every second of the
		// rest.
		frames, sound := arrived(g, s)
		if frames < 0.25 || g.Height == 0 {
			return fmt.Sprintf("%.0f %% of the frames came: the picture does not move", 100*frames)
		}
		if sound < 0.75 || g.Samples == 0 || g.madeUp() > 0.02+2*before.madeUp() {
			return fmt.Sprintf("%.0f %% of the sound came, %.1f %% was made up, before %.1f %%: want at most 2 %% more", 100*sound, 100*g.madeUp(), 100*before.madeUp())
		}
		return ""
	})
	impaired(impair.Profile{Delay: 20 * time.Millisecond})
	watch(viewer, publisher, "sees the large picture again", 30*time.Second, isLargest(before.Height))
}

// TestLossyNetwork is the short version of the network benchmark: with 5 % loss,
// jitter and reordering the picture goes on and nearly no sound is missing.
func TestLossyNetwork(t *testing.T) {
	lab := parallelLab(t, netlab.NewImpaired)
	viewer, publisher := meetImpaired(t, lab, options{"simulcast": true, "videoCodec": "vp8"})
	before := viewer.grows(3 * time.Second)
	bad := impair.Profile{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.05, Reorder: 0.02, ReorderBy: 15 * time.Millisecond}
	if err := lab.Impair(bad); err != nil {
		t.Fatal(err)
	}
	steady.Measure(t, late, func() string {
		g, s := together(6*time.Second, viewer, publisher)
		in, _ := lab.Counts()
		t.Logf("%+v of %+v; before: %+v; counted %+v", g, s, before, in)
		// A picture that waits for what is lost to be sent again, or for a key frame,
		// skips some; one that gets neither stops.
		if frames, _ := arrived(g, s); frames < 0.5 {
			return fmt.Sprintf("%.0f %% of the frames came, frozen for %.1f s of six", 100*frames, g.Frozen)
		}
		if g.Samples == 0 || g.madeUp() > 0.03+2*before.madeUp() {
			return fmt.Sprintf("%.1f %% of the sound was made up, before %.1f %%: want at most 3 %% more", 100*g.madeUp(), 100*before.madeUp())
		}
		return ""
	})
}
