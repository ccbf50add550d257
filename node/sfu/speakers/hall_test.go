package speakers

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// voice is somebody who talks in syllables, words and sentences, with a room behind them.
type voice struct {
	rnd    *rand.Rand
	loud   int // -dBov of a stressed syllable
	noise  int // of the room
	talks  bool
	left   int  // packets until the turn ends or begins
	word   int  // packets left of this word, or of the gap after it
	speaks bool // in a word, not in a gap
}

// packet is the next 20 ms. talkers is how many talk at the moment.
func (v *voice) packet(talkers int) Sample {
	if v.left--; v.left <= 0 {
		v.talks = !v.talks && v.rnd.IntN(60) == 0 && talkers < 3
		v.left = 25
		if v.talks {
			v.left = 50 + v.rnd.IntN(400)
		}
		v.speaks, v.word = v.talks, 10+v.rnd.IntN(25)
	}
	if v.word--; v.talks && v.word <= 0 {
		v.speaks = !v.speaks
		v.word = 2 + v.rnd.IntN(9) // gaps up to 200 ms
		if v.speaks {
			v.word = 10 + v.rnd.IntN(25)
		}
	}
	switch {
	case v.speaks:
		return dBov(v.loud + v.rnd.IntN(16)) // from the stressed to the unstressed
	case v.rnd.IntN(2000) == 0:
		return dBov(30) // something falls down
	}
	s := dBov(min(127, v.noise+v.rnd.IntN(8)))
	s.Voice = v.noise < 100 && v.rnd.IntN(20) == 0 // detectors err
	return s
}

// TestHall measures a hall of a hundred open microphones in which up to three people
// talk at a time. With the usual places hardly a packet of what they say is missing;
// with as many places as talkers, noises and those who have just finished compete.
func TestHall(t *testing.T) {
	for places, limit := range map[int]float64{DefaultPlaces: 0.001, 4: 0.01, 3: 0.04} {
		t.Run(fmt.Sprint(places, " places"), func(t *testing.T) { hall(t, places, limit) })
	}
}

func hall(t *testing.T, places int, limit float64) {
	const microphones, seconds = 100, 300
	rnd := newRand(t)
	l := NewLoudest(Config{Places: places})
	voices := make([]voice, microphones)
	tracks := make([]*Candidate, microphones)
	for i := range voices {
		voices[i] = voice{rnd: rnd, loud: 15 + rnd.IntN(20), noise: 58 + rnd.IntN(40), left: rnd.IntN(25)}
		tracks[i] = l.Add(fmt.Sprintf("%03d", i), 48000)
	}
	now := start
	var said, entries, forwarded, talkers int
	withheld := make([][]uint32, microphones) // packets of words, lately
	missing := 0
	for step := range uint32(seconds * 50) {
		if step%5 == 0 {
			l.Tick(now)
		}
		busy := 0
		for i := range voices {
			v := &voices[i]
			s := v.packet(talkers)
			s.TS = step * 960
			d := tracks[i].Observe(s, now)
			if v.talks {
				busy++
			}
			if d.Enter {
				entries++
				forwarded += int(s.TS-d.From) / 960
				for _, ts := range withheld[i] {
					if int32(ts-d.From) >= 0 {
						missing--
					}
				}
				withheld[i] = withheld[i][:0]
			}
			if d.Forward {
				forwarded++
			}
			if v.speaks {
				said++
				if !d.Forward {
					missing++
					withheld[i] = append(withheld[i], s.TS)
				}
			}
		}
		talkers = busy
		now = now.Add(20 * time.Millisecond)
	}
	t.Logf("%d packets of words, %d missing; %d of %d packets forwarded, %d entries in %d s", said, missing, forwarded, microphones*seconds*50, entries, seconds)
	switch {
	case said < 5000:
		t.Error("nobody talks")
	case float64(missing) > limit*float64(said):
		t.Error("words are missing")
	case forwarded > places*seconds*50+entries*6: // what comes from the cache may come on top
		t.Error("more is forwarded than there are places")
	}
}
