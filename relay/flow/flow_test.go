package flow_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/relay/flow"
	"github.com/domicile/domicile/relay/wire"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func at(ms float64) time.Time { return noon.Add(time.Duration(ms * float64(time.Millisecond))) }

const trip = 40 * time.Millisecond

// A lost datagram is asked for at once, again after a round trip, and given up in the
// end.
func TestALostDatagramIsAskedFor(t *testing.T) {
	a := flow.Arrivals{Patience: 500 * time.Millisecond}
	a.Came(10, true, at(0), at(0))
	if _, gap := a.Came(12, true, at(1), at(1)); !gap {
		t.Error("no gap is seen")
	}
	var f wire.Feedback
	var asked []int
	for ms := 1; ms < 700; ms++ {
		for a.Feedback(&f, at(float64(ms)), trip) {
			if slices.Contains(f.Asked, 11) {
				asked = append(asked, ms)
			}
		}
	}
	if len(asked) < 5 || asked[0] != 1 || asked[1] < 41 || asked[1] > 60 || asked[len(asked)-1] > 501 {
		t.Errorf("asked after %v ms", asked)
	}
	if a.Lost != 1 || a.Missing() != 0 || !a.Next(at(800), trip).IsZero() {
		t.Errorf("%d lost, %d missing", a.Lost, a.Missing())
	}
}

// Where packets overtake each other, the next gap is waited out for as long.
func TestOvertakingTeachesPatience(t *testing.T) {
	a := flow.Arrivals{Patience: time.Second}
	a.Came(1, true, at(0), at(0))
	a.Came(3, true, at(1), at(1))
	a.Came(2, true, at(9), at(9))
	a.Came(5, true, at(20), at(20))
	var f wire.Feedback
	for ms := 20.0; ms < 29; ms++ {
		for a.Feedback(&f, at(ms), trip) {
			if len(f.Asked) > 0 {
				t.Fatalf("asked after %.0f ms", ms-20)
			}
		}
	}
	if fresh, _ := a.Came(4, true, at(29), at(29)); !fresh || a.Lost+a.Repeats > 0 {
		t.Error("what came late is not taken")
	}
}

// A gap is waited out for as long as packets come late, but no longer than a round trip,
// or 40 ms where that is less.
func TestPatienceFollowsTheWay(t *testing.T) {
	for _, c := range []struct {
		late, trip, want float64 // ms
	}{{0, 40, 0}, {20, 40, 25}, {80, 20, 40}, {80, 60, 60}, {80, 200, 100}, {400, 300, 150}} {
		a := flow.Arrivals{Patience: time.Second}
		a.Came(1, true, at(0), at(0))
		if c.late > 0 {
			a.Came(3, true, at(1), at(1))
			a.Came(2, true, at(1+c.late), at(1+c.late))
		}
		a.Came(5, true, at(500), at(500))
		var f wire.Feedback
		asked := -1.0
		for ms := 0.0; ms < 400 && asked < 0; ms++ {
			for a.Feedback(&f, at(500+ms), time.Duration(c.trip)*time.Millisecond) {
				if slices.Contains(f.Asked, 4) {
					asked = ms
				}
			}
		}
		if asked != c.want {
			t.Errorf("packets come %.0f ms late, the round trip takes %.0f: asked after %.0f ms, want %.0f", c.late, c.trip, asked, c.want)
		}
	}
}

// TestFarApartIsReportedApart: what comes after seconds of nothing is not said to have come
// sooner, after something of which the sender did not wait to hear.
func TestFarApartIsReportedApart(t *testing.T) {
	var a flow.Arrivals
	a.Patience = 500 * time.Millisecond
	a.Came(0, false, at(0), at(0))
	a.Came(17, true, at(3119), at(3119))
	told, f := map[uint64]int64{}, wire.Feedback{}
	for a.Feedback(&f, at(3200), 40*time.Millisecond) {
		b, _ := wire.AppendFeedback(nil, &f)
		var heard wire.Feedback
		if err := heard.Parse(b); err != nil {
			t.Fatal(err)
		}
		for i, at := range heard.At {
			if at != wire.Missed {
				told[heard.Base+uint64(i)] = at * wire.FeedbackUnit / 1000
			}
		}
	}
	if len(told) != 2 || told[17]-told[0] != 3119 {
		t.Errorf("reported at %v ms", told)
	}
}

func TestARepairIsTakenOnce(t *testing.T) {
	a := flow.Arrivals{Patience: time.Second}
	a.Came(1, true, at(0), at(0))
	a.Came(4, true, at(1), at(1))
	if !a.Repair(2, false) || a.Repair(2, false) {
		t.Error("a repair is to be taken once")
	}
	if fresh, _ := a.Came(2, true, at(9), at(9)); fresh {
		t.Error("what was repaired is taken once more")
	}
	if a.Repair(3, true) || a.Missing() != 0 {
		t.Error("what is not to be had is still waited for")
	}
	if a.Repair(77, false) {
		t.Error("a repair of what nobody sent is taken")
	}
}

// Over a path that loses, delays and repeats: each datagram is delivered at most once;
// what arrived is reported, and what did not is not; nothing that is there is asked for.
func TestArrivalsAgainstALedger(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		a := flow.Arrivals{Patience: 300 * time.Millisecond}
		loss, jitter := rng.Float64()*0.2, rng.IntN(30)
		type event struct {
			ms int
			n  uint64
		}
		var events []event
		for n := range uint64(1500) {
			if rng.Float64() >= loss {
				events = append(events, event{int(n)/2 + rng.IntN(jitter+1), n})
			}
		}
		slices.SortStableFunc(events, func(a, b event) int { return a.ms - b.ms })
		came, delivered, reported := map[uint64]bool{}, map[uint64]int{}, map[uint64]bool{}
		var f wire.Feedback
		for ms := 0; ms < 1500; ms++ {
			now := at(float64(ms))
			for len(events) > 0 && events[0].ms <= ms {
				n := events[0].n
				events, came[n] = events[1:], true
				if fresh, _ := a.Came(n, true, now, now); fresh {
					delivered[n]++
				}
			}
			for a.Feedback(&f, now, trip) {
				for i, t2 := range f.At {
					n := f.Base + uint64(i)
					if t2 != wire.Missed != came[n] {
						t.Fatalf("seed %d, %d ms: %d is reported as %v", seed, ms, n, t2 != wire.Missed)
					}
					reported[n] = reported[n] || t2 != wire.Missed
				}
				for _, n := range f.Asked {
					if delivered[n] > 0 {
						t.Fatalf("seed %d: %d is asked for, and there", seed, n)
					}
					if rng.IntN(2) == 0 && a.Repair(n, false) {
						delivered[n]++
					}
				}
			}
		}
		for n := range came {
			if delivered[n] != 1 || !reported[n] {
				t.Fatalf("seed %d: %d came, is delivered %d times, reported %v", seed, n, delivered[n], reported[n])
			}
		}
	}
}

func TestHistoryKeepsHalfASecond(t *testing.T) {
	h := flow.NewHistory()
	for n := range uint64(4000) { // 8,000 a second
		h.Add(n, bytes.Repeat([]byte{byte(n)}, int(n%1400)+1), at(float64(n)/8))
	}
	for n := uint64(100); n < 4000; n++ {
		if b, when := h.Get(n, at(500)); len(b) != int(n%1400)+1 || b[0] != byte(n) || !when.Equal(at(float64(n)/8)) {
			t.Fatalf("datagram %d: %d bytes", n, len(b))
		}
	}
	if b, _ := h.Get(3999, at(1000)); b != nil {
		t.Error("a datagram of half a second ago is sent again")
	}
	if b, _ := h.Get(9999, at(500)); b != nil {
		t.Error("a datagram that was not sent is sent again")
	}
}

// The longest datagram is found on any path, and found again when the path narrows.
func TestLengthIsFound(t *testing.T) {
	for _, c := range []struct{ path, want int }{{1472, 1472}, {9000, 1472}, {1460, 1452}, {1400, 1392}, {1260, 1252}, {1210, flow.FirstLength}} {
		var l flow.Length
		number := uint64(0)
		for ms := 0.0; ms < 5000 && !l.Done(); ms += 10 {
			if n := l.Try(at(ms), trip); n > 0 {
				number++
				l.Tried(number, at(ms))
				if n <= c.path {
					l.Heard(number, n, true, at(ms+40))
				}
			}
		}
		if l.Limit() != c.want {
			t.Errorf("path of %d: %d, want %d", c.path, l.Limit(), c.want)
		}
		for range 8 {
			number++
			l.Heard(number, 1250, false, at(6000))
		}
		if l.Limit() != flow.FirstLength {
			t.Errorf("path of %d that narrowed: %d", c.path, l.Limit())
		}
	}
}

// TestUnheard counts what should have been heard of, and not what has just left.
func TestUnheard(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	var u flow.Unheard
	u.Sent(at(0))
	u.Sent(at(200))
	for range 100 {
		u.Sent(at(390))
	}
	for ms, want := range map[int]int{100: 0, 111: 1, 310: 1, 311: 2, 450: 2, 501: 10} { // 1.5 round trips and 50 ms
		if n := u.Overdue(at(ms), 40*time.Millisecond); n != want {
			t.Errorf("after %d ms %d are overdue, want %d", ms, n, want)
		}
	}
	u.Heard()
	if n := u.Overdue(at(1000), 40*time.Millisecond); n != 0 {
		t.Errorf("%d are overdue of what was heard", n)
	}
}

func TestChoice(t *testing.T) {
	p := flow.Path{Offered: true, RTT: trip, LengthOK: true, Loss: 0.01, Need: 50e6}
	var c flow.Choice
	for _, s := range []struct {
		ms   float64
		do   func()
		want flow.Carriage
		why  flow.Reason
	}{
		{0, func() {}, flow.QUIC, flow.Untried},
		{100, func() { p.HeardAt = at(100) }, flow.QUIC, flow.Untried},
		{350, func() { p.HeardAt = at(350) }, flow.QUIC, flow.Untried},
		{450, func() { p.HeardAt = at(450) }, flow.UDP, flow.Needed},
		{600, func() { p.HeardAt, p.Need = at(600), 0.5e6 }, flow.UDP, flow.Cheaper},
		{1200, func() { p.Unheard = 9 }, flow.UDP, flow.Cheaper}, // nothing was sent that could have been heard of
		{1300, func() { p.Unheard = 10 }, flow.QUIC, flow.Silent},
		{2000, func() { p.HeardAt, p.Unheard = at(2000), 0 }, flow.QUIC, flow.Silent},
		{6900, func() { p.HeardAt = at(6900) }, flow.QUIC, flow.Silent},
		{7100, func() { p.HeardAt = at(7100) }, flow.UDP, flow.Cheaper},
		{7200, func() { p.HeardAt, p.LossUDP = at(7200), 0.5 }, flow.UDP, flow.Cheaper},
		{9300, func() { p.HeardAt = at(9300) }, flow.QUIC, flow.Worse},
		{9400, func() { p.Offered = false }, flow.QUIC, flow.Alone},
	} {
		s.do()
		if got, why := c.Now(p, at(s.ms)); got != s.want || why != s.why {
			t.Errorf("after %.0f ms: %s (%s), want %s (%s)", s.ms, got, why, s.want, s.why)
		}
	}
	if c.Moves != 4 {
		t.Errorf("%d moves", c.Moves)
	}
	if r := flow.Reno(trip, 0.01); r < 3.9e6 || r > 4.3e6 {
		t.Errorf("Reno carries %.1f Mbit/s at 1 %% and 40 ms, 4.2 were measured", r/1e6)
	}
}

// The highest layers go first, the largest of them first, and the lowest of one track
// stays; they come back in the other order.
func TestThinner(t *testing.T) {
	s := func(rate float64) *flow.Stream { return &flow.Stream{Rate: rate} }
	low, mid, high := []*flow.Stream{s(2), s(1)}, []*flow.Stream{s(4), s(3)}, []*flow.Stream{s(8), s(9)}
	layers := [][]*flow.Stream{low, mid, high}
	all := slices.Concat(low, mid, high)
	held := func() (b []bool) {
		for _, s := range all {
			b = append(b, s.Held)
		}
		return b
	}
	var th flow.Thinner
	for i, c := range []struct {
		ms, estimate float64
		limited      bool
		want         []bool // 2 1 4 3 8 9
	}{
		{0, 40, true, []bool{false, false, false, false, false, false}},
		{100, 25, true, []bool{false, false, false, false, false, true}},
		{200, 12, true, []bool{false, false, false, false, true, true}},
		{300, 3, true, []bool{true, false, true, true, true, true}},
		{400, 0.5, true, []bool{true, false, true, true, true, true}},
		{500, 40, true, []bool{true, false, true, true, true, true}}, // too soon
		{1400, 40, true, []bool{false, false, true, true, true, true}},
		{2500, 40, true, []bool{false, false, true, false, true, true}},
		{2600, 25, false, []bool{false, false, false, false, false, true}},
	} {
		th.Thin(layers, c.estimate, 0, c.limited, at(c.ms))
		if !slices.Equal(held(), c.want) {
			t.Errorf("step %d, estimate %.1f: held %v, want %v", i, c.estimate, held(), c.want)
		}
	}
}

// What the pacer lets pass in a second is its rate, however often it is asked.
func TestPacerKeepsItsRate(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for _, limited := range []bool{true, false} {
		var p flow.Pacer
		p.SetRate(8e6, limited)
		sent, end := 0, at(2000)
		for now := noon; now.Before(end); now = now.Add(time.Duration(rng.IntN(3000)) * time.Microsecond) {
			for p.Ready(now) {
				p.Sent(1200)
				sent += 1200
			}
		}
		want := map[bool]float64{true: 2.5e6, false: 8e6}[limited]
		if f := float64(sent); f < want*0.98 || f > want*1.03 {
			t.Errorf("%.1f MB in two seconds, want %.1f", f/1e6, want/1e6)
		}
	}
}
