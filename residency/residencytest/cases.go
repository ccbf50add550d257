// Package residencytest draws worlds of policies, nodes and clocks, and says by
// the requirements alone what would be a leak in them.
//
// It is the other half of every test that looks for leaks: production code
// decides, Against judges. The judge reads the facts of a bundle and calls none
// of residency's methods, so that a fault there cannot hide itself. Each case is
// made from one number, which is printed when the case fails and replays it.
package residencytest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("leak.seed", 0, "first case to play; 0 is one of the day's")
	casesFlag = flag.Int("leak.cases", 0, "how many cases to play; 0 is the test's own number")
)

// maxFailures bounds what a broken build prints.
const maxFailures = 5

// Run plays def cases, or as many as the command line asks for, on all
// processors. A case returns what went wrong, nothing if nothing did.
func Run(t *testing.T, def int, play func(seed uint64) []string) {
	t.Helper()
	first, n := *seedFlag, *casesFlag
	if n == 0 {
		n = def
	}
	if first == 0 {
		first = uint64(time.Now().Unix()/86400) * 1_000_000_000
	}
	begun := time.Now()
	var next, failed atomic.Uint64
	stop := progress(t, begun, &next, &failed)
	defer stop()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < uint64(n) && failed.Load() < maxFailures; i = next.Add(1) - 1 {
				if wrong := playOne(first+i, play); len(wrong) > 0 {
					failed.Add(1)
					t.Errorf("case %d: %s\nreplay: go test -run '^%s$' -leak.seed=%d -leak.cases=1", first+i, join(wrong), t.Name(), first+i)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d cases from seed %d in %s, %d failed", min(next.Load(), uint64(n)), first, time.Since(begun).Round(time.Millisecond), failed.Load())
}

// progressEvery is how often a run that takes long says how far it is: a run that is
// cut off is a result, too.
const progressEvery = 5 * time.Minute

// progress tells how many cases have begun, until the returned function is called.
func progress(t *testing.T, begun time.Time, next, failed *atomic.Uint64) (stop func()) {
	tick, done, over := time.NewTicker(progressEvery), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-tick.C:
				fmt.Printf("%s: %d cases, %d failed, after %s\n", t.Name(), next.Load(), failed.Load(), time.Since(begun).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	return func() {
		tick.Stop()
		close(done)
		<-over
	}
}

// playOne makes a panic a failure of its case, so that the seed is not lost.
func playOne(seed uint64, play func(uint64) []string) (wrong []string) {
	defer func() {
		if p := recover(); p != nil {
			buf := make([]byte, 4<<10)
			wrong = append(wrong, fmt.Sprintf("panic: %v\n%s", p, buf[:runtime.Stack(buf, false)]))
		}
	}()
	return play(seed)
}

func join(wrong []string) string {
	s := ""
	for i, w := range wrong {
		if i == maxFailures && !Replaying() {
			return s + fmt.Sprintf("\n  and %d more", len(wrong)-i)
		}
		s += "\n  " + w
	}
	return s
}

// Rand is the chance of one case.
type Rand struct {
	*rand.Rand
	// Mild makes worlds in which more goes well: what is odd happens so many times
	// less often. Where everything is refused at once nothing can leak later.
	Mild int
}

// NewRand returns the chance of a case; streams of one case do not disturb each other.
func NewRand(seed, stream uint64) Rand { return Rand{rand.New(rand.NewPCG(seed, stream)), 1} }

// odd reports true once in n times, in mild worlds less often.
func (r Rand) odd(n int) bool { return r.In(n * r.Mild) }

// In reports true once in n times.
func (r Rand) In(n int) bool { return r.IntN(n) == 0 }

// Between returns a duration of at least lo and less than hi.
func (r Rand) Between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// Pick returns one of the list.
func Pick[T any](r Rand, list ...T) T { return list[r.IntN(len(list))] }

// Tally counts what the cases have come by, so that a harness that looks at
// nothing does not pass.
type Tally struct {
	mu sync.Mutex
	n  map[string]int
}

// Add counts n more.
func (t *Tally) Add(more map[string]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	for what, n := range more {
		t.n[what] += n
	}
}

// Want logs the counts and fails for what never happened.
func (t *Tally) Want(tb testing.TB, whats ...string) {
	tb.Helper()
	tb.Logf("%v", t.n)
	for _, w := range whats {
		if t.n[w] == 0 && !tb.Failed() && *casesFlag == 0 {
			tb.Errorf("no case came by %q: the harness looks at less than it says", w)
		}
	}
}

// Replaying reports whether one case is played again, whose story is of interest.
func Replaying() bool { return *casesFlag == 1 }
