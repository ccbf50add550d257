package speakers

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// newRand is chance that can be had again.
func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// oracle does what a selection does, from the whole history of every track.
type oracle struct {
	places, hangover int64
	tracks           map[string]*oracleTrack
}

type oracleTrack struct {
	id      string
	packets []oraclePacket
	flagged bool
	levels  bool
	muted   bool
	seated  int64 // since when, 0: not
	order   int   // of the place, for equal ones
	waiting int64
}

type oraclePacket struct {
	ms, loud int64
	sounds   bool
}

func (o *oracle) open() bool {
	n := int64(0)
	for _, t := range o.tracks {
		if !t.muted {
			n++
		}
	}
	return n <= o.places
}

func (t *oracleTrack) lastSound() int64 {
	for _, p := range slices.Backward(t.packets) {
		if p.sounds {
			return p.ms
		}
	}
	return 0
}

// loudness walks through the whole history, millisecond by millisecond where it falls.
func (t *oracleTrack) loudness(now int64) (v int64) {
	var at int64
	fall := func(to int64) {
		for ; at < to && v > 0; at++ {
			v = max(v-2, 0)
		}
		at = to
	}
	for _, p := range t.packets[max(0, len(t.packets)-400):] {
		fall(p.ms)
		v = max(v, min(p.loud, v+2000)) // 20 ms at 1 dB each
	}
	fall(now)
	return v
}

func (o *oracle) sitting() []*oracleTrack {
	var list []*oracleTrack
	for _, t := range o.tracks {
		if t.seated > 0 {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *oracleTrack) int { return a.order - b.order })
	return list
}

func (o *oracle) freeOrder() int {
	taken := map[int]bool{}
	for _, t := range o.sitting() {
		taken[t.order] = true
	}
	for i := range int(o.places) {
		if !taken[i] {
			return i
		}
	}
	return -1
}

// packet returns whether a packet is forwarded.
func (o *oracle) packet(id string, s Sample, now int64) bool {
	t := o.tracks[id]
	if t.muted {
		return false
	}
	if s.Known && !t.levels {
		t.levels, t.waiting = true, 0
	}
	t.flagged = t.flagged || t.levels && s.Voice
	loud, sounds := int64(0), s.Size > 2
	if t.levels {
		loud = int64(127-s.Level) * 100
		sounds = s.Level <= 55 && (s.Voice || !t.flagged)
	}
	t.packets = append(t.packets, oraclePacket{now, loud, sounds})
	if sounds && t.seated == 0 && !o.enter(t, loud, now) && !t.levels && t.waiting == 0 {
		t.waiting = now
	}
	if t.seated > 0 && now-t.lastSound() > o.hangover {
		t.seated = 0
	}
	return !t.muted && (t.seated > 0 || o.open())
}

// enter gives t a place if the rules allow it.
func (o *oracle) enter(t *oracleTrack, loud, now int64) bool {
	type offer struct {
		h       *oracleTrack
		order   int
		surplus int64
	}
	var offers []offer
	sitting := o.sitting()
	without := 0
	for _, h := range sitting {
		if !h.levels {
			without++
		}
	}
	if i := o.freeOrder(); i >= 0 {
		offers = append(offers, offer{nil, i, 1 << 40})
	}
	for _, h := range sitting {
		price := h.loudness(now)
		pauses := now-h.lastSound() > 240
		if pauses {
			price -= 2000
		}
		var surplus int64
		switch {
		case now-h.lastSound() > o.hangover:
			surplus = 1 << 40
		case !t.levels:
			if without == 0 && o.places > 1 {
				surplus = 1<<30 - price
			}
		case !h.levels:
			if without > 1 || o.places == 1 {
				surplus = 1<<30 + now - h.lastSound()
			}
		case pauses:
			surplus = loud - price
		case now-h.seated < 500:
			surplus = t.loudness(now) - price - 1200
		default:
			surplus = t.loudness(now) - price - 600
		}
		offers = append(offers, offer{h, h.order, surplus})
	}
	slices.SortStableFunc(offers, func(a, b offer) int {
		return cmp.Or(cmp.Compare(b.surplus, a.surplus), a.order-b.order)
	})
	if len(offers) == 0 || offers[0].surplus <= 0 {
		return false
	}
	if h := offers[0].h; h != nil {
		h.seated = 0
	}
	t.seated, t.order, t.waiting = now, offers[0].order, 0
	return true
}

func (o *oracle) tick(now int64) {
	for _, t := range o.tracks {
		if t.seated > 0 && now-t.lastSound() > o.hangover {
			t.seated = 0
		}
	}
	var queue, holders []*oracleTrack
	for _, t := range o.tracks {
		if t.waiting > 0 && (t.muted || now-t.lastSound() > 1000) {
			t.waiting = 0
		}
		if t.waiting > 0 {
			queue = append(queue, t)
		}
		if t.seated > 0 && !t.levels {
			holders = append(holders, t)
		}
	}
	if len(queue) == 0 || len(holders) == 0 {
		return
	}
	slices.SortFunc(queue, func(a, b *oracleTrack) int {
		return cmp.Or(cmp.Compare(a.waiting, b.waiting), cmp.Compare(a.id, b.id))
	})
	slices.SortFunc(holders, func(a, b *oracleTrack) int {
		return cmp.Or(cmp.Compare(a.seated, b.seated), a.order-b.order)
	})
	if now-holders[0].seated >= 4000 {
		holders[0].seated = 0
		queue[0].seated, queue[0].order, queue[0].waiting = now, holders[0].order, 0
	}
}

// TestOracle plays random meetings to the selection and to the oracle.
func TestOracle(t *testing.T) {
	rnd := newRand(t)
	for meeting := range 40 {
		places := 1 + rnd.IntN(4)
		s := newStage(Config{Places: places, Hangover: time.Second})
		o := &oracle{places: int64(places), hangover: 1000, tracks: map[string]*oracleTrack{}}
		speaking := map[string]int{}
		born := 0
		for step := range 800 {
			now := s.now.UnixMilli()
			if step%10 == 9 {
				s.Tick(s.now)
				o.tick(now)
			}
			switch id := pick(rnd, s.tracks); {
			case len(s.tracks) < 2 || len(s.tracks) < 9 && rnd.IntN(40) == 0:
				born++
				id = fmt.Sprintf("%03d", born)
				s.tracks[id] = s.Add(id, 48000)
				o.tracks[id] = &oracleTrack{id: id}
				speaking[id] = 127 - rnd.IntN(10)
				if rnd.IntN(4) == 0 {
					speaking[id] = -1 // sends no levels
				}
			case rnd.IntN(300) == 0:
				s.Remove(s.tracks[id])
				delete(s.tracks, id)
				delete(o.tracks, id)
			case rnd.IntN(50) == 0:
				muted := rnd.IntN(2) == 0
				s.SetMuted(s.tracks[id], muted)
				o.tracks[id].muted = muted
				if muted {
					o.tracks[id].seated = 0
				}
			case rnd.IntN(10) == 0 && speaking[id] >= 0:
				speaking[id] = rnd.IntN(128)
			}
			for _, id := range slices.Sorted(maps.Keys(s.tracks)) {
				sample := Sample{TS: s.ts, Size: rnd.IntN(10)}
				if level := speaking[id]; level >= 0 {
					sample.Known, sample.Voice = true, rnd.IntN(10) > 0
					sample.Level = uint8(min(127, max(0, level+rnd.IntN(11)-5)))
				}
				got, want := s.tracks[id].Observe(sample, s.now).Forward, o.packet(id, sample, now)
				if got != want {
					t.Fatalf("meeting %d, step %d, %s: forwarded is %v, want %v (%s)", meeting, step, id, got, want, s.tracks[id].Why())
				}
			}
			check(t, s, places)
			s.now = s.now.Add(20 * time.Millisecond)
			s.ts += 960
		}
	}
}

// check wants no more tracks forwarded than there are places.
func check(t *testing.T, s *stage, places int) {
	t.Helper()
	n, unmuted := 0, 0
	for _, c := range s.tracks {
		if c.Selected() {
			n++
		}
		if !c.muted.Load() {
			unmuted++
		}
	}
	if n > places || unmuted <= places && n != unmuted {
		t.Fatalf("%d of %d tracks are selected for %d places", n, unmuted, places)
	}
}

func pick(rnd *rand.Rand, tracks map[string]*Candidate) string {
	ids := slices.Sorted(maps.Keys(tracks))
	if len(ids) == 0 {
		return ""
	}
	return ids[rnd.IntN(len(ids))]
}
