package impair

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var begin = time.Unix(1_700_000_000, 0)

func newPath(t testing.TB, seed uint64, p Profile) *Path {
	t.Helper()
	path := New(seed)
	if err := path.Set(p, begin); err != nil {
		t.Fatal(err)
	}
	return path
}

// A transcript has a line a packet: when it comes, its bytes → when it leaves.
func TestTranscripts(t *testing.T) {
	for _, c := range []struct {
		name    string
		profile Profile
		want    string
	}{
		{"nothing is done", Profile{}, `
			0ms 1200 → 0s
			5ms 1200 → 5ms`},
		{"delay", Profile{Delay: 40 * time.Millisecond}, `
			0ms 1200 → 40ms
			1ms 100 → 41ms`},
		// 1250 bytes take 10 ms at 1 Mbit/s; 3000 bytes wait at most.
		{"bottleneck", Profile{Bottleneck: Constant(1e6), Queue: 3000, Delay: 100 * time.Millisecond}, `
			0ms 1250 → 110ms
			0ms 1250 → 120ms
			0ms 1250 → queue full
			0ms 500 → 124ms
			10ms 1250 → 134ms
			50ms 1250 → 160ms`},
		{"a packet larger than the queue", Profile{Bottleneck: Constant(1e6), Queue: 1000}, `
			0ms 1250 → 10ms
			5ms 10 → queue full
			10ms 1250 → 20ms`},
		// The first step passes, the second takes 10 ms for 125 bytes.
		{"a bottleneck that comes and goes", Profile{Bottleneck: []Step{{Unlimited, 100 * time.Millisecond}, {1e5, 100 * time.Millisecond}}}, `
			99ms 1250 → 99ms
			100ms 1250 → 200ms
			150ms 125 → 200ms
			210ms 1250 → 210ms
			300ms 125 → 310ms
			395ms 125 → 400ms`},
		{"rates within one packet", Profile{Bottleneck: []Step{{1e6, 5 * time.Millisecond}, {1e5, 0}}}, `
			0ms 1250 → 55ms
			1ms 125 → 65ms`},
		{"an outage", Profile{Bottleneck: []Step{{1e6, 10 * time.Millisecond}, {0, time.Second}}, Queue: 1500}, `
			5ms 1250 → 1.015s
			500ms 1250 → queue full
			1015ms 125 → 1.016s`},
		{"an outage for good", Profile{Bottleneck: []Step{{1e6, 10 * time.Millisecond}, {0, 0}}}, `
			0ms 1250 → 10ms
			11ms 10 → queue full`},
		{"everything is lost", Profile{Loss: 1}, `
			0ms 1200 → lost
			1ms 1200 → lost`},
		{"longer than the way", Profile{MTU: 1280}, `
			0ms 1280 → 0s
			1ms 1281 → too long`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := newPath(t, 1, c.profile)
			for line := range strings.Lines(strings.TrimSpace(c.want)) {
				var comes string
				var size int
				if _, err := fmt.Sscanf(strings.TrimSpace(line), "%s %d", &comes, &size); err != nil {
					t.Fatal(err)
				}
				at, err := time.ParseDuration(comes)
				if err != nil {
					t.Fatal(err)
				}
				_, want, _ := strings.Cut(strings.TrimSpace(line), "→ ")
				if got := describe(path.Enter(begin.Add(at), size)); got != want {
					t.Errorf("%d bytes at %s: %s, want %s", size, comes, got, want)
				}
			}
		})
	}
}

func describe(v Verdict) string {
	if v.Fate != Passed {
		return v.Fate.String()
	}
	return v.Leave.Sub(begin).String()
}

// A new profile begins its schedule anew and what waits under the old one is
// still counted.
func TestProfileChanges(t *testing.T) {
	p := newPath(t, 1, Profile{Bottleneck: Constant(1e5)})
	first := p.Enter(begin, 1250) // 100 ms
	if err := p.Set(Profile{Bottleneck: Constant(1e6)}, begin.Add(10*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	second := p.Enter(begin.Add(10*time.Millisecond), 1250)
	if got := describe(first) + " " + describe(second); got != "100ms 110ms" {
		t.Errorf("left at %s, want 100ms 110ms", got)
	}
	if err := p.Set(Profile{Loss: 2}, begin); err == nil {
		t.Error("a loss of 2 was taken")
	}
	if v := p.Enter(begin.Add(time.Second), 125); describe(v) != "1.001s" {
		t.Errorf("a refused profile changed something: %s", describe(v))
	}
}

func TestSharesOfLossAndReordering(t *testing.T) {
	const n = 200_000
	for _, loss := range []float64{0.01, 0.05, 0.2, 0.5} {
		for _, burst := range []float64{0, 1, 3, 8} {
			p := newPath(t, 7, Profile{Loss: loss, Burst: burst})
			lost, runs, before := 0, 0, false
			for range n {
				now := p.Enter(begin, 100).Fate == Lost
				if now {
					lost++
					if !before {
						runs++
					}
				}
				before = now
			}
			mean := float64(lost) / float64(runs)
			wantMean := burst
			if burst <= 1 {
				wantMean = 1 / (1 - loss) // chance alone makes runs too
			}
			if got := float64(lost) / n; math.Abs(got-loss) > 0.1*loss || math.Abs(mean-wantMean) > 0.1*wantMean {
				t.Errorf("loss %v in bursts of %v: measured %.4f in runs of %.2f, want %.2f", loss, burst, got, mean, wantMean)
			}
			if p.Count(Lost) != uint64(lost) || p.Count(Passed) != n-uint64(lost) {
				t.Errorf("counted %d lost, %d passed of %d", p.Count(Lost), p.Count(Passed), lost)
			}
		}
	}
	p := newPath(t, 7, Profile{Reorder: 0.1, ReorderBy: 10 * time.Millisecond})
	late := 0
	for i := range n {
		now := begin.Add(time.Duration(i) * time.Millisecond)
		if p.Enter(now, 100).Leave.Sub(now) == 10*time.Millisecond {
			late++
		}
	}
	if share := float64(late) / n; math.Abs(share-0.1) > 0.005 {
		t.Errorf("%v of the packets were held back, want 0.1", share)
	}
}

// Jitter is spread evenly where packets are far apart, and never reorders.
func TestJitterKeepsOrder(t *testing.T) {
	const jitter = 20 * time.Millisecond
	p := newPath(t, 3, Profile{Delay: 50 * time.Millisecond, Jitter: jitter})
	var sum time.Duration
	const n = 10_000
	for i := range n {
		now := begin.Add(time.Duration(i) * time.Second)
		d := p.Enter(now, 100).Leave.Sub(now)
		if d < 50*time.Millisecond || d > 70*time.Millisecond {
			t.Fatalf("packet %d took %s", i, d)
		}
		sum += d
	}
	if mean := sum / n; (mean - 60*time.Millisecond).Abs() > time.Millisecond {
		t.Errorf("mean delay %s, want 60ms", mean)
	}
	last := begin
	for i := range n {
		at := p.Enter(begin.Add(n*time.Second+time.Duration(i)*time.Millisecond), 100).Leave
		if at.Before(last) {
			t.Fatalf("packet %d leaves before the one before it", i)
		}
		last = at
	}
}

// The bottleneck against one that is simulated bit by bit: a slow oracle that
// serves a byte a tick.
func TestBottleneckAgainstASlowOne(t *testing.T) {
	const tick = 10 * time.Microsecond
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		profile := Profile{Queue: 500 + rng.IntN(3000)}
		for range 1 + rng.IntN(4) {
			// Bytes per tick are whole where the oracle is to agree exactly.
			profile.Bottleneck = append(profile.Bottleneck,
				Step{Rate: float64(rng.IntN(4)) * 8 * float64(time.Second/tick), For: time.Duration(1+rng.IntN(200)) * tick})
		}
		profile.Bottleneck[0].Rate = 8 * float64(time.Second/tick)
		p, slow := newPath(t, seed, profile), &slowLink{profile: profile}
		now := 0
		for range 200 {
			now += rng.IntN(100)
			size := 1 + rng.IntN(1200)
			v := p.Enter(begin.Add(time.Duration(now)*tick), size)
			at, ok := slow.enter(now, size)
			if ok != (v.Fate == Passed) {
				t.Fatalf("seed %d: %d bytes at tick %d: %s, the slow one took it: %v", seed, size, now, v.Fate, ok)
			}
			if want := begin.Add(time.Duration(at) * tick); ok && (v.Leave.Sub(want)).Abs() > tick {
				t.Fatalf("seed %d: %d bytes at tick %d leave at %s, want %s", seed, size, now, v.Leave.Sub(begin), want.Sub(begin))
			}
		}
	}
}

// slowLink serves ticks one by one.
type slowLink struct {
	profile Profile
	tick    int
	queue   []slowPacket
}

type slowPacket struct{ size, left int }

func (s *slowLink) enter(now, size int) (int, bool) {
	for s.tick < now {
		s.serve()
	}
	waiting := 0
	for _, p := range s.queue {
		waiting += p.size
	}
	if waiting > 0 && waiting+size > s.profile.Queue {
		return 0, false
	}
	s.queue = append(s.queue, slowPacket{size, size})
	ahead := slowLink{s.profile, s.tick, slices.Clone(s.queue)}
	for len(ahead.queue) > 0 {
		ahead.serve()
	}
	return ahead.tick, true
}

// serve passes what one tick can pass.
func (s *slowLink) serve() {
	for can := s.bytesAt(s.tick); can > 0 && len(s.queue) > 0; {
		n := min(can, s.queue[0].left)
		can -= n
		if s.queue[0].left -= n; s.queue[0].left == 0 {
			s.queue = s.queue[1:]
		}
	}
	s.tick++
}

func (s *slowLink) bytesAt(tick int) int {
	const unit = 10 * time.Microsecond
	var cycle time.Duration
	for _, st := range s.profile.Bottleneck {
		cycle += st.For
	}
	in := time.Duration(tick) * unit % cycle
	for _, st := range s.profile.Bottleneck {
		if in < st.For {
			return int(st.Rate / 8 / float64(time.Second/unit))
		}
		in -= st.For
	}
	panic("unreachable")
}

func TestSameSeedSameFate(t *testing.T) {
	profile := Profile{Loss: 0.1, Burst: 3, Jitter: time.Millisecond, Reorder: 0.1, ReorderBy: time.Millisecond, Bottleneck: Constant(1e6)}
	a, b, other := newPath(t, 5, profile), newPath(t, 5, profile), newPath(t, 6, profile)
	same := true
	for i := range 1000 {
		now := begin.Add(time.Duration(i) * time.Millisecond)
		x := a.Enter(now, 300)
		if y := b.Enter(now, 300); x != y {
			t.Fatalf("packet %d: %v and %v", i, x, y)
		}
		same = same && x == other.Enter(now, 300)
	}
	if same {
		t.Error("another seed decided the same")
	}
}

func TestValidateRefuses(t *testing.T) {
	for want, p := range map[string]Profile{
		"delay -1s":                {Delay: -time.Second},
		"loss 1.5":                 {Loss: 1.5},
		"reorder NaN":              {Reorder: math.NaN()},
		"burst 2 with loss 1":      {Loss: 1, Burst: 2},
		"queue of -1 bytes":        {Queue: -1},
		"step 0 of the bottleneck": {Bottleneck: []Step{{1e6, 0}, {1e6, time.Second}}},
		"step 1 of the bottleneck": {Bottleneck: []Step{{1e6, 1}, {-1, time.Second}}},
	} {
		if err := New(1).Set(p, begin); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error with %q", p, err, want)
		}
	}
}

func TestEnterAllocatesNothing(t *testing.T) {
	p := newPath(t, 1, Profile{Delay: time.Millisecond, Jitter: time.Millisecond, Loss: 0.1, Bottleneck: Constant(10e6)})
	now := begin
	enter := func() {
		now = now.Add(time.Millisecond)
		p.Enter(now, 1200)
	}
	for range 100 {
		enter()
	}
	if n := testing.AllocsPerRun(1000, enter); n > 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
