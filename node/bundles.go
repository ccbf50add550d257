package node

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
)

// Policies says where policies come from while the node runs.
type Policies struct {
	// Open verifies and reads a signed bundle. Nil: the node keeps Config.Bundle.
	Open bundles.Opener
	// Parse reads the text of a bundle that was verified before, for evidence.
	Parse func(text []byte) (*residency.Bundle, error)
	// Signed is Config.Bundle as it was signed, to be passed on.
	Signed bundles.Signed
	// File is followed: when it changes, it is as if it had been applied here.
	File string
}

// policies changes the node from one bundle to the next, together with the mesh.
type policies struct {
	// applying is held while a bundle is verified: one at a time, however many send one.
	applying sync.Mutex
	keeping  sync.Mutex                                  // held while one is written
	store    func(residency.Epoch, bundles.Signed) error // guarded by keeping; nil: no disk

	// Guarded by mu.
	mu        sync.Mutex
	agreement *bundles.Agreement
	newest    bundles.Signed    // the one that the agreement has
	next      *residency.Bundle // the same, read
	offering  map[residency.NodeName]bool
	ended     bool // nothing is offered any more

	standing atomic.Pointer[standing]
	wake     chan struct{} // runBundles is to look again
	offers   sync.WaitGroup
	hooks    []func(*residency.Bundle, bundles.Signed) // static after New
}

// standing is what the node decides by at one moment. It is immutable.
type standing struct {
	gate   *residency.Gate
	view   bundles.View
	stated wire.Stated
}

// gate returns the gate of the policies in force.
func (n *Node) gate() *residency.Gate { return n.policies.standing.Load().gate }

// onBundle has f called after each change of the policies with those that came into force,
// and as they were signed. f must not wait for anything: a link waits for it. Call it
// before Run.
func (n *Node) onBundle(f func(*residency.Bundle, bundles.Signed)) {
	n.policies.hooks = append(n.policies.hooks, f)
}

// startBundle puts the bundle in force that the node starts with.
func (n *Node) startBundle() {
	p := &n.policies
	p.agreement, p.offering, p.wake = bundles.NewAgreement(bundles.Ref{}), map[residency.NodeName]bool{}, make(chan struct{}, 1)
	if n.cfg.DataDir != "" {
		p.store = n.policyDir().Save
	}
	p.standing.Store(&standing{gate: residency.NewGate(nil)})
	n.adopt(n.cfg.Bundle, n.cfg.Policies.Signed)
}

// setBundle puts a policy bundle in force at once and asks again about everything that flows.
func (n *Node) setBundle(b *residency.Bundle) { n.adopt(b, bundles.Signed{}) }

func (n *Node) adopt(b *residency.Bundle, s bundles.Signed) {
	var r bundles.Ref
	if b != nil {
		r.Epoch = b.Epoch
	}
	if len(s.Policy) > 0 {
		r.Digest = s.Digest()
	}
	p := &n.policies
	p.mu.Lock()
	p.agreement.Adopt(r)
	p.newest, p.next = s, b
	n.publish(n.gateOf(b))
	p.mu.Unlock()
	n.enforce(b, s)
}

// gateOf is the gate of a bundle for this node, which it may exclude.
func (n *Node) gateOf(b *residency.Bundle) *residency.Gate {
	g := residency.NewGate(b)
	if rule, why := b.Excludes(n.self()); rule != "" {
		return g.Shut(rule, why)
	}
	return g
}

// regate decides anew whether the bundle in force excludes this node, whose
// certificate is another now.
func (n *Node) regate() {
	p := &n.policies
	p.mu.Lock()
	n.publish(n.gateOf(p.standing.Load().gate.Bundle()))
	p.mu.Unlock()
	if n.fabric != nil {
		n.fabric.State()
	}
}

// publish shows what is agreed on; p.mu is held. It reports whether the other
// nodes, and whether the rooms, have something to hear of it.
func (n *Node) publish(g *residency.Gate) (tell, recheck bool) {
	p := &n.policies
	old := p.standing.Load()
	s := p.agreement.Statement()
	next := &standing{gate: g, view: p.agreement.View(), stated: wire.Stated{Force: wirePolicy(s.Force), Has: wirePolicy(s.Has)}}
	p.standing.Store(next)
	return next.stated != old.stated, !next.view.Equal(old.view)
}

func wirePolicy(r bundles.Ref) wire.Policy {
	return wire.Policy{Epoch: uint64(r.Epoch), Digest: r.Digest}
}

func refOf(p wire.Policy) bundles.Ref {
	return bundles.Ref{Epoch: residency.Epoch(p.Epoch), Digest: p.Digest}
}

// enforce has everything that flows asked about again.
func (n *Node) enforce(b *residency.Bundle, s bundles.Signed) {
	if n.fabric != nil {
		n.fabric.State()
		n.fabric.Recheck()
	}
	n.recheckRooms()
	if n.mesh != nil {
		n.mesh.Announce()
	}
	for _, f := range n.policies.hooks {
		f(b, s)
	}
}

func (n *Node) recheckRooms() {
	for _, r := range n.rooms.all() {
		r.PolicyChanged()
	}
}

// agree notes something in the agreement and does what follows from it.
func (n *Node) agree(note func(a *bundles.Agreement)) (wake time.Time) {
	p := &n.policies
	p.mu.Lock()
	if note != nil {
		note(p.agreement)
	}
	do := p.agreement.Next(time.Now())
	old, gate := p.standing.Load(), p.standing.Load().gate
	if do.Switch {
		gate = n.gateOf(p.next)
	}
	tell, recheck := n.publish(gate)
	offer := p.claimOffers(do.Offer)
	s := p.newest
	p.mu.Unlock()
	for _, name := range offer {
		p.offers.Go(func() { n.offer(name, s) })
	}
	switch {
	case do.Switch:
		n.log.Info("the policies changed", "epoch", gate.Epoch(), "before", old.gate.Epoch())
		if rule, why := gate.Bundle().Excludes(n.self()); rule != "" {
			n.log.Error("the policies exclude this node: it refuses everything", "rule", rule, "reason", why)
		}
		n.enforce(gate.Bundle(), s) // what switches is the newest
		return do.Wake
	case tell && n.fabric != nil:
		n.fabric.State()
	}
	if recheck {
		n.recheckRooms()
	}
	return do.Wake
}

// claimOffers leaves out who is being sent a bundle already; p.mu is held.
func (p *policies) claimOffers(names []residency.NodeName) (free []residency.NodeName) {
	if len(p.newest.Policy) == 0 || p.ended { // a test's bundle, which nobody has signed
		return nil
	}
	for _, name := range names {
		if !p.offering[name] {
			p.offering[name] = true
			free = append(free, name)
		}
	}
	return free
}

// offer sends a bundle to a node. What it makes of it, it states by itself.
func (n *Node) offer(to residency.NodeName, s bundles.Signed) {
	defer func() {
		n.policies.mu.Lock()
		delete(n.policies.offering, to)
		n.policies.mu.Unlock()
	}()
	l := n.link(to)
	if l == nil {
		return
	}
	if err := l.Offer(n.ctx, wire.Offer{Policy: s.Policy, Signature: s.Signature}); err != nil {
		n.log.Warn("a node does not take the policies", "node", to, "error", err)
	}
}

// runBundles is the clock of the agreement.
func (n *Node) runBundles(ctx context.Context) error {
	defer n.policies.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-n.policies.wake:
		}
		if wake := n.agree(nil); !wake.IsZero() {
			timer.Reset(time.Until(wake))
		}
	}
}

// end waits for the offers that are on their way.
func (p *policies) end() {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.offers.Wait()
}

// consider is agree, with the clock set anew.
func (n *Node) consider(note func(a *bundles.Agreement)) {
	if n.agree(note).IsZero() {
		return
	}
	select {
	case n.policies.wake <- struct{}{}:
	default:
	}
}

// policyDir is where the bundles lie that came while the node ran.
func (n *Node) policyDir() bundles.Dir {
	return bundles.Dir(filepath.Join(n.cfg.DataDir, bundles.DirName))
}

var errNoPolicies = errors.New("this node takes no policies over while it runs")

// applyBundle takes over a signed bundle: from this node's operator, or from
// another node. It is in force, here and on the others, within a fraction of a
// second after it returns; what it no longer allows stops then. A bundle that is
// known already is no error.
func (n *Node) applyBundle(s bundles.Signed, from residency.NodeName) error {
	err := n.takeBundle(s, from)
	switch {
	case errors.Is(err, bundles.ErrKnown):
		return nil
	case errors.Is(err, bundles.ErrConflict):
		n.log.Error("two policies of one epoch are signed: nothing is changed", "from", from, "error", err)
	case err != nil:
		n.log.Warn("policies are not taken over", "from", from, "error", err)
	}
	return err
}

func (n *Node) takeBundle(s bundles.Signed, from residency.NodeName) error {
	p := &n.policies
	if n.cfg.Policies.Open == nil {
		return errNoPolicies
	}
	if err := s.Check(); err != nil {
		return err
	}
	digest := s.Digest()
	if p.has().Digest == digest {
		return bundles.ErrKnown // before anything is computed
	}
	p.applying.Lock()
	defer p.applying.Unlock()
	b, err := n.cfg.Policies.Open(s)
	if err != nil {
		return err
	}
	ref := bundles.Ref{Epoch: b.Epoch, Digest: digest}
	if err := ref.Follows(p.has()); err != nil {
		return err
	}
	mine := from == n.self().Name
	if mine { // what an operator has applied outlives a power failure
		if err := p.keep(ref.Epoch, s); err != nil {
			return err
		}
	}
	n.consider(func(a *bundles.Agreement) {
		if err = a.Prepare(time.Now(), ref, mine); err == nil {
			p.newest, p.next = s, b
		}
	})
	if err != nil || mine {
		return err
	}
	// The mesh does not wait for the disk of each node. One that fails before it has
	// written hears of the bundle again when it comes back.
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.offers.Go(func() { n.keepSoon(ref, s) })
	}
	return nil
}

// keep writes a bundle to disk.
func (p *policies) keep(epoch residency.Epoch, s bundles.Signed) error {
	p.keeping.Lock()
	defer p.keeping.Unlock()
	if p.store == nil {
		return nil
	}
	return p.store(epoch, s)
}

// keepSoon writes a bundle to disk, and tries again until it can or there is a newer one.
func (n *Node) keepSoon(r bundles.Ref, s bundles.Signed) {
	for wait := time.Second; n.policies.has() == r; wait = min(2*wait, time.Minute) {
		err := n.policies.keep(r.Epoch, s)
		if err == nil {
			return
		}
		n.log.Error("policies are in force and not on disk: if it starts now, this node asks the others for them", "error", err)
		select {
		case <-n.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// has is the newest bundle that is verified.
func (p *policies) has() bundles.Ref {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.agreement.Statement().Has
}

// policyTalk takes what other nodes say of their policies.
type policyTalk struct{ n *Node }

// Statement implements relay.Policies.
func (t policyTalk) Statement() wire.Stated { return t.n.policies.standing.Load().stated }

// Stated implements relay.Policies.
func (t policyTalk) Stated(l *relay.Link, s wire.Stated) {
	name := l.Peer().Name
	said := bundles.Statement{Force: refOf(s.Force), Has: refOf(s.Has)}
	t.n.consider(func(a *bundles.Agreement) { a.Hear(name, said) })
	if slices.Contains(t.n.policies.standing.Load().view.Conflicts(), name) {
		t.n.log.Error("a node has other policies of the same epoch: nothing is relayed to it", "node", name, "epoch", s.Force.Epoch)
	}
}

// Offered implements relay.Policies.
func (t policyTalk) Offered(_ context.Context, l *relay.Link, o wire.Offer) error {
	return t.n.applyBundle(bundles.Signed{Policy: o.Policy, Signature: o.Signature}, l.Peer().Name)
}

// peerEpoch is the policy epoch by which a node counts as deciding.
func (n *Node) peerEpoch(name residency.NodeName, gossip residency.Epoch) residency.Epoch {
	return n.policies.standing.Load().view.Epoch(name, gossip)
}

// PolicyState is what an operator sees of the policies on a node.
type PolicyState struct {
	Epoch    residency.Epoch                        `json:"epoch"`
	Digest   string                                 `json:"digest"`             // SHA-256 of the policy file in force
	Excluded string                                 `json:"excluded,omitempty"` // why this node may have nothing
	Nodes    map[residency.NodeName]PeerPolicyState `json:"nodes"`              // that this one is linked with
}

// PeerPolicyState is what another node has stated.
type PeerPolicyState struct {
	Epoch  residency.Epoch `json:"epoch"`
	Digest string          `json:"digest"`
	Agrees bool            `json:"agrees"` // the two may relay to each other
}

func (n *Node) policyState() PolicyState {
	now := n.policies.standing.Load()
	s := PolicyState{Epoch: now.gate.Epoch(), Digest: now.view.Force.Digest.String(), Nodes: map[residency.NodeName]PeerPolicyState{}}
	_, s.Excluded = now.gate.Bundle().Excludes(n.self())
	for name, said := range maps.All(now.view.Statements()) {
		s.Nodes[name] = PeerPolicyState{Epoch: said.Force.Epoch, Digest: said.Force.Digest.String(),
			Agrees: now.view.Epoch(name, 0) == s.Epoch}
	}
	return s
}
