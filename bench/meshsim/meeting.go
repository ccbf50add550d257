package main

import (
	"math"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/cascade"
)

// meeting is a room in the mesh.
type meeting struct {
	*world
	gate   *residency.Gate
	policy string
	people []int  // attendees by node
	dead   []bool // nodes
	may    []bool // nodes that the policy lets have the media
	away   int    // attendees for whom no node was found
}

// newMeeting seats people. Where they go is router.Place's decision, asked once for a
// group of so many from one city: people who come from the same place at the same
// moment are told the same.
func newMeeting(w *world, policy string, people, group int) *meeting {
	m := &meeting{world: w, gate: residency.NewGate(bundle()), policy: policy,
		people: make([]int, len(w.nodes)), dead: make([]bool, len(w.nodes)), may: make([]bool, len(w.nodes))}
	for i := range w.nodes {
		v := m.gate.Decide(residency.Request{Room: "hall", Policy: policy, Class: residency.ClassMedia, Peer: w.nodes[i], PeerEpoch: 1, Now: noon})
		m.may[i] = v.Allow
	}
	for left := people; left > 0; left -= group {
		at := w.somewhere()
		for policy == "eea" && !cities[at].inRegion {
			at = w.somewhere()
		}
		m.seat(at, min(group, left))
	}
	return m
}

// seat lets people of a city in.
func (m *meeting) seat(at, group int) {
	index := make(map[residency.NodeName]int, len(m.nodes))
	q := router.Question{Room: router.Room{Name: "hall", Policy: m.policy}, Now: noon,
		Attendee: router.Attendee{Country: cities[at].country, At: cities[at].at, Known: true}}
	for i, n := range m.nodes {
		index[n.Name] = i
		if m.dead[i] {
			continue
		}
		q.Candidates = append(q.Candidates, router.Candidate{Node: n, At: m.at[i], Attendees: m.people[i], Capacity: seats,
			Load: float64(m.people[i]) / seats, Epoch: 1, Up: true})
	}
	p := router.Place(m.gate, q)
	if p.Chosen == nil {
		m.away += group
		return
	}
	m.people[index[p.Chosen.Node]] += group
}

// input is what the node of a publisher knows when it plans.
func (m *meeting) input(source int, track string, fanOut int) (cascade.Input, []int) {
	list := []int{source}
	for i, n := range m.people {
		if i != source && n > 0 && !m.dead[i] {
			list = append(list, i)
		}
	}
	in := cascade.Input{Track: track, Rates: [cascade.MaxLayers]int{150_000, 500_000, 1_700_000},
		RTT: func(a, b int) (time.Duration, bool) {
			ms := m.seen[list[a]][list[b]]
			return time.Duration(float64(ms) * float64(time.Millisecond)), ms >= 0
		},
		May: func(a, b int) bool { return m.may[list[a]] && m.may[list[b]] }}
	for _, i := range list {
		in.Nodes = append(in.Nodes, cascade.Node{Name: m.nodes[i].Name, Wants: 7, Viewers: m.people[i], FanOut: fanOut,
			Load: min(float64(m.people[i])/seats, 0.4)})
	}
	return in, list
}

// hop is what a node in the middle adds, in ms one way.
const hop = 0.5

// stretches holds a tree's true delays against the best possible: the shortest path
// over permitted nodes, with no limit on how many copies a node sends. Each node
// counts as often as people watch there.
func (m *meeting) stretches(t *cascade.Tree, list []int) (stretch, extra []float64) {
	at := make(map[residency.NodeName]int, len(list))
	for k, i := range list {
		at[m.nodes[i].Name] = k
	}
	best := m.shortest(list)
	delay := make([]float64, len(list))
	for _, e := range t.Edges {
		from, to := at[e.From], at[e.To]
		delay[to] = delay[from] + float64(m.truth[list[from]][list[to]])/2
		if from != 0 {
			delay[to] += hop
		}
		for range m.people[list[to]] {
			stretch = append(stretch, delay[to]/best[to])
			extra = append(extra, delay[to]-best[to])
		}
	}
	slices.Sort(stretch)
	slices.Sort(extra)
	return stretch, extra
}

// shortest is Dijkstra's, over the true round trips.
func (m *meeting) shortest(list []int) []float64 {
	best, done := make([]float64, len(list)), make([]bool, len(list))
	for k := range best {
		best[k] = math.Inf(1)
	}
	best[0] = 0
	for range list {
		u := -1
		for k := range best {
			if !done[k] && (u < 0 || best[k] < best[u]) {
				u = k
			}
		}
		done[u] = true
		for v := range best {
			d := best[u] + float64(m.truth[list[u]][list[v]])/2
			if u != 0 {
				d += hop
			}
			best[v] = min(best[v], d)
		}
	}
	return best
}

// of is a quantile of sorted values.
func of(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func mean(list []float64) (sum float64) {
	for _, v := range list {
		sum += v / float64(len(list))
	}
	return sum
}
