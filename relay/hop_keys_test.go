package relay_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
)

// TestKeysChangeUnderMedia has both ends change their keys, after an hour, in the middle of
// what they send, on a path that loses packets and lets them overtake each other: nothing
// is missed for it.
func TestKeysChangeUnderMedia(t *testing.T) {
	path := relaytest.Path{Delay: 8 * time.Millisecond}
	simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
		begun := time.Now()
		mesh.UDP = true
		start := func(name residency.NodeName) *relaytest.Node {
			return mesh.StartAs(t, mesh.CA.Identity(t, residency.Node{Name: name, Country: "DE", NotBefore: begun, NotAfter: begun.Add(12 * time.Hour)}), netip.AddrPort{})
		}
		a, b := start("a"), start("b")
		mesh.Introduce()
		ab, ba := relaytest.Await(t, a.Up, "link at a"), relaytest.Await(t, b.Up, "link at b")
		time.Sleep(time.Hour - 10*time.Second - time.Since(begun))
		path.Jitter, path.Loss = 30*time.Millisecond, 0.02
		mesh.Net.SetPath(a.Addr, b.Addr, path)
		mesh.Net.SetPath(b.Addr, a.Addr, path)
		there, back := openTrack(t, ab, false), openTrack(t, ba, false)
		heard, answered := relaytest.NewSink(), relaytest.NewSink()
		bind(t, ba, there.Alias(), heard)
		bind(t, ab, back.Alias(), answered)
		const packets = 1000 // 20 s
		changed := -1
		for i := range uint16(packets) {
			there.Offer(0, true, relaytest.RTP(i, uint32(i)*960, true, 100))
			back.Offer(0, true, relaytest.RTP(i, uint32(i)*960, true, 100))
			time.Sleep(20 * time.Millisecond)
			if changed < 0 && ab.Stats().UDP.Phase == 1 && ba.Stats().UDP.Phase == 1 {
				changed = int(i)
			}
		}
		time.Sleep(time.Second)
		if changed < packets/4 || changed > 3*packets/4 {
			t.Fatalf("the keys changed at packet %d of %d", changed, packets)
		}
		for what, sink := range map[string]*relaytest.Sink{"there": heard, "back": answered} {
			if n := len(sink.Packets); n < packets-packets/200 {
				t.Errorf("%s: %d of %d packets", what, n, packets)
			}
		}
		for what, l := range map[string]*relay.Link{"a": ab, "b": ba} {
			if drops := l.Stats().Drops; drops["forged"] > 0 || drops["repeated"] > 0 {
				t.Errorf("%s refuses datagrams: %v", what, drops)
			}
		}
		if s := ab.Stats(); s.Carriage != "udp" || s.UDP.Moves != 1 {
			t.Errorf("on %s after %d moves", s.Carriage, s.UDP.Moves)
		}
	})
}
