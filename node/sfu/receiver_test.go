package sfu

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

var epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func ms(n int) time.Time { return epoch0.Add(time.Duration(n) * time.Millisecond) }

func plainRTP(seq uint16, ts uint32) []byte {
	b := make([]byte, headerSize+4)
	putHeader(b, false, 96, seq, ts, 7)
	return b
}

func videoReceiver() *Receiver {
	return NewReceiver(ReceiverConfig{SSRC: 7, Kind: Video, ClockRate: 90000, Nack: true})
}

func asked(r *Receiver, now time.Time) string {
	pairs, keyframe := r.Nacks(now, nil)
	var list []string
	for _, p := range pairs {
		for _, s := range p.PacketList() {
			list = append(list, fmt.Sprint(s))
		}
	}
	if keyframe {
		list = append(list, "keyframe")
	}
	return strings.Join(list, " ")
}

// A hole is asked for when three later packets came or 20 ms passed, again after
// 60, 90, 135 ms, and given up after a second.
func TestNackTranscript(t *testing.T) {
	r := videoReceiver()
	r.Take(plainRTP(65534, 0), ms(0))
	r.Take(plainRTP(1, 0), ms(1)) // 65535 and 0 are missing
	for _, step := range []struct {
		at   int
		take int // -1: nothing
		want string
	}{
		{2, -1, ""},
		{3, 2, "65535"},                // 65535 has three behind it, 0 has two
		{4, 0, ""},                     // 0 was merely late
		{20, -1, ""},                   // too early to ask again
		{63, -1, "65535"},              // 60 ms after the first time
		{100, 5, ""},                   // 3 and 4 are missing
		{121, -1, "3 4"},               // 20 ms
		{153, -1, "65535"},             // 90 ms after the second
		{181, -1, "3 4"},               //
		{200, 4, ""},                   //
		{288, -1, "65535 3"},           //
		{1002, -1, "65535 3 keyframe"}, // replaced below
	} {
		if step.take >= 0 && !r.Take(plainRTP(uint16(step.take), 0), ms(step.at)) {
			t.Fatalf("at %d ms: packet %d was not taken", step.at, step.take)
		}
		got := asked(r, ms(step.at))
		if step.at == 1002 {
			if got != "3 keyframe" {
				t.Errorf("at %d ms: asked for %q, want 3 and a keyframe for 65535", step.at, got)
			}
			continue
		}
		if got != step.want {
			t.Errorf("at %d ms: asked for %q, want %q", step.at, got, step.want)
		}
	}
	if got := asked(r, ms(1200)); got != "keyframe" {
		t.Errorf("at the end: %q", got)
	}
	if got := asked(r, ms(5000)); got != "" {
		t.Errorf("after that: %q", got)
	}
}

func TestAudioIsGivenUpInSilence(t *testing.T) {
	r := NewReceiver(ReceiverConfig{Kind: Audio, ClockRate: 48000, Nack: true})
	r.Take(plainRTP(1, 0), ms(0))
	r.Take(plainRTP(3, 0), ms(40))
	if got := asked(r, ms(60)); got != "2" {
		t.Errorf("asked for %q", got)
	}
	if got := asked(r, ms(341)); got != "" {
		t.Errorf("asked for %q of what nobody will hear", got)
	}
}

func TestNoNackWhereNoneIsTaken(t *testing.T) {
	r := NewReceiver(ReceiverConfig{Kind: Audio, ClockRate: 48000})
	r.Take(plainRTP(1, 0), ms(0))
	r.Take(plainRTP(9, 0), ms(40))
	if got := asked(r, ms(1000)); got != "" {
		t.Errorf("asked for %q", got)
	}
}

func TestAHugeHoleIsBounded(t *testing.T) {
	r := videoReceiver()
	r.Take(plainRTP(1, 0), ms(0))
	r.Take(plainRTP(2900, 0), ms(1))
	if got := asked(r, ms(1)); !strings.HasSuffix(got, "keyframe") || strings.Count(got, " ") > maxMissing {
		t.Errorf("asked for %d packets", strings.Count(got, " "))
	}
	if len(r.missing) > maxMissing {
		t.Errorf("%d packets are waited for", len(r.missing))
	}
}

func TestRepairUndoesRFC4588(t *testing.T) {
	r := videoReceiver()
	r.Take(plainRTP(1, 0), ms(0))
	r.Take(plainRTP(3, 0), ms(1))
	lost := plainRTP(2, 4711)
	lost[1] |= 0x80
	copy(lost[headerSize:], "data")
	rtx := make([]byte, 0, 64)
	rtx = append(rtx, lost[:headerSize]...)
	rtx = binary.BigEndian.AppendUint16(rtx, 2)
	rtx = append(rtx, lost[headerSize:]...)
	rtx[1] = 0x80 | 97
	binary.BigEndian.PutUint16(rtx[2:], 999)
	binary.BigEndian.PutUint32(rtx[8:], 8)
	got, ok := r.Repair(slices.Clone(rtx), 96, ms(2))
	if !ok || string(got) != string(lost) {
		t.Errorf("got % x, %v, want % x", got, ok, lost)
	}
	if _, ok := r.Repair(slices.Clone(rtx), 96, ms(3)); ok {
		t.Error("it was taken twice")
	}
	if got := asked(r, ms(500)); got != "" {
		t.Errorf("asked for %q", got)
	}
	padding := append(slices.Clone(rtx[:headerSize]), 0, 0, 3)
	padding[0] |= 0x20
	if _, ok := r.Repair(padding, 96, ms(4)); ok {
		t.Error("padding was taken for a packet")
	}
	if rep, _ := r.Report(ms(5)); rep.TotalLost != 1 {
		t.Errorf("%d packets are reported lost: what was repaired was lost on the way", rep.TotalLost)
	}
}

// The report against counting by hand, over random loss, order and repetition.
func TestReceiverAgainstAnOracle(t *testing.T) {
	for seed := range int64(200) {
		rng := rand.New(rand.NewSource(seed))
		r := videoReceiver()
		first := uint16(rng.Intn(1 << 16))
		taken, asks := map[int]bool{}, map[int]int{}
		now := 0
		r.Take(plainRTP(first, 0), ms(now))
		taken[0] = true
		top := 0
		for n := 1; n < 400; n++ {
			now += rng.Intn(4)
			at := n
			switch p := rng.Intn(20); {
			case p < 3:
				continue // lost
			case p < 5:
				at = max(0, n-1-rng.Intn(8)) // late or twice
			}
			ok := r.Take(plainRTP(first+uint16(at), uint32(at)*3000), ms(now))
			if ok == taken[at] {
				t.Fatalf("seed %d: packet %d taken %v, came before %v", seed, at, ok, taken[at])
			}
			taken[at] = true
			top = max(top, at)
			pairs, _ := r.Nacks(ms(now), nil)
			for _, p := range pairs {
				for _, s := range p.PacketList() {
					i := int(s - first)
					if taken[i] || i > top {
						t.Fatalf("seed %d: asked for %d, which came or is to come", seed, i)
					}
					asks[i]++
				}
			}
		}
		r.Nacks(ms(now+30), nil)
		for i := range top - 3 {
			if !taken[i] && asks[i] == 0 && now > 200 && i > top-100 {
				t.Fatalf("seed %d: never asked for %d", seed, i)
			}
		}
		rep, _ := r.Report(ms(now))
		if want := top + 1 - len(taken); int(rep.TotalLost) != want {
			t.Fatalf("seed %d: %d lost, want %d", seed, rep.TotalLost, want)
		}
		if want := uint32(first) + uint32(top); rep.LastSequenceNumber != want {
			t.Fatalf("seed %d: highest %d, want %d", seed, rep.LastSequenceNumber, want)
		}
	}
}

func TestReportBetweenReports(t *testing.T) {
	r := videoReceiver()
	for i := range 100 {
		if i%4 != 0 || i == 0 {
			r.Take(plainRTP(uint16(i), uint32(i)*3000), ms(i*33+i%2*5))
		}
	}
	r.SenderReport(SenderReport{NTP: 0x0000_1234_5678_0000, Arrival: ms(3000)})
	rep, ok := r.Report(ms(3500))
	if !ok || rep.FractionLost != 24*256/100 || rep.TotalLost != 24 || rep.LastSenderReport != 0x12345678 || rep.Delay != 1<<15 {
		t.Errorf("%+v", rep)
	}
	// Every packet is 5 ms early or late: J converges to 450 ticks and some, by 1/3 ms of rounding.
	if rep.Jitter < 300 || rep.Jitter > 600 {
		t.Errorf("jitter %d ticks, want about 450", rep.Jitter)
	}
	if _, ok := r.Report(ms(3600)); ok {
		t.Error("nothing came, and was reported")
	}
	r.Take(plainRTP(100, 0), ms(3700))
	if rep, _ := r.Report(ms(3700)); rep.FractionLost != 0 {
		t.Errorf("fraction %d of one packet that came", rep.FractionLost)
	}
}

func TestReceiverAllocatesNothing(t *testing.T) {
	r := videoReceiver()
	pkt, n := plainRTP(0, 0), 0
	var buf [16]rtcp.NackPair
	allocs := testing.AllocsPerRun(2000, func() {
		n++
		if n%10 == 0 {
			return // lost
		}
		binary.BigEndian.PutUint16(pkt[2:], uint16(n))
		r.Take(pkt, ms(n))
		r.Nacks(ms(n), buf[:0])
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a packet", allocs)
	}
}

func FuzzRepair(f *testing.F) {
	f.Add([]byte{0x80, 97, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 2, 1, 2, 3})
	f.Add([]byte{0xb0, 97, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0xbe, 0xde, 0, 1, 0x10, 9, 0, 0, 0, 2, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := videoReceiver()
		n := len(b)
		got, ok := r.Repair(b, 96, epoch0)
		if ok && len(got) != n-2 {
			t.Errorf("%d bytes of %d", len(got), n)
		}
		if !ok {
			return
		}
		if h, err := parseHeader(got); err != nil || h.pt != 96 || h.ssrc != 7 {
			t.Errorf("made %+v, %v", h, err)
		}
	})
}
