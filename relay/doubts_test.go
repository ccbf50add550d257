package relay_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// What a node found is told at the start of a link and whenever there is more.
// The least round trip is that of the path, and starts anew when it was asked for.
func TestDoubtsAndTheLeastRoundTrip(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 20 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		heard := make(chan []wire.Doubt, 16)
		mesh.Configure = func(name residency.NodeName, c *relay.Config) {
			if name == "b" {
				c.Doubts = func(l *relay.Link, list []wire.Doubt) {
					if l.Peer().Name != "a" {
						t.Errorf("from %q", l.Peer().Name)
					}
					heard <- list
				}
			}
		}
		a, b := mesh.Start(t, "a", relaytest.Address("a")), mesh.Start(t, "b", relaytest.Address("b"))
		first := []wire.Doubt{{Of: "c", Country: "US", RTT: time.Millisecond}}
		a.Fabric.Doubt(first)
		mesh.Introduce()
		ab := relaytest.Await(t, a.Up, "link at a")
		relaytest.Await(t, b.Up, "link at b")
		if got := relaytest.Await(t, heard, "what is known already"); !slices.Equal(got, first) {
			t.Errorf("b hears %v", got)
		}
		a.Fabric.Doubt(nil)
		if got := relaytest.Await(t, heard, "that it is taken back"); len(got) != 0 {
			t.Errorf("b hears %v", got)
		}
		if got, want := ab.SeenAt(), b.Addr.Addr(); got != want || got == (netip.Addr{}) {
			t.Errorf("b is seen at %s, is at %s", got, want)
		}
		time.Sleep(time.Second) // of the simulation
		if rtt := ab.LeastRTT(); rtt < 40*time.Millisecond || rtt > 50*time.Millisecond {
			t.Errorf("the least round trip is %s on a path of 40 ms", rtt)
		}
		if rtt := ab.LeastRTT(); rtt != 0 {
			t.Errorf("asked again at once it is %s", rtt)
		}
	})
}
