package sfu

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
)

// ring is an Out as the real one: room after room in a large buffer.
type ring struct {
	buf []byte
	at  int
}

func (r *ring) Reserve(n int) []byte {
	if r.at+n > len(r.buf) {
		r.at = 0
	}
	b := r.buf[r.at : r.at+n : len(r.buf)]
	r.at += n
	return b
}
func (r *ring) Flush() {}

// processTime is what the process has used of the processors, in ns: wall time
// tells little on a machine that others use.
func processTime() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

type nowhere struct{}

func (nowhere) Write(Out, []byte, int) error { return nil }

// BenchmarkFanout is what a packet costs each receiver before it is sealed:
// bursts of six VP8 packets of 1150 bytes, stamped. The time is that of a packet
// to one receiver.
func BenchmarkFanout(b *testing.B) {
	for _, sinks := range []int{100, 1000} {
		b.Run(fmt.Sprint(sinks), func(b *testing.B) {
			const packets = 6
			up := NewUpTrack(vp8Cfg)
			for i := range sinks {
				binding := rtxBinding
				binding.SSRC = uint32(i)
				binding.Writer = nowhere{}
				NewDownTrack(up, DownConfig{}).Bind(binding)
			}
			s, out := newSource(0), &ring{buf: make([]byte, 1<<18)}
			burst := make([]Inbound, packets)
			for i := range burst {
				burst[i] = Inbound{append(s.packet(i == 0), make([]byte, 1130)...), start}
			}
			send := func() {
				for i := range burst {
					binary.BigEndian.PutUint16(burst[i].Raw[2:], s.seq)
					s.seq++
				}
				up.Ingest(0, burst, out)
			}
			for range 2 * videoCache / packets {
				send()
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := processTime()
			for i := 0; i < b.N; i += packets * sinks {
				send()
			}
			b.ReportMetric(float64(processTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
