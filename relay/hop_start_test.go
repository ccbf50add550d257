package relay_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/node/sfu/bwe"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
)

// A link that was idle, and begins with 49 Mbit/s of video and 200 voices at once over
// a path of 20 ms that loses, carries all of it soon. A few datagrams that were lost
// while the link was idle are no reason to leave layers out, and what the path carries
// is found beside sound that alone has more than the estimate. With the estimator of
// before, a loss bound of the idle time held the estimate at 5 Mbit/s for 9 s, and probes
// were given up that wanted less than what was sent anyway.
func TestBusyStartIsCarriedSoon(t *testing.T) {
	const soon = 2 * time.Second
	for _, c := range []struct {
		idle, loss float64       // before, and with media
		most       time.Duration // of 3 % it is found out first that they are the path's own
	}{{0, 0, soon}, {0.01, 0.01, soon}, {0.04, 0.01, soon}, {0.05, 0.01, soon}, {0.03, 0.03, 2 * soon}} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%.0f then %.0f per cent, seed %d", 100*c.idle, 100*c.loss, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					path := relaytest.Path{Delay: 20 * time.Millisecond, Loss: c.idle}
					mesh := relaytest.NewMesh(t, relaytest.NewNetwork(seed, path))
					a, b, ab, ba := onUDP(t, mesh)
					time.Sleep(10 * time.Second)
					path.Loss = c.loss
					mesh.Net.SetPath(a.Addr, b.Addr, path)
					mesh.Net.SetPath(b.Addr, a.Addr, path)
					eventually(t, "media goes over UDP", func() bool { // four signs of life in a row may have been lost
						return ab.Stats().Carriage == "udp" && ba.Stats().Carriage == "udp"
					})
					before := ab.Stats().UDP.Estimate
					took := busyStart(t, ab, ba, c.most)
					u := ab.Stats().UDP
					t.Logf("from %.1f Mbit/s to %.1f after %s", before/1e6, u.Estimate/1e6, took)
					if u.Held > 0 || u.Estimate < 60e6 {
						t.Errorf("after %s %d layers are left out, of an estimate of %.1f Mbit/s (%s); media goes over %s and %s", took, u.Held, u.Estimate/1e6, u.Because, ab.Stats().Carriage, ba.Stats().Carriage)
					}
				})
			})
		}
	}
}

// A link that was idle, and begins with four cameras of 15 Mbit/s and ten voices at once,
// over a path that carries less than is assumed of an unknown one, makes no queue there of
// which anybody who speaks is heard late: what the path carries was found out before.
// Before, up to half of the sound of the first second was lost, and came up to 0.8 s late.
func TestNarrowStartMakesNoQueue(t *testing.T) {
	const trip = 20 * time.Millisecond
	const ms = time.Millisecond
	for _, c := range []struct {
		mbits       int
		queue, most time.Duration // room in the queue; voices are late
	}{
		{1, 300 * ms, 250 * ms}, // of which voices have 0.7
		{2, 300 * ms, 100 * ms},
		{4, 300 * ms, 100 * ms},
		{4, 12 * ms, time.Second}, // where much is lost and repaired, and only what is known counts
		{3, 5 * ms, time.Second},
	} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%d Mbit/s, queue of %s, seed %d", c.mbits, c.queue, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					mesh := relaytest.NewMesh(t, relaytest.NewNetwork(seed, relaytest.Path{Delay: trip, Rate: c.mbits * 1e6, Queue: c.queue}))
					_, _, ab, ba := onUDP(t, mesh)
					time.Sleep(10 * time.Second)
					before := *ab.Stats().UDP
					heard := meet(t, ab, ba)
					t.Logf("%d Mbit/s, queue of %s: %.1f Mbit/s (%s), the latest voice after %s", c.mbits, c.queue, before.Estimate/1e6, before.Because, heard)
					if bits := float64(c.mbits) * 1e6; before.Because != string(bwe.Scouted) || before.Estimate < 0.7*bits || before.Estimate > 1.2*bits {
						t.Errorf("%.1f Mbit/s are known (%s)", before.Estimate/1e6, before.Because)
					}
					if heard > trip+c.most {
						t.Errorf("voices are heard up to %s late", heard)
					}
				})
			})
		}
	}
}

// A path that carries enough is not taken for a narrow one because it loses, or is late by
// chance, while a link is idle.
func TestChanceMakesNoPathNarrow(t *testing.T) {
	for _, path := range []relaytest.Path{
		{Delay: 20 * time.Millisecond},
		{Delay: 20 * time.Millisecond, Rate: 6e6},
		{Delay: 20 * time.Millisecond, Loss: 0.05},
		{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.01},
		{Delay: 20 * time.Millisecond, Jitter: 100 * time.Millisecond, Loss: 0.05},
	} {
		for seed := range uint64(10) {
			synctest.Test(t, func(t *testing.T) {
				_, _, ab, ba := onUDP(t, relaytest.NewMesh(t, relaytest.NewNetwork(seed, path)))
				time.Sleep(10 * time.Second)
				for _, l := range []*relay.Link{ab, ba} {
					if u := l.Stats().UDP; u.Because == string(bwe.Scouted) {
						t.Errorf("%+v, seed %d: %.1f Mbit/s (%s)", path, seed, u.Estimate/1e6, u.Because)
					}
				}
			})
		}
	}
}

// meet plays four cameras and ten voices for a second, and returns by how much the voices
// that came were late at most.
func meet(t *testing.T, ab, ba *relay.Link) time.Duration {
	t.Helper()
	const step, frame, voice = 2 * time.Millisecond, 16, 10 // steps
	begun := time.Now()
	var cameras, voices []*relay.Track
	ear := &late{begun: begun}
	for i := range 14 {
		track, sink := openTrack(t, ab, i < 4), relay.MediaSink(deaf{})
		if cameras = append(cameras, track); i >= 4 {
			cameras, voices, sink = cameras[:4], append(voices, track), ear
		}
		bind(t, ba, track.Alias(), sink)
	}
	const steps = 500
	for i := range steps {
		for c, track := range cameras {
			for layer := range uint8(3) {
				for p := range 2 << layer {
					if (i+4*c)%frame == 0 {
						track.Offer(layer, p == 2<<layer-1, relaytest.RTP(uint16(i<<4+p), uint32(i), p == 2<<layer-1, 1150))
					}
				}
			}
		}
		for v, track := range voices {
			if (i+v)%voice == 0 {
				track.Offer(0, true, relaytest.RTP(uint16(i/voice), uint32(time.Since(begun)/time.Microsecond), true, 120))
			}
		}
		time.Sleep(step)
	}
	time.Sleep(time.Second)
	if n := ear.n.Load(); n < steps {
		t.Errorf("%d of %d packets of sound came", n, steps)
	}
	return time.Duration(ear.most.Load())
}

// late takes packets whose timestamp is in microseconds since begun.
type late struct {
	begun   time.Time
	n, most atomic.Int64
}

func (l *late) Media(_ uint8, packets [][]byte, now time.Time) {
	for _, p := range packets {
		l.n.Add(1)
		since := now.Sub(l.begun) - time.Duration(binary.BigEndian.Uint32(p[4:]))*time.Microsecond
		for was := l.most.Load(); since > time.Duration(was) && !l.most.CompareAndSwap(was, int64(since)); was = l.most.Load() {
		}
	}
}

func (*late) Report(uint8, wire.SenderReport, time.Time) {}

// deaf takes packets and keeps none.
type deaf struct{}

func (deaf) Media(uint8, [][]byte, time.Time)           {}
func (deaf) Report(uint8, wire.SenderReport, time.Time) {}

// busyStart plays ten cameras and 200 voices until nothing is left out, but no longer
// than most.
func busyStart(t *testing.T, ab, ba *relay.Link, most time.Duration) time.Duration {
	t.Helper()
	var cameras, voices []*relay.Track
	for i := range 210 {
		track := openTrack(t, ab, i < 10)
		bind(t, ba, track.Alias(), deaf{})
		if i < 10 {
			cameras = append(cameras, track)
		} else {
			voices = append(voices, track)
		}
	}
	const step = 2 * time.Millisecond
	begun, since := time.Now(), time.Duration(0)
	for i := 0; since < most; i++ {
		for c, track := range cameras {
			if (i+c)%17 == 0 {
				for p := range 17 {
					track.Offer(0, p == 16, relaytest.RTP(uint16(i+p), uint32(i), p == 16, 1200))
				}
			}
		}
		for v, track := range voices {
			if (i+v)%10 == 0 {
				track.Offer(0, true, relaytest.RTP(uint16(i/10), uint32(i), true, 120))
			}
		}
		time.Sleep(step)
		since = time.Since(begun)
		if u := ab.Stats().UDP; since > 500*time.Millisecond && u.Held == 0 && u.Estimate > 60e6 {
			break
		}
	}
	return since
}

// A link over a path that loses eight datagrams in a hundred, each way, stays on UDP for a
// quarter of an hour, in which it has no tracks but for a tenth of a second now and then. When
// signs of life are lost, others are sent before the path is given up; and what has just
// begun does not count as lost. With any four datagrams unheard for 400 ms it went to QUIC
// again and again, for five seconds each.
func TestIdleLinkStaysOnUDP(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			mesh := relaytest.NewMesh(t, relaytest.NewNetwork(seed, relaytest.Path{Delay: 20 * time.Millisecond}))
			a, b, ab, ba := onUDP(t, mesh)
			path := relaytest.Path{Delay: 20 * time.Millisecond, Loss: 0.08}
			mesh.Net.SetPath(a.Addr, b.Addr, path)
			mesh.Net.SetPath(b.Addr, a.Addr, path)
			for i := range 250 {
				time.Sleep(3 * time.Second)
				time.Sleep(time.Duration(17*i%1000) * time.Millisecond)
				track := openTrack(t, ab, false)
				bind(t, ba, track.Alias(), deaf{})
				for p := range 100 {
					track.Offer(0, true, relaytest.RTP(uint16(p), uint32(p), true, 1000))
					time.Sleep(time.Millisecond)
				}
				track.Close()
				ba.Unbind(track.Alias())
			}
			for _, l := range []*relay.Link{ab, ba} {
				if s := l.Stats(); s.Carriage != "udp" || s.UDP.Moves != 1 {
					t.Errorf("to %s: media goes over %s (%s), after %d moves", l.Peer().Name, s.Carriage, s.Why, s.UDP.Moves)
				}
			}
		})
	}
}
