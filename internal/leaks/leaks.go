// Package leaks ends the tests of a package with the question whether a goroutine is
// left. On a crowded machine what was told to end may take seconds to do so; goleak
// alone waits less than half a second.
package leaks

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end once the tests have. A leak stays.
const patience = 20 * time.Second

// Main runs the tests of a package and exits. Goroutines that are left fail it.
func Main(m *testing.M, opts ...goleak.Option) { os.Exit(Run(m, opts...)) }

// Run is Main for those who have something to clear away before they exit.
func Run(m *testing.M, opts ...goleak.Option) int {
	code := m.Run()
	if code == 0 {
		if err := find(patience, opts...); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left %s after the tests: %v\n", patience, err)
			code = 1
		}
	}
	return code
}

// find asks until nothing is left; each time goleak itself waits a little.
func find(patience time.Duration, opts ...goleak.Option) error {
	for end := time.Now().Add(patience); ; {
		err := goleak.Find(opts...)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
