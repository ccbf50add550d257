package e2e

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/domicile/domicile/bench/netlab"
)

// lasting is a test that makes something which stays until all tests have ended:
// what it would clean up is cleaned up then.
type lasting struct{ testing.TB }

var last struct {
	mu     sync.Mutex
	list   []func()
	over   atomic.Bool // the tests have ended
	failed atomic.Bool // and something went wrong afterwards
}

func (l lasting) Cleanup(f func()) {
	last.mu.Lock()
	defer last.mu.Unlock()
	last.list = append(last.list, f)
}

func (l lasting) Failed() bool { return last.failed.Load() }

func (l lasting) Errorf(format string, args ...any) {
	if !last.over.Load() {
		l.TB.Errorf(format, args...)
		return
	}
	last.failed.Store(true)
	fmt.Fprintf(os.Stderr, "e2e: after the tests: "+format+"\n", args...)
}

// endAll ends what lasts, the youngest first; 1: something went wrong.
func endAll() int {
	last.over.Store(true)
	for _, f := range slices.Backward(last.list) {
		f()
	}
	if last.failed.Load() {
		return 1
	}
	return 0
}

// parallelLab makes a network and lets the test run beside others. It comes before
// any of them runs and goes after the last: a network that comes or goes on the host
// makes Chromium drop what it is loading.
func parallelLab(t *testing.T, made func(testing.TB) *netlab.Lab) *netlab.Lab {
	t.Helper()
	lab := made(lasting{t})
	t.Parallel()
	return lab
}

// shared is the demo that tests share who neither end its nodes nor look at all that
// passes them.
var shared struct {
	sync.Once
	*mesh
}

// sharedMesh is the shared demo for one test; the names of its rooms are no other
// test's.
func sharedMesh(t *testing.T) *mesh {
	t.Helper()
	shared.Do(func() {
		dir, err := os.MkdirTemp(scratch, "shared-")
		if err != nil {
			t.Fatal(err)
		}
		shared.mesh = startMesh(lasting{t}, product, dir)
	})
	if shared.mesh == nil {
		t.Fatal("the shared demo did not come up")
	}
	m := shared.in(t)
	t.Cleanup(func() {
		if t.Failed() {
			m.showLogs()
		}
	})
	return m
}
