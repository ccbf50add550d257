package relay

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/udp"
)

// aSender is one that has a socket, and nothing to do.
func aSender() *sending {
	h := &hop{socket: udp.Wrap(net.PacketConn(nil)), wake: make(chan struct{}, 1)}
	return &sending{h: h, now: time.Now()}
}

// Rounds in which media leaves are roundGap apart, and so are those in which none
// does; but what is offered does not wait because a round of those was just now.
func TestRoundsOfNothingHoldNothingUp(t *testing.T) {
	for _, c := range []struct {
		name    string
		offered bool
		leftAgo time.Duration
		waits   time.Duration
	}{
		{"the peer was heard", false, time.Second, roundGap},
		{"something is offered", true, time.Second, 0},
		{"something is offered, right after a round that sent", true, 0, roundGap},
		{"something is offered, a moment after such a round", true, roundGap / 5, roundGap - roundGap/5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := aSender()
				s.leftAt = s.now.Add(-c.leftAgo)
				if c.offered {
					s.h.ready.put(&outlet{})
				}
				begun := time.Now()
				s.rest()
				if d := time.Since(begun); d != c.waits {
					t.Errorf("it waits for %s, want %s", d, c.waits)
				}
			})
		})
	}
}

// What is offered before a round begins has no other round look for it in vain.
func TestRoundClaimsTheToken(t *testing.T) {
	s := aSender()
	s.h.claim() // there is none
	s.h.wakeUp()
	s.h.claim()
	if len(s.h.wake) > 0 {
		t.Error("run is still to be woken")
	}
}

// The timer is set anew where something is due sooner, and else fires as it was set.
func TestTimerIsSetForWhatIsSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := aSender()
		timer := time.NewTimer(time.Hour)
		defer timer.Stop()
		begun := s.now
		for _, wait := range []time.Duration{50, 100, 20, 90} {
			s.arm(timer, wait*time.Millisecond)
		}
		for _, want := range []time.Duration{20, 20 + 30} {
			<-timer.C
			if got := time.Since(begun); got != want*time.Millisecond {
				t.Fatalf("it fires after %s, want %s", got, want*time.Millisecond)
			}
			s.armed, s.now = time.Time{}, time.Now()
			s.arm(timer, 30*time.Millisecond)
			s.arm(timer, time.Hour)
		}
	})
}
