package record

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/node/sfu"
)

// Whatever the order, repetition and loss, packets come out once, in order, and
// every hole is announced: compared with sorting.
func TestReorderAgainstSorting(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		type sent struct {
			n  int
			at int64 // ms
		}
		var line []sent
		base := rnd.IntN(1 << 16)
		for n := range 300 {
			if n > 0 && rnd.IntN(20) == 0 {
				continue // lost
			}
			for range 1 + rnd.IntN(20)/19 {
				line = append(line, sent{n, int64(n)*10 + rnd.Int64N(200)})
			}
		}
		line[0].at = -1 // the first one fixes the start
		slices.SortStableFunc(line, func(a, b sent) int { return int(a.at - b.at) })
		var r reorder
		var got []int
		take := func(now time.Time, force bool) {
			for {
				p, gap := r.pop(now, force)
				if p == nil {
					return
				}
				n := int(p.ts)
				if follows := len(got) > 0 && got[len(got)-1] == n-1; gap == follows {
					t.Fatalf("seed %d: packet %d behind %v, gap %v", seed, n, got[max(0, len(got)-1):], gap)
				}
				got = append(got, n)
			}
		}
		for _, s := range line {
			now := t0.Add(time.Duration(s.at) * time.Millisecond)
			r.push(&packet{seq: uint16(base + s.n), ts: uint32(s.n)})
			take(now, false)
		}
		take(t0, true)
		want := []int{}
		for _, s := range line {
			want = append(want, s.n)
		}
		slices.Sort(want)
		if want = slices.Compact(want); !slices.Equal(got, want) {
			t.Fatalf("seed %d: got %v\nwant %v", seed, got, want)
		}
	}
}

func TestReorderGivesUp(t *testing.T) {
	var r reorder
	r.push(&packet{seq: 10})
	r.pop(t0, false)
	r.push(&packet{seq: 12})
	if p, _ := r.pop(t0, false); p != nil {
		t.Fatal("the hole was not waited for")
	}
	if p, _ := r.pop(t0.Add(reorderWait-1), false); p != nil {
		t.Fatal("the hole was given up early")
	}
	if p, gap := r.pop(t0.Add(reorderWait), false); p == nil || p.seq != 12 || !gap {
		t.Fatalf("got %v, gap %v", p, gap)
	}
	if got := r.push(&packet{seq: 11}); got != pushLate {
		t.Errorf("late packet: %v", got)
	}
	if got := r.push(&packet{seq: 40000}); got != pushed {
		t.Errorf("another stream: %v", got)
	}
	if p, gap := r.pop(t0, false); p == nil || p.seq != 40000 || !gap {
		t.Errorf("another stream: %v, gap %v", p, gap)
	}
}

func TestMediaClock(t *testing.T) {
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	c := mediaClock{rate: 1000, zero: t0}
	first := uint32(1<<32 - 100)
	steps := []struct {
		what    string
		ts      uint32
		arrival int
		want    int64 // ms
	}{
		{"starts at its arrival", first, 500, 500},
		{"follows the media clock", first + 20, 530, 520},
		{"wraps around", first + 200, 720, 700},
		{"stalled network", first + 220, 3000, 720},
		{"… and its burst", first + 2300, 3010, 2800},
		{"jumps far ahead: another clock", first + 90_000, 3030, 3030},
		{"goes on", first + 90_020, 3050, 3050},
		{"jumps back: another clock", 5, 3070, 3070},
	}
	for _, s := range steps {
		if got, _ := c.place(s.ts, at(s.arrival)); got != s.want*1000 {
			t.Errorf("%s: media time %d µs, want %d ms", s.what, got, s.want)
		}
	}
	if a := c.report(1<<32, 5+10, at(3090)); a == nil || a.media != 3_080_000 || a.wall != 1_000_000 || a.arrival != 3_090_000 {
		t.Errorf("report %+v", a)
	}
	for name, a := range map[string]*anchor{"no time": c.report(0, 5, at(0)), "far off": c.report(1<<32, 1<<30, at(0))} {
		if a != nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestTimelineFollowsDrift(t *testing.T) {
	const ppm = 200e-6
	var arrivals []anchor
	rnd := rand.New(rand.NewPCG(1, 1))
	for s := range int64(3600) {
		arrivals = append(arrivals, anchor{media: s * 1e6, offset: int64(float64(s)*1e6*ppm) + rnd.Int64N(8000)})
	}
	tl := fit(arrivals, nil, nil)
	for _, s := range []int64{0, 1800, 3599} {
		want := s*1e6 + int64(float64(s)*1e6*ppm)
		if got := tl.at(s * 1e6); got-want > 10_000 || want-got > 10_000 {
			t.Errorf("at %d s: off by %d µs", s, got-want)
		}
	}
	if len(tl) != 1 {
		t.Errorf("%d segments, want 1: drift is no halt", len(tl))
	}
}

func TestJamIsNoHalt(t *testing.T) {
	var arrivals []anchor
	for s := range int64(30) {
		a := anchor{media: s * 1e6, offset: 20_000}
		if s >= 10 && s < 15 {
			a.offset = 900_000 // five seconds behind a full queue
		}
		arrivals = append(arrivals, a)
	}
	if tl := fit(arrivals, nil, nil); len(tl) != 1 || tl.at(12e6) != 12_020_000 {
		t.Errorf("timeline %+v", tl)
	}
}

func TestREDKeepsTheNewest(t *testing.T) {
	// One redundant block of two bytes, then the primary.
	payload := []byte{0x80 | 111, 0x03, 0xc0, 0x02, 111, 1, 2, 7, 8, 9}
	f, err := red{}.add(nil, payload)
	if err != nil || !bytes.Equal(f, []byte{7, 8, 9}) {
		t.Errorf("%v, %v", f, err)
	}
	for n := range 7 {
		if f, err := (red{}).add(nil, payload[:n]); err == nil {
			t.Errorf("cut at %d: %v", n, f)
		}
	}
}

func TestFrameSizes(t *testing.T) {
	key := film(t, codecVP8)[0].data
	if w, h, ok := vp8Size(key); w != 320 || h != 240 || !ok {
		t.Errorf("VP8 %dx%d %v", w, h, ok)
	}
	key = film(t, codecVP9)[0].data
	if w, h, ok := vp9Size(key); w != 320 || h != 240 || !ok {
		t.Errorf("VP9 %dx%d %v", w, h, ok)
	}
	if _, w, h, err := av1Config(film(t, codecAV1)[0].data); w != 320 || h != 240 || err != nil {
		t.Errorf("AV1 %dx%d, %v", w, h, err)
	}
	for _, sps := range [][]byte{{0x67}, {0x67, 0x64}, bytes.Repeat([]byte{0xff}, 40), make([]byte, 40)} {
		if w, h, err := spsSize(sps); err == nil && (w <= 0 || h <= 0) {
			t.Errorf("SPS %x: %dx%d", sps, w, h)
		}
	}
}

// packets takes the payloads out of fuzz input: length, flags, payload …
func fuzzPackets(b []byte) (out []*packet) {
	seq, ts, now := uint16(65530), uint32(1<<32-3000), t0
	for len(b) >= 2 {
		n, flags := int(b[0]), b[1]
		b = b[2:]
		n = min(n, len(b))
		seq += uint16(flags & 3)
		if flags&4 != 0 {
			ts += 3000
		}
		if flags&32 != 0 {
			seq, ts = seq-uint16(n)*257, ts-uint32(n)*1e7
		}
		now = now.Add(time.Duration(flags>>6) * 150 * time.Millisecond)
		out = append(out, &packet{seq: seq, ts: ts, marker: flags&8 != 0, payload: b[:n], arrival: now})
		b = b[n:]
	}
	return out
}

// Any packets give clusters that can be decoded, with media time that never runs back.
func FuzzRecorder(f *testing.F) {
	f.Add([]byte{5, 9, 0x10, 0, 0, 0, 0})
	f.Add([]byte{4, 9, 0x67, 1, 2, 3, 6, 13, 0x7c, 0x85, 1, 2, 3, 4})
	f.Add([]byte{8, 13, 24, 0, 3, 0x67, 1, 2, 0, 9, 3, 41, 28, 0x45, 1})
	all := []sfu.Codec{codecVP8, codecVP9, codecH264, codecAV1, codecOpus, {MimeType: mimeRED, ClockRate: 48000}}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range all {
			last := int64(-1 << 62)
			r, err := newRecorder(c, Options{Start: t0}, func(cluster []byte) error {
				for e, err := range entries(cluster) {
					if err != nil {
						t.Fatal(err)
					}
					if e.frame == nil {
						continue
					}
					if e.frame.pts < last {
						t.Fatalf("%s: media time ran from %d back to %d", c.MimeType, last, e.frame.pts)
					}
					last = e.frame.pts
					(&scan{mime: strings.ToLower(c.MimeType)}).size(e.frame.data)
				}
				return nil
			})
			must(t, err)
			for _, p := range fuzzPackets(b) {
				must(t, r.packet(p))
			}
			must(t, r.close(ending{}))
		}
	})
}

func FuzzEntries(f *testing.F) {
	f.Add(appendGap([]byte{clusterVersion}, gap{number: 1, cause: Muted, from: 5, to: OpenGap}))
	f.Add(appendReport(appendArrival(appendFrame([]byte{clusterVersion}, frame{pts: 5, keyframe: true, data: []byte("x")}), anchor{offset: 3}), anchor{wall: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for e, err := range entries(b) {
			if err == nil && e.frame == nil && e.arrival == nil && e.report == nil && e.gap == nil {
				t.Fatal("an entry of nothing")
			}
		}
	})
}

// The parameter sets of a keyframe whose picture never comes are no picture, and are
// those of the keyframe that follows.
func TestParameterSetsAlone(t *testing.T) {
	h := &h264{}
	sets := appendNAL(appendNAL(nil, []byte{0x67, 0x42, 0, 0x1f}), []byte{0x68, 0xce})
	picture := appendNAL(nil, []byte{0x65, 0x88, 0x84})
	if got, key := h.finish(sets); len(got) != 0 || key {
		t.Errorf("%d bytes of parameter sets became %d bytes, keyframe %v", len(sets), len(got), key)
	}
	got, isKey := h.finish(picture)
	if want := append(slices.Clone(sets), picture...); !isKey || !bytes.Equal(got, want) {
		t.Errorf("keyframe %v, %d bytes, want %d", isKey, len(got), len(want))
	}
}
