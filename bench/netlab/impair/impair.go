// Package impair decides what a bad network does to each packet of one
// direction: whether it is lost, and when it leaves. Packets pass, in this order,
//
//	what is too long → random or bursty loss → a bottleneck with a queue → delay, jitter, reordering
//
// It moves no packet, reads no clock and takes no chance of its own: the same
// seed, packets and times give the same decisions.
package impair

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Profile says what one direction of a network does. The zero value does
// nothing.
type Profile struct {
	// Delay is added to every packet, one way.
	Delay time.Duration
	// Jitter is what is added at most beside Delay, evenly distributed. Packets
	// keep their order, as behind a queue.
	Jitter time.Duration
	// Reorder is the share of packets that are held back by ReorderBy more, so
	// that others overtake them.
	Reorder   float64
	ReorderBy time.Duration
	// Loss is the share of packets that are lost at random.
	Loss float64
	// Burst is the mean length of a run of lost packets (Gilbert's model: all is
	// lost in the bad state, nothing in the good one; the mean stays Loss). Up to
	// 1, each packet is lost or not by itself.
	Burst float64
	// Bottleneck is the rate over time, again from the first step when the last
	// has passed; empty: no bottleneck. A step's For of 0 lasts forever.
	Bottleneck []Step
	// Queue is what waits for the bottleneck at most, in bytes; what finds no room
	// is dropped. 0: DefaultQueue.
	Queue int
	// MTU is the longest packet that passes, in bytes from the IP header on. Who sends a
	// longer one is not told. 0: all pass.
	MTU int
}

// Step is a part of a bottleneck's schedule.
type Step struct {
	Rate float64 // bit/s; 0: nothing passes; Unlimited: no bottleneck
	For  time.Duration
}

// Unlimited is the rate of a step without a bottleneck.
var Unlimited = math.Inf(1)

// DefaultQueue holds 25 packets of 1200 bytes: 240 ms at 1 Mbit/s.
const DefaultQueue = 30_000

// Constant is a bottleneck that stays, in bit/s.
func Constant(rate float64) []Step { return []Step{{Rate: rate}} }

// Validate reports a profile that cannot be meant.
func (p Profile) Validate() error {
	switch {
	case p.Delay < 0 || p.Jitter < 0 || p.ReorderBy < 0:
		return fmt.Errorf("delay %s, jitter %s, reordered by %s: want 0s or more", p.Delay, p.Jitter, p.ReorderBy)
	case !isShare(p.Loss) || !isShare(p.Reorder):
		return fmt.Errorf("loss %v, reorder %v: want shares from 0 to 1", p.Loss, p.Reorder)
	case p.Burst < 0 || p.Burst > 1 && p.Loss == 1:
		return fmt.Errorf("burst %v with loss %v: want 0 or more, and a loss below 1", p.Burst, p.Loss)
	case p.MTU < 0:
		return fmt.Errorf("MTU of %d bytes: want 0 or more", p.MTU)
	case p.Queue < 0:
		return fmt.Errorf("queue of %d bytes: want 0 or more", p.Queue)
	}
	for i, s := range p.Bottleneck {
		if !(s.Rate >= 0) || s.For < 0 || s.For == 0 && i < len(p.Bottleneck)-1 {
			return fmt.Errorf("step %d of the bottleneck, %v bit/s for %s: want a rate and, but for the last, a time", i, s.Rate, s.For)
		}
	}
	return nil
}

func isShare(f float64) bool { return f >= 0 && f <= 1 }

// Fate is what became of a packet.
type Fate uint8

// What can become of a packet.
const (
	Passed    Fate = iota // it leaves
	Lost                  // by chance
	QueueFull             // the bottleneck's queue had no room
	TooLong               // longer than the MTU
	fates
)

func (f Fate) String() string { return [...]string{"passed", "lost", "queue full", "too long"}[f] }

// Verdict is the decision on one packet.
type Verdict struct {
	Fate  Fate
	Leave time.Time // when it leaves, if it passed
}

// Path is one direction. It is not safe for concurrent use.
type Path struct {
	profile Profile
	chance  *rand.Rand
	since   time.Time // when the profile was set: its schedule begins then
	bad     bool      // Gilbert's bad state
	link    link
	last    time.Time // when the last packet that kept its order leaves
	counts  [fates]uint64
}

// New makes a path that does nothing until Set.
func New(seed uint64) *Path {
	return &Path{chance: rand.New(rand.NewPCG(seed, 0))}
}

// Set exchanges the profile. Packets that have entered leave as was decided.
func (p *Path) Set(profile Profile, now time.Time) error {
	if err := profile.Validate(); err != nil {
		return fmt.Errorf("impair: %w", err)
	}
	if profile.Queue == 0 {
		profile.Queue = DefaultQueue
	}
	p.profile, p.since, p.bad = profile, now, false
	return nil
}

// Enter decides on a packet of size bytes that comes at now; now never goes
// back.
func (p *Path) Enter(now time.Time, size int) Verdict {
	v := p.decide(now, size)
	p.counts[v.Fate]++
	return v
}

// Count returns how many packets had a fate so far.
func (p *Path) Count(f Fate) uint64 { return p.counts[f] }

func (p *Path) decide(now time.Time, size int) Verdict {
	if p.profile.MTU > 0 && size > p.profile.MTU {
		return Verdict{Fate: TooLong}
	}
	if p.lost() {
		return Verdict{Fate: Lost}
	}
	served, ok := p.link.serve(p, now, size)
	if !ok {
		return Verdict{Fate: QueueFull}
	}
	return Verdict{Leave: p.delayed(served)}
}

// lost draws for one packet. In the bad state a run ends with the chance
// 1/Burst; that the bad state's share of packets is Loss gives the other chance.
func (p *Path) lost() bool {
	loss, burst := p.profile.Loss, p.profile.Burst
	if loss == 0 {
		return false
	}
	if burst <= 1 {
		return p.chance.Float64() < loss
	}
	change := 1 / burst
	if !p.bad {
		change = min(loss/(burst*(1-loss)), 1)
	}
	if p.chance.Float64() < change {
		p.bad = !p.bad
	}
	return p.bad
}

// delayed adds what does not depend on other packets, and keeps the order of
// those that are not to be reordered.
func (p *Path) delayed(at time.Time) time.Time {
	at = at.Add(p.profile.Delay)
	if p.profile.Jitter > 0 {
		at = at.Add(time.Duration(p.chance.Int64N(int64(p.profile.Jitter) + 1)))
	}
	if p.profile.Reorder > 0 && p.chance.Float64() < p.profile.Reorder {
		return at.Add(p.profile.ReorderBy)
	}
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	return at
}
