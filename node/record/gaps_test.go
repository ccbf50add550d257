package record

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// finder is a gapFinder whose gaps are words, and whose clock is told.
type finder struct {
	gapFinder
	said  []string
	state State
	seen  time.Time // when something whole came last
}

func newFinder() *finder {
	f := &finder{}
	f.gapFinder = gapFinder{zero: t0, write: func(g gap, _ time.Time) {
		to := "…"
		if g.to != OpenGap {
			to = fmt.Sprint(g.to / 1000)
		}
		word := fmt.Sprintf("#%d %s %d-%s", g.number, g.cause, g.from/1000, to)
		if g.packets > 0 {
			word += fmt.Sprintf(" (%d)", g.packets)
		}
		f.said = append(f.said, word)
	}}
	return f
}

// do lets something happen and returns what is written then.
func (f *finder) do(ms int64, what string) string {
	now := t0.Add(time.Duration(ms) * time.Millisecond)
	f.said = nil
	word, n, _ := strings.Cut(what, " ")
	var packets uint32
	fmt.Sscan(n, &packets)
	switch word {
	case "packet":
		f.came(now)
		f.seen = now
	case "lost", "late": // the packet comes behind a hole
		c := map[string]Cause{"lost": Loss, "late": DiskLate}[word]
		f.came(now)
		f.missing(c, f.seen, now, packets)
		f.seen = now
	case "muted", "unmuted":
		f.state.Muted = word == "muted"
	case "away", "back":
		f.state.Away = word == "away"
	case "withdrawn":
		f.ends(Consent, now)
		return strings.Join(f.said, ", ")
	}
	f.tick(now, f.state)
	return strings.Join(f.said, ", ")
}

func TestGapsTranscript(t *testing.T) {
	type step struct {
		ms   int64
		what string
		want string
	}
	for name, steps := range map[string][]step{
		"muted: from the last packet to the next": {
			{0, "packet", ""}, {20, "packet", ""}, {90, "muted", ""}, {250, "look", "#1 muted 20-…"}, {9000, "look", ""},
			{9050, "packet", "#1 muted 20-9050"}, {9070, "unmuted", ""}, {9100, "packet", ""},
		},
		"muted from the start": {
			{0, "muted", ""}, {150, "look", ""}, {200, "look", "#1 muted 0-…"}, {5000, "unmuted", ""}, {5020, "packet", "#1 muted 0-5020"},
		},
		"nothing comes after a mute": {
			{0, "packet", ""}, {300, "muted", "#1 muted 0-…"}, {4000, "unmuted", ""}, {5900, "look", ""},
			{6000, "look", "#1 muted 0-4000, #2 paused 4000-…"}, {7000, "packet", "#2 paused 4000-7000"},
		},
		"a pause turns out to be an absence": {
			{0, "packet", ""}, {1990, "look", ""}, {2000, "look", "#1 paused 0-…"}, {4000, "away", "#1 away 0-…"},
			{8000, "back", ""}, {8100, "packet", "#1 away 0-8100"}, {8200, "look", ""},
		},
		"muted while away": {
			{0, "packet", ""}, {2500, "away", "#1 away 0-…"}, {3000, "muted", "#1 away 0-3000, #2 muted 3000-…"}, {3500, "packet", "#2 muted 3000-3500"},
		},
		"a silent microphone sends now and then": {
			{0, "packet", ""}, {400, "packet", ""}, {800, "packet", ""}, {1200, "away", ""}, {1600, "packet", ""},
		},
		"losses that are close are one": {
			{0, "packet", ""}, {60, "lost 2", "#1 loss 0-60 (2)"}, {500, "packet", ""}, {600, "lost 5", "#1 loss 0-600 (7)"},
			{2400, "packet", ""}, {2500, "lost", "#2 loss 2400-2500"},
		},
		"the disk is no loss": {
			{0, "packet", ""}, {60, "lost 2", "#1 loss 0-60 (2)"}, {100, "late 900", "#2 disk 60-100 (900)"}, {1000, "late 50", "#2 disk 60-1000 (950)"},
		},
		"numbers jump over a mute": {
			{0, "packet", ""}, {250, "muted", "#1 muted 0-…"}, {3000, "lost 40", "#1 muted 0-3000"}, {3010, "unmuted", ""}, {3100, "lost 1", "#2 loss 3000-3100 (1)"},
		},
		"consent is withdrawn while muted": {
			{0, "packet", ""}, {250, "muted", "#1 muted 0-…"}, {700, "withdrawn", "#1 muted 0-700, #2 consent 700-…"},
		},
	} {
		f := newFinder()
		for _, s := range steps {
			if got := f.do(s.ms, s.what); got != s.want {
				t.Errorf("%s: at %d ms, %s: got %q, want %q", name, s.ms, s.what, got, s.want)
			}
		}
	}
}

// TestGapsAgainstArrivals compares the silences with a list of all arrivals: whatever the
// states, they do not overlap, each ends with a packet or where the next begins, nothing
// shorter than a muted moment is one, and nothing longer than a pause is left out.
func TestGapsAgainstArrivals(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var written []gap
		f := gapFinder{zero: t0, write: func(g gap, _ time.Time) { written = append(written, g) }}
		var came []int64
		var s State
		next := int64(0)
		const end = 60_000
		for ms := int64(0); ms <= end; ms += 10 {
			now := t0.Add(time.Duration(ms) * time.Millisecond)
			if ms >= next {
				f.came(now)
				came = append(came, ms)
				next = ms + 20
				if rnd.IntN(40) == 0 {
					next = ms + rnd.Int64N(9000)
				}
			}
			if rnd.IntN(100) == 0 {
				s.Muted = rnd.IntN(2) == 0
			}
			if rnd.IntN(100) == 0 {
				s.Away = rnd.IntN(2) == 0
			}
			if ms%50 == 0 {
				f.tick(now, s)
			}
		}
		gaps := gapsOf(written)
		last := int64(-1)
		for _, g := range gaps {
			to := g.ToMS
			if to == OpenGap {
				to = end
			}
			if g.FromMS < last || to < g.FromMS {
				t.Fatalf("seed %d: %+v overlaps, in %+v", seed, g, gaps)
			}
			last = to
			if i, _ := slices.BinarySearch(came, g.FromMS+1); i < len(came) && came[i] < to {
				t.Fatalf("seed %d: something came at %d, within %+v", seed, came[i], g)
			}
		}
		for i, from := range came {
			to := int64(end)
			if i+1 < len(came) {
				to = came[i+1]
			}
			covered := int64(0)
			for _, g := range gaps {
				ends := g.ToMS
				if ends == OpenGap {
					ends = end
				}
				covered += max(0, min(to, ends)-max(from, g.FromMS))
			}
			switch silent := to - from; {
			case silent < mutedAfter.Milliseconds() && covered > 0:
				t.Fatalf("seed %d: %d ms are a gap: %+v", seed, silent, gaps)
			case silent >= pausedAfter.Milliseconds()+100 && covered != silent:
				t.Fatalf("seed %d: of %d ms from %d on %d are marked: %+v", seed, silent, from, covered, gaps)
			}
		}
	}
}
