package membership

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"

	"github.com/domicile/domicile/residency"
)

// maxPeers bounds the nodes that gossip may tell of. Whoever holds the gossip
// key can make names up, so the table must not grow with them.
const maxPeers = 1024

// peer is a node as gossip tells of it: nothing here is verified.
type peer struct {
	name  string
	addr  netip.AddrPort
	claim []byte
}

// mail is what came in since the inbox was last emptied.
type mail struct {
	peers     map[string]peer           // all that live now
	certs     [][]byte                  // DER, unverified
	wants     []want                    // who asked for certificates
	conflicts map[string]netip.AddrPort // names that a second node uses, and where
}

// inbox is memberlist's delegate. memberlist calls it from its own goroutines,
// partly with its lock held, so it only notes what it is told and wakes the
// loop: it verifies nothing, sends nothing, never blocks. What does not fit is
// dropped and comes again: claims by gossip, certificates and wants by asking.
type inbox struct {
	self  string
	atlas *atlas
	wake  chan struct{} // holds one: there is mail

	// What we say, put here by the loop.
	meta  atomic.Pointer[[]byte]
	state atomic.Pointer[[]byte]

	// dropped counts messages that could not be read or did not fit.
	dropped atomic.Uint64

	mu sync.Mutex
	// Guarded by mu.
	mail
}

var (
	_ memberlist.Delegate         = (*inbox)(nil)
	_ memberlist.EventDelegate    = (*inbox)(nil)
	_ memberlist.AliveDelegate    = (*inbox)(nil)
	_ memberlist.ConflictDelegate = (*inbox)(nil)
)

func newInbox(self string) *inbox {
	return &inbox{self: self, atlas: newAtlas(), wake: make(chan struct{}, 1),
		mail: mail{peers: map[string]peer{}, conflicts: map[string]netip.AddrPort{}}}
}

// poke wakes the loop; pokes that it has not seen yet count as one.
func (in *inbox) poke() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// empty hands everything over and keeps only the table of peers.
func (in *inbox) empty() mail {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := in.mail
	out.peers = maps.Clone(in.peers)
	in.certs, in.wants, in.conflicts = nil, nil, map[string]netip.AddrPort{}
	return out
}

// addrs returns where the living peers gossip.
func (in *inbox) addrs() map[netip.AddrPort]bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make(map[netip.AddrPort]bool, len(in.peers))
	for _, p := range in.peers {
		out[p.addr] = true
	}
	return out
}

// put changes the mail under the lock and wakes the loop.
func (in *inbox) put(change func()) {
	in.mu.Lock()
	change()
	in.mu.Unlock()
	in.poke()
}

// NotifyAlive bounds what memberlist takes in. It does not judge claims: a
// certificate may still be on its way.
func (in *inbox) NotifyAlive(n *memberlist.Node) error {
	if n.Name == "" || len(n.Name) > residency.MaxNodeName {
		return fmt.Errorf("a name of %d bytes", len(n.Name))
	}
	if len(n.Meta) > memberlist.MetaMaxSize {
		return fmt.Errorf("%d bytes of metadata", len(n.Meta))
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, known := in.peers[n.Name]; !known && len(in.peers) >= maxPeers {
		return fmt.Errorf("%d nodes are known already", maxPeers)
	}
	return nil
}

// NotifyJoin notes a node that appeared.
func (in *inbox) NotifyJoin(n *memberlist.Node) {
	if n.Name == in.self {
		return
	}
	claim, err := unpad(n.Meta)
	if err != nil {
		in.dropped.Add(1) // the node is listed with an empty claim, and refused for it
	}
	p := peer{name: n.Name, addr: addrOf(n), claim: slices.Clone(claim)}
	in.put(func() { in.peers[p.name] = p })
}

// NotifyUpdate notes changed metadata.
func (in *inbox) NotifyUpdate(n *memberlist.Node) { in.NotifyJoin(n) }

// NotifyLeave notes a node that left or died.
func (in *inbox) NotifyLeave(n *memberlist.Node) {
	in.atlas.forget(n.Name)
	in.put(func() { delete(in.peers, n.Name) })
}

// NotifyConflict notes that a second node uses a name, maybe ours.
func (in *inbox) NotifyConflict(existing, other *memberlist.Node) {
	in.put(func() {
		if len(in.conflicts) < maxPeers {
			in.conflicts[existing.Name] = addrOf(other)
		}
	})
}

// NotifyMsg notes a want or a certificate.
func (in *inbox) NotifyMsg(b []byte) {
	w, der, err := decodeMessage(b)
	switch {
	case err != nil:
		in.dropped.Add(1)
	case w != nil:
		in.put(func() {
			if len(in.wants) < maxCertificates {
				in.wants = append(in.wants, *w)
			}
		})
	default:
		in.learn([][]byte{der})
	}
}

// MergeRemoteState notes the certificates that another node knows.
func (in *inbox) MergeRemoteState(b []byte, _ bool) {
	ders, err := decodeState(b)
	if err != nil {
		in.dropped.Add(1)
		return
	}
	in.learn(ders)
}

// learn keeps copies of certificates, as many as fit.
func (in *inbox) learn(ders [][]byte) {
	in.put(func() {
		for _, der := range ders {
			if len(in.certs) >= maxCertificates {
				in.dropped.Add(1)
				return
			}
			in.certs = append(in.certs, slices.Clone(der))
		}
	})
}

// NodeMeta returns our signed claim.
func (in *inbox) NodeMeta(limit int) []byte {
	if b := in.meta.Load(); b != nil && len(*b) <= limit {
		return *b
	}
	return nil
}

// LocalState returns our certificate and those of the members.
func (in *inbox) LocalState(bool) []byte {
	if b := in.state.Load(); b != nil {
		return *b
	}
	return nil
}

// GetBroadcasts returns nothing: all that is gossiped is the claim.
func (in *inbox) GetBroadcasts(int, int) [][]byte { return nil }

// addrOf is where a node gossips; the zero AddrPort if that is no address.
func addrOf(n *memberlist.Node) netip.AddrPort {
	ip, ok := netip.AddrFromSlice(n.Addr)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), n.Port)
}
