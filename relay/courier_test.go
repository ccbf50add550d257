package relay

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// taker is a sink that takes its time.
type taker struct {
	takes func(n uint32) // what is done with packet n
	got   []uint32       // owned by who calls Media
}

func (s *taker) Media(_ uint8, rtp [][]byte, _ time.Time) {
	for _, p := range rtp {
		n := binary.BigEndian.Uint32(p)
		if s.takes != nil {
			s.takes(n)
		}
		s.got = append(s.got, n)
	}
}

func (*taker) Report(uint8, wire.SenderReport, time.Time) {}

func courierLink() *Link { return &Link{cfg: &Config{Now: time.Now}} }

func numbered(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// start runs couriers until the test ends.
func (c *couriers) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, w := range c.all {
		wg.Go(func() { w.run(ctx) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// What is brief is handed over by who reads the socket: no courier runs here.
func TestReaderHandsOverWhatIsBrief(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // nothing takes time by its clock
		c, l, s := newCouriers(), courierLink(), new(taker)
		b := &binding{sink: s}
		for n := range uint32(100) {
			c.take(l, b, 0, numbered(n))
			if n%4 == 3 {
				c.send()
			}
		}
		if len(s.got) != 100 {
			t.Fatalf("%d packets of 100 were handed over", len(s.got))
		}
	})
}

// Who reads the socket meets a sink that takes long once, and does not wait for it
// again while it does.
func TestReaderDoesNotWaitForSlowSinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l, s := newCouriers(), courierLink(), &taker{takes: func(uint32) { time.Sleep(10 * time.Millisecond) }}
		c.start(t)
		b := &binding{sink: s}
		var waited []time.Duration
		for n := range uint32(50) {
			c.take(l, b, 0, numbered(n))
			begun := time.Now()
			c.send()
			waited = append(waited, time.Since(begun))
			time.Sleep(10 * time.Millisecond)
		}
		for n, d := range waited[1:] {
			if d > 0 {
				t.Fatalf("the read after packet %d waited for %s", n+1, d)
			}
		}
		synctest.Wait()
		if len(s.got) != len(waited) {
			t.Errorf("%d packets of %d were handed over", len(s.got), len(waited))
		}
	})
}

// A layer's packets stay in order, and none is lost, whoever hands them over: who
// reads does small bags, the couriers do large ones, and both meet packets that take
// longer than was thought.
func TestCouriersKeepTheOrder(t *testing.T) {
	c, l, rng := newCouriers(), courierLink(), rand.New(rand.NewPCG(1, 2))
	c.start(t)
	const all = 100_000
	var sinks []*taker
	var bindings []*binding
	var left sync.WaitGroup // sinks that have not got the last
	for i := range 2 * len(c.all) {
		s := &taker{takes: func(n uint32) {
			if n%200 == 100 {
				for range 1000 {
					runtime.Gosched()
				}
			}
			if n == all-1 {
				left.Done()
			}
		}}
		left.Add(1)
		sinks, bindings = append(sinks, s), append(bindings, &binding{sink: s, turn: uint32(i)})
	}
	for n := uint32(0); n < all; {
		for range min(1+rng.IntN(1000)*rng.IntN(2), int(all-n)) {
			for _, b := range bindings {
				c.take(l, b, 0, numbered(n))
			}
			n++
		}
		c.send()
	}
	left.Wait()
	for i, s := range sinks {
		bindings[i].end() // no call is under way any more
		for n, got := range s.got {
			if got != uint32(n) {
				t.Fatalf("sink %d got packet %d when %d was due", i, got, n)
			}
		}
		if len(s.got) != all {
			t.Fatalf("sink %d got %d packets of %d", i, len(s.got), all)
		}
	}
}
