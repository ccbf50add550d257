package relay_test

import (
	"fmt"
	"maps"
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
		steady(t, func() string { return goesOverUDP(t, ab, ba, video) })
	}
}

// goesOverUDP sends 200 packets and says what is wrong with what comes.
func goesOverUDP(t *testing.T, ab, ba *relay.Link, video bool) (wrong string) {
	track, sink := openTrack(t, ab, video), relaytest.NewSink()
	bind(t, ba, track.Alias(), sink)
	before, had := ab.Stats(), ba.Stats()
	for i := range 200 {
		track.Offer(0, i%5 == 4, relaytest.RTP(uint16(i), uint32(i/5), i%5 == 4, 100+5*i))
		if i%20 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	limit := time.After(5 * time.Second)
	for i := range 200 {
		select {
		case p := <-sink.Packets:
			if p.Seq != uint16(i) || p.Size != 100+5*i {
				return fmt.Sprintf("packet %d of %d bytes, want %d of %d", p.Seq, p.Size, i, 100+5*i)
			}
		case <-limit:
			return fmt.Sprintf("%d packets of 200 came", i)
		}
	}
	s, has := ab.Stats(), ba.Stats()
	if n := s.UDP.Sent - before.UDP.Sent; n == 0 || n > 150 {
		return fmt.Sprintf("200 packets took %d datagrams", n)
	}
	if !maps.Equal(s.Drops, before.Drops) || !maps.Equal(has.Drops, had.Drops) {
		return fmt.Sprintf("drops %v and %v", s.Drops, has.Drops)
	}
	return ""
}
