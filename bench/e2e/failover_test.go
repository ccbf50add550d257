package e2e

import (
	"flag"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/steady"
)

var (
	failoverSamples = flag.Int("failover.samples", 3, "how many times TestFrozenNodeIsSuspect freezes a node")
	failoverRecord  = flag.Bool("failover.record", false, "write what TestFrozenNodeIsSuspect measured into bench/results")
)

// TestFrozenNodeIsSuspect stops a node's process while media goes to it, and measures
// how long it takes until a node that is linked with it suspects it (G7), and, after it
// goes on, until it does no more. The link itself outlives a standstill of half a second.
func TestFrozenNodeIsSuspect(t *testing.T) {
	f := startField(t)
	s := newStopping(f, "frozen")
	s.meet(wide, "waw")
	pid := f.node("waw").PID
	found := map[string]*ends{"suspected": {}, "trusted_again": {}}
	waited := steady.Watch()
	time.Sleep(2 * time.Second) // a link that carries its first track is not judged for a second
	for len(found["suspected"].all) < *failoverSamples {
		before := f.suspicions(t)
		slow := waited()
		waited = steady.Watch()
		if before.suspect {
			if slow <= tooSlow {
				t.Fatal("it is suspect before anything happened")
			}
			f.until(t, false)
			continue
		}
		signal(t, pid, syscall.SIGSTOP)
		took := f.until(t, true)
		signal(t, pid, syscall.SIGCONT)
		back := f.until(t, false)
		slow = waited()
		waited = steady.Watch()
		if slow > tooSlow {
			t.Logf("taken again: this process stood still for %s", slow)
			f.allLinked()
			continue
		}
		if f.suspicions(t).age < before.age {
			t.Fatal("the link has ended")
		}
		found["suspected"].all = append(found["suspected"].all, took)
		found["trusted_again"].all = append(found["trusted_again"].all, back)
	}
	waited()
	close(s.stall)
	for what, e := range found {
		e.sum()
		t.Logf("%s: %+v", what, *e)
	}
	if e := found["suspected"]; e.P50 > 400 || e.Max > 1000 { // the goal of 200 ms is for a machine with nothing else to do
		t.Errorf("suspected after %.0f ms (p50), %.0f ms at most", e.P50, e.Max)
	}
	if *failoverRecord {
		record(t, "failover-frozen", fmt.Sprintf("make bench-failover N=%d RECORD=1", *failoverSamples), found)
	}
}

// tooSlow is from when on a standstill of this process makes a measurement void.
const tooSlow = 50 * time.Millisecond

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
}

// linkTo is what fra knows of its link to waw.
type linkTo struct {
	suspect bool
	age     time.Duration
}

func (f *field) suspicions(t *testing.T) linkTo {
	t.Helper()
	state, err := f.peek("fra")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range state.Links {
		if l.Peer == "waw" {
			return linkTo{l.Suspect, l.Age}
		}
	}
	return linkTo{suspect: true} // there is none
}

// until waits for fra to suspect waw, or not to, and returns how long that took.
func (f *field) until(t *testing.T, suspect bool) time.Duration {
	t.Helper()
	began := time.Now()
	for f.suspicions(t).suspect != suspect {
		if time.Since(began) > patience*10*time.Second {
			t.Fatalf("suspect %v: not within %s", suspect, patience*10*time.Second)
		}
	}
	return time.Since(began)
}
