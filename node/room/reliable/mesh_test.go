package reliable

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// client is what a LiveKit client does with reliable messages: it drops what is not
// above the last number of the publisher.
type client struct {
	identity string
	last     map[string]uint32
	got      map[string][]uint32
	alive    bool
}

func (c *client) receive(m Message) {
	if !c.alive || m.Seq <= c.last[m.Publisher] {
		return
	}
	c.last[m.Publisher] = m.Seq
	c.got[m.Publisher] = append(c.got[m.Publisher], m.Seq)
}

// world is a publisher's node, a link that breaks, and another node.
type world struct {
	t   *testing.T
	rnd *rand.Rand
	now time.Time

	sources map[string]*Source
	feed    Feed
	near    *Log

	up    bool
	wire  []func() // in flight, in order
	again []func() // what a link that comes back repeats

	orders map[string]*Order
	far    *Log

	clients map[string]*client // all behind the far node
	sent    map[string][]Message
	lost    map[string][]Gap
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: start, up: true, sources: map[string]*Source{}, orders: map[string]*Order{},
		near: NewLog(DefaultLimits), far: NewLog(DefaultLimits), clients: map[string]*client{}, sent: map[string][]Message{}, lost: map[string][]Gap{}}
	for _, p := range []string{"P", "Q"} {
		w.sources[p], w.orders[p] = &Source{}, &Order{}
	}
	for _, c := range []string{"anna", "bob"} {
		w.clients[c] = &client{identity: c, last: map[string]uint32{}, got: map[string][]uint32{}, alive: true}
		w.far.Join(c)
	}
	return w
}

// say is a publisher's client that sends, now and then something again.
func (w *world) say(publisher string) {
	s := w.sources[publisher]
	seq := s.Last() + 1
	if w.rnd.IntN(5) == 0 && seq > 3 {
		seq -= 1 + w.rnd.Uint32N(3)
	}
	var to []string
	if w.rnd.IntN(3) == 0 {
		to = []string{[]string{"anna", "bob", "somebody"}[w.rnd.IntN(3)]}
	}
	if fresh, _ := s.Take(seq); !fresh {
		return
	}
	m := msg(publisher, seq, to...)
	w.sent[publisher] = append(w.sent[publisher], m)
	w.near.Add(m, w.now)
	if wanted(&m) {
		prev := w.feed.Next("far", publisher, seq)
		w.send(func() { w.do(publisher, w.orders[publisher].Take(m, prev, w.now)) })
	}
}

func wanted(m *Message) bool { return m.For("anna") || m.For("bob") }

func (w *world) send(f func()) {
	if w.up {
		w.wire = append(w.wire, f)
	}
}

// do carries out what the far node's order wants.
func (w *world) do(publisher string, s Step) {
	for _, m := range s.Deliver {
		w.far.Add(m, w.now)
		for _, c := range w.clients {
			if m.For(c.identity) && !w.far.Held(c.identity) {
				c.receive(m)
			}
		}
	}
	w.lost[publisher] = append(w.lost[publisher], s.Lost...)
	if s.Ask && w.up {
		prev := s.After
		for _, m := range w.near.Since(publisher, s.After, wanted) {
			before := prev
			w.send(func() { w.do(publisher, w.orders[publisher].Take(m, before, w.now)) })
			prev = m.Seq
		}
		head := w.feed.Heads("far")[publisher]
		w.send(func() { w.do(publisher, w.orders[publisher].Skip(head, w.now)) })
	}
}

func (w *world) step() {
	w.now = w.now.Add(20 * time.Millisecond)
	switch w.rnd.IntN(40) {
	case 0: // the link breaks: some of what is in flight arrives
		if w.up {
			w.deliver(w.rnd.IntN(len(w.wire) + 1))
			w.up, w.wire = false, nil
		}
	case 1, 2, 3, 4:
		w.linkUp()
	case 5, 6:
		for id, c := range w.clients { // a client is cut off; its node finds out later
			if w.rnd.IntN(4) == 0 {
				c.alive = false
			} else if !c.alive {
				w.far.Hold(id)
			}
		}
	case 7, 8:
		w.resume()
	}
	for _, p := range []string{"P", "Q"} {
		if w.rnd.IntN(3) == 0 {
			w.say(p)
		}
	}
	if w.up {
		w.deliver(w.rnd.IntN(4))
	}
	for p, o := range w.orders {
		w.do(p, o.Tick(w.now))
	}
}

func (w *world) deliver(n int) {
	for ; n > 0 && len(w.wire) > 0; n-- {
		f := w.wire[0]
		w.wire = w.wire[1:]
		w.again = append(w.again[max(0, len(w.again)-5):], f)
		f()
	}
}

func (w *world) linkUp() {
	if w.up {
		return
	}
	w.up = true
	if w.rnd.IntN(2) == 0 {
		w.wire = append(w.wire, w.again...)
	}
	for p, head := range w.feed.Heads("far") {
		w.send(func() { w.do(p, w.orders[p].Head(head, w.now)) })
	}
}

func (w *world) resume() {
	for id, c := range w.clients {
		if c.alive {
			continue
		}
		c.alive = true
		w.far.Hold(id)
		again, lost := w.far.Resume(id, c.last, w.now)
		if len(lost) > 0 {
			w.t.Fatalf("%s has lost %v", id, lost)
		}
		for _, m := range again {
			c.receive(m)
		}
	}
}

// TestMesh runs random breaks of the link and of the clients: each gets each
// message that is for it, in order and once, unless it was told lost; and nothing
// is lost unless a break lasted longer than anybody waits.
func TestMesh(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	gaps := 0
	for run := range uint64(60) {
		w := newWorld(t, seed+run)
		for range 600 {
			w.step()
		}
		w.linkUp()
		for i := 0; i < 1000 && (len(w.wire) > 0 || !w.orders["P"].Idle() || !w.orders["Q"].Idle()); i++ {
			w.now = w.now.Add(20 * time.Millisecond)
			w.deliver(4)
			for p, o := range w.orders {
				w.do(p, o.Tick(w.now))
			}
		}
		w.resume()
		for publisher, sent := range w.sent {
			for id, c := range w.clients {
				var want []uint32
				got := c.got[publisher]
				for _, m := range sent {
					told := slices.ContainsFunc(w.lost[publisher], func(g Gap) bool { return m.Seq > g.After && m.Seq <= g.Upto })
					if m.For(id) && (!told || slices.Contains(got, m.Seq)) {
						want = append(want, m.Seq)
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("run %d: of %s %s got\n%v\nwant\n%v\nlost %v", run, publisher, id, got, want, w.lost[publisher])
				}
				if len(got) < 20 {
					t.Errorf("run %d: of %s %s got %v only", run, publisher, id, got)
				}
			}
			gaps += len(w.lost[publisher])
		}
	}
	if gaps > 12 {
		t.Errorf("%d gaps in 60 runs", gaps)
	}
}
