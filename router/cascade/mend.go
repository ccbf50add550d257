package cascade

// A swap makes place for a node: it hangs under `under`, and the child that hung
// there goes elsewhere, perhaps below the node itself.
type swap struct {
	node, under int32
	child, to   int32 // none: under has a slot
	gain        int64
}

// squeeze finds places for nodes that found none: somebody else moves, as few as
// possible.
func (p *planner) squeeze() {
	for {
		placed := false
		for _, u := range p.waiting() {
			if from, _ := p.nearest(u); from != none {
				p.link(from, u)
				placed = true
			} else if p.free() == 0 && !p.opens(u) {
				continue // whoever moves, there is a slot too few
			} else if p.makePlace(u, depthOfSqueeze, make([]bool, p.n)) {
				placed = true
			}
		}
		if !placed {
			return
		}
	}
}

// depthOfSqueeze bounds how many nodes move in a row so that one finds a place.
const depthOfSqueeze = 4

// makePlace hangs u, which hangs nowhere, into the tree and moves one child of
// its new parent away, which may move another. It tries the least disturbance
// first, and leaves everything as it was if there is none.
func (p *planner) makePlace(u int32, depth int, tried []bool) bool {
	if depth == 0 {
		return false
	}
	for over := range p.n {
		if !p.reached[over] || p.slots[over] == 0 || p.way[over*p.n+u] >= never {
			continue
		}
		for _, c := range p.children(over) {
			if tried[c] {
				continue
			}
			tried[c] = true
			p.unlink(c)
			p.link(over, u)
			if from, _ := p.nearest(c); from != none {
				p.link(from, c)
				return true
			}
			if p.makePlace(c, depth-1, tried) {
				return true
			}
			p.unlink(u)
			p.link(over, c)
		}
	}
	return false
}

// improve moves nodes that gain clearly, the greatest gain first.
func (p *planner) improve() {
	moves := min(max(int(p.n)/movesShare, movesLeast), movesMost)
	if p.fresh {
		moves = max(min(freshMoves, freshMoves*freshMoves/int(p.n)), movesLeast)
	}
	l := lookout{planner: p, now: make([]int32, p.n), spare: make([]int32, p.n), sums: make([]int64, p.n), alone: make([]int64, p.n)}
	for range moves {
		s := l.best()
		if s.gain <= 0 {
			return
		}
		p.apply(s)
	}
}

// lookout looks for the best swap. Its slices say of each node:
type lookout struct {
	*planner
	now   []int32 // the price of where it hangs
	sums  []int64 // its viewers, and those of all below it
	spare []int32 // the cheapest node with a slot that does not hang below it, or none
	alone []int64 // what it would gain there
}

// look fills them in.
func (l *lookout) look() {
	clear(l.sums)
	for u := int32(1); u < l.n; u++ {
		if l.reached[u] {
			for v := u; v > 0; v = l.parent[v] {
				l.sums[v] += l.weight[u]
			}
		}
	}
	for u := int32(1); u < l.n; u++ {
		l.spare[u], l.alone[u] = none, 0
		if !l.reached[u] {
			continue
		}
		l.now[u] = l.price(l.parent[u], u)
		var price int32
		if l.spare[u], price = l.elsewhere(u); price < l.now[u] {
			l.alone[u] = int64(l.now[u]-price) * l.sums[u]
		}
	}
}

// elsewhere is the cheapest node with a slot that does not hang below u.
func (p *planner) elsewhere(u int32) (at, price int32) {
	at, price = none, never
	for v := range p.n {
		if p.reached[v] && p.used[v] < p.slots[v] && p.way[v*p.n+u] < never {
			if c := p.price(v, u); c < price && !p.below(v, u) {
				at, price = v, c
			}
		}
	}
	return at, price
}

// best finds the swap with the greatest gain that is worth a move.
func (l *lookout) best() (top swap) {
	l.look()
	for u := int32(1); u < l.n; u++ {
		if l.alone[u] > 0 {
			top.take(l.worth(swap{node: u, under: l.spare[u], child: none}))
		}
	}
	for u := int32(1); u < l.n; u++ {
		if !l.reached[u] {
			continue
		}
		for under := range l.n {
			if l.reached[under] && l.used[under] >= l.slots[under] && under != l.parent[u] && l.way[under*l.n+u] < never {
				l.instead(u, under, &top)
			}
		}
	}
	return top
}

// instead looks at the children of a node for one whose place another should have.
func (l *lookout) instead(u, under int32, top *swap) {
	gain := int64(l.now[u]-l.price(under, u)) * l.sums[u]
	if gain <= 0 || l.below(under, u) {
		return
	}
	for c := l.first[under]; c != none; c = l.next[c] {
		if gain+l.alone[c] <= top.gain {
			continue // hardly
		}
		top.take(l.worth(swap{node: u, under: under, child: c, to: u}))
		top.take(l.worth(swap{node: u, under: under, child: c, to: l.spare[c]}))
	}
}

func (s *swap) take(o swap) {
	if o.gain > s.gain {
		*s = o
	}
}

// worth computes what a swap gains; nothing if that is too little for a move.
func (l *lookout) worth(s swap) swap {
	now, after, sums := l.now[s.node], l.price(s.under, s.node), l.sums
	cost := int64(now) * sums[s.node]
	s.gain = int64(now-after) * sums[s.node]
	moved := sums[s.node]
	if s.child != none {
		switch {
		case s.to == none || s.to != s.node && l.below(s.to, s.child):
			return swap{}
		case s.to == s.node && l.used[s.to] >= l.slots[s.to] || l.way[s.to*l.n+s.child] >= never:
			return swap{}
		case s.to != s.node && l.below(s.to, s.node):
			return swap{} // its delay changes with the move: left to the next one
		}
		was, will := l.now[s.child], l.price(s.to, s.child)
		if s.to == s.node {
			will += l.arrival(s.under, s.node) - l.delay[s.node] + hopPrice*(l.depth[s.under]+1-l.depth[s.node])
		}
		below := sums[s.child]
		if l.below(s.node, s.child) { // the two change places
			if s.to != s.node {
				return swap{}
			}
			below -= sums[s.node]
		}
		s.gain -= int64(will-was) * below
		cost += int64(was) * below
		moved += below
	}
	if l.fresh {
		return s
	}
	if s.gain*gainShare < cost || s.gain < gainLeast*min(moved, sums[s.node]) {
		return swap{}
	}
	return s
}

// apply carries a swap out.
func (p *planner) apply(s swap) {
	p.unlink(s.node)
	if s.child == none {
		p.link(s.under, s.node)
		return
	}
	p.unlink(s.child)
	p.link(s.under, s.node)
	p.link(s.to, s.child)
}
