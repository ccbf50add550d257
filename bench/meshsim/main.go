// Command meshsim plays large rooms in meshes that do not exist and reports how good
// the trees are by which their tracks travel: how much longer than the best possible,
// how the copies are spread over the nodes, how long a plan takes, and what moves and
// is said when people and nodes come, go and die.
//
// Everything is decided by the code of the product (router.Place, residency.Gate,
// router/cascade); the mesh, its round trips and its people are made from a seed.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/bench/machine"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router/cascade"
)

// scenario is a room and what happens in it.
type scenario struct {
	Name    string `json:"name"`
	Nodes   int    `json:"mesh_nodes"`
	People  int    `json:"attendees"`
	Policy  string `json:"policy"`
	FanOut  int    `json:"fan_out"`
	Tracks  int    `json:"tracks"`
	Changes int    `json:"changes"`
}

var scenarios = []scenario{
	{"hall of 100,000", 1000, 100_000, "anywhere", 8, 1, 60},
	{"hall of 100,000, four copies", 1000, 100_000, "anywhere", 4, 1, 60},
	{"conference of 10,000 in the EEA", 1000, 10_000, "eea", 8, 10, 200},
	{"conference of 2,000", 100, 2000, "anywhere", 8, 40, 500},
	{"meeting of 50", 100, 50, "anywhere", 8, 10, 500},
}

// figures are what came out. Delays are one way, in ms; each attendee counts once.
type figures struct {
	scenario
	Seated      int     `json:"seated"`
	RoomNodes   int     `json:"room_nodes"`
	Unreached   int     `json:"unreached_nodes"`
	OutOfZone   int     `json:"edges_out_of_zone"`
	Depth       int     `json:"depth"`
	StretchMean float64 `json:"stretch_mean"`
	StretchP50  float64 `json:"stretch_p50"`
	StretchP99  float64 `json:"stretch_p99"`
	ExtraP50    float64 `json:"extra_ms_p50"`
	ExtraP99    float64 `json:"extra_ms_p99"`
	ExtraMost   float64 `json:"extra_ms_most"`

	// Copies of all tracks that a node sends, by the nodes of the room.
	CopiesMean   float64 `json:"copies_per_node_mean"`
	CopiesP99    float64 `json:"copies_per_node_p99"`
	CopiesMost   float64 `json:"copies_per_node_most"`
	CopiesOfStar int     `json:"copies_of_a_star"` // that a publisher's node would send

	PlanMS      float64 `json:"plan_ms_p50"`
	ReplanMS    float64 `json:"replan_ms_p50"`
	ReplanMostS float64 `json:"replan_ms_p99"`

	// For each change: somebody who joins or leaves a node as its first or last, or a
	// node that dies.
	Orphans  float64 `json:"orphans_per_change"` // nodes whose parent is gone: they have to move
	Moved    float64 `json:"moved_per_change"`   // others
	Messages float64 `json:"messages_per_change"`
	After    float64 `json:"stretch_mean_after"`
}

// Messages between nodes: who comes says so and is told where to get it, asks there
// and is answered; who moves ends the old way and says so, besides.
const (
	messagesOfNew  = 4
	messagesOfMove = 6
	messagesOfEnd  = 2
)

func main() {
	seed := flag.Uint64("seed", 1, "from which everything is made")
	only := flag.String("only", "", "scenarios whose name has this in it")
	record := flag.Bool("record", false, "write bench/results")
	flag.Parse()
	var all []figures
	for _, s := range scenarios {
		if strings.Contains(s.Name, *only) {
			f := play(s, *seed)
			all = append(all, f)
			show(f)
		}
	}
	if !*record {
		return
	}
	m := machine.Describe(time.Now(), fmt.Sprintf("make bench-mesh RECORD=1 SEED=%d", *seed))
	b, err := json.MarshalIndent(map[string]any{"mesh": all, "seed": *seed, "machine": m}, "", "  ")
	if err == nil {
		day, _, _ := strings.Cut(m.At, "T")
		err = os.WriteFile(filepath.Join("bench/results", day+"-mesh-trees.json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "meshsim:", err)
		os.Exit(1)
	}
}

func show(f figures) {
	fmt.Printf("%s: %d on %d of %d nodes, %d hops at most, %d not reached, %d edges out of zone\n", f.Name, f.Seated, f.RoomNodes, f.Nodes, f.Depth, f.Unreached, f.OutOfZone)
	fmt.Printf("  delay of the best: mean %.3f, p50 %.3f, p99 %.3f times; %.1f, %.1f, at most %.1f ms more; after the changes mean %.3f\n",
		f.StretchMean, f.StretchP50, f.StretchP99, f.ExtraP50, f.ExtraP99, f.ExtraMost, f.After)
	fmt.Printf("  copies sent by a node: mean %.2f, p99 %.0f, most %.0f; of a star %d\n", f.CopiesMean, f.CopiesP99, f.CopiesMost, f.CopiesOfStar)
	fmt.Printf("  a plan %.2f ms, another %.2f ms, p99 %.2f\n", f.PlanMS, f.ReplanMS, f.ReplanMostS)
	fmt.Printf("  a change: %.2f orphans, %.2f others moved, %.1f messages\n", f.Orphans, f.Moved, f.Messages)
}

// play makes a room and its trees, and changes it.
func play(s scenario, seed uint64) figures {
	w := newWorld(seed, s.Nodes)
	m := newMeeting(w, s.Policy, s.People, max(1, min(200, s.People/200)))
	f := figures{scenario: s, Seated: s.People - m.away}
	var stretch, extra, took []float64
	copies := map[residency.NodeName]float64{}
	var trees []*cascade.Tree
	sources := m.sources(s.Tracks)
	for k, source := range sources {
		in, list := m.input(source, fmt.Sprint("TR_", k), s.FanOut)
		t := m.timed(in, nil, &took)
		trees = append(trees, t)
		f.RoomNodes, f.CopiesOfStar = len(list), max(f.CopiesOfStar, len(list)-1)
		f.Unreached += len(t.Left)
		f.Depth = max(f.Depth, t.Depth())
		f.OutOfZone += m.outOfZone(t)
		for _, e := range t.Edges {
			copies[e.From]++
		}
		a, b := m.stretches(t, list)
		stretch, extra = append(stretch, a...), append(extra, b...)
	}
	slices.Sort(stretch)
	slices.Sort(extra)
	slices.Sort(took)
	f.StretchMean, f.StretchP50, f.StretchP99 = mean(stretch), of(stretch, 0.5), of(stretch, 0.99)
	f.ExtraP50, f.ExtraP99, f.ExtraMost, f.PlanMS = of(extra, 0.5), of(extra, 0.99), of(extra, 1), of(took, 0.5)
	var sent []float64
	for i, n := range m.people {
		if n > 0 {
			sent = append(sent, copies[m.nodes[i].Name])
		}
	}
	slices.Sort(sent)
	f.CopiesMean, f.CopiesP99, f.CopiesMost = mean(sent), of(sent, 0.99), of(sent, 1)
	m.changes(&f, sources[0], trees[0])
	return f
}

// sources are nodes at which somebody publishes.
func (m *meeting) sources(n int) (list []int) {
	for len(list) < n {
		if i := m.IntN(len(m.people)); m.people[i] > 0 {
			list = append(list, i)
		}
	}
	return list
}

func (m *meeting) timed(in cascade.Input, before *cascade.Tree, took *[]float64) *cascade.Tree {
	start := time.Now()
	t := cascade.Plan(in, before)
	*took = append(*took, float64(time.Since(start))/float64(time.Millisecond))
	return t
}

// outOfZone counts the edges that end where the policy does not permit it.
func (m *meeting) outOfZone(t *cascade.Tree) (n int) {
	for _, e := range t.Edges {
		i := slices.IndexFunc(m.nodes, func(o residency.Node) bool { return o.Name == e.To })
		if !m.may[i] {
			n++
		}
	}
	return n
}

// changes plays a series of them against one tree.
func (m *meeting) changes(f *figures, source int, t *cascade.Tree) {
	var took []float64
	alive, orphans, moved, messages := m.parents(t), 0, 0, 0
	var after []float64
	for range f.Changes {
		m.change(source)
		in, list := m.input(source, "TR_0", f.FanOut)
		next := m.timed(in, t, &took)
		now := m.parents(next)
		for node, from := range now {
			was, known := alive[node]
			_, there := now[was]
			switch {
			case !known:
				messages += messagesOfNew
			case was == from:
			case was != m.nodes[source].Name && !there:
				orphans++
				messages += messagesOfNew
			default:
				moved++
				messages += messagesOfMove
			}
		}
		for node := range alive {
			if _, ok := now[node]; !ok {
				messages += messagesOfEnd
			}
		}
		alive, t = now, next
		after, _ = m.stretches(t, list)
		f.OutOfZone += m.outOfZone(t)
	}
	slices.Sort(took)
	n := float64(f.Changes)
	f.ReplanMS, f.ReplanMostS = of(took, 0.5), of(took, 0.99)
	f.Orphans, f.Moved, f.Messages, f.After = float64(orphans)/n, float64(moved)/n, float64(messages)/n, mean(after)
}

// change has the last people of a node leave, the first come, or a node die, whose
// people go elsewhere.
func (m *meeting) change(source int) {
	i := m.IntN(len(m.nodes))
	for i == source || !m.may[i] {
		i = m.IntN(len(m.nodes))
	}
	switch m.IntN(3) {
	case 0:
		if m.dead[i] = !m.dead[i]; m.dead[i] && m.people[i] > 0 {
			lost := m.people[i]
			m.people[i] = 0
			m.seat(m.city[i], lost)
		}
	case 1:
		m.people[i] = 0
	default:
		if !m.dead[i] {
			m.people[i] = max(m.people[i], 1+m.IntN(20))
		}
	}
}

func (m *meeting) parents(t *cascade.Tree) map[residency.NodeName]residency.NodeName {
	out := make(map[residency.NodeName]residency.NodeName, len(t.Edges))
	for _, e := range t.Edges {
		out[e.To] = e.From
	}
	return out
}
