package bwe

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

func inf() float64 { return math.Inf(1) }
func nan() float64 { return math.NaN() }

// check holds an Estimator to what must be true after anything.
func check(t *testing.T, e *Estimator) {
	t.Helper()
	s := e.Stats()
	if !(s.Estimate >= e.cfg.Min && s.Estimate <= e.cfg.Max) {
		t.Fatalf("estimate %v is not within %v to %v", s.Estimate, e.cfg.Min, e.cfg.Max)
	}
	for _, v := range []float64{s.Acked, s.Sent, s.Proven, s.Demand, s.Trend, s.Threshold, s.Loss, s.OwnLoss, s.LossBound} {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("%+v", s)
		}
	}
	if s.Loss < 0 || s.Loss > 1 || s.OwnLoss < 0 || s.OwnLoss > 1 || s.RTT < 0 || s.Queue < 0 {
		t.Fatalf("%+v", s)
	}
}

// anyFeedback makes feedback of which every part may be wrong.
func anyFeedback(rng *rand.Rand, near uint16) *rtcp.TransportLayerCC {
	fb := &rtcp.TransportLayerCC{BaseSequenceNumber: near - uint16(rng.IntN(300)), PacketStatusCount: uint16(rng.IntN(200)), ReferenceTime: uint32(rng.IntN(200))}
	if rng.IntN(20) == 0 {
		fb.ReferenceTime = rng.Uint32()
	}
	need := 0
	for left := int(fb.PacketStatusCount); left > 0; {
		if rng.IntN(2) == 0 {
			c := &rtcp.RunLengthChunk{PacketStatusSymbol: uint16(rng.IntN(4)), RunLength: uint16(rng.IntN(60))}
			fb.PacketChunks = append(fb.PacketChunks, c)
			if delayed(c.PacketStatusSymbol) {
				need += min(int(c.RunLength), left)
				for range min(int(c.RunLength), left) {
					fb.RecvDeltas = append(fb.RecvDeltas, anyDelta(rng, c.PacketStatusSymbol))
				}
			}
			left -= int(c.RunLength)
			continue
		}
		c := &rtcp.StatusVectorChunk{}
		for range 1 + rng.IntN(14) {
			symbol := uint16(rng.IntN(4))
			c.SymbolList = append(c.SymbolList, symbol)
			if left > 0 && delayed(symbol) {
				fb.RecvDeltas = append(fb.RecvDeltas, anyDelta(rng, symbol))
			}
			left--
		}
		fb.PacketChunks = append(fb.PacketChunks, c)
	}
	if rng.IntN(10) == 0 {
		fb.RecvDeltas = fb.RecvDeltas[:rng.IntN(len(fb.RecvDeltas)+1)]
	}
	return fb
}

func anyDelta(rng *rand.Rand, symbol uint16) *rtcp.RecvDelta {
	d := &rtcp.RecvDelta{Type: symbol, Delta: int64(rng.IntN(256)) * 250}
	if symbol == rtcp.TypeTCCPacketReceivedLargeDelta {
		d.Delta = int64(rng.IntN(65536)-32768) * 250
	}
	return d
}

// TestAnything: whatever is called in whatever order, with clocks that jump, the
// estimate stays a number within its bounds.
func TestAnything(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 2))
		cfg := Config{Start: rng.Float64() * 5e6, Min: rng.Float64() * 2e5, Max: rng.Float64() * 1e7}
		e, now, seq := New(cfg), simEpoch, uint16(rng.Uint32())
		for range 3000 {
			now = now.Add(time.Duration(rng.ExpFloat64() * float64(5*time.Millisecond)))
			switch rng.IntN(40) {
			case 0:
				e.Feedback(anyFeedback(rng, seq), now)
			case 1:
				e.REMB(math.Exp(rng.Float64()*60-10), now)
			case 2:
				e.Loss(rng.Float64()*1.2-0.1, now)
			case 3:
				e.SetDemand(rng.NormFloat64() * 1e7)
			case 4, 5, 6:
				e.Tick(now)
				if plan, ok := e.Probe(now); ok && (plan.Bytes < 0 || float64(plan.Bytes) > plan.Rate/8/10+1200) {
					t.Fatalf("%+v", plan)
				}
			case 7:
				if rng.IntN(20) == 0 {
					e.Restart(now)
				}
				now = now.Add(time.Duration(rng.NormFloat64() * float64(time.Second)))
			case 8:
				seq += uint16(rng.Uint32())
			default:
				seq++
				e.Sent(seq, rng.IntN(1500)-10, now)
			}
			check(t, e)
		}
	}
}

// FuzzFeedback: any bytes as a compound packet, beside what the library makes of them.
func FuzzFeedback(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, now := New(Config{}), simEpoch
		for seq := range uint16(300) {
			now = now.Add(2 * time.Millisecond)
			e.Sent(seq-100, 1000, now)
		}
		var fb rtcp.TransportLayerCC
		var ours, theirs report
		if fb.Unmarshal(raw) == nil && !fb.Header.Padding && theirs.convert(&fb) {
			size := 4 * (int(fb.Header.Length) + 1)
			if !ours.parse(raw[:size]) || ours.base != theirs.base || ours.reference != theirs.reference || !slices.Equal(ours.statuses, theirs.statuses) {
				t.Fatalf("%x\n%+v, the library says\n%+v", raw, ours, theirs)
			}
		}
		for range 20 {
			now = now.Add(50 * time.Millisecond)
			if rest := e.Compound(slices.Clone(raw), now); len(rest) > len(raw) {
				t.Fatalf("%d bytes left of %d", len(rest), len(raw))
			}
			e.Tick(now)
			e.Probe(now)
			check(t, e)
			if len(e.recent) > historySize || len(e.report.statuses) > historySize {
				t.Fatalf("%d packets of one feedback", len(e.report.statuses))
			}
			if len(raw) > 18 {
				raw[13] += 3 // the next packets, a little later
				raw[18]++
			}
		}
	})
}

// TestCompound: feedback is taken, the rest is left as it was.
func TestCompound(t *testing.T) {
	report, bye := []byte{0x80, 201, 0, 1, 0, 0, 0, 1}, []byte{0x81, 203, 0, 1, 0, 0, 0, 1}
	cut := []byte{0x8f, 205, 0, 99, 1, 2, 3, 4}
	tests := []struct {
		name      string
		in        [][]byte
		left      [][]byte
		malformed uint64
		believed  bool
	}{
		{"feedback alone", [][]byte{good(1)}, nil, 0, true},
		{"between others", [][]byte{report, good(1), bye, good(4)}, [][]byte{report, bye}, 0, true},
		{"none", [][]byte{report, bye}, [][]byte{report, bye}, 0, false},
		{"cut at the end", [][]byte{report, good(1), cut}, [][]byte{report, cut}, 0, true},
		{"nothing", nil, nil, 0, false},
		{"three bytes", [][]byte{{0x8f, 205, 0}}, [][]byte{{0x8f, 205, 0}}, 0, false},
		{"another version", [][]byte{{0x4f, 205, 0, 0}}, [][]byte{{0x4f, 205, 0, 0}}, 0, false},
		{"no room for a header", [][]byte{{0x8f, 205, 0, 0}, bye}, [][]byte{bye}, 1, false},
		{"more packets than are remembered", [][]byte{claims(65535)}, nil, 1, false},
		{"more packets than deltas", [][]byte{claims(2000)}, nil, 1, false},
		{"padding longer than the packet", [][]byte{padded(200)}, nil, 1, false},
		{"padding of nothing", [][]byte{padded(0)}, nil, 1, false},
		{"padded", [][]byte{padded(2)}, nil, 0, true},
	}
	for _, tt := range tests {
		s := newSender(Config{})
		s.seq = 0
		s.second(1e6)
		left := s.e.Compound(slices.Concat(tt.in...), s.now)
		if !slices.Equal(left, slices.Concat(tt.left...)) || s.e.ignored.Malformed != tt.malformed || s.e.transcc != tt.believed {
			t.Errorf("%s: left %x, %+v, believed %v", tt.name, left, s.e.ignored, s.e.transcc)
		}
	}
	e, raw := New(Config{}), claims(2000)
	e.Sent(1, 1, simEpoch)
	e.Compound(raw, simEpoch)
	if n := testing.AllocsPerRun(100, func() { e.Compound(raw, simEpoch) }); n != 0 {
		t.Errorf("%v allocations for a packet that claims 2000", n)
	}
}

// good reports three packets from base on; claims reports n, and has no deltas.
func good(base byte) []byte {
	return []byte{0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, base, 0, 3, 0, 0, 9, 1, 0x20, 3, 4, 4, 4, 0, 0, 0}
}

func claims(n uint16) []byte {
	raw := []byte{0x8f, 205, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, byte(n >> 8), byte(n), 0, 0, 9, 1}
	for range 10 {
		raw = append(raw, 0x3f, 0xff)
	}
	return raw
}

func padded(n byte) []byte {
	raw := good(1)
	raw[0] |= 0x20
	raw[len(raw)-1] = n
	return raw
}

func BenchmarkClaims(b *testing.B) {
	e, raw := New(Config{}), claims(2000)
	e.Sent(1, 1, simEpoch)
	for b.Loop() {
		e.Compound(raw, simEpoch)
	}
}

// TestHistory compares the ring with a map that never forgets.
func TestHistory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var h history
	oracle := map[int64]uint16{}
	n, newest := int64(65536+65000), int64(0)
	for range 200000 {
		switch rng.IntN(10) {
		case 0:
			n += int64(rng.IntN(50)) // numbers used by others
		case 1:
			n -= int64(min(rng.IntN(4), 3)) // out of order
		default:
			n++
		}
		size := uint16(rng.IntN(1500))
		h.add(uint16(n), size, time.Duration(n), 0)
		newest = max(newest, n)
		if n > newest-historySize {
			oracle[n] = size
		}
		probe := newest - int64(rng.IntN(3*historySize)) + 100
		got, want := h.get(h.unwrap(uint16(probe))), oracle[probe]
		if probe > newest || probe <= newest-historySize {
			if got != nil {
				t.Fatalf("packet %d is known, the newest is %d", probe, newest)
			}
		} else if _, sent := oracle[probe]; sent != (got != nil) || sent && got.size != want {
			t.Fatalf("packet %d of %d: %+v, want %d (%v)", probe, newest, got, want, sent)
		}
	}
}

// TestThroughput compares the buckets with a list of all arrivals.
func TestThroughput(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var tp throughput
	type arrived struct {
		bucket int64
		bytes  int
	}
	var all []arrived
	now, newest := 1000*time.Second, int64(0)
	for range 20000 {
		now += time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond))
		at := now - time.Duration(rng.IntN(60))*time.Millisecond // out of order
		bytes := rng.IntN(1500)
		if at < 1000*time.Second {
			at = 1000 * time.Second
		}
		tp.add(at, bytes)
		all = append(all, arrived{int64(at / bucket), bytes})
		newest = max(newest, int64(at/bucket))
		first := all[0].bucket
		from := max(newest-(buckets-1), first)
		if from >= newest {
			continue
		}
		sum := 0
		for i := max(len(all)-2000, 0); i < len(all); i++ {
			if a := all[i]; a.bucket >= from && a.bucket < newest {
				sum += a.bytes
			}
		}
		want := float64(sum*8) / (time.Duration(newest-from) * bucket).Seconds()
		if got := tp.long(); math.Abs(got-want) > 1 {
			t.Fatalf("at %v: %.0f bit/s, want %.0f", now, got, want)
		}
	}
}

// TestArrivalClock: reference times wrap after twelve days and run backwards a
// little; a leap begins anew.
func TestArrivalClock(t *testing.T) {
	var c arrivalClock
	ref := uint32(1<<24 - 10)
	last := c.reference(ref)
	for range 40 {
		ref = (ref + 3) & (1<<24 - 1)
		if got := c.reference(ref); got-last != 3*referenceUnit {
			t.Fatalf("at %d: %v after %v", ref, got, last)
		} else {
			last = got
		}
		if back := c.reference(ref - 1); last-back != referenceUnit {
			t.Fatalf("one back from %d: %v", ref, back)
		}
		c.reference(ref)
	}
	for range 1000 {
		ref += 1 << 22
		if got := c.reference(ref); got > 1<<26*referenceUnit || got < 0 {
			t.Fatalf("after a leap: %v", got)
		}
	}
}

func delayed(symbol uint16) bool {
	return symbol == rtcp.TypeTCCPacketReceivedSmallDelta || symbol == rtcp.TypeTCCPacketReceivedLargeDelta
}
