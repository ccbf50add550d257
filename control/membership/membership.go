// Package membership knows which nodes make up the mesh: it joins them over
// memberlist, announces this node's signed claim and publishes immutable
// snapshots of the nodes whose claims verify.
//
// Gossip is only the carrier. Its shared key keeps strangers out, but whoever
// holds it can say anything under any name, so a node counts as a member only if
// the operator's CA issued its certificate, that certificate's key signed its
// claim, and the two agree. Every other node is kept out of the snapshot, listed
// with the reason and logged once. The package carries nothing about rooms or
// people, and decides nothing about where bytes may go.
package membership

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sort"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
	"github.com/domicile/domicile/router"
)

// Config is what a Mesh needs. All fields without "optional" are required.
type Config struct {
	// Self is this node as its certificate states it; a difference is an error,
	// because every other node would refuse us.
	Self        residency.Node
	Certificate tls.Certificate
	Roots       *x509.CertPool // the authorities whose nodes may be members

	// Bind is where gossip listens, UDP and TCP on one port. Port 0 picks one.
	Bind netip.AddrPort
	// Advertise is where others reach Bind, if that differs. Optional.
	Advertise netip.AddrPort
	// Join lists gossip addresses, host:port, of nodes to join. They are tried
	// for as long as they are not seen in the mesh. Optional for a first node.
	Join []string

	// Keys is the gossip key ring: AES keys of 16, 24 or 32 bytes. The first
	// encrypts, all decrypt. Without a key there is no gossip.
	Keys [][]byte

	// Claim returns the node's current facts: epoch, load, attendees, place,
	// addresses. It is asked once a second and must not block. What the
	// certificate states is filled in if Name is empty; a Claim that sets it is
	// announced as it is, and refused by others where the certificate differs.
	Claim func() identity.Claim

	// Linked reports whether this node has a link to a member now, on which the
	// member has shown its certificate. Whoever holds the gossip key can say that a
	// member is dead, or be a second node of its name; a link is better evidence,
	// and as long as it is up, the member stays. Optional: without it gossip is
	// believed. Call Announce when a link ends. It must not block.
	Linked func(residency.NodeName) bool

	// AnnounceEvery is the longest time for which an unchanged claim stands
	// before it is signed anew. Optional; the default is 15 s. Others drop a
	// claim four times as old, plus what clocks may differ, so all nodes of a
	// mesh should use the same value.
	AnnounceEvery time.Duration

	Log *slog.Logger
	Now func() time.Time // optional; the default is time.Now
}

// defaultAnnounceEvery makes a restarted or partitioned node's last claim fall
// out after two minutes at the latest, for 30 bytes/s of gossip a node.
const defaultAnnounceEvery = 15 * time.Second

// Member is a node whose claim verified.
type Member struct {
	Node      residency.Node // from its certificate
	Claim     identity.Claim
	Gossip    netip.AddrPort
	RelayAddr netip.AddrPort
	URL       string
	At        router.Point
	Load      float64
	Epoch     residency.Epoch
	Cert      *x509.Certificate
	Seen      time.Time // when this claim of it was accepted
}

// Refusal is a node that gossips and is not a member.
type Refusal struct {
	Name   residency.NodeName `json:"name"` // as gossip has it
	Rule   string             `json:"rule"`
	Reason string             `json:"reason"`
	Since  time.Time          `json:"since"`
}

// The rules by which a node is refused, in the order in which they are asked.
const (
	RuleMetadata    = "metadata"       // its metadata is no claim
	RuleName        = "name"           // gossip and claim name it differently
	RuleNoCert      = "no-certificate" // it has not shown the certificate its claim refers to
	RuleCertificate = "certificate"    // its certificate does not verify
	RuleClaim       = "claim"          // not signed by the certificate's key, or other facts
	RuleAddress     = "address"        // it gossips from elsewhere than its claim says
	RuleClock       = "clock"          // its claim is too old, or from the future
	RuleReplay      = "replay"         // a newer claim of it is known
	RuleConflict    = "conflict"       // a second node uses the name
	RuleSuspicion   = "suspicion"      // gossip has it dead, and its link is up
)

// Snapshot is the mesh at one moment. It is immutable.
type Snapshot struct {
	Self    Member
	Members []Member  // verified ones by name, Self included
	Refused []Refusal // by name
}

// Member finds a member by name: rooms ask for each node that they have to do with.
func (s *Snapshot) Member(name residency.NodeName) (Member, bool) {
	i := sort.Search(len(s.Members), func(i int) bool { return s.Members[i].Node.Name >= name })
	if i == len(s.Members) || s.Members[i].Node.Name != name {
		return Member{}, false
	}
	return s.Members[i], true
}

// Candidates returns the members as the router takes them.
func (s *Snapshot) Candidates() []router.Candidate {
	out := make([]router.Candidate, 0, len(s.Members))
	for _, m := range s.Members {
		out = append(out, router.Candidate{
			Node: m.Node, At: m.At, Load: m.Load, Attendees: int(m.Claim.Attendees),
			URL: m.URL, Epoch: m.Epoch, Local: m.Node.Name == s.Self.Node.Name, Up: true,
		})
	}
	return out
}

// Mesh is this node's view of the mesh.
type Mesh struct {
	// Static after construction.
	cfg Config
	log *slog.Logger
	in  *inbox

	// Written by Renew, emptied by Run's loop.
	renewal atomic.Pointer[credentials]

	// Written by Run's loop, read by anybody.
	snapshot atomic.Pointer[Snapshot]
	changes  chan struct{}
	running  atomic.Bool

	// Owned by Run's loop.
	cert    *x509.Certificate
	key     crypto.Signer
	roster  *roster
	self    Member
	claim   []byte // signed
	repeats int    // of the claim, still to come
	repeat  *time.Timer
	others  []Member // as last judged
	refused []Refusal
}

// New checks the configuration. Nothing listens or speaks before Run.
func New(cfg Config) (*Mesh, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Linked == nil {
		cfg.Linked = func(residency.NodeName) bool { return false }
	}
	if cfg.AnnounceEvery == 0 {
		cfg.AnnounceEvery = defaultAnnounceEvery
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configure membership: %w", err)
	}
	own, err := cfg.credentials(&cfg.Certificate)
	if err != nil {
		return nil, fmt.Errorf("configure membership: %w", err)
	}
	cert, node, key := own.cert, own.node, own.key
	if cfg.Self.Name != node.Name || cfg.Self.Country != node.Country {
		return nil, fmt.Errorf("configure membership: node %q in %s: the certificate is that of %q in %s", cfg.Self.Name, cfg.Self.Country, node.Name, node.Country)
	}
	m := &Mesh{
		cfg: cfg, cert: cert, key: key, log: cfg.Log, in: newInbox(string(node.Name)),
		changes: make(chan struct{}, 1),
		roster:  newRoster(string(node.Name), cfg.Roots, cfg.AnnounceEvery, cfg.Linked),
		self:    Member{Node: node, Cert: cert},
	}
	m.repeat = time.NewTimer(0)
	m.repeat.Stop()
	m.snapshot.Store(&Snapshot{Self: m.self, Members: []Member{m.self}})
	return m, nil
}

// check finds what is missing or out of range.
func (c *Config) check() error {
	var faults []error
	fault := func(bad bool, format string, a ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, a...))
		}
	}
	fault(len(c.Certificate.Certificate) == 0, "no certificate")
	fault(c.Roots == nil, "no roots")
	fault(c.Claim == nil, "no claim")
	fault(c.Log == nil, "no logger")
	fault(!c.Bind.IsValid(), "no address to bind gossip to")
	fault(c.AnnounceEvery < time.Second, "announce every %v: want 1 s or more", c.AnnounceEvery)
	fault(len(c.Keys) == 0, "no gossip key: gossip is never sent in clear")
	for i, k := range c.Keys {
		fault(len(k) != 16 && len(k) != 24 && len(k) != 32, "gossip key %d has %d bytes: want 16, 24 or 32", i+1, len(k))
	}
	return errors.Join(faults...)
}

// gossipAddr is where others reach our gossip, the zero AddrPort if only the
// socket will tell.
func (c *Config) gossipAddr() netip.AddrPort {
	switch {
	case c.Advertise.IsValid():
		return c.Advertise
	case c.Bind.Port() == 0 || c.Bind.Addr().IsUnspecified():
		return netip.AddrPort{}
	}
	return c.Bind
}

// Snapshot returns the mesh as last judged. Before Run it holds this node alone.
func (m *Mesh) Snapshot() *Snapshot { return m.snapshot.Load() }

// Changes says that a new Snapshot is there. Several changes may be said once;
// it is for one receiver.
func (m *Mesh) Changes() <-chan struct{} { return m.changes }

// Announce has Run ask for the claim now instead of within a second.
func (m *Mesh) Announce() { m.in.poke() }
