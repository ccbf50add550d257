package relay_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// mediaPort is where nodes of a simulated network take media over UDP.
func mediaPort(a netip.AddrPort) bool { return a.Port() == relaytest.Address("a").Port()+1 }

// Somebody on the path repeats, changes, cuts and reflects datagrams, and sends them to
// other links: each packet still comes once, as it was, and the links stay.
func TestMeddlingChangesNothing(t *testing.T) {
	path := relaytest.Path{Delay: 5 * time.Millisecond, Jitter: 8 * time.Millisecond, Loss: 0.01}
	simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := onUDP(t, mesh)
		c := mesh.Start(t, "c", netip.AddrPort{})
		mesh.Introduce()
		third := []*relay.Link{relaytest.Await(t, c.Up, "link at c"), relaytest.Await(t, c.Up, "link at c")}
		rng, atC := rand.New(rand.NewPCG(1, 1)), netip.AddrPortFrom(relaytest.Address("c").Addr(), relaytest.Address("c").Port()+1)
		mesh.Net.Meddle(func(from, to netip.AddrPort, b []byte) []relaytest.Forgery {
			if !mediaPort(to) {
				return nil
			}
			flipped, cut := bytes.Clone(b), bytes.Clone(b[:rng.IntN(len(b))])
			flipped[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			noise := make([]byte, rng.IntN(1500))
			for i := range noise {
				noise[i] = byte(rng.Uint32())
			}
			return []relaytest.Forgery{{From: from, To: to, Data: b}, {From: from, To: to, Data: flipped}, {From: from, To: to, Data: cut},
				{From: to, To: from, Data: b}, {From: from, To: atC, Data: b}, {From: from, To: to, Data: noise}}
		})
		track, sink := openTrack(t, ab, true), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		const all = 600
		for i := range all {
			track.Offer(0, i%6 == 5, relaytest.RTP(uint16(i), uint32(i/6), i%6 == 5, 300))
			time.Sleep(2 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		mesh.Net.Meddle(nil)
		got := map[uint16]int{}
		for len(sink.Packets) > 0 {
			got[(<-sink.Packets).Seq]++
		}
		for i := range uint16(all) {
			if got[i] != 1 {
				t.Errorf("packet %d came %d times", i, got[i])
			}
		}
		drops := ba.Stats().Drops
		if drops["repeated"] < all/10 || drops["forged"] < all/20 || ba.Stats().UDP.Strangers == 0 {
			t.Errorf("drops %v and %d of nobody's, want many", drops, ba.Stats().UDP.Strangers)
		}
		for _, l := range append(third, ab, ba) {
			select {
			case <-l.Done():
				t.Errorf("the link with %s has ended", l.Peer().Name)

			default:
			}
		}
	})
}

// Where UDP does not pass, or passes no more, media goes over QUIC, and comes back to
// UDP when it does again.
func TestMediaFallsBackToQUIC(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := onUDP(t, mesh)
		track, sink := openTrack(t, ab, true), relaytest.NewSink()
		bind(t, ba, track.Alias(), sink)
		seq := uint16(0)
		play := func(d time.Duration) (sent, came int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				track.Offer(0, true, relaytest.RTP(seq, uint32(seq), true, 900))
				seq++
				sent++
			}
			time.Sleep(100 * time.Millisecond)
			for ; len(sink.Packets) > 0; came++ {
				<-sink.Packets
			}
			return sent, came
		}
		if sent, came := play(time.Second); came != sent {
			t.Errorf("%d of %d packets came", came, sent)
		}
		mesh.Net.Block(mediaPort)
		play(time.Second) // until it is found out
		if s := ab.Stats(); s.Carriage != "quic" || s.Why != "udp does not pass" {
			t.Errorf("over %s: %s", s.Carriage, s.Why)
		}
		if sent, came := play(time.Second); came != sent {
			t.Errorf("%d of %d packets came over QUIC", came, sent)
		}
		mesh.Net.Block(nil)
		play(7 * time.Second)
		if s := ab.Stats(); s.Carriage != "udp" || s.UDP.Moves != 3 {
			t.Errorf("over %s (%s) after %d moves", s.Carriage, s.Why, s.UDP.Moves)
		}
	})
}

// A node without the carriage, and one behind a firewall that lets nothing through,
// are served over QUIC.
func TestNodesWithoutUDPAreServed(t *testing.T) {
	for _, blocked := range []bool{false, true} {
		simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
			mesh.UDP = true
			if blocked {
				mesh.Net.Block(mediaPort)
			} else {
				mesh.Configure = func(name residency.NodeName, c *relay.Config) {
					if name == "b" {
						c.MediaConn = nil
					}
				}
			}
			_, _, ab, ba := mesh.Pair(t)
			track, sink := openTrack(t, ab, false), relaytest.NewSink()
			bind(t, ba, track.Alias(), sink)
			time.Sleep(2 * time.Second)
			track.Offer(0, true, relaytest.RTP(1, 1, true, 100))
			relaytest.Await(t, sink.Packets, "packet")
			if s := ab.Stats(); s.Carriage != "quic" {
				t.Errorf("over %s: %s", s.Carriage, s.Why)
			}
		})
	}
}

// A link ends when the peer tells of two carriages, or of an impossible one.
func TestHostileCarriage(t *testing.T) {
	for _, c := range []struct {
		bytes []byte
		why   string
	}{
		{wire.AppendCarriage(nil, wire.Carriage{ID: 0, Port: 7}), "id 0"},
		{wire.AppendCarriage(nil, wire.Carriage{ID: 7, Port: 0}), "port 0"},
		{envelope(wire.TypeCarriage, 3, 1, 2, 3), "3 bytes"},
		{append(wire.AppendCarriage(wire.AppendCarriage(nil, wire.Carriage{ID: 1, Port: 1}), wire.Carriage{ID: 2, Port: 2}), wire.AppendCarriage(nil, wire.Carriage{ID: 3, Port: 3})...), "second carriage"},
	} {
		mesh := relaytest.NewMesh(t, nil)
		mesh.UDP = true
		in := intrudeOn(t, mesh)
		in.control.Write(c.bytes)
		in.expectEnd(t, c.why)
	}
}

// Nothing is allocated for a packet, from Offer to the sink. What the link's QUIC side
// does meanwhile is left over.
func TestHopAllocatesNothing(t *testing.T) {
	_, _, ab, ba := onUDP(t, relaytest.NewMesh(t, nil))
	track, sink := openTrack(t, ab, true), new(counter)
	bind(t, ba, track.Alias(), sink)
	rtp, ts := relaytest.RTP(0, 0, false, 150), uint32(0)
	frames := func() {
		for range 10 {
			want := sink.n.Load() + 100
			ts++
			rtp[4], rtp[5], rtp[6], rtp[7] = byte(ts>>24), byte(ts>>16), byte(ts>>8), byte(ts)
			for i := range 100 {
				track.Offer(0, i == 99, rtp)
			}
			for limit := time.Now().Add(time.Second); sink.n.Load() < want && time.Now().Before(limit); {
				time.Sleep(200 * time.Microsecond)
			}
		}
	}
	for range 20 {
		frames() // slices find their size
	}
	steady(t, func() string { // while it waits, QUIC goes on allocating
		if n := testing.AllocsPerRun(20, frames) / 1000; n > 0.3 {
			return fmt.Sprintf("%.2f allocations for a packet", n)
		}
		return ""
	})
}
