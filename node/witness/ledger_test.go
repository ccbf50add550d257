package witness

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func about(c residency.Class, e residency.Epoch) About {
	return About{PeerCertificate: evidence.Fingerprint([]byte("x")), Class: c, Policy: "eea-only", Rule: residency.RuleZone, Epoch: e}
}

func line(at time.Duration, r evidence.Receipt) string {
	final := ""
	if r.Final {
		final = " final"
	}
	return fmt.Sprintf("%s %s %s %s epoch %d: %d packets %d bytes, lost %d %d%s", at, r.Side, r.Peer, r.Class, r.Epoch, r.Packets, r.Bytes, r.Lost, r.LostBytes, final)
}

// TestTranscript follows a node through a meeting of some minutes.
func TestTranscript(t *testing.T) {
	l := NewLedger()
	sent := ID{evidence.Sent, "fra", 1}
	got := ID{evidence.Received, "fra", 7}
	var lines []string
	for at := time.Duration(0); at <= 11*time.Minute; at += time.Second {
		now := noon.Add(at)
		secs := uint64(min(at, 10*time.Minute) / time.Second)
		over := at > 10*time.Minute
		l.Take(now, sent, about(residency.ClassMedia, 1), Count{Packets: secs * 50, Bytes: secs * 8000, Final: over})
		// every fiftieth packet is lost, and the peer's word is a second late
		l.Take(now, got, about(residency.ClassMedia, 1), Count{Packets: secs * 49, Bytes: secs * 49 * 160,
			ToldPackets: over50(secs, over), ToldBytes: over50(secs, over) * 160, Final: over})
		if over {
			l.Leave(now)
		}
		for _, r := range l.Due(now) {
			lines = append(lines, line(at, r))
		}
		if l.Done() {
			break
		}
	}
	want := `
6s received fra media epoch 1: 294 packets 47040 bytes, lost 0 0
6s sent fra media epoch 1: 300 packets 48000 bytes, lost 0 0
1m6s received fra media epoch 1: 2940 packets 470400 bytes, lost 0 0
1m6s sent fra media epoch 1: 3000 packets 480000 bytes, lost 0 0
2m6s received fra media epoch 1: 2940 packets 470400 bytes, lost 0 0
2m6s sent fra media epoch 1: 3000 packets 480000 bytes, lost 0 0
3m6s received fra media epoch 1: 2940 packets 470400 bytes, lost 0 0
3m6s sent fra media epoch 1: 3000 packets 480000 bytes, lost 0 0
4m8s received fra media epoch 1: 3038 packets 486080 bytes, lost 0 0
4m8s sent fra media epoch 1: 3100 packets 496000 bytes, lost 0 0
5m31s received fra media epoch 1: 4067 packets 650720 bytes, lost 0 0
5m31s sent fra media epoch 1: 4150 packets 664000 bytes, lost 0 0
7m21s received fra media epoch 1: 5390 packets 862400 bytes, lost 0 0
7m21s sent fra media epoch 1: 5500 packets 880000 bytes, lost 0 0
9m48s received fra media epoch 1: 7203 packets 1152480 bytes, lost 0 0
9m48s sent fra media epoch 1: 7350 packets 1176000 bytes, lost 0 0
10m3s received fra media epoch 1: 588 packets 94080 bytes, lost 600 96000
10m3s sent fra media epoch 1: 600 packets 96000 bytes, lost 0 0 final
`
	if got := "\n" + strings.Join(lines, "\n") + "\n"; got != want {
		t.Errorf("got%s", got)
	}
}

func over50(secs uint64, over bool) uint64 {
	if over {
		return secs * 50
	}
	return (secs - min(secs, 1)) * 50
}

// TestSumsAreWhatWasCounted lets streams move at random, change their epoch, and
// lose things; whatever the schedule, the receipts of a stay add up to the
// counts, each time once, and the last one alone is final.
func TestSumsAreWhatWasCounted(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		l, now := NewLedger(), noon
		n := 1 + rng.IntN(5)
		counts := make([]Count, n)
		var total, stated Count
		var finals, receipts int
		add := func(list []evidence.Receipt) {
			for _, r := range list {
				receipts++
				stated.Packets, stated.Bytes = stated.Packets+r.Packets, stated.Bytes+r.Bytes
				stated.ToldPackets, stated.ToldBytes = stated.ToldPackets+r.Lost, stated.ToldBytes+r.LostBytes
				if finals > 0 {
					t.Fatalf("seed %d: a receipt after the final one", seed)
				}
				if r.Final {
					finals++
				}
				if r.First > r.Last || r.Last > evidence.Millis(now) {
					t.Fatalf("seed %d: times %d to %d at %d", seed, r.First, r.Last, evidence.Millis(now))
				}
			}
		}
		steps := 50 + rng.IntN(500)
		for range steps {
			now = now.Add(time.Second)
			for i := range counts {
				if rng.IntN(3) == 0 {
					k, lost := uint64(rng.IntN(100)), uint64(rng.IntN(2))
					counts[i].Packets, counts[i].Bytes = counts[i].Packets+k, counts[i].Bytes+k*100
					counts[i].ToldPackets, counts[i].ToldBytes = counts[i].ToldPackets+k+lost, counts[i].ToldBytes+(k+lost)*100
				}
				l.Take(now, ID{evidence.Received, "fra", uint64(i)}, about(residency.ClassMedia, residency.Epoch(i+1)), counts[i])
			}
			add(l.Due(now))
		}
		for i := range counts {
			counts[i].Final = true
			total.Packets, total.Bytes = total.Packets+counts[i].Packets, total.Bytes+counts[i].Bytes
			total.ToldPackets += counts[i].ToldPackets - counts[i].Packets
			total.ToldBytes += counts[i].ToldBytes - counts[i].Bytes
		}
		l.Leave(now)
		for range 40 {
			now = now.Add(time.Second)
			for i := range counts {
				l.Take(now, ID{evidence.Received, "fra", uint64(i)}, about(residency.ClassMedia, residency.Epoch(i+1)), counts[i])
			}
			add(l.Due(now))
		}
		if stated != total || finals != 1 || !l.Done() {
			t.Fatalf("seed %d: %d receipts state %+v, %d final, counted %+v", seed, receipts, stated, finals, total)
		}
		if receipts > n*steps/20+3*n+1 {
			t.Fatalf("seed %d: %d receipts in %d s", seed, receipts, steps)
		}
	}
}

// TestLeaveWithoutTheLastWord ends although a link that is lost for good never
// says how much was sent.
func TestLeaveWithoutTheLastWord(t *testing.T) {
	l := NewLedger()
	l.Take(noon, ID{evidence.Received, "fra", 1}, about(residency.ClassChat, 1), Count{Packets: 5, Bytes: 50})
	l.Leave(noon)
	if out := l.Due(noon.Add(leaveWait - time.Second)); len(out) != 1 || out[0].Final {
		t.Errorf("got %v", out)
	}
	out := l.Due(noon.Add(leaveWait))
	if len(out) != 1 || !out[0].Final || out[0].Packets != 0 || !l.Done() {
		t.Errorf("got %v", out)
	}
}

// TestNothingCountedNothingWritten leaves a room through which nothing went.
func TestNothingCountedNothingWritten(t *testing.T) {
	l := NewLedger()
	l.Take(noon, ID{evidence.Sent, "fra", 1}, about(residency.ClassChat, 1), Count{})
	l.Leave(noon)
	if out := l.Due(noon.Add(time.Hour)); len(out) != 0 || !l.Done() {
		t.Errorf("got %v", out)
	}
}

// TestBooksAreBounded offers more streams than a room can have.
func TestBooksAreBounded(t *testing.T) {
	l := NewLedger()
	for i := range uint64(maxStreams + 10) {
		if ok := l.Take(noon, ID{evidence.Sent, "fra", i}, about(residency.ClassChat, 1), Count{Packets: 1}); ok != (i < maxStreams) {
			t.Fatalf("stream %d: %t", i, ok)
		}
	}
}

// TestRefusalsAreToldOnceAMinute keeps a class from a node many times a second.
func TestRefusalsAreToldOnceAMinute(t *testing.T) {
	l := NewLedger()
	id := ID{evidence.Refused, "nyc", 1}
	var lines []string
	for at := time.Duration(0); at <= 3*time.Minute; at += time.Second {
		a := about(residency.ClassMedia, 1)
		if a.Rule = residency.RuleZone; at%(2*time.Second) == time.Second {
			a.Rule = residency.RuleEdgeEmpty
		}
		l.Take(noon.Add(at), id, a, Count{Packets: 7 * (1 + uint64(at/time.Second))})
		for _, r := range l.Due(noon.Add(at)) {
			lines = append(lines, line(at, r)+" "+r.Rule)
		}
	}
	want := `0s refused nyc media epoch 1: 7 packets 0 bytes, lost 0 0 zone
1m0s refused nyc media epoch 1: 420 packets 0 bytes, lost 0 0 edge-empty
2m0s refused nyc media epoch 1: 420 packets 0 bytes, lost 0 0 edge-empty
3m0s refused nyc media epoch 1: 420 packets 0 bytes, lost 0 0 edge-empty`
	if got := strings.Join(lines, "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestLongStreams tells of a stream every five minutes at the latest: what a node that
// is killed had counted and not told is bounded.
func TestLongStreams(t *testing.T) {
	l := NewLedger()
	var last, longest time.Duration
	receipts := 0
	for at := time.Duration(0); at <= 8*time.Hour; at += time.Second {
		l.Take(noon.Add(at), ID{evidence.Sent, "fra", 1}, about(residency.ClassMedia, 1), Count{Packets: 1 + uint64(at/time.Second)})
		for range l.Due(noon.Add(at)) {
			receipts++
			longest, last = max(longest, at-last), at
		}
	}
	if longest > mostEvery || receipts > 110 {
		t.Errorf("%d receipts in eight hours, the longest time between two is %s", receipts, longest)
	}
}
