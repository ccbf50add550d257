package speakers

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var start = time.UnixMilli(1_700_000_000_000)

// stage drives a selection with tracks that send a packet every 20 ms.
type stage struct {
	*Loudest
	now    time.Time
	tracks map[string]*Candidate
	ids    []string
	ts     uint32
	log    strings.Builder
}

func newStage(cfg Config, ids ...string) *stage {
	s := &stage{Loudest: NewLoudest(cfg), now: start, tracks: map[string]*Candidate{}, ids: ids, ts: 1<<32 - 48000}
	for _, id := range ids {
		s.tracks[id] = s.Add(id, 48000)
	}
	return s
}

// dBov is a packet with a level, as from a sender that flags its voice.
func dBov(level int) Sample {
	return Sample{Known: true, Level: uint8(level), Voice: level < 100, Size: 80}
}

// noLevel is a packet of a sender that negotiated no levels.
func noLevel() Sample { return Sample{Size: 80} }

// play sends for the given time what each track has to say; the others send
// silence. It notes who enters and leaves.
func (s *stage) play(d time.Duration, says map[string]Sample) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(20 * time.Millisecond) {
		for _, id := range s.ids {
			sample, ok := says[id]
			if !ok {
				sample = dBov(127)
			}
			s.send(id, sample)
		}
		s.ts += 960
		if s.now.Sub(start)%(100*time.Millisecond) == 0 {
			s.Tick(s.now)
		}
	}
}

func (s *stage) send(id string, sample Sample) Decision {
	c := s.tracks[id]
	was := c.forwarding
	sample.TS = s.ts
	d := c.Observe(sample, s.now)
	at := s.now.Sub(start).Milliseconds()
	switch {
	case d.Enter:
		fmt.Fprintf(&s.log, "%5d ms: %s enters (%s), %d ms from the cache\n", at, id, d.Why, (s.ts-d.From)/48)
	case was && !d.Forward:
		fmt.Fprintf(&s.log, "%5d ms: %s leaves (%s)\n", at, id, d.Why)
	}
	return d
}

func (s *stage) expect(t *testing.T, want string) {
	t.Helper()
	trim := func(text string) string {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(lines[i])
		}
		return strings.Join(lines, "\n")
	}
	if got := trim(s.log.String()); got != trim(want) {
		t.Errorf("got\n%s\nwant\n%s", got, trim(want))
	}
}

// TestConversation is the transcript of a meeting with two places and three
// microphones.
func TestConversation(t *testing.T) {
	s := newStage(Config{Places: 2}, "a", "b", "c")
	s.play(200*time.Millisecond, nil)
	s.play(time.Second, map[string]Sample{"a": dBov(25)})
	s.play(time.Second, map[string]Sample{"a": dBov(25), "b": dBov(28)})                        // b interrupts
	s.play(60*time.Millisecond, map[string]Sample{"a": dBov(25), "b": dBov(28), "c": dBov(12)}) // c coughs
	s.play(time.Second, map[string]Sample{"a": dBov(25), "b": dBov(28)})
	s.play(500*time.Millisecond, map[string]Sample{"b": dBov(28)})       // a takes a breath
	s.play(time.Second, map[string]Sample{"b": dBov(28), "c": dBov(27)}) // c answers
	s.play(time.Second, map[string]Sample{"c": dBov(27), "a": dBov(24)}) // b has said it, a goes on
	s.play(2*time.Second, map[string]Sample{"c": dBov(27)})
	s.play(2*time.Second, nil)
	s.expect(t, `
		200 ms: a enters (free place), 40 ms from the cache
		1200 ms: b enters (free place), 40 ms from the cache
		3760 ms: c enters (in a pause), 40 ms from the cache
		3780 ms: a leaves (displaced)
		4860 ms: a enters (louder), 120 ms from the cache
		4860 ms: b leaves (displaced)
		7260 ms: a leaves (ended)
		9260 ms: c leaves (ended)
	`)
}

// TestFullHouse takes places from those who speak only for somebody who is clearly louder.
func TestFullHouse(t *testing.T) {
	s := newStage(Config{Places: 2}, "a", "b", "c", "d")
	both := map[string]Sample{"a": dBov(20), "b": dBov(30)}
	s.play(2*time.Second, both)
	both["c"] = dBov(25) // louder than b, but not by the margin
	s.play(time.Second, both)
	both["c"] = dBov(127)
	s.play(time.Second, both)
	both["c"] = dBov(15)
	s.play(time.Second, both)
	s.expect(t, `
		    0 ms: a enters (free place), 40 ms from the cache
		    0 ms: b enters (free place), 40 ms from the cache
		 4020 ms: c enters (louder), 60 ms from the cache
		 4040 ms: b leaves (displaced)
	`)
}

// TestFirstSyllable lets a newcomer into a full house of quieter voices without
// the loss of one packet, however its sound is cut into packets.
func TestFirstSyllable(t *testing.T) {
	for _, frame := range []time.Duration{10, 20, 40, 60, 120} {
		frame *= time.Millisecond
		for level := range 60 {
			s := newStage(Config{Places: 2}, "a", "b")
			c := s.Add("c", 48000)
			s.play(time.Second, map[string]Sample{"a": dBov(level + 13), "b": dBov(level + 13)})
			ts := uint32(1000)
			c.Observe(Sample{TS: ts, Known: true, Level: 127}, s.now.Add(-time.Second))
			onset := ts + 48000
			var d Decision
			for i := uint32(0); i < 20 && !d.Enter; i++ {
				s.play(frame, map[string]Sample{"a": dBov(level + 13), "b": dBov(level + 13)})
				sample := dBov(level)
				sample.TS = onset + i*uint32(frame/time.Millisecond)*48
				d = c.Observe(sample, s.now)
			}
			if audible := level <= 55; audible != d.Enter {
				t.Fatalf("%s at -%d dBov: entered is %v", frame, level, d.Enter)
			}
			if d.Enter && int32(onset-d.From) < 0 {
				t.Errorf("%s at -%d dBov: %d ms are cut", frame, level, (d.From-onset)/48)
			}
		}
	}
}

// TestOpen forwards everybody while there are places for all, and nobody who is muted.
func TestOpen(t *testing.T) {
	s := newStage(Config{Places: 2}, "a", "b")
	s.play(100*time.Millisecond, nil)
	c := s.Add("c", 48000)
	s.tracks["c"], s.ids = c, append(s.ids, "c")
	s.play(100*time.Millisecond, nil)
	s.SetMuted(s.tracks["a"], true)
	s.SetMuted(s.tracks["a"], true)
	s.play(100*time.Millisecond, map[string]Sample{"a": dBov(3)})
	s.SetMuted(s.tracks["a"], false)
	s.play(100*time.Millisecond, map[string]Sample{"a": dBov(3)})
	s.Remove(c)
	s.Remove(c)
	s.play(100*time.Millisecond, map[string]Sample{"c": dBov(3)})
	s.expect(t, `
		  0 ms: a enters (open), 0 ms from the cache
		  0 ms: b enters (open), 0 ms from the cache
		100 ms: a leaves (quiet)
		100 ms: b leaves (quiet)
		200 ms: b enters (open), 0 ms from the cache
		200 ms: c enters (open), 0 ms from the cache
		300 ms: a enters (free place), 19 ms from the cache
		300 ms: b leaves (quiet)
		300 ms: c leaves (quiet)
		400 ms: b enters (open), 0 ms from the cache
	`)
}

// TestMutedLeavesAtOnce frees a speaker's place with the mute.
func TestMutedLeavesAtOnce(t *testing.T) {
	s := newStage(Config{Places: 1}, "a", "b")
	s.play(time.Second, map[string]Sample{"a": dBov(20)})
	a := s.tracks["a"]
	if !a.Selected() || a.Why() != FreePlace {
		t.Fatalf("a: %v, %s", a.Selected(), a.Why())
	}
	s.SetMuted(a, true)
	if a.Selected() || a.Why() != Muted || len(s.Places(s.now)) != 0 {
		t.Errorf("muted: %v, %s, %v", a.Selected(), a.Why(), s.Places(s.now))
	}
	if d := s.send("a", dBov(1)); d.Forward {
		t.Error("a muted track is forwarded")
	}
}

// TestWithoutVoiceFlag believes the levels of senders that never set the flag, and
// the flag of those that do.
func TestWithoutVoiceFlag(t *testing.T) {
	for _, c := range []struct {
		name  string
		first Sample
		want  bool
	}{{"never set", Sample{Known: true, Level: 127}, true}, {"set before", Sample{Known: true, Level: 127, Voice: true}, false}} {
		s := newStage(Config{Places: 1}, "a", "b")
		s.send("a", c.first)
		s.ts += 960
		if d := s.send("a", Sample{Known: true, Level: 20, Size: 80}); d.Forward != c.want {
			t.Errorf("flag %s: forwarded is %v", c.name, d.Forward)
		}
	}
}

// TestNoLevels follows tracks without levels: lowest in rank, and heard all the same.
func TestNoLevels(t *testing.T) {
	t.Run("one place is theirs", func(t *testing.T) {
		s := newStage(Config{Places: 2}, "x", "y", "a", "b")
		s.play(200*time.Millisecond, map[string]Sample{"x": noLevel(), "y": noLevel()})
		s.play(time.Second, map[string]Sample{"x": noLevel(), "y": noLevel(), "a": dBov(30)})
		s.play(time.Second, map[string]Sample{"x": noLevel(), "y": noLevel(), "a": dBov(30), "b": dBov(20)})
		s.expect(t, `
			   0 ms: x enters (free place), 40 ms from the cache
			   0 ms: y enters (free place), 40 ms from the cache
			 200 ms: a enters (louder), 40 ms from the cache
			 220 ms: x leaves (displaced)
			1300 ms: b enters (louder), 120 ms from the cache
			1320 ms: a leaves (displaced)
		`)
	})
	t.Run("and none of one", func(t *testing.T) {
		s := newStage(Config{Places: 1}, "x", "a")
		s.play(time.Second, map[string]Sample{"x": noLevel(), "a": dBov(30)})
		s.play(2*time.Second, map[string]Sample{"x": noLevel()})
		s.expect(t, `
			   0 ms: x enters (free place), 40 ms from the cache
			   0 ms: a enters (louder), 40 ms from the cache
			  20 ms: x leaves (displaced)
			2500 ms: x enters (free place), 120 ms from the cache
			2500 ms: a leaves (displaced)
		`)
	})
	t.Run("each has its turn", func(t *testing.T) {
		s := newStage(Config{Places: 3}, "a", "b", "c", "d", "v", "w", "x", "y", "z")
		says := map[string]Sample{"a": dBov(10), "b": dBov(20), "c": dBov(27), "d": dBov(40)}
		without := []string{"v", "w", "x", "y", "z"}
		for _, id := range without {
			says[id] = noLevel()
		}
		heard := map[string]time.Time{}
		for range 40 * 50 {
			s.play(20*time.Millisecond, says)
			n := 0
			for _, id := range without {
				if s.tracks[id].Selected() {
					heard[id] = s.now
					n++
				}
				if wait := s.now.Sub(later(heard[id], start)); wait > 4*turn*time.Millisecond+500*time.Millisecond {
					t.Fatalf("%s waits for %s", id, wait)
				}
			}
			if n != 1 && s.now.Sub(start) > time.Second {
				t.Fatalf("%d without levels after %s", n, s.now.Sub(start))
			}
		}
	})
	t.Run("pauses are silence", func(t *testing.T) {
		s := newStage(Config{Places: 1}, "x", "a")
		s.play(time.Second, map[string]Sample{"x": {Size: 2}})
		s.expect(t, "")
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestLatePacket treats a packet that comes late as its time was treated.
func TestLatePacket(t *testing.T) {
	s := newStage(Config{Places: 1}, "a", "b")
	s.play(100*time.Millisecond, nil)
	s.play(100*time.Millisecond, map[string]Sample{"a": dBov(20)})
	a, late := s.tracks["a"], dBov(20)
	for back, want := range map[uint32]bool{2: true, 5: true, 9: false} {
		late.TS = s.ts - back*960
		if d := a.Observe(late, s.now); d.Forward != want || d.Enter {
			t.Errorf("%d packets late: %+v", back, d)
		}
	}
}

// TestNeverTwice checks that what the cache adds is neither sent twice nor before
// what was sent.
func TestNeverTwice(t *testing.T) {
	s := newStage(Config{Places: 1, Hangover: 40 * time.Millisecond}, "a", "b")
	var sent []uint32
	for i := range 200 {
		level := 127
		if i%7 < 2 {
			level = 20
		}
		if d := s.send("a", dBov(level)); d.Forward {
			for ts := d.From; ts != s.ts; ts++ {
				if (s.ts-ts)%960 == 0 {
					sent = append(sent, ts)
				}
			}
			sent = append(sent, s.ts)
		}
		s.ts += 960
		s.now = s.now.Add(20 * time.Millisecond)
	}
	if len(sent) < 100 || len(slices.Compact(slices.Clone(sent))) != len(sent) || !slices.IsSortedFunc(sent, func(a, b uint32) int { return int(int32(a - b)) }) {
		t.Errorf("sent %v", sent)
	}
}

// TestMesh runs three nodes with links of 60 ms between them: no node sends more
// than its places, and all come to the same choice.
func TestMesh(t *testing.T) {
	const nodes, each, places, delay = 3, 6, 3, 3
	rnd := newRand(t)
	type packet struct {
		id string
		s  Sample
	}
	var own, all [nodes]*stage
	var ids []string
	for n := range nodes {
		for i := range each {
			ids = append(ids, fmt.Sprintf("%d%d", n, i))
		}
	}
	for n := range nodes {
		own[n], all[n] = newStage(Config{Places: places}, ids[n*each:(n+1)*each]...), newStage(Config{Places: places}, ids...)
	}
	var wire [delay][]packet
	levels := map[string]int{}
	now := start
	for step := range 50 * 60 {
		if step%150 == 0 { // every 3 s others speak, each clearly louder than the next
			clear(levels)
			for i, j := range rnd.Perm(len(ids))[:5] {
				levels[ids[j]] = 13 * i
			}
		}
		arriving := wire[step%delay]
		wire[step%delay] = nil
		for _, p := range arriving {
			for n := range nodes {
				if int(p.id[0]-'0') != n {
					all[n].tracks[p.id].Observe(p.s, now)
				}
			}
		}
		left := [nodes]int{}
		for i, id := range ids {
			n := i / each
			s := dBov(127)
			if level, speaks := levels[id]; speaks {
				s = dBov(level)
			}
			s.TS = uint32(step) * 960
			all[n].tracks[id].Observe(s, now)
			if d := own[n].tracks[id].Observe(s, now); d.Forward {
				if !d.Enter { // else somebody who has left sent a packet in this same step
					left[n]++
				}
				wire[step%delay] = append(wire[step%delay], packet{id, s})
			}
		}
		for n := range nodes {
			own[n].Tick(now)
			all[n].Tick(now)
			if left[n] > places {
				t.Fatalf("node %d sends %d tracks", n, left[n])
			}
			for _, id := range ids {
				level, speaks := levels[id]
				want := speaks && level < 13*places
				if got := all[n].tracks[id].Selected(); step%150 > 125 && got != want {
					t.Fatalf("step %d, node %d: %s at -%d dBov: selected is %v", step, n, id, level, got)
				}
			}
		}
		now = now.Add(20 * time.Millisecond)
	}
}

// TestConcurrent has every track observed by a goroutine of its own.
func TestConcurrent(t *testing.T) {
	l := NewLoudest(Config{Places: 3})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := l.Add(fmt.Sprint(i), 48000)
			for n := range 2000 {
				s := dBov((n*7 + i*13) % 128)
				s.Known = i != 7
				s.TS = uint32(n) * 960
				now := start.Add(time.Duration(n) * 20 * time.Millisecond)
				c.Observe(s, now)
				switch {
				case n%50 == 0:
					l.Tick(now)
				case n%333 == 0:
					l.SetMuted(c, n%2 == 0)
				}
			}
			if i%2 == 0 {
				l.Remove(c)
			}
		})
	}
	wg.Wait()
	selected := 0
	for c := range l.candidates {
		if c.seated.Load() != (c.place() >= 0) {
			t.Errorf("%s: seated is %v, place %d", c.id, c.seated.Load(), c.place())
		}
		if c.seated.Load() {
			selected++
		}
	}
	if got := len(l.Places(start)); got != selected || len(l.candidates) != 4 {
		t.Errorf("%d places, %d seated, %d candidates", got, selected, len(l.candidates))
	}
}

// TestAllocations keeps the way of a packet free of garbage.
func TestAllocations(t *testing.T) {
	s := newStage(Config{Places: 2}, "a", "b", "c", "x")
	m := NewActive().Add("PA_a", 48000)
	says := map[string]Sample{"a": dBov(20), "b": dBov(20), "c": dBov(25), "x": noLevel()}
	s.play(time.Second, says)
	for id, sample := range says {
		if n := testing.AllocsPerRun(1000, func() {
			s.ts += 960
			s.now = s.now.Add(time.Millisecond)
			sample.TS = s.ts
			s.tracks[id].Observe(sample, s.now)
			m.Observe(sample, s.now)
		}); n != 0 {
			t.Errorf("%s: %v allocations", id, n)
		}
	}
}

// BenchmarkObserve is a packet of a track that finds no place among eight.
func BenchmarkObserve(b *testing.B) {
	s := newStage(Config{}, "1", "2", "3", "4", "5", "6", "7", "8", "9")
	says := map[string]Sample{}
	for _, id := range s.ids {
		says[id] = dBov(20)
	}
	s.play(time.Second, says)
	for _, id := range []string{"1", "9"} {
		b.Run(map[string]string{"1": "selected", "9": "refused"}[id], func(b *testing.B) {
			sample := dBov(22)
			b.ReportAllocs()
			for b.Loop() {
				s.ts += 960
				sample.TS = s.ts
				s.tracks[id].Observe(sample, s.now)
			}
		})
	}
}
