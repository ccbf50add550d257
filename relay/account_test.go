package relay_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
)

// accounts lists one direction of a node, by class.
func accounts(n *relaytest.Node, inbound bool) map[residency.Class]relay.Account {
	m := map[residency.Class]relay.Account{}
	for _, a := range n.Fabric.Accounts() {
		if a.ID.Inbound == inbound {
			m[a.Class] = a
		}
	}
	return m
}

// closeAll closes what a node has sent, and waits until both ends know it.
func closeAll(t *testing.T, from, to *relaytest.Node) {
	t.Helper()
	var ids []relay.AccountID
	for _, a := range from.Fabric.Accounts() {
		ids = append(ids, a.ID)
	}
	from.Fabric.CloseAccounts(ids)
	eventually(t, "every account is final at both ends", func() bool {
		for _, a := range append(from.Fabric.Accounts(), to.Fabric.Accounts()...) {
			if a.ID.Inbound == (a.ID.Peer == from.Name) && !a.Final {
				return false
			}
		}
		return true
	})
}

// TestBothEndsCountTheSame sends media, messages and requests over a path that
// loses packets, and cancels some of it: what one end sent is what the other
// received and what was lost.
func TestBothEndsCountTheSame(t *testing.T) {
	for _, loss := range []float64{0, 0.02, 0.1} {
		t.Run(fmt.Sprintf("loss %g", loss), func(t *testing.T) {
			path := relaytest.Path{Delay: 5 * time.Millisecond, Jitter: 3 * time.Millisecond, Loss: loss}
			simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
				patient(mesh)
				a, b, ab, ba := mesh.Pair(t)
				b.Answer(func(_ context.Context, m relaytest.Message) ([]byte, residency.Permit, error) {
					return []byte(strings.Repeat("y", 300)), relaytest.Permit(t, m.Link.Peer(), 1, m.Room, m.Class), nil
				})
				video, audio := openTrack(t, ab, true), openTrack(t, ab, false)
				vs, as := new(counter), new(counter)
				bind(t, ba, video.Alias(), vs)
				bind(t, ba, audio.Alias(), as)
				for i := range 400 {
					video.Offer(0, i%5 == 4, relaytest.RTP(uint16(i), uint32(i/5*3000), i%5 == 4, 900))
					audio.Offer(0, true, relaytest.RTP(uint16(i), uint32(i*960), true, 120))
					if i%20 == 0 {
						if err := ab.Send(permit(t, ab, residency.ClassChat), 1, make([]byte, 100+i)); err != nil {
							t.Fatal(err)
						}
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
						ab.Request(ctx, permit(t, ab, residency.ClassSignalling), 2, make([]byte, 50)) //nolint:errcheck // some are given up on purpose
						cancel()
					}
					time.Sleep(5 * time.Millisecond)
				}
				video.Revoke("test") // with frames under way
				audio.Close()
				closeAll(t, a, b)
				closeAll(t, b, a)
				time.Sleep(3 * time.Second)

				check := func(from, to *relaytest.Node, class residency.Class) relay.Account {
					out, in := accounts(from, false)[class], accounts(to, true)[class]
					if out.Packets == 0 || out.Packets != in.ToldPackets || out.Bytes != in.ToldBytes || in.Packets > out.Packets || in.Bytes > out.Bytes {
						t.Errorf("%s from %s: sent %d of %d bytes, received %d of %d bytes, told %d of %d bytes", class, from.Name,
							out.Packets, out.Bytes, in.Packets, in.Bytes, in.ToldPackets, in.ToldBytes)
					}
					if in.Room != "room-1" || in.Epoch != 1 || out.Policy != "open" || out.Rule != residency.RuleZone {
						t.Errorf("got %+v, %+v", out, in)
					}
					return in
				}
				media := check(a, b, residency.ClassMedia)
				if got := uint64(vs.n.Load() + as.n.Load()); media.Packets != got {
					t.Errorf("%d packets counted, %d handed over", media.Packets, got)
				}
				check(a, b, residency.ClassChat)
				check(a, b, residency.ClassSignalling)
				check(b, a, residency.ClassSignalling)
				if loss == 0 && media.Packets != media.ToldPackets {
					t.Errorf("without loss %d of %d packets arrived", media.Packets, media.ToldPackets)
				}
			})
		})
	}
}

// TestAccountsOutliveTheLink cuts the path under a track and sends on over the
// next link.
func TestAccountsOutliveTheLink(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, ba := mesh.Pair(t)
		send := func(ab, ba *relay.Link) {
			track, sink := openTrack(t, ab, true), new(counter)
			bind(t, ba, track.Alias(), sink)
			for i := range 100 {
				track.Offer(0, true, relaytest.RTP(uint16(i), uint32(i*3000), true, 500))
				time.Sleep(10 * time.Millisecond)
				if i == 90 && ba.Peer().Name == "a" && sink.n.Load() > 0 {
					mesh.Net.SetPath(relaytest.Address("a"), relaytest.Address("b"), relaytest.Path{Loss: 1})
				}
			}
		}
		send(ab, ba)
		relaytest.Await(t, a.Down, "link is lost")
		relaytest.Await(t, b.Down, "link is lost")
		mesh.Net.SetPath(relaytest.Address("a"), relaytest.Address("b"), relaytest.Path{Delay: 5 * time.Millisecond})
		ab, ba = relaytest.Await(t, a.Up, "link is back"), relaytest.Await(t, b.Up, "link is back")
		track, sink := openTrack(t, ab, true), new(counter)
		bind(t, ba, track.Alias(), sink)
		for i := range 50 {
			track.Offer(0, true, relaytest.RTP(uint16(i), uint32(i*3000), true, 500))
		}
		eventually(t, "it goes on", func() bool { return sink.n.Load() == 50 })
		track.Close()
		closeAll(t, a, b)
		out, in := accounts(a, false)[residency.ClassMedia], accounts(b, true)[residency.ClassMedia]
		if len(a.Fabric.Accounts()) != 1 || len(b.Fabric.Accounts()) != 1 {
			t.Errorf("one account became several")
		}
		if out.Packets != in.ToldPackets || in.Packets >= out.Packets || in.Packets < 140 {
			t.Errorf("sent %d, told %d, received %d: what was cut off is lost", out.Packets, in.ToldPackets, in.Packets)
		}
		a.Fabric.ForgetAccounts([]relay.AccountID{out.ID})
		b.Fabric.ForgetAccounts([]relay.AccountID{in.ID})
		if len(a.Fabric.Accounts())+len(b.Fabric.Accounts()) != 0 {
			t.Error("a forgotten account is still there")
		}
	})
}

// TestBindAsksTheGate gives the receiver permits that do not let it listen.
func TestBindAsksTheGate(t *testing.T) {
	_, b, ab, ba := relaytest.NewMesh(t, nil).Pair(t)
	track, sink := openTrack(t, ab, false), relaytest.NewSink()
	eventually(t, "the peer knows the track", func() bool { return len(b.Fabric.Accounts()) == 1 })
	for name, p := range map[string]residency.Permit{
		"none":        {},
		"other node":  relaytest.Permit(t, residency.Node{Name: "c", Country: "DE", NotAfter: time.Now().Add(time.Hour), Serial: "1"}, 1, "room-1", residency.ClassMedia),
		"other epoch": relaytest.Permit(t, ba.Peer(), 2, "room-1", residency.ClassMedia),
		"other room":  relaytest.Permit(t, ba.Peer(), 1, "room-2", residency.ClassMedia),
		"other class": relaytest.Permit(t, ba.Peer(), 1, "room-1", residency.ClassChat),
	} {
		if err := ba.Bind(p, track.Alias(), sink); err == nil {
			t.Errorf("%s: the track is bound", name)
		}
	}
	bind(t, ba, track.Alias(), sink)
	track.Offer(0, true, relaytest.RTP(1, 1, true, 100))
	relaytest.Await(t, sink.Packets, "packet")
	b.Epoch.Store(2)
	b.Fabric.Recheck()
	eventually(t, "the track has waited long enough for a new permit", func() bool { return ba.Stats().RxTracks == 0 })
	track.Offer(0, true, relaytest.RTP(2, 2, true, 100))
	eventually(t, "nobody listens any more", func() bool { return ba.Stats().Drops["unbound"] > 0 })
	if len(sink.Packets) > 0 {
		t.Error("a packet came in after the permit had ended")
	}
}
