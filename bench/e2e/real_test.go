package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/bench/load/ways"
	"github.com/domicile/domicile/residency"
)

var (
	realCases  = flag.Int("real.cases", 8, "how many random cases TestResidencyReal judges")
	realSeed   = flag.Uint64("real.seed", 0, "the seed of TestResidencyReal; 0: another one each time")
	realBin    = flag.String("real.tags", "", "further build tags of its nodes, such as gateoff")
	realFor    = flag.Duration("real.for", 0, "how long TestResidencyReal goes on at most, however few cases it has judged; 0: as long as it takes")
	realRecord = flag.Bool("real.record", false, "write the outcome into bench/results")
)

// TestResidencyReal plays random cases on real nodes, each in a network namespace of
// its own: rooms under random policies, whose metadata may lie elsewhere than what is
// live; attendees who come and go, by every way that there is, on nodes inside and
// outside; and in the middle of it new policies, a revoked certificate, or a node that
// is killed. What passes the interface of each node is captured and opened, and each
// packet with one of a room's canaries is judged by an oracle that knows the raw facts
// alone: was the node one that the policy of that moment allows?
//
// A case counts only if everything was seen: one in whose time a packet was not
// captured or could not be opened, or in which this process did not run for a while,
// is played again, and what is certain in spite of that is a leak all the same.
//
// Cases run several at a time, since each has a room, a policy and canaries of its
// own. How they fall is random in time as well, so that a seed gives the same cases
// and not the same packets.
func TestResidencyReal(t *testing.T) {
	f := startField(t)
	seed := *realSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-real.seed %d -real.cases %d", seed, *realCases)
	random, began := rand.New(rand.NewPCG(seed, 0)), time.Now()
	sum := tally{Seed: seed}
	for number := 0; sum.Judged < *realCases && sum.Leaks == 0 && !t.Failed() && (*realFor == 0 || time.Since(began) < *realFor); number++ {
		if sum.Repeated > *realCases+2*roundCases {
			t.Errorf("%d cases were not seen whole, %d were: the machine is too busy to look", sum.Repeated, sum.Judged)
			break
		}
		newRound(f, random, number, min(roundCases, *realCases-sum.Judged)).run(&sum)
	}
	sum.Seconds = time.Since(began).Seconds()
	f.tap.opened(t)
	t.Logf("%.0f cases a minute: %+v", float64(sum.Judged)/time.Since(began).Minutes(), sum)
	if sum.Passed == 0 || sum.Entered < sum.Judged {
		t.Error("hardly anything happened: the cases show nothing")
	}
	if *realRecord {
		record(t, "residency-real", fmt.Sprintf("make residency-real N=%d RECORD=1 REALFLAGS='-real.seed %d'", *realCases, seed), sum)
	}
}

// roundCases is how many cases are played at once: as many as two processors carry
// without being late.
const roundCases = 6

// tally is what happened.
type tally struct {
	Seed     uint64  `json:"seed"`
	Judged   int     `json:"cases_judged"`
	Leaks    int     `json:"leaks"`
	Repeated int     `json:"cases_not_seen_whole"` // and played again
	Seconds  float64 `json:"seconds"`

	Entered int `json:"attendees_who_entered"`
	Refused int `json:"attendees_refused"`
	Wrongly int `json:"refused_though_allowed"` // no leak, but nothing is shown either
	Apart   int `json:"cases_with_metadata_elsewhere"`
	Changes int `json:"changes_of_policy"`
	Revoked int `json:"revocations"`
	Kills   int `json:"kills"`

	Passed  int     `json:"packets_with_a_canary"` // that came to a node or left it
	Words   int     `json:"of_them_with_a_name"`
	Media   int     `json:"of_them_to_attendees"`
	Outside int     `json:"of_them_at_an_edge_outside"`
	Ended   int     `json:"of_them_after_the_end_of_what_allowed_them"` // within the second that there is
	Slowest float64 `json:"latest_of_those_ms"`
}

// realCase is a case of a round.
type realCase struct {
	name               string
	media, word, title string // canaries of media, of people's names, of the room's
	zones              []zone // of the first policy and of those after it
	wrote, from        []time.Time

	mu    sync.Mutex
	stays []stay
}

// stay is an attendee's time on a node.
type stay struct {
	node     string
	from, to time.Time
}

// what happens in the middle of a round.
type incident uint8

const (
	nothing incident = iota
	newPolicies
	revocation
	killing
)

type round struct {
	f        *field
	random   *rand.Rand
	cases    []*realCase
	incident incident
	victim   string         // of a revocation or a killing
	halfway  sync.WaitGroup // the cases have their first attendees
	over     chan struct{}  // the incident is
	count    struct{ entered, refused, wrongly int }
	before   missed
	stall    time.Duration // how long this process was held up at most
}

func newRound(f *field, random *rand.Rand, number, n int) *round {
	r := &round{f: f, random: random, over: make(chan struct{}), before: f.tap.missed(),
		incident: []incident{nothing, newPolicies, newPolicies, newPolicies, newPolicies, newPolicies, revocation, killing}[random.IntN(8)]}
	r.victim = string(fieldNodes[random.IntN(len(fieldNodes))].Name)
	for i := range n {
		r.cases = append(r.cases, &realCase{name: fmt.Sprintf("case-%d-%d", number, i), media: newCanary(), word: newCanary(), title: newCanary()})
	}
	return r
}

// run plays and judges a round.
func (r *round) run(sum *tally) {
	for _, c := range r.cases {
		c.zones = append(c.zones, randomZone(r.random))
	}
	r.apply()
	r.play()
	r.f.tap.settle()
	r.judge(sum)
	switch r.incident {
	case revocation:
		r.f.bundle.Revoked = nil
		r.f.bundle.Epoch++
		r.f.sign()
		r.f.goesBy(r.f.bundle.Epoch)
		r.f.allLinked()
	case killing:
		n := r.f.node(r.victim)
		n.PID = r.f.run(n)
		r.f.down = ""
		r.f.allLinked()
	}
}

// apply puts the newest zone of each case in force, and returns when all nodes go by it.
func (r *round) apply() {
	f := r.f
	maps.DeleteFunc(f.bundle.Policies, func(name string, _ *residency.Policy) bool {
		return strings.HasPrefix(name, "case-") && !slices.ContainsFunc(r.cases, func(c *realCase) bool { return c.name == name })
	})
	for _, c := range r.cases {
		c.mu.Lock()
		c.wrote = append(c.wrote, time.Now())
		f.bundle.Policies[c.name] = c.zones[len(c.zones)-1].policy(c.name)
		c.mu.Unlock()
	}
	f.bundle.Epoch++
	f.sign()
	f.goesBy(f.bundle.Epoch)
	for _, c := range r.cases {
		c.mu.Lock()
		c.from = append(c.from, time.Now())
		c.mu.Unlock()
	}
}

// goesBy waits until all nodes that are up go by an epoch.
func (f *field) goesBy(e residency.Epoch) {
	f.t.Helper()
	for _, n := range f.Nodes {
		if n.Name != f.down {
			eventually(f.t, "node "+n.Name+" goes by the new policies", 10*time.Second, func() bool {
				s, err := f.peek(n.Name)
				return err == nil && s.Epoch == e
			})
		}
	}
}

// play has people come and go in all rooms of the round, and the incident meanwhile.
func (r *round) play() {
	done := make(chan struct{})
	var meter, all sync.WaitGroup
	meter.Go(func() { r.stall = stalled(done) })
	var mu sync.Mutex
	for _, c := range r.cases {
		random := rand.New(rand.NewPCG(r.random.Uint64(), 1))
		r.halfway.Add(1)
		all.Go(func() {
			entered, refused, wrongly := r.playCase(c, random)
			mu.Lock()
			defer mu.Unlock()
			r.count.entered, r.count.refused, r.count.wrongly = r.count.entered+entered, r.count.refused+refused, r.count.wrongly+wrongly
		})
	}
	r.halfway.Wait()
	r.happen()
	close(r.over)
	all.Wait()
	close(done)
	meter.Wait()
}

// happen is the incident.
func (r *round) happen() {
	switch r.incident {
	case newPolicies:
		for _, c := range r.cases {
			c.change(randomZone(r.random))
		}
		r.apply()
	case revocation:
		s, err := r.f.peek(r.victim)
		if err != nil || s.Identity == nil {
			r.f.t.Fatalf("the state of %s: %v", r.victim, err)
		}
		r.f.bundle.Revoked = append(r.f.bundle.Revoked, s.Identity.Serial)
		for _, c := range r.cases {
			z := c.zones[0]
			z.without = residency.NodeName(r.victim)
			c.change(z)
		}
		r.apply()
	case killing:
		r.f.kill(r.victim)
		r.f.down = r.victim
		for _, c := range r.cases {
			c.leaveAll(r.victim)
		}
		for _, n := range r.f.Nodes {
			if n.Name != r.victim {
				eventually(r.f.t, n.Name+" misses "+r.victim, 15*time.Second, func() bool {
					s, err := r.f.peek(n.Name)
					return err == nil && linkedIn(s) < len(r.f.Nodes)
				})
			}
		}
	}
}

// stalled measures how much later than it should this process runs, at most.
func stalled(done <-chan struct{}) (most time.Duration) {
	const beat = 10 * time.Millisecond
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

// attending are the attendees of a case who are in.
type attending struct {
	c    *realCase
	list []*client.Client
	stay []int
}

func (a *attending) goes(i int) {
	a.list[i].Close()
	a.c.leave(a.stay[i])
}

// passes waits until those who are in have sent so much more, and not for ever: who is
// thrown out sends nothing.
func (a *attending) passes(packets uint64) {
	sent := func() (n uint64) {
		for _, p := range a.list {
			n += p.Sent()
		}
		return n
	}
	enough := sent() + packets
	const longest = 2 * time.Second
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for until := time.Now().Add(longest); sent() < enough && time.Now().Before(until); <-again.C {
		if !slices.ContainsFunc(a.list, func(p *client.Client) bool { return p.Err() == nil }) {
			return
		}
	}
}

var allKinds = []ways.Kind{ways.Direct, ways.Direct, ways.Direct, ways.Direct, ways.TURNUDP, ways.TURNTCP, ways.TURNTLS, ways.ICETCP}

func (r *round) playCase(c *realCase, random *rand.Rand) (entered, refused, wrongly int) {
	const guests, first = 5, 3 // so many come before the incident
	in := &attending{c: c}
	defer func() {
		for i := range in.list {
			in.goes(i)
		}
	}()
	for i := range guests {
		if i == first {
			r.halfway.Done()
		}
		n := fieldNodes[random.IntN(len(fieldNodes))]
		may := c.zones[0].serves(n)
		g := guest{room: "room-" + c.title, policy: c.name, name: fmt.Sprint("guest ", i), way: allKinds[random.IntN(len(allKinds))], brief: true}
		if i < 2 {
			g.canary = c.media
		}
		if may && i < 3 { // who is not let in has told the node its name all the same
			g.name = fmt.Sprint(c.word, " ", i)
		}
		came := c.come(string(n.Name))
		p, err := r.f.enter(string(n.Name), g)
		switch {
		case err == nil:
			entered++
			in.list, in.stay = append(in.list, p), append(in.stay, came)
			if !may && !c.disturbed() {
				r.f.t.Errorf("%s: %s let an attendee in, under %+v", c.name, n.Name, c.zones[0])
			}
		case may && c.zones[0].home() && !c.disturbed() && r.incident != killing:
			wrongly++
			c.leave(came)
			r.f.t.Logf("%s: %s refused an attendee under %+v: %v", c.name, n.Name, c.zones[0], err)
		default:
			refused++
			c.leave(came)
		}
		in.passes(uint64(random.IntN(70)))
	}
	<-r.over
	in.passes(100)
	if len(in.list) > 1 { // one of them goes
		in.goes(random.IntN(len(in.list)))
	}
	in.passes(400) // of two who send: the second in which media has to stop, and a half
	return entered, refused, wrongly
}

func (c *realCase) change(z zone) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zones = append(c.zones, z)
}

// disturbed says whether another policy was written meanwhile.
func (c *realCase) disturbed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.zones) > 1
}

func (c *realCase) come(node string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stays = append(c.stays, stay{node: node, from: time.Now()})
	return len(c.stays) - 1
}

func (c *realCase) leave(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stays[i].to.IsZero() {
		c.stays[i].to = time.Now()
	}
}

// leaveAll ends the stays on a node.
func (c *realCase) leaveAll(node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.stays {
		if c.stays[i].node == node && c.stays[i].to.IsZero() {
			c.stays[i].to = time.Now()
		}
	}
}
