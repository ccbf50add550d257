package bwe

import (
	"testing"
	"time"
)

// scenario is a network, and what is expected once the first five seconds have gone.
type scenario struct {
	name  string
	path  path
	src   source
	shape func(*sim)
	lasts time.Duration

	use   float64       // at least this share of the bottleneck, in per cent
	p95   time.Duration // of the queueing delay, at most
	least float64       // kbit/s, the estimate is never below
	start time.Duration // until the estimate has 70 % of the path; 0: not asked
}

const msec = time.Millisecond

// around returns a path of 25 ms each way with a queue of 400 ms, changed.
func around(rate float64, change ...func(*path)) path {
	p := path{rate: constant(rate), delay: 25 * msec, jitter: 2 * msec, queue: 400 * msec}
	for _, f := range change {
		f(&p)
	}
	return p
}

// scenarios makes every source anew: they remember.
func scenarios() []scenario {
	loss := func(share float64) func(*path) { return func(p *path) { p.loss = share } }
	jitter := func(p *path) { p.jitter = 30 * msec }
	tcp := func(n int) func(*path) { return func(p *path) { p.tcp = func(time.Duration) int { return n } } }
	return []scenario{
		{name: "2 Mbit/s, encoder", path: around(2e6), src: elastic(5e6), use: 87, p95: 70 * msec, least: 1500, start: 400 * msec},
		{name: "2 Mbit/s, keyframes of five frames", path: around(2e6), src: elastic(5e6), shape: func(s *sim) { s.keyframes = true },
			use: 84, p95: 170 * msec, least: 1400, start: 600 * msec},
		{name: "300 kbit/s, encoder", path: around(300e3), src: elastic(5e6), use: 80, p95: 140 * msec, least: 180},
		{name: "10 Mbit/s, encoder of 9", path: around(10e6), src: elastic(9e6), use: 86, p95: 10 * msec, least: 8000, start: time.Second},
		{name: "2 Mbit/s, one camera", path: around(2e6), src: cameras(1), use: 80, p95: 40 * msec, least: 1800, start: 400 * msec},
		{name: "2 Mbit/s, four cameras", path: around(2e6), src: cameras(4), use: 75, p95: 60 * msec, least: 1500, start: 400 * msec},
		{name: "300 kbit/s, four cameras", path: around(300e3), src: cameras(4), use: 50, p95: 100 * msec, least: 140},
		{name: "300 kbit/s, cameras that switch late", path: around(300e3), src: late(700*msec, cameras(4)), use: 50, p95: 250 * msec, least: 120},
		{name: "2 Mbit/s, cameras that switch late", path: around(2e6), src: late(700*msec, cameras(4)), use: 75, p95: 60 * msec, least: 1400},
		{name: "2 Mbit/s, slides", path: around(2e6), src: slideshow, use: 8, p95: 350 * msec, least: 600},
		{name: "20 Mbit/s, four cameras", path: around(20e6), src: cameras(4), use: 33, p95: 5 * msec, least: 8000},
		{name: "20 Mbit/s, four cameras, timers 20 ms late", path: around(20e6), src: cameras(4), shape: func(s *sim) { s.timers = 20 * msec },
			use: 33, p95: 5 * msec, least: 7000},
		{name: "2 Mbit/s, encoder, timers 20 ms late", path: around(2e6), src: elastic(5e6), shape: func(s *sim) { s.timers = 20 * msec },
			use: 85, p95: 130 * msec, least: 1400, start: 600 * msec},
		{name: "1 % random loss", path: around(3e6, loss(0.01)), src: elastic(5e6), use: 82, p95: 60 * msec, least: 1700, start: 2 * time.Second},
		{name: "5 % random loss", path: around(3e6, loss(0.05)), src: elastic(5e6), use: 75, p95: 60 * msec, least: 1600, start: 5 * time.Second},
		{name: "20 % random loss", path: around(3e6, loss(0.20)), src: elastic(5e6), use: 58, p95: 60 * msec, least: 900, start: 10 * time.Second},
		{name: "20 % random loss, four cameras", path: around(3e6, loss(0.20)), src: cameras(4), use: 33, p95: 40 * msec, least: 400, start: 10 * time.Second},
		{name: "jitter of 30 ms", path: around(2e6, jitter), src: elastic(5e6), use: 80, p95: 80 * msec, least: 1300, start: time.Second},
		{name: "jitter of 30 ms, four cameras", path: around(10e6, jitter), src: cameras(4), use: 60, p95: 10 * msec, least: 6000, start: 4 * time.Second},
		{name: "5 % late by 15 ms", path: around(2e6, func(p *path) { p.reorder = 0.05 }), src: elastic(5e6), use: 84, p95: 80 * msec, least: 1400, start: time.Second},
		{name: "200 ms away", path: around(2e6, func(p *path) { p.delay = 200 * msec }), src: elastic(5e6), use: 84, p95: 180 * msec, least: 1300, start: time.Second},
		{name: "queue of 40 ms only", path: around(2e6, func(p *path) { p.queue = 40 * msec }), src: elastic(5e6), use: 85, p95: 50 * msec, least: 1300, start: time.Second},
		{name: "one TCP beside, 3 Mbit/s", path: around(3e6, tcp(1)), src: elastic(5e6), lasts: time.Minute, use: 24, p95: 450 * msec, least: 350},
		{name: "three TCPs beside, 4 Mbit/s", path: around(4e6, tcp(3)), src: elastic(5e6), lasts: time.Minute, use: 9, p95: 450 * msec, least: 150},
		{name: "2 of 3 Mbit/s taken by constant traffic", path: around(3e6, func(p *path) { p.cbr = constant(2e6) }), src: elastic(5e6),
			use: 28, p95: 220 * msec, least: 500},
		{name: "every third feedback lost", path: around(2e6), src: elastic(5e6),
			shape: func(s *sim) { s.mute = func(time.Duration) bool { return s.rng.IntN(3) == 0 } }, use: 70, p95: 90 * msec, least: 600, start: 15 * time.Second},
	}
}

// TestScenarios holds every network to its bounds and prints the table of what it saw.
func TestScenarios(t *testing.T) {
	const seeds = 3
	t.Logf("%-43s %4s %6s  %22s  %12s %6s  %9s %8s", "network", "use", "others", "estimate kbit/s", "queue ms", "lost", "padding", "switches")
	for i := range scenarios() {
		for seed := uint64(1); seed <= seeds; seed++ {
			sc := scenarios()[i]
			s := newSim(seed, sc.path, sc.src)
			if sc.shape != nil {
				sc.shape(s)
			}
			sc.lasts = max(sc.lasts, 30*time.Second)
			s.run(sc.lasts)
			f := s.between(5*time.Second, sc.lasts)
			if seed == 1 {
				t.Logf("%-43s %3.0f%% %5.0f%%  %6.0f (%5.0f to %5.0f)  %4d / %4d  %5.1f%%  %6.1f kB %8d", sc.name, 100*f.use, 100*f.other,
					f.estimate/1e3, f.least/1e3, f.most/1e3, f.p50.Milliseconds(), f.p95.Milliseconds(), 100*f.loss, float64(s.padding)/1e3, s.switches)
			}
			if 100*f.use < sc.use || f.p95 > sc.p95 || f.least < 1e3*sc.least {
				t.Errorf("%s, seed %d: %.0f %% used (at least %.0f), queue %v (at most %v), least %.0f kbit/s (at least %.0f)",
					sc.name, seed, 100*f.use, sc.use, f.p95, sc.p95, f.least/1e3, sc.least)
			}
			start := s.reached(0, func(e float64) bool { return e > 0.7*sc.path.rate(0) })
			if sc.start > 0 && start > sc.start {
				t.Errorf("%s, seed %d: 70 %% of the path known after %v, want %v", sc.name, seed, start, sc.start)
			}
		}
	}
}

// TestBottleneckComesAndGoes: 3 Mbit/s, 300 kbit/s for ten seconds, 3 Mbit/s.
func TestBottleneckComesAndGoes(t *testing.T) {
	for name, src := range map[string]func() source{
		"encoder": func() source { return elastic(5e6) }, "four cameras": func() source { return cameras(4) },
		"four late": func() source { return late(700*msec, cameras(4)) },
	} {
		var worst, back time.Duration
		for seed := uint64(1); seed <= 8; seed++ {
			p := around(3e6)
			p.rate = steps(0, 3e6, 10, 300e3, 20, 3e6)
			s := newSim(seed, p, src()).run(30 * time.Second)
			fell := s.reached(10*time.Second, func(e float64) bool { return e < 310e3 })
			rose := s.reached(20*time.Second, func(e float64) bool { return e > 2e6 })
			worst, back = max(worst, fell), max(back, rose)
			low := s.between(12*time.Second, 20*time.Second)
			if fell > 1000*msec || rose > 6*time.Second || low.p95 > 200*msec || low.least < 100e3 {
				t.Errorf("%s, seed %d: fell after %v, rose after %v, meanwhile %+v", name, seed, fell, rose, low)
				s.print(t, 5)
			}
		}
		t.Logf("%-12s: below the bottleneck after %v, at two thirds of the path %v after its end (worst of 8)", name, worst, back)
	}
}
