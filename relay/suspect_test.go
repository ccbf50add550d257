package relay_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
)

// suspicions notes what nodes are told of their peers.
type suspicions struct {
	mu   sync.Mutex
	list []suspicion
}

type suspicion struct {
	by residency.NodeName
	on bool
	at time.Time
}

func (s *suspicions) watch(mesh *relaytest.Mesh) {
	mesh.Configure = func(name residency.NodeName, c *relay.Config) {
		c.Suspected = func(_ *relay.Link, on bool) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.list = append(s.list, suspicion{name, on, time.Now()})
		}
	}
}

// take returns what was noted since.
func (s *suspicions) take() []suspicion {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.list
	s.list = nil
	return list
}

// share has a track open from one node to the other, which receives it.
func share(t *testing.T, ab, ba *relay.Link) {
	t.Helper()
	track, err := ab.OpenTrack(permit(t, ab, residency.ClassMedia), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := ba.Bind(permit(t, ba, residency.ClassMedia), track.Alias(), relaytest.NewSink()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(track.Close)
}

// Where a track is open, a path that loses everything is suspect within 200 ms at both
// ends, also where it works in one direction; the link lives on for a second.
func TestCutPathIsSuspectAtBothEnds(t *testing.T) {
	for name, cut := range map[string]func(n *relaytest.Network, a, b *relaytest.Node){
		"both":    func(n *relaytest.Network, a, b *relaytest.Node) { n.Cut(a.Addr, b.Addr) },
		"there":   func(n *relaytest.Network, a, b *relaytest.Node) { n.SetPath(a.Addr, b.Addr, relaytest.Path{Loss: 1}) },
		"back":    func(n *relaytest.Network, a, b *relaytest.Node) { n.SetPath(b.Addr, a.Addr, relaytest.Path{Loss: 1}) },
		"nothing": func(*relaytest.Network, *relaytest.Node, *relaytest.Node) {},
	} {
		t.Run(name, func(t *testing.T) {
			path := relaytest.Path{Delay: 10 * time.Millisecond}
			simulate(t, path, func(t *testing.T, mesh *relaytest.Mesh) {
				var seen suspicions
				seen.watch(mesh)
				a, b, ab, ba := mesh.Pair(t)
				share(t, ab, ba)
				time.Sleep(time.Minute)
				if early := seen.take(); len(early) > 0 {
					t.Fatalf("suspicions on a good path: %v", early)
				}
				at := time.Now()
				cut(mesh.Net, a, b)
				time.Sleep(500 * time.Millisecond)
				first := map[residency.NodeName]time.Duration{}
				for _, s := range seen.take() {
					first[s.by] = s.at.Sub(at)
				}
				if name == "nothing" {
					if len(first) > 0 {
						t.Fatalf("suspicions on a good path: %v", first)
					}
					return
				}
				for _, n := range []residency.NodeName{"a", "b"} {
					if took, ok := first[n]; !ok || took > 200*time.Millisecond {
						t.Errorf("node %s suspects after %s (%v)", n, took, ok)
					}
				}
				mesh.Net.SetPath(a.Addr, b.Addr, path)
				mesh.Net.SetPath(b.Addr, a.Addr, path)
				time.Sleep(300 * time.Millisecond)
				if ab.Suspect() || ba.Suspect() || ab.Stats().Suspicions != 1 || a.Fabric.Link("b") != ab {
					t.Errorf("after half a second of nothing: %+v", ab.Stats())
				}
			})
		})
	}
}

// Three minutes at 5 % loss and 100 ms of jitter to either side raise no suspicion while
// a track is open.
func TestLossAndJitterRaiseNoSuspicionOnLinks(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 40 * time.Millisecond, Jitter: 200 * time.Millisecond, Loss: 0.05}, func(t *testing.T, mesh *relaytest.Mesh) {
		_, _, ab, ba := mesh.Pair(t)
		share(t, ab, ba)
		time.Sleep(3 * time.Minute)
		for _, l := range []*relay.Link{ab, ba} {
			if s := l.Stats(); s.Suspicions > 0 || l.Suspect() {
				t.Errorf("%d suspicions", s.Suspicions)
			}
		}
	})
}

// A link that is watched closely costs no more than a packet a beat, and none at all
// where media goes over UDP anyhow.
func TestWatchedLinksAreCheap(t *testing.T) {
	t.Run("quic", func(t *testing.T) {
		simulate(t, relaytest.Path{Delay: 10 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
			_, _, ab, ba := mesh.Pair(t)
			share(t, ab, ba)
			time.Sleep(time.Minute) // the path is calm then: 40 beats a second each way
			before := mesh.Net.Sent()
			time.Sleep(10 * time.Second)
			if n := (mesh.Net.Sent() - before) / 20; n > 90 {
				t.Errorf("%d packets a second each way", n)
			} else {
				t.Logf("%d packets a second each way", n)
			}
		})
	})
	t.Run("udp", func(t *testing.T) {
		mesh := relaytest.NewMesh(t, nil)
		_, _, ab, ba := onUDP(t, mesh)
		bind(t, ba, openTrack(t, ab, false).Alias(), relaytest.NewSink())
		eventually(t, "the link is watched closely", func() bool { return ab.Stats().UDP.Sent > 50 })
		steady(t, func() string {
			before, began := ab.Stats(), time.Now()
			eventually(t, "a hundred signs of life", func() bool { return ab.Stats().UDP.Sent >= before.UDP.Sent+100 })
			s := ab.Stats()
			if n, most := s.QUICSent-before.QUICSent, uint64(10+30*time.Since(began).Seconds()); n > most {
				return fmt.Sprintf("%d packets of QUIC beside 100 datagrams, want at most %d", n, most)
			}
			if ab.Suspect() || ba.Suspect() {
				return "suspicion of a node that gives signs of life"
			}
			return ""
		})
	})
}
