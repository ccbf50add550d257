package quality

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// talk is a window of full speech, 50 packets a second.
func talk(lost uint64) Window {
	return Window{Span: Interval, Received: 250 - lost, Lost: lost, RTT: 40 * ms, Jitter: 5 * ms, Alive: true}
}

func play(s *Stream, windows ...Window) string {
	var log strings.Builder
	for i, w := range windows {
		v := s.Update(w)
		fmt.Fprintf(&log, "%2d s: %s %.0f, MOS %.1f, %s", 5*(i+1), v.Level, v.Points, v.MOS(), v.Reason)
		if v.Figure != "" {
			fmt.Fprintf(&log, " (%s)", v.Figure)
		}
		log.WriteByte('\n')
	}
	return log.String()
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimPrefix(want, "\n"), "\t", "")
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestBadMinute is the transcript of a voice on a line that becomes bad, dies and
// comes back.
func TestBadMinute(t *testing.T) {
	s := NewStream(Opus)
	expect(t, play(s, talk(0), talk(13), talk(13), talk(40), Window{Span: Interval, Alive: true}, Window{Span: Interval},
		Window{State: Off, Span: Interval}, talk(0), talk(0), talk(0), talk(0)), `
	 5 s: excellent 99, MOS 4.5, nothing is wrong
	10 s: good 66, MOS 3.4, packets are lost (5.2 %)
	15 s: good 59, MOS 3.1, packets are lost (5.2 %)
	20 s: poor 30, MOS 1.6, packets are lost (16.0 %)
	25 s: poor 30, MOS 1.6, no packet comes (for 5s)
	30 s: lost 20, MOS 1.3, nothing is heard (for 5s)
	35 s: lost 20, MOS 1.3, nothing is heard (for 5s)
	40 s: good 52, MOS 2.7, nothing is wrong
	45 s: good 71, MOS 3.6, nothing is wrong
	50 s: good 82, MOS 4.1, nothing is wrong
	55 s: excellent 89, MOS 4.3, nothing is wrong
	`)
}

// TestPicture is the transcript of a camera: layers, rate, mute and starvation.
func TestPicture(t *testing.T) {
	good := Window{Span: Interval, Received: 600, RTT: 40 * ms, Bits: 5_000_000, ExpectedBits: 5_000_000, Alive: true}
	small, slow, off, starved, late, half := good, good, good, good, good, good
	small.Missing = 1
	slow.Bits = 200_000
	off.State, off.Received, off.Bits = Off, 0, 0
	starved.State = Starved
	late.RTT, late.Jitter = 600*ms, 50*ms
	half.On, half.Bits, half.Lost = 2*time.Second, 0, 300
	expect(t, play(NewStream(Video), good, small, small, slow, off, late, half, starved, good), `
	 5 s: excellent 100, MOS 4.5, nothing is wrong
	10 s: good 72, MOS 3.7, the picture is smaller than wanted (by 1.0 layers)
	15 s: good 66, MOS 3.4, the picture is smaller than wanted (by 1.0 layers)
	20 s: good 42, MOS 2.2, less comes than is sent (200 of 5000 kbit)
	25 s: excellent 100, MOS 4.5, nothing is wrong
	30 s: good 78, MOS 3.9, packets come late (round trip 600ms, jitter 50ms)
	35 s: good 78, MOS 3.9, packets come late (round trip 600ms, jitter 50ms)
	40 s: poor 30, MOS 1.6, the bandwidth does not carry it
	45 s: good 58, MOS 3.0, nothing is wrong
	`)
}

// TestPauses does not take a lost packet of silence for a bad line.
func TestPauses(t *testing.T) {
	silence := Window{Span: Interval, Received: 11, Lost: 1, RTT: 40 * ms, Alive: true} // 2.4 packets/s
	talking := NewStream(Opus)
	talking.Update(talk(0))
	if v := talking.Update(silence); v.Level != Excellent {
		t.Errorf("in a pause: %+v", v)
	}
	if v := NewStream(Opus).Update(silence); v.Level == Excellent {
		t.Errorf("a stream that never sent more: %+v", v)
	}
	// A voice that has become another, with fewer packets (60 ms each), is judged as a voice again.
	slower := Window{Span: Interval, Received: 76, Lost: 8, RTT: 40 * ms, Alive: true}
	for range 60 {
		talking.Update(slower)
	}
	if v := talking.Verdict(); v.Level != Poor {
		t.Errorf("10 %% of loss: %+v", v)
	}
}

// TestLossLevels places the lines between the levels where Media says.
func TestLossLevels(t *testing.T) {
	for m, limit := range map[Media]float64{Video: 2, Opus: 2.5, OpusFEC: 3.75, OpusRED: 5, OpusBoth: 7.5} {
		for _, c := range []struct {
			percent float64
			want    Level
		}{{limit * 0.95, Excellent}, {limit * 1.05, Good}, {limit * 2.9, Good}, {limit * 3.1, Poor}} {
			s := NewStream(m)
			lost := uint64(c.percent * 1000)
			for range 20 {
				s.Update(Window{Span: Interval, Received: 100_000 - lost, Lost: lost, Alive: true})
			}
			if v := s.Verdict(); v.Level != c.want {
				t.Errorf("media %d, %.2f %%: %+v", m, c.percent, v)
			}
		}
	}
}

// TestWavering changes no level while a score wavers around a line.
func TestWavering(t *testing.T) {
	s := NewStream(Opus)
	changes, before := 0, Excellent
	for i := range 100 {
		v := s.Update(talk(uint64(6 + i%2))) // 2.4 %, 2.8 %
		if v.Level != before {
			changes++
		}
		before = v.Level
	}
	if changes > 1 {
		t.Errorf("%d changes", changes)
	}
}

func randomWindow(r *rand.Rand) Window {
	w := Window{
		State: State(r.IntN(8) / 6), Span: Interval, Received: r.Uint64N(300), Lost: r.Uint64N(100),
		RTT: time.Duration(r.IntN(900)) * ms, Jitter: time.Duration(r.IntN(200)) * ms,
		Bits: r.Uint64N(1e6), ExpectedBits: r.Uint64N(1e6), Missing: float64(r.IntN(30)) / 10, Alive: r.IntN(5) > 0,
	}
	if r.IntN(4) == 0 {
		w.On = time.Duration(r.IntN(5000)) * ms
	}
	return w
}

// TestMonotonous makes one thing worse in random histories: no verdict may become better.
func TestMonotonous(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	worsen := map[string]func(*Window){
		"loss": func(w *Window) {
			n := r.Uint64N(w.Received + 1)
			w.Received, w.Lost = w.Received-n, w.Lost+n
		},
		"delay":   func(w *Window) { w.RTT += time.Duration(r.IntN(500)) * ms },
		"jitter":  func(w *Window) { w.Jitter += time.Duration(r.IntN(100)) * ms },
		"rate":    func(w *Window) { w.Bits -= r.Uint64N(w.Bits + 1) },
		"layers":  func(w *Window) { w.Missing += r.Float64() },
		"silence": func(w *Window) { w.Received, w.Lost, w.Alive = 0, 0, false },
	}
	for range 20_000 {
		s := NewStream(Media(r.IntN(5)))
		for range r.IntN(5) {
			v := s.Update(randomWindow(r))
			if v.Points < 0 || v.Points > 100 || math.IsNaN(v.Points) || v.MOS() < 1 || v.MOS() > 4.5 || v.Reason == "" {
				t.Fatalf("got %+v", v)
			}
		}
		w := randomWindow(r)
		for name, f := range worsen {
			better, worse, bad := *s, *s, w
			f(&bad)
			a, b := better.Update(w), worse.Update(bad)
			if b.Level > a.Level || b.Points > a.Points+1e-9 || b.MOS() > a.MOS() {
				t.Fatalf("%s: %+v gives %+v, but %+v gives %+v", name, w, a, bad, b)
			}
		}
	}
}

// TestHostileFigures judges what a client can report without falling over.
func TestHostileFigures(t *testing.T) {
	for _, w := range []Window{
		{}, {Span: -1, Received: 1}, {Span: 1, Received: math.MaxUint64, Lost: math.MaxUint64},
		{Span: Interval, Received: 1, Lost: math.MaxUint64, RTT: math.MaxInt64, Jitter: math.MinInt64, Missing: -5},
		{Span: Interval, Received: 1, RTT: math.MinInt64, Jitter: math.MaxInt64, Bits: 0, ExpectedBits: math.MaxUint64},
	} {
		v := NewStream(Video).Update(w)
		if math.IsNaN(v.Points) || v.Points < 0 || v.Points > 100 {
			t.Errorf("%+v: %+v", w, v)
		}
	}
}

func TestWorst(t *testing.T) {
	if Worst() != Fine {
		t.Error("nobody is not fine")
	}
	bad := Verdict{Level: Poor, Points: 35, Reason: ByLoss}
	if got := Worst(Fine, bad, Verdict{Level: Poor, Points: 36}); got != bad {
		t.Errorf("got %+v", got)
	}
}

// TestBoard tells of changes only.
func TestBoard(t *testing.T) {
	var b Board[string]
	poor := Verdict{Level: Poor}
	for i, c := range []struct {
		v    Verdict
		want bool
	}{{Fine, true}, {Fine, false}, {poor, true}, {Verdict{Level: Poor, Points: 39}, false}, {Fine, true}} {
		if got := b.Update("PA_a", c.v); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	b.Remove("PA_a")
	if !b.Update("PA_a", Fine) {
		t.Error("a new one is not told")
	}
}
