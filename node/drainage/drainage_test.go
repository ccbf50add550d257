package drainage

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func people(n int) (list []Key) {
	for i := range n {
		list = append(list, Key{Room: fmt.Sprintf("RM_%d", i/10), SID: fmt.Sprintf("PA_%03d", i)})
	}
	return list
}

// TestTranscript reads as a drain of four: two go, one comes back, one may go nowhere.
func TestTranscript(t *testing.T) {
	d, here := New(start), people(4)
	var log []string
	at := func(after time.Duration, here ...Key) {
		now := start.Add(after)
		var names []string
		for _, k := range d.Next(now, here) {
			names = append(names, k.SID)
		}
		p := d.Progress(now)
		log = append(log, fmt.Sprintf("%s sends %v, left %d gone %d stuck %d refused %v in %d s", after, names, p.Left, p.Gone, p.Stuck, p.Refused, p.Seconds))
	}
	at(0, here...)
	at(100*time.Millisecond, here...)
	at(200*time.Millisecond, here[1:]...)
	d.Refused(here[3], "down")
	at(time.Second, here[2:]...)
	at(9*time.Second, here[2:]...)
	at(40*time.Second, here[2:]...)
	at(99*time.Second, here[3])
	at(100 * time.Second)
	want := `0s sends [PA_000], left 4 gone 0 stuck 0 refused map[] in 1 s
100ms sends [PA_001 PA_002], left 4 gone 0 stuck 0 refused map[] in 1 s
200ms sends [PA_003], left 3 gone 1 stuck 0 refused map[] in 1 s
1s sends [], left 2 gone 2 stuck 0 refused map[down:1] in -1 s
9s sends [PA_002 PA_003], left 2 gone 2 stuck 0 refused map[] in 9 s
40s sends [PA_002 PA_003], left 2 gone 2 stuck 2 refused map[] in -1 s
1m39s sends [PA_003], left 1 gone 3 stuck 1 refused map[] in -1 s
1m40s sends [], left 0 gone 4 stuck 0 refused map[] in 0 s`
	if got := strings.Join(log, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPace drains at random and holds Rate over every second, AtOnce at every moment,
// and everybody is sent.
func TestPace(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		d, here := New(start), people(200+r.IntN(200))
		sent, at := map[Key]time.Time{}, []time.Time{}
		for now := start; len(here) > 0; now = now.Add(time.Duration(20+r.IntN(200)) * time.Millisecond) {
			if now.Sub(start) > 5*time.Minute {
				t.Fatalf("seed %d: %d are left", seed, len(here))
			}
			way := 0
			for _, k := range d.Next(now, here) {
				sent[k], at = now, append(at, now)
			}
			var stay []Key
			for _, k := range here {
				since, tried := sent[k]
				if tried && now.Sub(since) < again {
					way++
				}
				if !tried || now.Sub(since) < time.Duration(r.IntN(2000))*time.Millisecond {
					stay = append(stay, k)
				}
			}
			if here = stay; way > AtOnce {
				t.Fatalf("seed %d: %d under way", seed, way)
			}
		}
		for i := range at {
			n := 0
			for _, other := range at[i:] {
				if other.Sub(at[i]) < time.Second {
					n++
				}
			}
			if n > Rate+Rate/4+1 { // and what the step before was short of
				t.Fatalf("seed %d: %d in a second", seed, n)
			}
		}
	}
}
