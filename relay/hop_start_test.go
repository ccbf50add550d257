package relay_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
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
		if err := ba.Bind(relaytest.Permit(t, ba.Peer(), 1, "r", residency.ClassMedia), track.Alias(), deaf{}); err != nil {
			t.Fatal(err)
		}
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
				if err := ba.Bind(relaytest.Permit(t, ba.Peer(), 1, "r", residency.ClassMedia), track.Alias(), deaf{}); err != nil {
					t.Fatal(err)
				}
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
