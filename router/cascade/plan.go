package cascade

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// none is the parent of a node that has none.
const none int32 = -1

// never is the price of a way that is not permitted; sums of a few fit in 32 bits.
const never = math.MaxInt32 / 8

// planner holds a tree that is being made. Nodes are numbers: the publisher's is
// 0, the others follow in the order of their names.
type planner struct {
	// Static after newPlanner.
	nodes  []Node
	n      int32
	way    []int32 // [from*n+to] one way in microseconds, never where it may not go
	middle []int32 // what a node adds to what it passes on
	slots  []int32 // to how many a node may send
	weight []int64
	rates  [MaxLayers]int
	fresh  bool // there is no tree before
	eager  bool // who can pass it on comes first

	// The tree so far.
	parent  []int32
	first   []int32 // child of each, or none
	next    []int32 // sibling of each, or none
	used    []int32 // slots
	reached []bool  // from the publisher's node
	delay   []int32 // from there
	depth   []int32 // hops from there
	carries []Layers
}

// newPlanner lays the nodes out. Nodes that want nothing are left out.
func newPlanner(in Input) *planner {
	order := []int{0}
	for i := 1; i < len(in.Nodes); i++ {
		if in.Nodes[i].Wants != 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order[1:], func(a, b int) int { return strings.Compare(string(in.Nodes[a].Name), string(in.Nodes[b].Name)) })
	n := len(order)
	ints := make([]int32, n*n+8*n)
	take := func(k int) []int32 { s := ints[:k:k]; ints = ints[k:]; return s }
	p := &planner{n: int32(n), nodes: make([]Node, n), weight: make([]int64, n), reached: make([]bool, n), carries: make([]Layers, n),
		way: take(n * n), middle: take(n), slots: take(n), parent: take(n), first: take(n), next: take(n), used: take(n), delay: take(n), depth: take(n), rates: in.Rates}
	for i, at := range order {
		p.nodes[i] = in.Nodes[at]
		p.lay(i, in.Track)
	}
	for i, a := range order {
		for j, b := range order {
			p.way[i*n+j] = never
			if i != j && j != 0 && in.May(a, b) {
				p.way[i*n+j] = oneWay(in, a, b)
			}
		}
	}
	p.reached[0] = true
	return p
}

// lay fills in what a node is worth.
func (p *planner) lay(i int, track string) {
	p.parent[i], p.first[i], p.next[i] = none, none, none
	node := &p.nodes[i]
	load := 1.0
	if node.Load >= 0 && node.Load < 1 { // what is not a number is full
		load = node.Load
	}
	p.middle[i] = hopCost + int32(load*load*busyCost) + scatter(track, node.Name)
	p.weight[i] = int64(max(node.Viewers, 1))
	p.slots[i] = min(int32(max(node.FanOut, 0)), int32(math.Ceil(float64(node.FanOut)*2*(1-load))))
	if i == 0 {
		p.slots[i] = max(p.slots[i], 1)
		p.middle[i] = 0 // nobody in the middle
	}
}

// scatter is chance that every node throws alike.
func scatter(track string, node residency.NodeName) int32 {
	h := fnv.New32a()
	h.Write([]byte(track))
	h.Write([]byte{0})
	h.Write([]byte(node))
	return int32(h.Sum32() >> 8 % spread)
}

// oneWay is half a round trip in microseconds. Where nobody knows it, it is what
// it takes over the publisher's node.
func oneWay(in Input, a, b int) int32 {
	if rtt, ok := in.RTT(a, b); ok {
		return micros(rtt)
	}
	toA, knowA := in.RTT(0, a)
	toB, knowB := in.RTT(0, b)
	if a == 0 || b == 0 || !knowA || !knowB {
		return micros(unknownRTT)
	}
	return min(micros(toA)+micros(toB), micros(unknownRTT))
}

// micros is half of a round trip, within what can be one.
func micros(rtt time.Duration) int32 {
	return int32(min(max(rtt, 0), 10*time.Second) / 2 / time.Microsecond)
}

// keep takes over what can stay of the tree before, also below a node that is gone:
// then only its children look for another place.
func (p *planner) keep(before *Tree) {
	if before == nil || before.Source != p.nodes[0].Name {
		return
	}
	at := make(map[residency.NodeName]int32, p.n)
	for i := range p.nodes {
		at[p.nodes[i].Name] = int32(i)
	}
	for i := range before.Edges {
		from, ok := at[before.Edges[i].From]
		to, ok2 := at[before.Edges[i].To]
		if ok && ok2 && to != 0 && p.parent[to] == none && p.way[from*p.n+to] < never && p.used[from] < p.slots[from] && !p.below(from, to) {
			p.link(from, to)
		}
	}
}

// below reports whether u hangs below v, or is v.
func (p *planner) below(u, v int32) bool {
	for ; u != none; u = p.parent[u] {
		if u == v {
			return true
		}
	}
	return false
}

// link hangs a node with all that is below it under another.
func (p *planner) link(from, to int32) {
	p.parent[to], p.next[to] = from, p.first[from]
	p.first[from] = to
	p.used[from]++
	if p.reached[from] {
		p.settle(to)
	}
}

// unlink takes it off; what hangs below it stays with it.
func (p *planner) unlink(to int32) {
	from := p.parent[to]
	at := &p.first[from]
	for *at != to {
		at = &p.next[*at]
	}
	*at = p.next[to]
	p.parent[to], p.next[to] = none, none
	p.used[from]--
	p.lose(to)
}

func (p *planner) lose(u int32) {
	p.reached[u] = false
	for c := p.first[u]; c != none; c = p.next[c] {
		p.lose(c)
	}
}

// settle computes the delays of a node that is reached, and of those below it.
func (p *planner) settle(u int32) {
	p.reached[u] = true
	p.delay[u], p.depth[u] = p.arrival(p.parent[u], u), p.depth[p.parent[u]]+1
	for c := p.first[u]; c != none; c = p.next[c] {
		p.settle(c)
	}
}

// arrival is the delay of a node that gets the track from another.
func (p *planner) arrival(from, to int32) int32 {
	return p.delay[from] + p.middle[from] + p.way[from*p.n+to]
}

// price is what it costs one viewer of a node to get the track from another.
func (p *planner) price(from, to int32) int32 {
	w := p.way[from*p.n+to]
	return p.delay[from] + p.middle[from] + w + w/edgeShare + p.extra(from, to)
}

// extra is the price of what is beside the delay.
func (p *planner) extra(from, to int32) int32 {
	if from == 0 {
		return 0
	}
	return hopPrice*p.depth[from] + p.lift(from, to)
}

// lift is the price of layers that a node would fetch for another alone.
func (p *planner) lift(from, to int32) int32 {
	missing := p.nodes[to].Wants &^ p.nodes[from].Wants
	if missing == 0 {
		return 0
	}
	bits := 0
	for l := range p.rates {
		if missing&(1<<l) != 0 {
			bits += min(max(p.rates[l], 0), 1e8)
		}
	}
	return int32(bits / 1000 * liftCost / 1000)
}

// attach hangs the nodes that hang nowhere into the tree, the one first that is
// nearest to the publisher by what is in the tree already.
func (p *planner) attach() {
	from := make([]int32, p.n)
	best := make([]int32, p.n)
	waiting := p.waiting()
	if p.fresh && p.star(waiting) {
		p.fresh = false // only for a clear gain somebody gets it over another
		return
	}
	for _, u := range waiting {
		from[u], best[u] = p.nearest(u)
	}
	for len(waiting) > 0 {
		i := p.nextOf(waiting, best)
		if i < 0 {
			return
		}
		u := waiting[i]
		waiting = slices.Delete(waiting, i, i+1)
		over := from[u]
		p.link(over, u)
		p.offer(u, waiting, from, best)
		if p.used[over] < p.slots[over] {
			continue
		}
		for _, v := range waiting {
			if from[v] == over {
				from[v], best[v] = p.nearest(v)
			}
		}
	}
}

// star hangs everybody under the publisher's node, if that may be.
func (p *planner) star(all []int32) bool {
	for _, u := range all {
		if p.way[u] >= never || len(all) > int(p.slots[0]) {
			return false
		}
	}
	for _, u := range all {
		p.link(0, u)
	}
	return true
}

// waiting are the nodes that hang nowhere; others may hang below them.
func (p *planner) waiting() (list []int32) {
	for u := int32(1); u < p.n; u++ {
		if p.parent[u] == none {
			list = append(list, u)
		}
	}
	return list
}

// nearest is the cheapest node in the tree with a slot for another.
func (p *planner) nearest(u int32) (from, price int32) {
	from, price = none, never
	for v := range p.n {
		if p.reached[v] && p.used[v] < p.slots[v] && p.way[v*p.n+u] < never {
			if c := p.price(v, u); c < price {
				from, price = v, c
			}
		}
	}
	return from, price
}

// offer lets those who wait see the slots of a node that has come into the tree,
// and of those below it.
func (p *planner) offer(u int32, waiting, from, best []int32) {
	if p.used[u] < p.slots[u] {
		for _, v := range waiting {
			if p.way[u*p.n+v] < never {
				if c := p.price(u, v); c < best[v] {
					from[v], best[v] = u, c
				}
			}
		}
	}
	for c := p.first[u]; c != none; c = p.next[c] {
		p.offer(c, waiting, from, best)
	}
}

// nextOf picks who is hung in next. One with which no slot would be left is not
// picked while there is another: the rest would find no place.
func (p *planner) nextOf(waiting, best []int32) int {
	free := p.free()
	pick, open := -1, -1
	for i, u := range waiting {
		if best[u] >= never {
			continue
		}
		if pick < 0 || best[u] < best[waiting[pick]] {
			pick = i
		}
		if p.opens(u) && (open < 0 || best[u] < best[waiting[open]]) {
			open = i
		}
	}
	if (p.eager || free <= 1) && open >= 0 {
		return open
	}
	return pick
}

// opens reports whether a node, or one below it, has a slot to give.
func (p *planner) opens(u int32) bool {
	if p.used[u] < p.slots[u] {
		return true
	}
	for c := p.first[u]; c != none; c = p.next[c] {
		if p.opens(c) {
			return true
		}
	}
	return false
}

// free counts the slots in the tree.
func (p *planner) free() (n int32) {
	for u := range p.n {
		if p.reached[u] {
			n += p.slots[u] - p.used[u]
		}
	}
	return n
}

// carry computes what each way has to carry.
func (p *planner) carry() {
	for u := range p.nodes {
		p.carries[u] = 0
	}
	for u := range p.n {
		for v := u; v > 0; v = p.parent[v] {
			p.carries[v] |= p.nodes[u].Wants
		}
	}
}

// children are those of a node in the order of their names.
func (p *planner) children(u int32) (list []int32) {
	for c := p.first[u]; c != none; c = p.next[c] {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b int32) int { return cmp.Compare(a, b) })
	return list
}

// why says why a node is not reached.
func (p *planner) why(u int32) Reason {
	for v := range p.n {
		if p.reached[v] && p.way[v*p.n+u] < never {
			return Full
		}
	}
	return Forbidden
}
