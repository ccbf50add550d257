//go:build linux

// Package healing measures what a mesh of real nodes does about one that fails: how long
// the others' attendees hear nothing while the trees of tracks heal, and how long it takes
// until the attendees of the node that failed are back on another one.
//
// Five nodes, each in a network namespace, with delays between them as between towns; a
// track goes from a node to two others at most, so that every track has a node in the
// middle, and that is the one that fails:
//
//	publishers ─ fra ─┬─ middle ─┬─ node ─ attendee
//	                  └─ node    └─ attendee, who goes to the next node
//
// Times are those between packets at the attendees' sockets.
package healing

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/netlab/impair"
	"github.com/domicile/domicile/node"
)

var (
	times    = flag.Int("heal.times", 1, "how many times each failure of TestNodesFail happens")
	faults   = flag.String("heal.faults", "kill", "which failures, by commas: "+strings.Join(names(), ", "))
	limit    = flag.Duration("heal.for", 0, "TestNodesFail begins no failure after this; 0: as long as it takes")
	stall    = flag.Duration("heal.stall", time.Second, "how long the measuring process may stand still before a failure is not counted")
	record   = flag.String("heal.record", "", "add the figures to those in this file")
	carriage = flag.Bool("heal.carriage", true, "media between nodes travels beside QUIC where it can")
	meetings = flag.Int("heal.rooms", 2, "meetings at a time: one with a camera, the others with sound")
	bad      = flag.Duration("heal.bad", 30*time.Second, "how long the failures loss and overtaking last")
	skew     = flag.Duration("heal.skew", 0, "every second node's clock is fast by so much, the others' slow")
)

func TestMain(m *testing.M) {
	if s := os.Getenv(envNode); s != "" {
		os.Exit(beNode(s))
	}
	os.Exit(m.Run())
}

// fault is a way to fail.
type fault struct {
	name string
	// strike has the node fail, and returns when it is over or has lasted long enough;
	// mend brings it back.
	strike, mend func(*stage, *process)
	source       bool // it is the publishers' node that fails, which is the meetings' home too
}

const (
	// lasts is how long a failure lasts at least: longer than the link.
	lasts = 1500 * ms
	// rest is how long nothing moves before the next one: a link that carries its first
	// track is not judged for a second.
	rest = 1200 * ms
)

func allFaults() []fault {
	cut := func(c netlab.Cut) func(*stage, *process) {
		return func(s *stage, p *process) { s.cut(p, c); time.Sleep(lasts) }
	}
	mend := func(s *stage, p *process) {
		if err := p.lab.Mend(); err != nil {
			s.t.Fatal(err)
		}
	}
	kill := func(s *stage, p *process) { s.kill(p); time.Sleep(lasts) }
	return []fault{
		{"kill", kill, (*stage).start, false},
		{"source", kill, (*stage).start, true},
		{"restart", func(s *stage, p *process) { // too soon for gossip to notice
			s.kill(p)
			s.start(p)
			s.allLinked()
			time.Sleep(lasts)
		}, func(*stage, *process) {}, false},
		{"freeze", func(s *stage, p *process) { s.signal(p, syscall.SIGSTOP); time.Sleep(lasts) }, func(s *stage, p *process) { s.signal(p, syscall.SIGCONT) }, false},
		{"pause", func(s *stage, p *process) { // the link lives on
			s.signal(p, syscall.SIGSTOP)
			time.Sleep(500 * ms)
			s.signal(p, syscall.SIGCONT)
			time.Sleep(lasts)
		}, func(*stage, *process) {}, false},
		{"cut", cut(netlab.CutBoth), mend, false},
		{"deaf", cut(netlab.CutIn), mend, false},
		{"mute", cut(netlab.CutOut), mend, false},
		{"flap", (*stage).flap, func(*stage, *process) {}, false},
		{"loss", worse(impair.Profile{Loss: 0.05, Jitter: 100 * ms}), better, false},
		{"overtaking", worse(impair.Profile{Loss: 0.05, Jitter: 100 * ms, Reorder: 0.5, ReorderBy: 50 * ms}), better, false},
	}
}

// worse makes all paths between nodes worse. Nobody fails, and nobody is to be taken for
// failed.
func worse(p impair.Profile) func(*stage, *process) {
	return func(s *stage, _ *process) { s.impair(p); time.Sleep(*bad) }
}

func better(s *stage, _ *process) { s.impair(impair.Profile{}) }

// judgements are how often each node suspected each other since they were linked.
type judgements map[[2]string]uint64

func (s *stage) judgements() judgements {
	all := judgements{}
	for _, p := range s.nodes {
		var state node.NodeState
		if p.cmd == nil || s.ask(p, "/state", &state) != nil {
			continue
		}
		for _, l := range state.Links {
			all[[2]string{p.Name, string(l.Peer)}] = l.Suspicions
		}
	}
	return all
}

// since counts those that have come: of links that have ended meanwhile none, which may
// be too few.
func (j judgements) since(before judgements) (n int) {
	for pair, now := range j {
		n += int(now - min(before[pair], now))
	}
	return n
}

func names() (list []string) {
	for _, f := range allFaults() {
		list = append(list, f.name)
	}
	return list
}

// cut cuts a node off: from everything, or in one direction from the other nodes.
func (s *stage) cut(p *process, c netlab.Cut) {
	s.t.Helper()
	var err error
	if c == netlab.CutBoth {
		err = p.lab.Cut(c)
	} else {
		var others []netip.Addr
		for _, o := range s.nodes {
			if o != p {
				others = append(others, o.Addr)
			}
		}
		err = p.lab.Cut(c, others...)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// flap cuts a node's paths to the others and mends them, again and again: gaps that are
// suspect and gaps that are not.
func (s *stage) flap(p *process) {
	for i := range 8 {
		s.between(p, impair.Profile{Loss: 1})
		time.Sleep([]time.Duration{100 * ms, 250 * ms}[i%2])
		s.between(p, impair.Profile{})
		time.Sleep(150 * ms)
	}
}

func (s *stage) between(p *process, profile impair.Profile) {
	for _, o := range s.nodes {
		if o != p {
			s.path(p, o, profile)
			s.path(o, p, profile)
		}
	}
}

// show is the meetings.
type show struct {
	*stage
	rooms []*room
	ends  context.CancelFunc
	runs  sync.WaitGroup
}

func (s *stage) meet(n int) *show {
	s.t.Helper()
	h := &show{stage: s}
	ctx, cancel := context.WithCancel(context.Background())
	h.ends = cancel
	s.t.Cleanup(h.close)
	for i := range n {
		r := &room{name: fmt.Sprintf("town-%d", i)}
		h.rooms = append(h.rooms, r)
		for at, p := range s.nodes {
			a := &attendee{s: s, room: r, who: "at-" + p.Name, home: at, video: i == 0, publish: at == 0}
			if a.publish {
				r.speaks = a
			} else {
				r.hear = append(r.hear, a)
			}
			s.eventually(fmt.Sprintf("%s is in %s", a.who, r.name), func() bool {
				a.goTo(at)
				if a.err != nil {
					s.t.Log(a.err)
				}
				return a.err == nil
			})
			h.runs.Go(func() { a.run(ctx) })
		}
	}
	return h
}

func (h *show) close() {
	h.ends()
	h.runs.Wait()
	for _, r := range h.rooms {
		for _, a := range append(r.hear, r.speaks) {
			a.close()
		}
	}
}

// settle waits until everybody is where they belong and gets what is said, by trees that
// are at rest, and returns these.
func (h *show) settle() map[*room]map[string][]string {
	h.t.Helper()
	h.allLinked()
	trees, since := map[*room]map[string][]string{}, time.Now()
	var restless string
	defer func() {
		if h.t.Failed() {
			h.t.Log("at rest was not: ", restless)
		}
	}()
	h.eventually("trees are at rest", func() bool {
		h.each(func(_ *room, a *attendee) { a.goHome() })
		for _, r := range h.rooms {
			r.speaks.goHome()
			if ways := h.hops(r.name); !isTree(ways, h.nodes) {
				restless, since = fmt.Sprintf("%s: %v", r.name, ways), time.Now()
				for _, a := range r.hear {
					restless += fmt.Sprintf(", %s on %s hears nothing for %s", a.who, h.nodes[a.at].Name, a.look(time.Now()).Round(ms))
				}
				return false
			} else {
				trees[r] = ways
			}
			for _, a := range r.hear {
				if silent := a.look(time.Now()); silent > 200*ms {
					restless, since = fmt.Sprintf("%s hears nothing in %s for %s, on %s", a.who, r.name, silent, h.nodes[a.at].Name), time.Now()
				}
			}
		}
		return time.Since(since) > rest
	})
	return trees
}

// isTree reports whether all nodes get it once, and one of them over another than the
// first.
func isTree(ways map[string][]string, nodes []*process) bool {
	got := map[string]int{}
	for _, list := range ways {
		for _, to := range list {
			got[to]++
		}
	}
	for _, p := range nodes[1:] {
		if got[p.Name] != 1 {
			return false
		}
	}
	return len(ways) > 1 && len(ways[nodes[0].Name]) <= 2
}

// middle is the node that is in the middle of most trees.
func (h *show) middle(trees map[*room]map[string][]string) (at int) {
	most := -1
	for i, p := range h.nodes[1:] {
		n := 0
		for _, ways := range trees {
			n += len(ways[p.Name])
		}
		if n > most {
			most, at = n, i+1
		}
	}
	return at
}

// play has a node fail, brings it back and returns what everybody missed; last does not
// wait until everybody is where they belong again.
func (h *show) play(f fault, last bool) round {
	trees := h.settle()
	at := 0
	if !f.source {
		at = h.middle(trees)
	}
	p := h.nodes[at]
	h.each(func(_ *room, a *attendee) { a.took() })
	done, stalls := make(chan struct{}), make(chan time.Duration, 1)
	go func() { stalls <- stalled(done) }()
	began, before, out := time.Now(), h.judgements(), round{}
	f.strike(h.stage, p)
	h.eventually("everybody hears again", func() bool {
		all := true
		h.each(func(_ *room, a *attendee) { all = all && a.look(time.Now()) < 200*ms })
		return all
	})
	out.suspicions = h.judgements().since(before)
	h.each(func(r *room, a *attendee) {
		missed := missed{what: fmt.Sprintf("%s, %s, %s failed", r.name, a.who, p.Name)}
		missed.pause, missed.moves = a.took()
		switch {
		case a.home == at, f.source:
			out.back = append(out.back, missed)
		case slices.Contains(trees[r][p.Name], h.nodes[a.home].Name):
			out.heal = append(out.heal, missed)
		default:
			out.beside = append(out.beside, missed)
		}
	})
	f.mend(h.stage, p)
	if !last {
		h.settle()
	}
	close(done)
	h.each(func(r *room, a *attendee) {
		if a.home != at && !f.source && !last { // who has moved back has had a pause of their own making
			pause, _ := a.took()
			out.after = append(out.after, missed{what: fmt.Sprintf("%s, %s, %s came back", r.name, a.who, p.Name), pause: pause})
		}
	})
	out.stall = <-stalls
	h.t.Logf("%s of %s at %s: %s", f.name, p.Name, began.Format(time.TimeOnly), out)
	return out
}

func (h *show) each(f func(*room, *attendee)) {
	for _, r := range h.rooms {
		for _, a := range r.hear {
			f(r, a)
		}
	}
}

// stalled returns for how long this process did not run at most, until done.
func stalled(done <-chan struct{}) (most time.Duration) {
	const beat = 10 * ms
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-done:
			return max(most, time.Since(last)-beat)
		case <-tick.C:
		}
		most, last = max(most, time.Since(last)-beat), time.Now()
	}
}

// TestNodesFail has the node in the middle fail, in one way after the other, again and
// again.
func TestNodesFail(t *testing.T) {
	h := newStage(t, len(towns), func(i int, a *nodeArgs) { a.Skew = []time.Duration{*skew, -*skew}[i%2] }).meet(*meetings)
	began, found := time.Now(), figures{}
	var plan []fault
	for range *times {
		for _, f := range allFaults() {
			if slices.Contains(strings.Split(*faults, ","), f.name) {
				plan = append(plan, f)
			}
		}
	}
	for i, f := range plan {
		if *limit == 0 || time.Since(began) < *limit {
			found.take(f.name, h.play(f, i == len(plan)-1))
		}
	}
	found.judge(t)
	if *record != "" {
		found.write(t, *record)
	}
}
