package relay_test

import (
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
)

// onUDP starts two nodes with both carriages and waits until media goes over UDP.
func onUDP(t testing.TB, mesh *relaytest.Mesh) (a, b *relaytest.Node, ab, ba *relay.Link) {
	t.Helper()
	mesh.UDP = true
	a, b, ab, ba = mesh.Pair(t)
	eventually(t, "media goes over UDP", func() bool {
		return ab.Stats().Carriage == "udp" && ba.Stats().Carriage == "udp"
	})
	return a, b, ab, ba
}

func TestMediaGoesOverUDP(t *testing.T) {
	_, _, ab, ba := onUDP(t, relaytest.NewMesh(t, nil))
	for _, video := range []bool{true, false} {
		track, sink := openTrack(t, ab, video), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		before := ab.Stats()
		for i := range 200 {
			track.Offer(0, i%5 == 4, relaytest.RTP(uint16(i), uint32(i/5), i%5 == 4, 100+5*i))
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		for i := range 200 {
			if p := relaytest.Await(t, sink.Packets, "packet"); p.Seq != uint16(i) || p.Size != 100+5*i {
				t.Fatalf("packet %d of %d bytes, want %d of %d", p.Seq, p.Size, i, 100+5*i)
			}
		}
		s := ab.Stats()
		if n := s.UDP.Sent - before.UDP.Sent; n == 0 || n > 150 {
			t.Errorf("200 packets took %d datagrams", n)
		}
		if len(s.Drops) > 0 || len(ba.Stats().Drops) > 0 {
			t.Errorf("drops %v and %v", s.Drops, ba.Stats().Drops)
		}
	}
}
