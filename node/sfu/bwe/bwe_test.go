package bwe

import (
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// runChunk and delta are short for what feedback is made of.
func runChunk(symbol, n uint16) rtcp.PacketStatusChunk {
	return &rtcp.RunLengthChunk{PacketStatusSymbol: symbol, RunLength: n}
}

func deltas(n int, each time.Duration) []*rtcp.RecvDelta {
	var all []*rtcp.RecvDelta
	for range n {
		all = append(all, &rtcp.RecvDelta{Type: rtcp.TypeTCCPacketReceivedSmallDelta, Delta: each.Microseconds()})
	}
	return all
}

// sender sends without a network: what is reported is up to the test.
type sender struct {
	e   *Estimator
	now time.Time
	seq uint16
}

func newSender(cfg Config) *sender { return &sender{e: New(cfg), now: simEpoch, seq: 65500} }

// second sends a second's media, with Tick and Probe as a session calls them.
func (s *sender) second(rate float64) (padding int) {
	for i := range 100 {
		s.now = s.now.Add(10 * time.Millisecond)
		s.seq++
		s.e.Sent(s.seq, int(rate/8/100), s.now)
		if i%5 == 0 {
			s.e.Tick(s.now)
			if plan, ok := s.e.Probe(s.now); ok {
				padding += plan.Bytes
			}
		}
	}
	return padding
}

func TestNothingIsAllocated(t *testing.T) {
	e, now, seq := New(Config{}), simEpoch, uint16(0)
	if n := testing.AllocsPerRun(5000, func() {
		seq++
		now = now.Add(time.Millisecond)
		e.Sent(seq, 1200, now)
	}); n != 0 {
		t.Errorf("%v allocations per Sent", n)
	}
	fb := &rtcp.TransportLayerCC{PacketStatusCount: 10, PacketChunks: []rtcp.PacketStatusChunk{runChunk(1, 10)}, RecvDeltas: deltas(10, time.Millisecond)}
	if n := testing.AllocsPerRun(1000, func() {
		fb.BaseSequenceNumber = seq + 1
		for range 10 {
			seq++
			now = now.Add(time.Millisecond)
			e.Sent(seq, 1200, now)
		}
		fb.ReferenceTime++
		e.Feedback(fb, now)
		e.Tick(now)
		e.Probe(now)
	}); n != 0 {
		t.Errorf("%v allocations per Feedback", n)
	}
}

func BenchmarkSent(b *testing.B) {
	e, now, seq := New(Config{}), simEpoch, uint16(0)
	for b.Loop() {
		seq++
		now = now.Add(time.Millisecond)
		e.Sent(seq, 1200, now)
	}
}

// TestFeedbackThatCannotBe: ignored as a whole, and counted.
func TestFeedbackThatCannotBe(t *testing.T) {
	good := func() *rtcp.TransportLayerCC {
		return &rtcp.TransportLayerCC{BaseSequenceNumber: 1, PacketStatusCount: 4, ReferenceTime: 77,
			PacketChunks: []rtcp.PacketStatusChunk{runChunk(1, 4)}, RecvDeltas: deltas(4, time.Millisecond)}
	}
	var noRun *rtcp.RunLengthChunk
	var noVector *rtcp.StatusVectorChunk
	tests := []struct {
		name   string
		change func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC
		want   Ignored
	}{
		{"nil", func(*rtcp.TransportLayerCC) *rtcp.TransportLayerCC { return nil }, Ignored{Malformed: 1}},
		{"no packets", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.PacketStatusCount = 0; return fb }, Ignored{Malformed: 1}},
		{"more packets than are remembered", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC {
			fb.PacketStatusCount, fb.PacketChunks = 65535, []rtcp.PacketStatusChunk{runChunk(0, 8191), runChunk(0, 8191)}
			return fb
		}, Ignored{Malformed: 1}},
		{"fewer symbols than packets", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.PacketStatusCount = 5; return fb }, Ignored{Malformed: 1}},
		{"no chunks", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.PacketChunks = nil; return fb }, Ignored{Malformed: 1}},
		{"chunks that are none", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC {
			fb.PacketChunks = []rtcp.PacketStatusChunk{nil, noRun, noVector}
			return fb
		}, Ignored{Malformed: 1}},
		{"fewer deltas than arrivals", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.RecvDeltas = deltas(3, 0); return fb }, Ignored{Malformed: 1}},
		{"a delta that is none", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.RecvDeltas[2] = nil; return fb }, Ignored{Malformed: 1}},
		{"a delta of another kind", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.RecvDeltas[2].Type = 2; return fb }, Ignored{Malformed: 1}},
		{"a delta of years", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.RecvDeltas[2].Delta = 1 << 60; return fb }, Ignored{Malformed: 1}},
		{"packets that were not sent yet", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.BaseSequenceNumber = 2001; return fb }, Ignored{Unknown: 1}},
		{"packets long gone", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC { fb.BaseSequenceNumber = 40000; return fb }, Ignored{Unknown: 1}},
		{"reserved symbols", func(fb *rtcp.TransportLayerCC) *rtcp.TransportLayerCC {
			fb.PacketChunks, fb.RecvDeltas = []rtcp.PacketStatusChunk{runChunk(3, 4)}, nil
			return fb
		}, Ignored{}},
	}
	for _, tt := range tests {
		s := newSender(Config{})
		s.seq = 0
		for range 20 {
			s.second(1e6)
		}
		before := *s.e
		s.e.Feedback(tt.change(good()), s.now)
		if s.e.ignored != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, s.e.ignored, tt.want)
		}
		if s.e.transcc || s.e.estimate != before.estimate || s.e.acked != before.acked {
			t.Errorf("%s: was believed", tt.name)
		}
	}
	s := newSender(Config{})
	s.seq = 0
	s.second(1e6)
	s.e.Feedback(good(), s.now)
	s.e.Feedback(good(), s.now)
	if s.e.ignored != (Ignored{Repeated: 4}) || !s.e.transcc {
		t.Errorf("the same twice: %+v", s.e.ignored)
	}
}

func TestSilenceDecays(t *testing.T) {
	s := newSim(1, around(2e6), elastic(5e6))
	s.mute = func(at time.Duration) bool { return at > 10*time.Second && at < 14*time.Second }
	s.run(20 * time.Second)
	before, during := s.between(8*time.Second, 10*time.Second), s.between(13*time.Second, 14*time.Second)
	if during.estimate > before.estimate/3 {
		t.Errorf("%.0f kbit/s before, %.0f after three seconds of silence", before.estimate/1e3, during.estimate/1e3)
	}
	if p := s.trace[135]; p.reason != NoFeedback {
		t.Errorf("at %v: %q", p.t, p.reason)
	}
	if d := s.reached(14*time.Second, func(e float64) bool { return e > 1.3e6 }); d > 3*time.Second {
		t.Errorf("came back after %v", d)
	}

	idle := newSender(Config{})
	idle.second(1e6)
	idle.e.REMB(1e6, idle.now)
	for range 100 {
		idle.now = idle.now.Add(100 * time.Millisecond)
		idle.e.Tick(idle.now)
	}
	if got := idle.e.Estimate(); got != 1e6 {
		t.Errorf("nothing was sent, and silence made %.0f of 1000000 bit/s", got)
	}
}

func TestUnusedIsNotBelieved(t *testing.T) {
	s := newSim(1, around(20e6), fixed(300e3))
	s.e = New(Config{Start: 150e3})
	s.e.SetDemand(0)
	s.run(60 * time.Second)
	if f := s.between(0, time.Minute); f.most > 2*300e3 || f.least < 150e3 {
		t.Errorf("300 kbit/s arrived, %.0f to %.0f were believed", f.least/1e3, f.most/1e3)
	}
	if s.padding > 0 {
		t.Errorf("%d bytes of padding, and nobody wanted more", s.padding)
	}
	// What a probe proved counts, and is forgotten when nobody uses it.
	s.src = func(s *sim) float64 { s.e.SetDemand(4e6); return 300e3 }
	s.run(5 * time.Second)
	if got := s.e.Estimate(); got < 3.9e6 {
		t.Errorf("4 Mbit/s wanted, %.0f known after five seconds", got)
	}
	s.src = func(s *sim) float64 { s.e.SetDemand(0); return 300e3 }
	s.run(3 * time.Minute)
	if got := s.e.Estimate(); got > 2*300e3 || s.e.reason != Forgotten && s.e.reason != Unproven {
		t.Errorf("three minutes later: %s", s.e.Explain())
	}
}

func TestProbeThatCannotBeSent(t *testing.T) {
	s := newSim(1, around(20e6), func(s *sim) float64 { s.e.SetDemand(5e6); return 20e3 })
	s.unpadded = true
	s.run(20 * time.Second)
	if p := s.e.probe; p.failed != 0 || p.count < 10 || p.count > 30 {
		t.Errorf("%d clusters, %d failed", p.count, p.failed)
	}
}

func TestReceiversOwnEstimate(t *testing.T) {
	s := newSender(Config{})
	s.second(500e3)
	s.e.REMB(2e6, s.now)
	if s.e.Estimate() != 2e6 || s.e.reason != ReceiverBE {
		t.Errorf("after a REMB of 2 Mbit/s: %s", s.e.Explain())
	}
	s.e.REMB(10, s.now)
	if s.e.Estimate() != s.e.cfg.Min {
		t.Errorf("after a REMB of 10 bit/s: %s", s.e.Explain())
	}
	for _, bad := range []float64{0, -1, inf(), nan()} {
		s.e.REMB(bad, s.now)
	}
	if s.e.ignored.Malformed != 4 {
		t.Errorf("%+v", s.e.ignored)
	}
	// Beside transport-wide feedback it is a bound.
	both := newSim(1, around(3e6), elastic(5e6)).run(5 * time.Second)
	both.e.REMB(600e3, both.now())
	both.run(5 * time.Second)
	if got := both.e.Estimate(); got > 600e3 || got < 400e3 {
		t.Errorf("REMB of 600 kbit/s: %s", both.e.Explain())
	}
}

// TestReceiverReportsOnly: neither transport-wide feedback nor REMB.
func TestReceiverReportsOnly(t *testing.T) {
	s := newSender(Config{})
	for range 20 {
		s.second(1e6)
		s.e.Loss(0, s.now)
	}
	if got := s.e.Estimate(); got < 1.3e6 || got > 2e6 {
		t.Errorf("1 Mbit/s without loss for 20 s: %s", s.e.Explain())
	}
	// A policer of 600 kbit/s.
	for range 20 {
		rate := s.e.Estimate()
		s.second(rate)
		s.e.Loss(max(1-600e3/rate, 0), s.now)
	}
	if got := s.e.Estimate(); got < 400e3 || got > 750e3 {
		t.Errorf("policer of 600 kbit/s: %s", s.e.Explain())
	}
	before := s.e.Stats()
	for _, bad := range []float64{-0.1, 1.1, nan()} {
		s.e.Loss(bad, s.now)
	}
	if after := s.e.Stats(); after.Estimate != before.Estimate || after.Ignored.Malformed != 3 {
		t.Errorf("loss that cannot be: %+v", after.Ignored)
	}
}

// TestLongerWay: the path changes to a slower and longer one, and back.
func TestLongerWay(t *testing.T) {
	for _, told := range []bool{true, false} {
		s := newSim(1, around(10e6), elastic(9e6)).run(5 * time.Second)
		s.p.delay, s.p.rate = 300*msec, constant(2e6)
		if told {
			s.e.Restart(s.now())
			if s.e.Estimate() != 1e6 || s.e.reason != NewPath {
				t.Errorf("after a restart: %s", s.e.Explain())
			}
		}
		s.run(20 * time.Second)
		if f := s.between(7*time.Second, 15*time.Second); told && f.least < 900e3 {
			t.Errorf("what was sent on the old path counts on the new one: %+v", f)
		}
		if f := s.between(15*time.Second, 25*time.Second); f.use < 0.7 || f.p95 > 250*msec {
			t.Errorf("on the longer way, told %v: %+v", told, f)
			s.print(t, 4)
		}
		s.p.delay, s.p.rate = 25*msec, constant(10e6)
		s.run(20 * time.Second)
		if f := s.between(35*time.Second, 45*time.Second); f.use < 0.7 {
			t.Errorf("back again, told %v: %+v", told, f)
			s.print(t, 4)
		}
	}
}

func TestExplain(t *testing.T) {
	s := newSim(1, around(2e6), elastic(5e6)).run(10 * time.Second)
	for _, want := range []string{"kbit/s, normal: queues do not grow", "wanted 5000 kbit/s", "own 0.0 %"} {
		if !strings.Contains(s.e.Explain(), want) {
			t.Errorf("%q lacks %q", s.e.Explain(), want)
		}
	}
}
