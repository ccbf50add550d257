package relay_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// TestNoLeak plays links as they run in production, over a network that delays,
// loses and chokes: permits end, policies change while packets and messages wait,
// certificates are renewed and revoked, tracks are renewed in time, too late or
// never, permits are used for what they are not for, requests are answered over a
// change of policies.
//
// A payload that arrives is a leak unless there was a moment, after it was offered
// and no longer ago than it may be under way, at which what the sender had asked
// for held by the policies that it then went by. A packet that is handed to a sink
// is judged once more, by what the receiver asked for.
//
// The world of a case comes from its number; which of two goroutines is first at
// one moment does not, so a case that failed may have to be played a few times.
func TestNoLeak(t *testing.T) {
	var seen residencytest.Tally
	residencytest.Run(t, 40, func(seed uint64) (wrong []string) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					buf := make([]byte, 4<<10)
					wrong = append(wrong, fmt.Sprintf("panic: %v\n%s", p, buf[:runtime.Stack(buf, false)]))
				}
			}()
			w := newWires(t, seed)
			for range 60 {
				w.happens()
				w.passes(w.Between(time.Millisecond, 150*time.Millisecond))
			}
			wrong = w.ends()
			seen.Add(w.seen)
		})
		return wrong
	})
	seen.Want(t, "packets heard", "messages", "requests", "answers", "tracks renewed", "tracks refused a renewal", "bindings renewed", "wrong permits refused",
		"policies changed", "links lost", "tracks that ended by themselves", "bindings that ended by themselves", "messages refused in the queue, or taken back", "certificates renewed", "links ended by a revocation", "looks at links that carry media over UDP")
}

// wires is a mesh of a few nodes. All of a case happens in one bubble.
type wires struct {
	residencytest.Rand
	t      *testing.T
	mesh   *relaytest.Mesh
	begun  time.Time
	posts  []*post
	halls  []hall
	delay  time.Duration // that every packet takes at least
	jitter time.Duration
	lossy  bool
	calm   bool           // nothing is lost or late
	work   sync.WaitGroup // what is to happen later, and calls that wait

	mu     sync.Mutex
	pieces map[uint64]*piece
	last   uint64
	seen   map[string]int
	wrong  []string
}

// hall is a room as the gate knows it.
type hall struct{ name, tenant, policy string }

func newWires(t *testing.T, seed uint64) *wires {
	r := residencytest.NewRand(seed, 5)
	r.Mild = residencytest.Pick(r, 1, 4, 12, 40)
	w := &wires{Rand: r, t: t, begun: time.Now(), pieces: map[uint64]*piece{}, seen: map[string]int{},
		delay: r.Between(time.Millisecond, 60*time.Millisecond)}
	if w.calm = r.In(2); !w.calm && r.In(2) {
		w.jitter = r.Between(time.Millisecond, 40*time.Millisecond)
	}
	w.lossy = !w.calm && r.In(2)
	w.mesh = relaytest.NewMesh(t, relaytest.NewNetwork(seed, w.path()))
	w.mesh.UDP = seed%2 == 0
	nodes := residencytest.Nodes(r, 2+r.IntN(2))
	bundle := residencytest.Bundle(r, 3, nodes)
	if r.In(3) {
		bundle.Expires = residencytest.Noon.Add(r.Between(time.Second, 5*time.Second))
	}
	w.mesh.Configure = func(name residency.NodeName, c *relay.Config) { w.post(name).configure(c) }
	for _, n := range nodes {
		p := &post{w: w, self: n, skew: r.Between(-2*time.Second, 2*time.Second), lazy: r.In(4), forgetful: r.In(4), confused: r.In(3), flooding: r.In(4), view: map[residency.NodeName]view{}, refused: map[*relay.Link]uint64{}}
		p.reigns = []reign{{w.begun, bundle}}
		p.rules.Store(&rules{bundle, residency.NewGate(bundle)})
		w.posts = append(w.posts, p)
	}
	for _, p := range w.posts {
		for _, o := range w.posts {
			p.view[o.self.Name] = view{epoch: bundle.Epoch, outside: r.In(2)}
		}
	}
	for _, p := range w.posts {
		p.node = w.mesh.StartAs(t, w.mesh.CA.Identity(t, residency.Node{Name: p.self.Name, Country: "DE"}), relaytest.Address(p.self.Name))
	}
	w.mesh.Introduce()
	w.halls = []hall{{"north", "", residencytest.Pick(r, residencytest.Policies...)}, {"south", "", bundle.Default}}
	if len(bundle.Tenants) > 0 {
		tenant := residencytest.Pick(r, bundle.Tenants...)
		w.halls[1] = hall{"south", tenant.Name, tenant.Policy}
	}
	w.passes(500 * time.Millisecond)
	return w
}

// path is what a packet meets with while nothing is wrong.
func (w *wires) path() relaytest.Path {
	p := relaytest.Path{Delay: w.delay, Jitter: w.jitter}
	if w.lossy {
		p.Loss = 0.02
	}
	return p
}

func (w *wires) post(name residency.NodeName) *post {
	for _, p := range w.posts {
		if p.self.Name == name {
			return p
		}
	}
	return nil
}

// later has something happen after a while, if the case has not ended by then.
func (w *wires) later(after time.Duration, do func()) {
	w.work.Go(func() {
		time.Sleep(after)
		do()
	})
}

// passes lets time go on and looks at the links.
func (w *wires) passes(d time.Duration) {
	time.Sleep(d)
	for _, p := range w.posts {
		p.looks()
	}
}

// ends waits for what is under way.
func (w *wires) ends() []string {
	w.work.Wait()
	w.passes(3 * time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrong
}

func (w *wires) counts(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[what]++
}

func (w *wires) fails(format string, a ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.notes(format, a...)
}

// notes is fails with mu held.
func (w *wires) notes(format string, a ...any) {
	w.wrong = append(w.wrong, fmt.Sprintf("%8s  ", time.Since(w.begun).Round(time.Millisecond))+fmt.Sprintf(format, a...))
}

// tells writes down what happens, if the case is played again.
func (w *wires) tells(format string, a ...any) {
	if residencytest.Replaying() {
		w.fails(format, a...)
	}
}

// happens changes something.
func (w *wires) happens() {
	s, o := residencytest.Pick(w.Rand, w.posts...), residencytest.Pick(w.Rand, w.posts...)
	if s == o {
		return
	}
	switch w.IntN(20) {
	case 0, 1:
		s.opens(o)
	case 2, 3, 4, 5, 6:
		s.plays()
	case 7, 8, 9:
		s.sends(o)
	case 10, 11, 12:
		s.asks(o)
	case 13:
		w.legislates()
	case 14:
		w.chokes(s, o)
	case 15, 16:
		s.misuses(o)
	case 17:
		s.tires()
	case 18:
		s.learnsOf(o)
	default:
		if w.In(3) {
			s.renews()
		}
	}
}

// legislates makes new policies, which the nodes come by one after the other.
func (w *wires) legislates() {
	newest := w.posts[0].rules.Load().bundle
	var nodes []residency.Node
	for _, p := range w.posts {
		if b := p.rules.Load().bundle; b.Epoch > newest.Epoch {
			newest = b
		}
		nodes = append(nodes, p.certificate())
	}
	next := residencytest.Next(w.Rand, newest, nodes)
	most := residencytest.Pick(w.Rand, time.Millisecond, 100*time.Millisecond, 1500*time.Millisecond)
	for _, p := range w.posts {
		reviewed := w.Between(0, 500*time.Millisecond)
		if p.confused {
			reviewed = w.Between(0, 280*time.Millisecond)
		}
		w.later(w.Between(0, most), func() { p.adopts(next, reviewed) })
		for _, o := range w.posts {
			w.later(w.Between(0, most+200*time.Millisecond), func() { o.learns(p, next.Epoch) })
		}
	}
}

// chokes makes the way between two nodes narrow, or cuts it, for a while.
func (w *wires) chokes(s, o *post) {
	if w.calm {
		return
	}
	p := w.path()
	p.Rate = residencytest.Pick(w.Rand, 100_000, 300_000, 1_000_000)
	if w.In(4) {
		p.Loss = 1
		w.tells("%s and %s are cut off", s.self.Name, o.self.Name)
	}
	a, b := relaytest.Address(s.self.Name), relaytest.Address(o.self.Name)
	w.mesh.Net.SetPath(a, b, p)
	w.mesh.Net.SetPath(b, a, p)
	w.later(w.Between(100*time.Millisecond, 3*time.Second), func() {
		w.mesh.Net.SetPath(a, b, w.path())
		w.mesh.Net.SetPath(b, a, w.path())
	})
}
