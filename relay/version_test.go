package relay_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// TestNodesOfTwoReleases links a node that knows wire version 2 alone, and insists on it
// as that release does, with one of today: whichever of the two dials. Messages and media
// pass both ways, and what version 2 does not know is not said.
func TestNodesOfTwoReleases(t *testing.T) {
	for _, old := range []residency.NodeName{"a", "b"} { // a dials b
		t.Run("old is "+string(old), func(t *testing.T) {
			simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
				mesh.Configure = func(name residency.NodeName, c *relay.Config) {
					if name == old {
						c.OnlyVersion = wire.MinVersion
					}
				}
				a, b, ab, ba := mesh.Pair(t)
				for _, way := range []struct {
					from, to *relay.Link
					at       *relaytest.Node
				}{{ab, ba, b}, {ba, ab, a}} {
					if v := way.from.Stats().Version; v != wire.MinVersion {
						t.Errorf("version %d on the link, want %d", v, wire.MinVersion)
					}
					if err := way.from.Send(permit(t, way.from, residency.ClassSignalling), 0x12, []byte("hello")); err != nil {
						t.Fatal(err)
					}
					if m := relaytest.Await(t, way.at.Messages, "message"); m.Body != "hello" {
						t.Errorf("message %q", m.Body)
					}
					for _, video := range []bool{false, true} {
						track, sink := openTrack(t, way.from, video), relaytest.NewSink()
						bind(t, way.to, track.Alias(), sink)
						for i := range 5 {
							track.Offer(0, true, relaytest.RTP(uint16(i), uint32(3000*i), true, 200))
							if p := relaytest.Await(t, sink.Packets, "packet"); p.Seq != uint16(i) {
								t.Errorf("packet %d, want %d", p.Seq, i)
							}
						}
						track.Close()
					}
				}
			})
		})
	}
}

// TestNewerReleaseComesDown answers a release that knows more than ours with what we know.
func TestNewerReleaseComesDown(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		b := mesh.Start(t, "b", netip.AddrPort{})
		id := mesh.CA.Identity(t, residency.Node{Name: "a", Country: "DE"})
		b.Fabric.SetPeers([]relay.Peer{{Name: "a", Addr: relaytest.Address("a")}})
		s, err := rawDial(t, mesh, id, b.Addr, 'a').OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(wire.AppendHello(nil, wire.Hello{Version: 77}))
		if l := relaytest.Await(t, b.Up, "link"); l.Stats().Version != wire.Version {
			t.Errorf("version %d", l.Stats().Version)
		}
	})
}
