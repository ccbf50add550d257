package relay

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var (
	vigilSeeds = flag.Uint64("vigil.seeds", 120, "how many silences TestSilenceIsFoundSoon simulates")
	vigilTime  = flag.Duration("vigil.time", 4*time.Minute, "how long each of four simulated links has loss and jitter in TestLossAndJitterRaiseNoSuspicion")
)

// night is a network of two nodes that watch each other, in discrete events. Path and
// naps are drawn at random; the same seed plays the same night.
type night struct {
	*rand.Rand
	now    time.Time
	events occurrences
	serial int
	ends   [2]*watcher

	delay, jitter time.Duration
	loss          float64
	ordered       bool                        // packets do not overtake each other
	cut           [2]bool                     // what end 0, 1 sends vanishes
	nap           func(end int) time.Duration // how late a look is; nil: never
	fixed         time.Duration               // a beat that does not adapt, for the controls
}

type watcher struct {
	vigil
	packets, read uint64 // that arrived, and that the process has seen
	deaf          bool
	lastDue       time.Time
	asleep        time.Time // until then
	frozen        bool
	dead          bool
	suspicions    int
	suspectedAt   time.Time
	looks         int
}

type occurrence struct {
	at     time.Time
	serial int
	do     func()
}

type occurrences []occurrence

func (q occurrences) Len() int { return len(q) }
func (q occurrences) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].serial < q[j].serial
}
func (q occurrences) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *occurrences) Push(x any)   { *q = append(*q, x.(occurrence)) }
func (q *occurrences) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

func newNight(seed uint64) *night {
	n := &night{Rand: rand.New(rand.NewPCG(seed, 6)), now: time.Unix(1000, 0), delay: 20 * time.Millisecond}
	for i := range n.ends {
		n.ends[i] = &watcher{vigil: newVigil(200*time.Millisecond, time.Second, n.now)}
		n.after(time.Duration(n.IntN(200))*time.Millisecond, func() { n.looks(i) })
	}
	return n
}

func (n *night) after(d time.Duration, do func()) {
	n.serial++
	heap.Push(&n.events, occurrence{n.now.Add(d), n.serial, do})
}

// runs plays the night for d.
func (n *night) runs(d time.Duration) {
	end := n.now.Add(d)
	for len(n.events) > 0 && !n.events[0].at.After(end) {
		e := heap.Pop(&n.events).(occurrence)
		n.now = e.at
		e.do()
	}
	n.now = end
}

// looks is a turn of Link.watch.
func (n *night) looks(i int) {
	w := n.ends[i]
	if w.frozen || w.dead {
		return
	}
	w.looks++
	was := w.suspect
	w.dead = w.look(n.now, glance{packets: w.packets, deaf: w.deaf, close: true})
	w.deaf = false
	if w.suspect && !was {
		w.suspicions++
		w.suspectedAt = n.now
	}
	n.sends(i, w.hearsNothing(), true)
	beat := w.beat
	if n.fixed > 0 {
		beat, w.vigil.beat = n.fixed, n.fixed
	}
	if n.nap != nil {
		beat += n.nap(i)
	}
	n.after(beat, func() { n.looks(i) })
}

// sends puts a PING, or its answer, on the path.
func (n *night) sends(from int, deaf, ping bool) {
	if n.cut[from] || n.Float64() < n.loss {
		return
	}
	to := n.ends[1-from]
	due := n.now.Add(n.delay + time.Duration(n.Float64()*float64(n.jitter)))
	if n.ordered && due.Before(to.lastDue) {
		due = to.lastDue
	}
	to.lastDue = due
	n.after(due.Sub(n.now), func() {
		if to.frozen || to.dead {
			return
		}
		to.packets++
		to.deaf = to.deaf || deaf
		if ping {
			n.sends(1-from, false, false)
		}
	})
}

// A dead node, one that is frozen and a path that is cut are found within 200 ms and
// the time that the last packets take.
func TestSilenceIsFoundSoon(t *testing.T) {
	var slowest time.Duration
	for seed := range *vigilSeeds {
		n := newNight(seed)
		n.delay = time.Duration(n.IntN(25)) * time.Millisecond
		n.runs(2*time.Second + time.Duration(n.Float64()*float64(30*time.Second)))
		if n.ends[0].suspicions+n.ends[1].suspicions > 0 {
			t.Fatalf("seed %d: a peer was suspect before anything happened", seed)
		}
		cut := n.now
		if n.ends[1].frozen = seed%3 == 0; !n.ends[1].frozen {
			n.cut = [2]bool{seed%3 == 1, true}
		}
		n.runs(5 * time.Second)
		took := n.ends[0].suspectedAt.Sub(cut)
		if n.ends[0].suspicions != 1 || took > 200*time.Millisecond {
			t.Fatalf("seed %d: suspected %d times, after %s", seed, n.ends[0].suspicions, took)
		}
		if !n.ends[0].dead {
			t.Fatalf("seed %d: the link has not ended", seed)
		}
		// Of a cut in one direction the other end is told over the one that works.
		if told := n.ends[1].suspectedAt.Sub(cut); seed%3 == 2 && (n.ends[1].suspicions == 0 || told > 230*time.Millisecond) {
			t.Fatalf("seed %d: who is not heard found out after %s", seed, told)
		}
		slowest = max(slowest, took)
	}
	if slowest < 130*time.Millisecond {
		t.Fatalf("the slowest of all took %s: nothing was measured", slowest)
	}
}

// Hours of loss and jitter raise no suspicion, whether packets overtake each other or
// wait for each other. The control: a beat that does not adapt does.
func TestLossAndJitterRaiseNoSuspicion(t *testing.T) {
	play := func(seed uint64, ordered bool, fixed, for_ time.Duration) (looks, suspicions int) {
		n := newNight(seed)
		n.loss, n.jitter, n.ordered, n.fixed = 0.05, 200*time.Millisecond, ordered, fixed // 100 ms to either side
		n.runs(for_)
		for _, w := range n.ends {
			if w.dead {
				t.Fatalf("seed %d: a live link has ended", seed)
			}
			looks, suspicions = looks+w.looks, suspicions+w.suspicions
		}
		return looks, suspicions
	}
	looks := 0
	for seed := range uint64(4) {
		l, s := play(seed, seed%2 == 0, 0, *vigilTime)
		if looks += l; s > 0 {
			t.Errorf("seed %d: %d false suspicions in %d looks", seed, s, l)
		}
	}
	t.Logf("%d looks", looks)
	if looks < int(vigilTime.Seconds())*8*50 {
		t.Errorf("%d looks only", looks)
	}
	if _, s := play(1, false, 40*time.Millisecond, 5*time.Minute); s == 0 {
		t.Error("a slow beat raises no suspicion either: the test cannot fail")
	}
}

// A process that stood still blames nobody, however long, and ends no link; its peer
// suspects it while it stands, and no longer.
func TestOwnStandstillIsNoSilence(t *testing.T) {
	for seed := range uint64(30) {
		n := newNight(seed)
		n.nap = func(end int) time.Duration { // the last look before the nap has sent its ping
			switch {
			case end == 1:
				return time.Duration(n.Float64() * 3 * float64(time.Millisecond))
			case n.IntN(400) == 0:
				return time.Duration(n.Float64() * 900 * float64(time.Millisecond))
			}
			return 0
		}
		n.runs(3 * time.Minute)
		for i, w := range n.ends {
			if w.dead {
				t.Fatalf("seed %d: end %d gave the other up", seed, i)
			}
		}
		if s := n.ends[0].suspicions; s > 0 {
			t.Fatalf("seed %d: who slept suspects the other, %d times", seed, s)
		}
		n.nap = nil
		n.runs(2 * time.Second)
		if n.ends[1].suspect {
			t.Fatalf("seed %d: who is awake again is still suspect", seed)
		}
	}
}

// What a vigil makes of a path that loses all for a while, look by look.
func TestVigilTranscript(t *testing.T) {
	at := time.Unix(1000, 0)
	v := newVigil(200*time.Millisecond, time.Second, at)
	var out strings.Builder
	packets := uint64(0)
	step := func(what string, looks, every int, g glance) { // every so many looks finds a packet; 0: none does
		dead := false
		for i := range looks {
			at = at.Add(v.beat)
			if every > 0 && i%every == 0 {
				packets++
			}
			g.packets, g.close = packets, true
			dead = v.look(at, g)
		}
		fmt.Fprintf(&out, "%-28s beat %-5s silent %-6s suspect %-5v dead %v\n", what, v.beat, v.silent, v.suspect, dead)
	}
	step("first look", 1, 1, glance{})
	step("settled", 110, 1, glance{})
	step("60 ms of nothing", 6, 0, glance{})
	step("125 ms of nothing", 13, 0, glance{})
	step("one packet", 1, 1, glance{})
	step("the peer's beat is slower", 18, 4, glance{})
	step("100 ms after the first", 2, 4, glance{})
	step("it hears nothing", 1, 1, glance{deaf: true})
	step("it hears again", 40, 1, glance{})
	step("35 s without a gap", 7000, 1, glance{})
	step("70 s without a gap", 7000, 1, glance{})
	at = at.Add(time.Minute) // this process was stopped
	step("awake again", 1, 0, glance{})
	step("a second of nothing", 75, 0, glance{})
	want := `first look                   beat 10ms  silent 0s     suspect false dead false
settled                      beat 10ms  silent 0s     suspect false dead false
60 ms of nothing             beat 5ms   silent 60ms   suspect false dead false
125 ms of nothing            beat 5ms   silent 125ms  suspect true  dead false
one packet                   beat 5ms   silent 0s     suspect true  dead false
the peer's beat is slower    beat 5ms   silent 5ms    suspect true  dead false
100 ms after the first       beat 5ms   silent 5ms    suspect false dead false
it hears nothing             beat 5ms   silent 0s     suspect true  dead false
it hears again               beat 5ms   silent 0s     suspect false dead false
35 s without a gap           beat 10ms  silent 0s     suspect false dead false
70 s without a gap           beat 25ms  silent 0s     suspect false dead false
awake again                  beat 25ms  silent 50ms   suspect false dead false
a second of nothing          beat 12.5ms silent 1s     suspect true  dead true
`
	if out.String() != want {
		t.Errorf("got\n%s", out.String())
	}
}
