package names

import (
	"net/netip"
	"slices"
	"sync"
)

// fails is how many checks in a row must fail until an address is not named any
// more: one may be lost, two are not by chance.
const fails = 2

// Health remembers which addresses answer. It is safe for concurrent use; the zero
// Health takes all for well.
type Health struct {
	mu     sync.Mutex
	failed map[netip.Addr]int
}

// Note records a check of an address.
func (h *Health) Note(a netip.Addr, well bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if well {
		delete(h.failed, a)
		return
	}
	if h.failed == nil {
		h.failed = map[netip.Addr]int{}
	}
	h.failed[a]++
}

// Keep forgets addresses that are no node's any more.
func (h *Health) Keep(addrs []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a := range h.failed {
		if !slices.Contains(addrs, a) {
			delete(h.failed, a)
		}
	}
}

// Down returns the addresses that do not answer.
func (h *Health) Down() (down []netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a, n := range h.failed {
		if n >= fails {
			down = append(down, a)
		}
	}
	slices.SortFunc(down, netip.Addr.Compare)
	return down
}

// Well leaves out the addresses that do not answer, and the nodes without any left.
// When none would be left, all are: then it is this server that reaches nobody.
func (h *Health) Well(nodes []Node) []Node {
	down := h.Down()
	if len(down) == 0 {
		return nodes
	}
	var well []Node
	for _, n := range nodes {
		n.Addrs = slices.DeleteFunc(slices.Clone(n.Addrs), func(a netip.Addr) bool { return slices.Contains(down, a) })
		if len(n.Addrs) > 0 {
			well = append(well, n)
		}
	}
	if len(well) == 0 {
		return nodes
	}
	return well
}
