package relay_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// simulate runs fn in a bubble with its own clock and a network whose packets
// take path.
func simulate(t *testing.T, path relaytest.Path, fn func(*testing.T, *relaytest.Mesh)) {
	synctest.Test(t, func(t *testing.T) {
		fn(t, relaytest.NewMesh(t, relaytest.NewNetwork(1, path)))
	})
}

func linkError(t *testing.T, err error) *relay.LinkError {
	t.Helper()
	var le *relay.LinkError
	if !errors.As(err, &le) {
		t.Fatalf("link ended with %v, want a LinkError", err)
	}
	return le
}

func TestDeadPeerIsFoundAndDialledAgain(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 20 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, ba := mesh.Pair(t)
		time.Sleep(2 * time.Second) // on the bubble's clock; the link is quiet but for heartbeats
		mesh.Net.Cut(a.Addr, b.Addr)
		cut := time.Now()
		for _, n := range []*relaytest.Node{a, b} {
			end := relaytest.Await(t, n.Down, "link is down")
			if le := linkError(t, end.Err); le.Code != wire.CodeSilent {
				t.Errorf("node %s: %v, want a silent peer", n.Name, le)
			}
			if took := time.Since(cut); took > 1300*time.Millisecond {
				t.Errorf("node %s took %s", n.Name, took)
			}
		}
		<-ab.Done()
		<-ba.Done()
		if a.Fabric.Link("b") != nil {
			t.Error("a dead link is still listed")
		}
		if err := ab.Send(relaytest.Permit(t, b.ID.Node, 1, "r", residency.ClassChat), 1, nil); linkError(t, err).Code != wire.CodeSilent {
			t.Errorf("send on a dead link: %v", err)
		}
		mesh.Net.SetPath(a.Addr, b.Addr, relaytest.Path{})
		mesh.Net.SetPath(b.Addr, a.Addr, relaytest.Path{})
		back := time.Now()
		relaytest.Await(t, a.Up, "new link at a")
		relaytest.Await(t, b.Up, "new link at b")
		if took := time.Since(back); took > 7*time.Second {
			t.Errorf("came back after %s", took)
		}
	})
}

func TestLossAndJitterEndNoLink(t *testing.T) {
	path := relaytest.Path{Delay: 40 * time.Millisecond, Jitter: 100 * time.Millisecond, Loss: 0.05}
	simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		time.Sleep(10 * time.Minute) // on the bubble's clock
		for _, l := range []*relay.Link{ab, ba} {
			select {
			case <-l.Done():
				t.Error("link ended")
			default:
			}
			if rtt := l.Stats().RTT; rtt < 80*time.Millisecond || rtt > 300*time.Millisecond {
				t.Errorf("round trip %s on a path of 80 to 280 ms", rtt)
			}
			if l.Stats().Drops["lost"] == 0 {
				t.Error("no lost datagram was seen")
			}
		}
	})
}

func TestRestartedPeerIsBackAtOnce(t *testing.T) {
	mesh := relaytest.NewMesh(t, nil)
	a, b, _, _ := mesh.Pair(t)
	a.Stop(t)
	if le := linkError(t, relaytest.Await(t, b.Down, "link is down").Err); !le.Remote || le.Code != wire.CodeDone {
		t.Errorf("peer stopped: %v", le)
	}
	mesh.Start(t, "a", a.Addr)
	mesh.Introduce()
	relaytest.Await(t, b.Up, "link to the new a")
}

// A peer that crashed and came back replaces its old link before the heartbeat
// has missed it.
func TestNewerLinkReplacesTheOldOne(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, b, _, old := mesh.Pair(t)
		a2 := mesh.Start(t, "a", netip.AddrPort{}) // takes over the address
		mesh.Introduce()
		relaytest.Await(t, a2.Up, "link of the new a")
		end := relaytest.Await(t, b.Down, "old link is down")
		if le := linkError(t, end.Err); end.Link != old || le.Code != wire.CodeReplaced {
			t.Errorf("old link: %v", le)
		}
		l := relaytest.Await(t, b.Up, "new link at b")
		if b.Fabric.Link("a") != l || len(b.Fabric.Links()) != 1 {
			t.Error("the new link is not the only one")
		}
	})
}

func TestOnlyOneSideDials(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 5 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, _, _ := mesh.Pair(t)
		mesh.Introduce() // once more changes nothing
		time.Sleep(10 * time.Second)
		if len(a.Up)+len(b.Up)+len(a.Down)+len(b.Down) != 0 {
			t.Error("links came or went besides the first")
		}
		// b dials a against the rule, with its own certificate.
		conn := rawDial(t, mesh, b.ID, a.Addr, 'x')
		if err := readError(conn); !strings.Contains(err.Error(), `node "a" dials node "b"`) {
			t.Errorf("caller that should be dialled: %v", err)
		}
	})
}

func TestRemovedPeerIsClosed(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, _, _ := mesh.Pair(t)
		b.Fabric.SetPeers(nil)
		if le := linkError(t, relaytest.Await(t, a.Down, "link is down at a").Err); !le.Remote || le.Code != wire.CodePeer {
			t.Errorf("at the removed peer: %v", le)
		}
		relaytest.Await(t, b.Down, "link is down at b")
		time.Sleep(10 * time.Second) // a keeps dialling
		if len(a.Up)+len(b.Up) > 0 {
			t.Error("the removed peer is linked again")
		}
	})
}

// Certificates that must not make a link.
func TestForeignCertificates(t *testing.T) {
	hour := time.Hour
	for name, identity := range map[string]func(t *testing.T, mesh *relaytest.Mesh) relaytest.Identity{
		"wrong CA": func(t *testing.T, _ *relaytest.Mesh) relaytest.Identity {
			return relaytest.NewCA(t).Identity(t, residency.Node{Name: "b", Country: "DE"})
		},
		"other name": func(t *testing.T, mesh *relaytest.Mesh) relaytest.Identity {
			return mesh.CA.Identity(t, residency.Node{Name: "c", Country: "DE"})
		},
		"expired": func(t *testing.T, mesh *relaytest.Mesh) relaytest.Identity {
			return mesh.CA.Identity(t, residency.Node{Name: "b", Country: "DE", NotBefore: time.Now().Add(-2 * hour), NotAfter: time.Now().Add(-hour)})
		},
		"not yet valid": func(t *testing.T, mesh *relaytest.Mesh) relaytest.Identity {
			return mesh.CA.Identity(t, residency.Node{Name: "b", Country: "DE", NotBefore: time.Now().Add(hour), NotAfter: time.Now().Add(2 * hour)})
		},
		"none wrong": func(t *testing.T, mesh *relaytest.Mesh) relaytest.Identity { // shows that the others can fail
			return mesh.CA.Identity(t, residency.Node{Name: "b", Country: "DE"})
		},
	} {
		for _, dialled := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
					good := residency.NodeName("a") // dials
					if !dialled {
						good = "d" // is dialled
					}
					g, bad := mesh.Start(t, good, netip.AddrPort{}), mesh.StartAs(t, identity(t, mesh), netip.AddrPort{})
					g.Fabric.SetPeers([]relay.Peer{{Name: "b", Addr: bad.Addr}})
					bad.Fabric.SetPeers([]relay.Peer{{Name: good, Addr: g.Addr}})
					time.Sleep(10 * time.Second)
					if linked, want := len(g.Up) > 0, name == "none wrong"; linked != want {
						t.Errorf("linked: %v, want %v", linked, want)
					}
				})
			})
		}
	}
}

func TestLinkEndsWithTheCertificate(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		ends := time.Now().Add(30 * time.Second)
		a := mesh.StartAs(t, mesh.CA.Identity(t, residency.Node{Name: "a", Country: "DE", NotBefore: time.Now(), NotAfter: ends}), netip.AddrPort{})
		b := mesh.Start(t, "b", netip.AddrPort{})
		mesh.Introduce()
		relaytest.Await(t, a.Up, "link")
		synctest.Wait()
		time.Sleep(time.Until(ends) - time.Second)
		if len(b.Down) > 0 {
			t.Fatal("link ended early")
		}
		end := relaytest.Await(t, b.Down, "link is down")
		if le := linkError(t, end.Err); le.Code != wire.CodeExpired || time.Since(ends) > 300*time.Millisecond {
			t.Errorf("%v, %s after the certificate's end", le, time.Since(ends))
		}
	})
}

func TestNodesOfTwoVersionsRefuseEachOther(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		b := mesh.Start(t, "b", netip.AddrPort{})
		id := mesh.CA.Identity(t, residency.Node{Name: "a", Country: "DE"})
		b.Fabric.SetPeers([]relay.Peer{{Name: "a", Addr: relaytest.Address("a")}})
		conn := rawDial(t, mesh, id, b.Addr, 'a')
		s, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(wire.AppendHello(nil, wire.Hello{Version: 1}))
		err = readError(conn)
		if want := `node "b" speaks wire versions up to 3, node "a" version 1`; !strings.Contains(err.Error(), want) {
			t.Errorf("refused with %v, want %q", err, want)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	good := relay.Config{
		Self: residency.Node{Name: "a"}, Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		ServerTLS: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}, ClientTLS: &tls.Config{}, PeerNode: relaytest.PeerNode,
		Epoch: func() residency.Epoch { return 1 }, Handler: relaytest.NewRecorder(),
	}
	for _, c := range []struct {
		change func(*relay.Config)
		want   string
	}{
		{func(c *relay.Config) { c.Self.Name = "" }, "Self has no name"},
		{func(c *relay.Config) { c.ClientTLS = nil }, "ClientTLS"},
		{func(c *relay.Config) { c.ServerTLS = &tls.Config{} }, "must require and verify a client certificate"},
		{func(c *relay.Config) { c.ServerTLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven} }, "must require and verify"},
		{func(c *relay.Config) { c.ServerTLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert} }, "must require and verify"},
		{func(c *relay.Config) { c.ClientTLS = &tls.Config{InsecureSkipVerify: true} }, "does not verify the server"},
		{func(c *relay.Config) { c.Epoch = nil }, "Epoch"},
		{func(c *relay.Config) { c.Heartbeat = time.Second }, "at least twice"},
		{func(c *relay.Config) { c.Listen = netip.MustParseAddrPort("192.0.2.1:1") }, `listen on "192.0.2.1:1"`},
	} {
		cfg := good
		c.change(&cfg)
		if _, err := relay.New(cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	f, err := relay.New(good)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Run(ctx); err != nil {
		t.Errorf("run with a context that has ended: %v", err)
	}
}

// The address of one node leads to another: that must neither pass for the node
// that was meant, nor disturb the link to the one that answers.
func TestWrongAddressMakesNoLink(t *testing.T) {
	simulate(t, relaytest.Path{Delay: time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, c := mesh.Start(t, "a", netip.AddrPort{}), mesh.Start(t, "c", netip.AddrPort{})
		c.Fabric.SetPeers([]relay.Peer{{Name: "a", Addr: a.Addr}})
		a.Fabric.SetPeers([]relay.Peer{{Name: "b", Addr: c.Addr}, {Name: "c", Addr: c.Addr}})
		if l := relaytest.Await(t, a.Up, "link"); l.Peer().Name != "c" {
			t.Errorf("link to %q", l.Peer().Name)
		}
		time.Sleep(10 * time.Second)
		if a.Fabric.Link("b") != nil || len(a.Up) > 0 {
			t.Error("a second link to the same node")
		}
	})
}
