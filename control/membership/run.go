package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

const (
	// tick is how often the claim is asked for and time is held against members.
	tick = time.Second

	// loadStep is the change of load that is worth a new claim.
	loadStep = 0.05

	// maxRepeats and repeatAfter have a changed claim gossiped again, under a new
	// incarnation: for what is lost on the way, and see pad. By chance, so that nodes
	// that began at once do not go on at once.
	maxRepeats  = 2
	repeatAfter = 400 * time.Millisecond // what gossip takes for a message; twice this at most

	// leaveTimeout is how long a leave waits until it has been gossiped.
	leaveTimeout = time.Second

	// maxSends bounds the messages under way. What does not fit is not sent and
	// will be asked for again.
	maxSends = 8
)

// Run takes part in the mesh until ctx ends, then leaves it and returns nil. It
// may be called once. memberlist ends its own goroutines a moment after Run has
// returned.
func (m *Mesh) Run(ctx context.Context) error {
	if !m.running.CompareAndSwap(false, true) {
		return errors.New("run membership: it ran already")
	}
	m.self.Gossip = m.cfg.gossipAddr()
	if err := m.sign(m.cfg.Claim(), m.cfg.Now()); err != nil {
		return fmt.Errorf("run membership: %w", err)
	}
	meta := pad(m.claim, 0)
	m.in.meta.Store(&meta)
	m.in.state.Store(certificates(m.self, nil))
	conf, err := listConfig(m.cfg, m.in)
	if err != nil {
		return fmt.Errorf("run membership: %w", err)
	}
	list, err := memberlist.Create(conf)
	if err != nil {
		return fmt.Errorf("run membership: gossip on %s: %w", m.cfg.Bind, err)
	}
	m.self.Gossip = addrOf(list.LocalNode())
	m.doAnnounce(list, m.cfg.Now()) // where we gossip, before anybody hears of us

	ctx, cancel := context.WithCancel(ctx)
	self := m.self.Gossip
	var joiner sync.WaitGroup
	joiner.Go(func() { m.join(ctx, list, self) })
	var sends errgroup.Group
	sends.SetLimit(maxSends)
	m.loop(ctx, list, &sends)
	cancel()
	return m.stop(list, &joiner, &sends)
}

// stop leaves and waits for what Run started.
func (m *Mesh) stop(list *memberlist.Memberlist, joiner *sync.WaitGroup, sends *errgroup.Group) error {
	joiner.Wait()
	if err := list.Leave(leaveTimeout); err != nil {
		m.log.Info("left the mesh without telling everybody", "error", err)
	}
	err := list.Shutdown()
	_ = sends.Wait() // each send logs its own error
	if err != nil {
		return fmt.Errorf("run membership: stop: %w", err)
	}
	return nil
}

// loop owns the roster and our claim.
func (m *Mesh) loop(ctx context.Context, list *memberlist.Memberlist, sends *errgroup.Group) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		now := m.cfg.Now()
		m.doAnnounce(list, now)
		m.doMail(list, sends, now)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-m.repeat.C:
			m.doRepeat(list)
		case <-m.in.wake:
		}
	}
}

// doAnnounce signs and gossips the claim if it has changed or grown old.
func (m *Mesh) doAnnounce(list *memberlist.Memberlist, now time.Time) {
	m.doRenew()
	c := m.cfg.Claim()
	if !differs(m.complete(c), m.self.Claim) && now.Sub(m.self.Claim.Issued) < m.cfg.AnnounceEvery {
		return
	}
	if err := m.sign(c, now); err != nil {
		m.log.Error("cannot announce this node", "error", err)
		return
	}
	m.repeats = maxRepeats
	m.broadcast(list)
	m.publish()
}

// doRepeat gossips an unchanged claim again.
func (m *Mesh) doRepeat(list *memberlist.Memberlist) {
	m.repeats--
	m.broadcast(list)
}

// broadcast has the claim gossiped. UpdateNode queues it and then waits until it has
// left, which the loop must not; that the wait ends early is no failure.
func (m *Mesh) broadcast(list *memberlist.Memberlist) {
	meta := pad(m.claim, len(*m.in.meta.Load()))
	m.in.meta.Store(&meta)
	_ = list.UpdateNode(time.Nanosecond)
	if m.repeats > 0 {
		m.repeat.Reset(repeatAfter + rand.N(repeatAfter))
	}
}

// complete fills in what the certificate and gossip know better than the caller.
func (m *Mesh) complete(c identity.Claim) identity.Claim {
	if c.Name == "" {
		n := m.self.Node
		c.Name, c.Country, c.Roles = n.Name, n.Country, n.Roles
		c.Operator, c.OperatorCountry, c.Parent, c.ParentCountry = n.Operator, n.OperatorCountry, n.Parent, n.ParentCountry
	}
	c.CertFingerprint = identity.Fingerprint(m.cert)
	c.GossipAddr = m.self.Gossip
	return c
}

// sign makes the claim of now what NodeMeta gives.
func (m *Mesh) sign(c identity.Claim, now time.Time) error {
	c = m.complete(c)
	c.Issued = now.Truncate(time.Millisecond).UTC()
	if last := m.self.Claim.Issued; !c.Issued.After(last) {
		c.Issued = last.Add(time.Millisecond)
	}
	b, err := identity.SignClaim(c, m.key)
	if err != nil {
		return err
	}
	m.claim = b
	m.self.Claim, m.self.Seen = c, now
	m.self.RelayAddr, m.self.URL, m.self.Load, m.self.Epoch = c.RelayAddr, c.URL, c.Load, c.Epoch
	m.self.At.Lat, m.self.At.Lon = c.Latitude, c.Longitude
	return nil
}

// differs reports whether a claim says something new, small changes of load and
// the time of issue aside.
func differs(a, b identity.Claim) bool {
	if math.Abs(a.Load-b.Load) >= loadStep {
		return true
	}
	a.Load, a.Issued = b.Load, b.Issued
	return !reflect.DeepEqual(a, b)
}

// doMail takes in what gossip brought, judges it and publishes the outcome.
func (m *Mesh) doMail(list *memberlist.Memberlist, sends *errgroup.Group, now time.Time) {
	in := m.in.empty()
	m.roster.take(in, now)
	v := m.roster.judge(now)
	for _, r := range v.news {
		m.log.Warn("node is not part of the mesh", "node", r.Name, "rule", r.Rule, "reason", r.Reason)
	}
	m.others, m.refused = v.members, v.refused
	m.publish()
	for _, a := range v.asks {
		m.send(list, sends, a.peer, encodeWant(want{cert: a.cert, from: m.in.self}))
	}
	for _, w := range in.wants {
		m.answer(list, sends, in.peers, w)
	}
}

// answer sends the certificate that a peer asks for, if we have it. Peers ask
// for ours; others' go with the state.
func (m *Mesh) answer(list *memberlist.Memberlist, sends *errgroup.Group, peers map[string]peer, w want) {
	p, ok := peers[w.from]
	if !ok || w.cert != identity.Fingerprint(m.cert) {
		return
	}
	m.send(list, sends, p, encodeCert(m.cert.Raw))
}

// send delivers a message over TCP, in a goroutine because dialling can block.
func (m *Mesh) send(list *memberlist.Memberlist, sends *errgroup.Group, p peer, b []byte) {
	to := &memberlist.Node{Name: p.name, Addr: p.addr.Addr().AsSlice(), Port: p.addr.Port()}
	sends.TryGo(func() error {
		if err := list.SendReliable(to, b); err != nil {
			m.log.Debug("cannot send to node", "node", p.name, "error", err)
		}
		return nil
	})
}

// publish makes a new snapshot if anything in it is new.
func (m *Mesh) publish() {
	members := append([]Member{m.self}, m.others...)
	slices.SortFunc(members, byName)
	old := m.snapshot.Load()
	if slices.EqualFunc(old.Members, members, sameClaim) && slices.Equal(old.Refused, m.refused) {
		return
	}
	m.logMoves(old.Members, members)
	m.in.state.Store(certificates(m.self, m.others))
	m.snapshot.Store(&Snapshot{Self: m.self, Members: members, Refused: m.refused})
	select {
	case m.changes <- struct{}{}:
	default:
	}
}

func byName(a, b Member) int { return cmp.Compare(a.Node.Name, b.Node.Name) }

// sameClaim reports whether nothing has changed about a member: a claim is never
// issued twice.
func sameClaim(a, b Member) bool {
	return a.Node.Name == b.Node.Name && a.Claim.Issued.Equal(b.Claim.Issued) && a.Gossip == b.Gossip
}

// certificates is the state for push/pull: ours first, in case not all fit.
func certificates(self Member, others []Member) *[]byte {
	ders := [][]byte{self.Cert.Raw}
	for _, o := range others {
		ders = append(ders, o.Cert.Raw)
	}
	b := encodeState(ders)
	return &b
}

// join looks for the nodes to join for as long as they are not there: at the
// start, and again after a partition that made both sides forget the other.
func (m *Mesh) join(ctx context.Context, list *memberlist.Memberlist, self netip.AddrPort) {
	var back backoff
	for {
		err := m.joinMissing(ctx, list, self)
		if ctx.Err() != nil {
			return
		}
		if err != nil && back.failures == 0 {
			m.log.Warn("cannot join yet, trying on", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(back.next(err)):
		}
	}
}

// joinMissing tries every address of Join that is not a living peer's or ours.
func (m *Mesh) joinMissing(ctx context.Context, list *memberlist.Memberlist, self netip.AddrPort) error {
	var failed error
	present := m.in.addrs()
	for _, addr := range m.cfg.Join {
		if ctx.Err() != nil {
			return nil
		}
		if ap, err := netip.ParseAddrPort(addr); err == nil && (present[ap] || ap == self) {
			continue
		}
		if _, err := list.Join([]string{addr}); err != nil {
			failed = errors.Join(failed, fmt.Errorf("join %q: %w", addr, err))
		}
	}
	return failed
}

// backoff spaces attempts to join.
type backoff struct{ failures int }

const (
	joinFirst = 250 * time.Millisecond // nodes that start together find each other quickly
	joinMost  = 10 * time.Second       // a seed that is back is found within this
	joinAgain = 5 * time.Second        // how often to look whether all are still there
)

// next returns how long to wait after an attempt.
func (b *backoff) next(err error) time.Duration {
	if err == nil {
		b.failures = 0
		return joinAgain
	}
	b.failures++
	return min(joinFirst<<min(b.failures-1, 10), joinMost)
}

// logMoves tells the operator who came and who went.
func (m *Mesh) logMoves(old, now []Member) {
	for _, n := range now {
		if !has(old, n.Node.Name) {
			m.log.Info("node joined", "node", n.Node.Name, "country", n.Node.Country, "operator", n.Node.Operator)
		}
	}
	for _, o := range old {
		if !has(now, o.Node.Name) {
			m.log.Info("node left", "node", o.Node.Name)
		}
	}
}

func has(members []Member, name residency.NodeName) bool {
	return slices.ContainsFunc(members, func(m Member) bool { return m.Node.Name == name })
}
