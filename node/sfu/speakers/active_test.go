package speakers

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
)

// meeting is a room whose participants send a packet every 20 ms and are
// measured every Interval.
type meeting struct {
	*Active
	meters map[Owner]*Meter
	now    time.Time
	ts     uint32
	log    strings.Builder
}

func newMeeting(owners ...Owner) *meeting {
	m := &meeting{Active: NewActive(), meters: map[Owner]*Meter{}, now: start, ts: 1<<32 - 24000}
	for _, o := range owners {
		m.meters[o] = m.Add(o, 48000)
	}
	return m
}

// play sends what each says; those that are not named send nothing.
func (m *meeting) play(d time.Duration, says map[Owner]Sample) {
	for end := m.now.Add(d); m.now.Before(end); {
		for o, s := range says {
			s.TS = m.ts
			m.meters[o].Observe(s, m.now)
		}
		m.ts += 960
		m.now = m.now.Add(20 * time.Millisecond)
		if at := m.now.Sub(start); at%Interval == 0 {
			for _, s := range m.Update(m.now) {
				fmt.Fprintf(&m.log, "%d ms: %s %.3f %v\n", at.Milliseconds(), s.Owner, s.Level, s.Active)
			}
		}
	}
}

func (m *meeting) expect(t *testing.T, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimSpace(want), "\t", "")
	if got := strings.TrimSpace(m.log.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestActive is the transcript of two people and a cough.
func TestActive(t *testing.T) {
	m := newMeeting("a", "b", "c")
	quiet, loud, normal := dBov(70), dBov(6), dBov(20)
	m.play(800*time.Millisecond, map[Owner]Sample{"a": normal, "b": quiet, "c": quiet})
	m.play(1200*time.Millisecond, map[Owner]Sample{"a": normal, "b": loud, "c": quiet})
	m.play(100*time.Millisecond, map[Owner]Sample{"a": quiet, "b": loud, "c": dBov(0)}) // c coughs
	m.play(700*time.Millisecond, map[Owner]Sample{"a": quiet, "b": loud, "c": quiet})
	m.play(1600*time.Millisecond, nil) // the connection is lost
	m.expect(t, `
		400 ms: a 0.125 true
		1200 ms: b 0.375 true
		1600 ms: b 0.500 true
		2400 ms: a 0.000 false
		3600 ms: b 0.000 false
	`)
	if got := m.Now(); len(got) != 0 {
		t.Errorf("still speaking: %v", got)
	}
}

// TestActiveTracks counts the louder of two microphones, and forgets those that are gone.
func TestActiveTracks(t *testing.T) {
	m := newMeeting("a")
	second := m.Add("a", 48000)
	for i := range 40 {
		now := start.Add(time.Duration(i) * 20 * time.Millisecond)
		s := dBov(20)
		s.TS = uint32(i) * 960
		m.meters["a"].Observe(s, now)
		s.Level = 0
		second.Observe(s, now)
	}
	now := start.Add(800 * time.Millisecond)
	if got := m.Update(now); len(got) != 1 || got[0] != (Speaker{"a", 1, true}) {
		t.Fatalf("got %v", got)
	}
	if got := m.Update(now); got != nil {
		t.Fatalf("told twice: %v", got)
	}
	m.Remove(second)
	if got := m.Update(now); len(got) != 1 || got[0].Level != 0.125 {
		t.Errorf("got %v", got)
	}
	m.Remove(m.meters["a"])
	if got := m.Update(now); len(got) != 1 || got[0] != (Speaker{Owner: "a"}) {
		t.Errorf("got %v", got)
	}
}

// TestActiveHostile keeps levels between 0 and 1 whatever comes, and does not
// let one packet pass for a speech.
func TestActiveHostile(t *testing.T) {
	rnd := newRand(t)
	m := newMeeting("a")
	now := start
	for range 20_000 {
		s := Sample{TS: rnd.Uint32(), Level: uint8(rnd.IntN(256)), Voice: rnd.IntN(2) == 0, Known: rnd.IntN(9) > 0}
		now = now.Add(time.Duration(rnd.IntN(1000)-100) * time.Millisecond)
		m.meters["a"].Observe(s, now)
		for _, s := range m.Update(now) {
			if s.Level < 0 || s.Level > 1 || s.Active != (s.Level > 0) || math.IsNaN(float64(s.Level)) {
				t.Fatalf("got %+v", s)
			}
		}
	}
	fresh := newMeeting("a")
	fresh.meters["a"].Observe(Sample{TS: 1, Known: true}, start)
	fresh.meters["a"].Observe(Sample{TS: 48000, Known: true, Level: 0}, start.Add(time.Second))
	if got := fresh.Update(start.Add(time.Second)); got != nil {
		t.Errorf("one packet is a speech: %v", got)
	}
	if fresh := (&Meter{line: timeline{rate: 1}}); fresh.level.Load() != 0 {
		t.Error("a new meter is not silent")
	}
}

// TestClockStartsAnew goes on with a sender whose timestamps begin elsewhere.
func TestClockStartsAnew(t *testing.T) {
	m := newMeeting("a")
	m.play(800*time.Millisecond, map[Owner]Sample{"a": dBov(20)})
	m.ts -= 1 << 30
	m.play(800*time.Millisecond, map[Owner]Sample{"a": dBov(20)})
	m.play(800*time.Millisecond, map[Owner]Sample{"a": dBov(90)})
	m.expect(t, `
		400 ms: a 0.125 true
		2000 ms: a 0.000 false
	`)
}
