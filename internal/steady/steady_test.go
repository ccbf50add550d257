package steady

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const late = 5 * time.Millisecond

// TestTake has measurements be wrong, in a process that is kept waiting and in one that
// is not.
func TestTake(t *testing.T) {
	for _, c := range []struct {
		name   string
		waits  time.Duration
		right  int // which of them is the first that is right; 0: none
		taken  int
		passes bool
	}{
		{"right at once", time.Second, 1, 1, true},
		{"wrong once, kept waiting", late + 1, 2, 2, true},
		{"wrong once, not kept waiting for long", late, 2, 1, false},
		{"wrong every time", time.Second, 0, times, false},
	} {
		taken := 0
		wrong := take(t, late, func() func() time.Duration { return func() time.Duration { return c.waits } }, func() string {
			if taken++; taken == c.right {
				return ""
			}
			return "wrong"
		})
		if taken != c.taken || (wrong == "") != c.passes {
			t.Errorf("%s: taken %d times, %q; want %d times, right: %v", c.name, taken, wrong, c.taken, c.passes)
		}
	}
}

// TestWatch has nothing to wait for.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waited := Watch()
		time.Sleep(time.Second)
		if d := waited(); d > 0 {
			t.Errorf("kept waiting for %s by a clock that never is", d)
		}
	})
}

// TestWatchNotices has this process stopped and made to go on by another one.
func TestWatchNotices(t *testing.T) {
	other := exec.Command("sh", "-c", fmt.Sprintf("while sleep 0.2; do kill -CONT %d; done", os.Getpid()))
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	waited := Watch()
	err := syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	time.Sleep(10 * late) // the signal reaches its threads one by one
	d := waited()
	other.Process.Kill()
	other.Wait() //nolint:errcheck // it was killed
	if err != nil || d <= late {
		t.Errorf("kept waiting for %s: %v", d, err)
	}
}
