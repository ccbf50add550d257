package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
)

var (
	stopsSamples = flag.Int("stops.samples", 1, "how many ends of a flow TestMediaStops measures of each kind, at least")
	stopsRecord  = flag.Bool("stops.record", false, "write what TestMediaStops measured into bench/results")
)

// ends are how long it took from an order until the last packet, of each flow.
type ends struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
	Stall   float64 `json:"measuring_process_stalled_ms"` // at most, in any round

	all []time.Duration
}

// TestMediaStops measures how long media goes on that is no longer allowed: after a
// policy was tightened, a certificate revoked, the last attendee of an edge outside
// has left (G3, R3), and a speaker was removed (G21). The order is given to one node; the
// last packet is that which the captures see come to or leave any node that may have none,
// over a link or to an attendee.
func TestMediaStops(t *testing.T) {
	f := startField(t)
	kinds := []struct {
		name string
		play func(*stopping) []string
	}{{"policy_tightened", (*stopping).tightens}, {"certificate_revoked", (*stopping).revokes}, {"edge_outside_left", (*stopping).leaves},
		{"participant_removed", (*stopping).removes}}
	found := map[string]*ends{}
	for _, k := range kinds {
		e := &ends{}
		found[k.name] = e
		for round := 0; len(e.all) < *stopsSamples && !t.Failed(); round++ {
			s := newStopping(f, fmt.Sprintf("%s-%d", k.name, round))
			nodes := k.play(s)
			s.measure(e, nodes)
			s.end()
		}
		e.sum()
		t.Logf("%s: %+v", k.name, *e)
		if limit := 1000 + 2*e.Stall; e.P99 > limit {
			t.Errorf("%s: media went on for %.0f ms (p99), want 1000 at most", k.name, e.P99)
		}
	}
	f.tap.opened(t)
	if *stopsRecord {
		record(t, "residency-stops", fmt.Sprintf("make residency-stops N=%d RECORD=1", *stopsSamples), found)
	}
}

func (e *ends) sum() {
	slices.Sort(e.all)
	ms := func(i int) float64 { return float64(e.all[i].Microseconds()) / 1000 }
	if e.Samples = len(e.all); e.Samples > 0 {
		e.P50, e.P99, e.Max = ms((e.Samples-1)/2), ms((e.Samples*99+99)/100-1), ms(e.Samples-1)
	}
}

// stoppingRooms is how many rooms a round has.
const stoppingRooms = 6

// stopping is a round: rooms, each with somebody who speaks in Frankfurt and viewers
// elsewhere.
type stopping struct {
	f        *field
	name     string
	rooms    []string // canaries
	people   []*client.Client
	speakers []*client.Client
	viewers  map[string][]*client.Client // by node
	before   missed
	began    time.Time            // when the order was given, the last if there are several
	orders   map[string]time.Time // when it was given for a room, by canary; else began
	answers  []string             // canaries of who speaks to the speakers, by room; they may not hear them any more
	stall    chan struct{}
	stalled  chan time.Duration
}

var wide = zone{countries: []residency.Country{"DE", "PL", "CH", "US"}}

func newStopping(f *field, name string) *stopping {
	s := &stopping{f: f, name: name, viewers: map[string][]*client.Client{}, orders: map[string]time.Time{}, before: f.tap.missed(), stall: make(chan struct{}), stalled: make(chan time.Duration, 1)}
	for range stoppingRooms {
		s.rooms = append(s.rooms, newCanary())
	}
	return s
}

// meet lets people in under a policy, and waits until all viewers receive.
func (s *stopping) meet(z zone, nodes ...string) {
	s.f.bundle.Policies["stopping"] = z.policy("stopping")
	s.order()
	for i, canary := range s.rooms {
		g := guest{room: fmt.Sprintf("%s-%d", s.name, i), policy: "stopping", name: "speaker", canary: canary, silent: true, brief: true}
		g.stubborn = true
		s.speakers = append(s.speakers, s.enter("fra", g))
		g.canary, g.stubborn = "", false
		for _, n := range nodes {
			g.name = "viewer at " + n
			s.viewers[n] = append(s.viewers[n], s.enter(n, g))
		}
	}
	for _, n := range nodes {
		for _, v := range s.viewers[n] {
			s.f.receives(v, "a viewer at "+n)
		}
	}
	go func() { s.stalled <- stalled(s.stall) }()
}

func (s *stopping) enter(node string, g guest) *client.Client {
	s.f.t.Helper()
	c := s.f.mustEnter(node, g)
	s.people = append(s.people, c)
	return c
}

// order gives the policies to one node, and waits until all go by them.
func (s *stopping) order() {
	s.f.bundle.Epoch++
	s.began = s.f.apply("fra")
	s.f.goesBy(s.f.bundle.Epoch)
}

// apply has a node take the bundle and tell the others, as domicile policy apply does;
// it returns when it was asked.
func (f *field) apply(name string) time.Time {
	f.t.Helper()
	path := filepath.Join(f.Dir, "applied.yaml")
	f.signInto(path)
	text, err := os.ReadFile(path)
	sig, worse := os.ReadFile(path + configs.SignatureSuffix)
	if err != nil || worse != nil {
		f.t.Fatal(err, worse)
	}
	body, _ := json.Marshal(map[string][]byte{"policy": text, "signature": sig})
	data := filepath.Join(f.node(name).dir(), "data")
	c := http.Client{Timeout: patience * 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return node.DialAdmin(ctx, data)
	}}}
	at := time.Now()
	resp, err := c.Post("http://node/policy/apply", "application/json", bytes.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		f.t.Fatalf("%s does not take the policies: %s %s", name, resp.Status, b)
	}
	return at
}

// tightens takes three countries out of the zone.
func (s *stopping) tightens() []string {
	s.meet(wide, "waw", "zrh", "nyc")
	s.f.bundle.Policies["stopping"] = zone{countries: []residency.Country{"DE"}}.policy("stopping")
	s.order()
	return []string{"waw", "zrh", "nyc"}
}

// revokes revokes the certificate of a node.
func (s *stopping) revokes() []string {
	victim := []string{"zrh", "nyc", "waw", "ber"}[int(s.f.bundle.Epoch)%4]
	s.meet(wide, victim)
	state, err := s.f.peek(victim)
	if err != nil || state.Identity == nil {
		s.f.t.Fatalf("the state of %s: %v", victim, err)
	}
	s.f.bundle.Revoked = []string{state.Identity.Serial}
	s.order()
	return []string{victim}
}

// leaves has the only attendee of an edge outside leave, one room after the other.
func (s *stopping) leaves() []string {
	s.meet(zone{countries: []residency.Country{"DE", "PL"}, outside: true}, "waw", "nyc")
	s.began = time.Now()
	for _, v := range s.viewers["nyc"] {
		v.Leave()
	}
	return []string{"nyc"}
}

// removes removes the speaker of each room, by a node that is not theirs. They go on
// sending, and somebody at a third node speaks to them.
func (s *stopping) removes() []string {
	s.meet(wide, "waw", "zrh", "nyc")
	for i := range s.rooms {
		s.answers = append(s.answers, newCanary())
		s.enter("waw", guest{room: fmt.Sprintf("%s-%d", s.name, i), policy: "stopping", name: "answering", canary: s.answers[i], silent: true, brief: true})
	}
	for _, c := range s.speakers {
		s.f.receives(c, "a speaker")
	}
	for i, canary := range s.rooms {
		s.began = time.Now()
		s.orders[canary], s.orders[s.answers[i]] = s.began, s.began
		s.f.twirp("nyc", "RemoveParticipant", map[string]any{"room": fmt.Sprintf("%s-%d", s.name, i), "identity": "speaker"}, nil)
	}
	return []string{"fra", "waw", "zrh", "nyc"}
}

// measure looks for the last packet of each room at the nodes where media had to stop,
// when nothing has come there for longer than the second that it may take.
func (s *stopping) measure(e *ends, nodes []string) {
	s.f.t.Helper()
	silence := time.NewTimer(time.Until(s.began.Add(2500 * time.Millisecond)))
	<-silence.C
	close(s.stall)
	stall := <-s.stalled
	s.f.tap.settle()
	if why := s.f.tap.missed().since(s.before).unseen(); why != "" {
		s.f.t.Logf("%s is measured again: %s", s.name, why)
		return
	}
	e.Stall = max(e.Stall, float64(stall.Microseconds())/1000)
	for _, canary := range s.rooms {
		passed := s.f.tap.take(canary)
		for _, n := range nodes {
			s.last(e, canary, n, passed[n], func(p passage) bool { return p.by == byRelay || p.by == byMedia && p.out })
		}
	}
	for _, canary := range s.answers {
		s.last(e, canary, "fra", s.f.tap.take(canary)["fra"], func(p passage) bool { return p.by == byMedia && p.out })
	}
}

// last adds when the last of the packets that counts passed a node.
func (s *stopping) last(e *ends, canary, node string, passed []passage, counts func(passage) bool) {
	s.f.t.Helper()
	began, last, count := s.began, time.Time{}, 0
	if at, ok := s.orders[canary]; ok {
		began = at
	}
	for _, p := range passed {
		if counts(p) {
			last, count = p.at, count+1
		}
	}
	if count < 10 {
		s.f.t.Errorf("%s: %d packets passed %s, where media was to stop", s.name, count, node)
	}
	e.all = append(e.all, max(last.Sub(began), 0))
}

// end lets everybody go, and every node back in.
func (s *stopping) end() {
	for _, c := range s.people {
		c.Close()
	}
	if s.f.bundle.Revoked != nil {
		s.f.bundle.Revoked = nil
		s.f.bundle.Epoch++
		s.f.apply("fra")
		s.f.applyAlone()
		s.f.allLinked()
	}
}

// applyAlone gives the bundle to every node: one that was shut out hears of nothing.
func (f *field) applyAlone() {
	for _, n := range f.Nodes {
		f.apply(n.Name)
	}
	f.goesBy(f.bundle.Epoch)
}
