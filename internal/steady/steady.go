// Package steady takes measurements in tests on a machine that stands still now and
// then. It decides by one thing whether a measurement tells of the machine and not of
// what is measured: whether this process was itself kept waiting meanwhile. It takes
// nothing that is wrong every time.
package steady

import (
	"fmt"
	"testing"
	"time"
)

// beat is how often the process looks whether it runs.
const beat = 5 * time.Millisecond

// A measurement is taken so often at most, and not again after so long.
const (
	times  = 10
	enough = 90 * time.Second
)

// Watch begins to watch this process; what it returns ends that, and says for how long
// the process was kept waiting at most.
func Watch() (waited func() time.Duration) {
	done, most, last := make(chan struct{}), make(chan time.Duration), time.Now()
	go func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		var longest time.Duration
		for over := false; ; {
			select {
			case <-done:
				over = true
			case <-tick.C:
			}
			now := time.Now()
			longest, last = max(longest, now.Sub(last)-beat), now
			if over {
				most <- longest
				return
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-most
	}
}

// Measure takes a measurement that says what is wrong with it, "" for nothing. One
// during which this process was kept waiting for longer than late, which is what it can
// bear, is taken again.
func Measure(t testing.TB, late time.Duration, measure func() (wrong string)) {
	t.Helper()
	if wrong := take(t, late, Watch, measure); wrong != "" {
		t.Error(wrong)
	}
}

func take(t testing.TB, late time.Duration, watch func() func() time.Duration, measure func() string) (wrong string) {
	t.Helper()
	began := time.Now()
	for n := range times {
		if n > 0 {
			t.Logf("taken again: %s", wrong)
		}
		stop := watch()
		wrong = measure()
		waited := stop()
		if wrong == "" || waited <= late || time.Since(began) > enough {
			break
		}
		wrong += fmt.Sprintf(" (this process was kept waiting for %s)", waited)
	}
	return wrong
}
