//go:build linux

package netlab

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab/impair"
	"github.com/domicile/domicile/internal/steady"
)

// late is how long this process may be kept waiting for a measurement in milliseconds.
const late = 5 * time.Millisecond

// flow is a steady stream of numbered datagrams.
type flow struct {
	rate float64 // datagrams a second
	size int
	n    int
}

func (f flow) bits() float64 { return f.rate * float64(f.size+28) * 8 }

// came is a datagram that arrived.
type came struct {
	seq  int
	sent time.Duration // since the first was sent
	took time.Duration
}

// inbound sends a flow from the host into the namespace.
func (f flow) inbound(t *testing.T, l *Lab) []came {
	t.Helper()
	return f.run(t, listenIn(t, l, l.Inside), listenOn(t, l.Host))
}

// outbound sends a flow out of the namespace.
func (f flow) outbound(t *testing.T, l *Lab) []came {
	t.Helper()
	return f.run(t, listenOn(t, l.Host), listenIn(t, l, l.Inside))
}

func listenOn(t *testing.T, a netip.Addr) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadBuffer(8 << 20)
	t.Cleanup(func() { c.Close() })
	return c
}

func listenIn(t *testing.T, l *Lab, a netip.Addr) (c *net.UDPConn) {
	t.Helper()
	if err := l.Do(func() error { c = listenOn(t, a); return nil }); err != nil {
		t.Fatal(err)
	}
	return c
}

// run returns what arrives until a second after the last was sent.
func (f flow) run(t *testing.T, to, from *net.UDPConn) (list []came) {
	t.Helper()
	begin := time.Now()
	sent := make(chan error, 1)
	go func() {
		b := make([]byte, f.size)
		at := to.LocalAddr().(*net.UDPAddr).AddrPort()
		for i := range f.n {
			time.Sleep(time.Until(begin.Add(time.Duration(float64(i) / f.rate * float64(time.Second)))))
			binary.BigEndian.PutUint64(b, uint64(i))
			binary.BigEndian.PutUint64(b[8:], uint64(time.Since(begin)))
			if _, err := from.WriteToUDPAddrPort(b, at); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	to.SetReadDeadline(begin.Add(time.Duration(float64(f.n)/f.rate*float64(time.Second)) + time.Second))
	b := make([]byte, 2048)
	for {
		if _, err := to.Read(b); err != nil {
			break
		}
		at := time.Duration(binary.BigEndian.Uint64(b[8:]))
		list = append(list, came{int(binary.BigEndian.Uint64(b)), at, time.Since(begin) - at})
		if len(list) == f.n {
			break
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	return list
}

// quantile of the delays.
func quantile(list []came, q float64) time.Duration {
	delays := make([]time.Duration, 0, len(list))
	for _, c := range list {
		delays = append(delays, c.took)
	}
	slices.Sort(delays)
	if len(delays) == 0 {
		return 0
	}
	return delays[int(q*float64(len(delays)-1))]
}

func impaired(t *testing.T, p impair.Profile) *Lab {
	t.Helper()
	lab := NewImpaired(t)
	if err := lab.Impair(p); err != nil {
		t.Fatal(err)
	}
	return lab
}

// The program itself loses nothing and takes less than a millisecond at 50 Mbit/s.
// A thin flow beside it, which the program does not see, tells how long the machine
// itself keeps a datagram waiting for its turn: on a crowded one that is most of it.
func TestOwnDelayAt50Mbit(t *testing.T) {
	lab := NewImpaired(t)
	f, thin := flow{rate: 5100, size: 1200, n: 5100}, flow{rate: 255, size: 1200, n: 255}
	for name, send := range map[string]func(*testing.T, *Lab) []came{"inbound": f.inbound, "outbound": f.outbound} {
		steady.Measure(t, late, func() string {
			from, to := listenOn(t, lab.Host), listenOn(t, lab.Host)
			control := make(chan []came, 1)
			go func() { control <- thin.run(t, to, from) }()
			list := send(t, lab)
			machine := quantile(<-control, 0.5)
			t.Logf("%s: %.0f Mbit/s, p50 %s, p99 %s; beside the program p50 %s", name, f.bits()/1e6, quantile(list, 0.5), quantile(list, 0.99), machine)
			if len(list) < f.n {
				return fmt.Sprintf("%s: %d of %d arrived at %.0f Mbit/s", name, len(list), f.n, f.bits()/1e6)
			}
			if d := quantile(list, 0.5); d >= time.Millisecond+10*machine {
				return fmt.Sprintf("%s: the median datagram took %s, %s without the program, want less than 1 ms of its own", name, d, machine)
			}
			return ""
		})
	}
	in, out := lab.Counts()
	if in.Failed+out.Failed+in.QueueFull+out.QueueFull > 0 || in.Passed < uint64(f.n) {
		t.Errorf("counted %+v in, %+v out", in, out)
	}
}

func TestDelayAndJitter(t *testing.T) {
	t.Parallel()
	lab := impaired(t, impair.Profile{Delay: 60 * time.Millisecond, Jitter: 40 * time.Millisecond})
	steady.Measure(t, late, func() string {
		list := flow{rate: 100, size: 200, n: 100}.inbound(t, lab)
		if !slices.IsSortedFunc(list, func(a, b came) int { return a.seq - b.seq }) {
			t.Error("jitter reordered datagrams")
		}
		lo, mid, hi := quantile(list, 0), quantile(list, 0.5), quantile(list, 1)
		if lo < 60*time.Millisecond || hi < 85*time.Millisecond || mid < 65*time.Millisecond || mid > 105*time.Millisecond {
			return fmt.Sprintf("datagrams took %s to %s, the median %s, want 60 to 100 ms, about 85", lo, hi, mid)
		}
		return ""
	})
	// Only one direction is changed, while it runs.
	if err := lab.ImpairInbound(impair.Profile{}); err != nil {
		t.Fatal(err)
	}
	f := flow{rate: 100, size: 200, n: 30}
	steady.Measure(t, late, func() string {
		if in, out := quantile(f.inbound(t, lab), 0.5), quantile(f.outbound(t, lab), 0.5); in > 20*time.Millisecond || out < 60*time.Millisecond {
			return fmt.Sprintf("after the change: %s in, %s out", in, out)
		}
		return ""
	})
}

func TestReordering(t *testing.T) {
	t.Parallel()
	lab := impaired(t, impair.Profile{Delay: 5 * time.Millisecond, Reorder: 0.2, ReorderBy: 15 * time.Millisecond})
	steady.Measure(t, late, func() string {
		list := flow{rate: 500, size: 200, n: 500}.outbound(t, lab)
		late := 0
		for i := 1; i < len(list); i++ {
			if list[i].seq < list[i-1].seq {
				late++
			}
		}
		// Of two held back in a row, one follows the other.
		if len(list) != 500 || late < 40 || late > 130 {
			return fmt.Sprintf("%d of 500 arrived, %d after a later one; want about 80", len(list), late)
		}
		return ""
	})
}

func TestLossOneByOneAndInBursts(t *testing.T) {
	for _, c := range []struct{ loss, burst float64 }{{0.01, 0}, {0.05, 0}, {0.2, 0}, {0.1, 5}} {
		t.Run(fmt.Sprint(c.loss, " in bursts of ", c.burst), func(t *testing.T) {
			t.Parallel()
			lab := impaired(t, impair.Profile{Loss: c.loss, Burst: c.burst})
			f := flow{rate: 4000, size: 100, n: 8000}
			steady.Measure(t, late, func() string {
				before, _ := lab.Counts()
				list := f.inbound(t, lab)
				lost, runs, next := f.n-len(list), 0, 0
				for _, a := range list {
					if a.seq > next {
						runs++
					}
					next = a.seq + 1
				}
				share, run := float64(lost)/float64(f.n), float64(lost)/float64(max(runs, 1))
				wantRun := max(c.burst, 1/(1-c.loss)) // chance alone makes runs too
				if math.Abs(share-c.loss) > 0.5*c.loss || math.Abs(run-wantRun) > 0.5*wantRun {
					return fmt.Sprintf("measured %.4f in runs of %.2f, want %.2f", share, run, wantRun)
				}
				if in, _ := lab.Counts(); in.Lost-before.Lost != uint64(lost) || in.Failed > 0 {
					return fmt.Sprintf("counted %+v after %+v, %d are missing", in, before, lost)
				}
				return ""
			})
		})
	}
}

// A bottleneck of 1 Mbit/s comes and goes every half second: 2 Mbit/s get
// through whole without it and by half with it, after a wait in the queue.
func TestBottleneckComesAndGoes(t *testing.T) {
	t.Parallel()
	lab := impaired(t, impair.Profile{Queue: 12_500, Bottleneck: []impair.Step{
		{Rate: impair.Unlimited, For: 500 * time.Millisecond}, {Rate: 1e6, For: 500 * time.Millisecond}}})
	f := flow{rate: 200, size: 1222, n: 400}
	steady.Measure(t, late, func() string {
		list := f.inbound(t, lab)
		var slow, quick int
		for _, a := range list {
			if a.took > 15*time.Millisecond {
				slow++
			} else if a.took < 5*time.Millisecond {
				quick++
			}
		}
		// Of 200 that meet the bottleneck 100 pass, and 10 to 20 leave the queue when it goes.
		if len(list) < 290 || len(list) > 340 || slow < 60 || quick < 150 {
			return fmt.Sprintf("%d of 400 arrived, %d after a wait, %d at once; want about 310, 110, 200", len(list), slow, quick)
		}
		if hi := quantile(list, 1); hi < 60*time.Millisecond || hi > 160*time.Millisecond {
			return fmt.Sprintf("the longest wait was %s, want the 100 ms of the queue", hi)
		}
		return ""
	})
}

// After a change of networks the old address is silent and the new one has the
// same path.
func TestRenumber(t *testing.T) {
	t.Parallel()
	lab := impaired(t, impair.Profile{Delay: 10 * time.Millisecond})
	old := listenIn(t, lab, lab.Inside)
	was := lab.Inside
	lab.Renumber(t)
	if lab.Inside == was {
		t.Fatalf("still at %s", was)
	}
	f := flow{rate: 100, size: 200, n: 20}
	steady.Measure(t, late, func() string {
		if list := f.inbound(t, lab); len(list) != f.n || quantile(list, 0) < 10*time.Millisecond {
			return fmt.Sprintf("%d of %d arrived at the new address, the first after %s", len(list), f.n, quantile(list, 0))
		}
		return ""
	})
	if list := f.run(t, old, listenOn(t, lab.Host)); len(list) > 0 {
		t.Errorf("%d arrived at the old address", len(list))
	}
	for range 3 {
		lab.Renumber(t)
	}
	if err := lab.renumber(); err == nil {
		t.Errorf("%s is beyond the lab's network", lab.Inside)
	}
}

func TestImpairRefuses(t *testing.T) {
	if err := New(t).Impair(impair.Profile{}); err == nil {
		t.Error("a lab without a program in its path was impaired")
	}
	if err := NewImpaired(t).Impair(impair.Profile{Loss: -1}); err == nil {
		t.Error("a loss of -1 was taken")
	}
}

// The heap against sorting.
func TestHeldLeaveInOrder(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 3))
		var h held
		begin := time.Now()
		n := 1 + rng.IntN(200)
		for i := range n {
			h.push(parcel{leave: begin.Add(time.Duration(rng.IntN(20))), order: uint64(i)})
		}
		last := h.pop()
		for range n - 1 {
			p := h.pop()
			if p.leave.Before(last.leave) || p.leave.Equal(last.leave) && p.order < last.order {
				t.Fatalf("seed %d: %v/%d after %v/%d", seed, p.leave, p.order, last.leave, last.order)
			}
			last = p
		}
		if len(h) != 0 {
			t.Fatalf("seed %d: %d are left", seed, len(h))
		}
	}
}
