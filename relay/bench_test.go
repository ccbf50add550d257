package relay_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
)

// counter is a sink that only counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Media(_ uint8, rtp [][]byte, _ time.Time)   { c.n.Add(int64(len(rtp))) }
func (c *counter) Report(uint8, wire.SenderReport, time.Time) {}

// BenchmarkVideo sends 1200-byte packets, 17 to a frame, from one node to another
// over loopback, both in this process. No more is under way than the queues hold,
// so that nothing is dropped; the waiting makes ns/op meaningless, cpu-ns/packet
// is the processor time of sender, receiver and kernel together.
func BenchmarkVideo(b *testing.B) {
	carry(b, true, 1, 1200, 17)
}

// BenchmarkAudio sends 160-byte packets of 20 tracks.
func BenchmarkAudio(b *testing.B) {
	carry(b, false, 20, 160, 1)
}

func carry(b *testing.B, video bool, n, size, perFrame int) {
	_, _, ab, ba := relaytest.NewMesh(b, nil).Pair(b)
	sink := new(counter)
	tracks := make([]*relay.Track, n)
	for i := range tracks {
		tracks[i] = openTrack(b, ab, video)
		bind(b, ba, tracks[i].Alias(), sink)
	}
	rtp := relaytest.RTP(0, 0, false, size)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	inFlight := int64(100 * n)
	if !video {
		inFlight = int64(10 * n)
	}
	for i := range b.N {
		rtp[7], rtp[6], rtp[5] = byte(i/perFrame), byte(i/perFrame>>8), byte(i/perFrame>>16)
		tracks[i%n].Offer(0, i%perFrame == perFrame-1, rtp)
		for stalled := time.Now(); int64(i)-sink.n.Load() > inFlight && time.Since(stalled) < 50*time.Millisecond; {
			time.Sleep(20 * time.Microsecond)
		}
	}
	limit := time.Now().Add(time.Second)
	for sink.n.Load() < int64(b.N) && time.Now().Before(limit) {
		time.Sleep(100 * time.Microsecond)
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/packet")
	b.ReportMetric(100*float64(sink.n.Load())/float64(b.N), "%delivered")
}

// cpu returns the processor time this process used, in nanoseconds.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkOffer is what a packet costs the publisher's read loop.
func BenchmarkOffer(b *testing.B) {
	for _, video := range []bool{true, false} {
		name := map[bool]string{true: "video", false: "audio"}[video]
		b.Run(name, func(b *testing.B) {
			_, _, ab, _ := relaytest.NewMesh(b, nil).Pair(b)
			track := openTrack(b, ab, video)
			size := map[bool]int{true: 1200, false: 160}[video]
			rtp := relaytest.RTP(0, 0, false, size)
			b.ReportAllocs()
			for i := range b.N {
				rtp[7] = byte(i / 17)
				track.Offer(0, i%17 == 16, rtp)
			}
		})
	}
}
