package residency

import (
	"fmt"
	"slices"
	"time"
)

// Request asks whether one data class of one room may go to (or be stored on) a node.
type Request struct {
	Room   string // opaque; only carried into the permit
	Policy string // name of the room's policy; empty is the bundle's default
	Class  Class

	Peer      Node  // as its certificate states it
	PeerEpoch Epoch // the policy epoch the peer says it has

	// Store says that the peer would keep the bytes, not only pass them on.
	Store bool

	// OutsideParticipant says that a participant outside the media zone is
	// connected through the peer right now (R3). The peer's own record of its
	// participants says so.
	OutsideParticipant bool

	Now time.Time
}

// Verdict is the gate's answer with its grounds: what an operator, an attendee
// or an auditor is shown.
type Verdict struct {
	Allow  bool     `json:"allow"`
	Rule   string   `json:"rule"`   // stable name of the rule that decided, such as "zone"
	Reason string   `json:"reason"` // one sentence for people
	Policy string   `json:"policy"`
	Class  Class    `json:"class"`
	Peer   NodeName `json:"peer"`
	Epoch  Epoch    `json:"epoch"`
}

// The rules by which the gate decides, in the order in which they are asked.
const (
	RuleNoBundle    = "no-bundle"    // no policy bundle: refuse everything
	RuleBundleStale = "bundle-stale" // the bundle has expired
	RuleNoPolicy    = "no-policy"    // the policy or the class is unknown
	RuleCertificate = "certificate"  // the peer's certificate is not valid now
	RuleRevoked     = "revoked"      // the bundle revokes the peer's certificate
	RuleEpoch       = "epoch"        // the peer has another version of the policies
	RuleStoreRole   = "store-role"   // only origins store
	RuleZone        = "zone"         // the peer lies in the zone of the class: allow; or not: refuse
	RuleEdgeOutside = "edge-outside" // outside the zone, but for its own outside participants
	RuleEdgeEmpty   = "edge-empty"   // would be that, but nobody outside is connected there
)

// Permit is the only key to sending: relay takes it, and only Gate.Permit makes
// one. Its zero value opens nothing.
type Permit struct {
	verdict Verdict
	room    string
	store   bool
	until   time.Time
}

// Allows reports whether the permit lets bytes of its room go to peer at now
// under the epoch in force. Anything else than an exact match refuses.
func (p Permit) Allows(peer NodeName, epoch Epoch, now time.Time) bool {
	return p.verdict.Allow && p.verdict.Peer == peer && p.verdict.Epoch == epoch && now.Before(p.until)
}

// Verdict returns the decision behind the permit.
func (p Permit) Verdict() Verdict { return p.verdict }

// Room returns the room the permit is for.
func (p Permit) Room() string { return p.room }

// Class returns the data class the permit is for.
func (p Permit) Class() Class { return p.verdict.Class }

// Peer returns the node the permit is for.
func (p Permit) Peer() NodeName { return p.verdict.Peer }

// Until returns the moment from which the permit is void: the end of the peer's
// certificate or of the bundle, whichever is earlier.
func (p Permit) Until() time.Time { return p.until }

// Gate answers for one bundle. It is immutable and safe for concurrent use; a
// new bundle needs a new gate.
type Gate struct{ bundle *Bundle }

// NewGate returns the gate of a bundle. A nil bundle refuses everything.
func NewGate(b *Bundle) *Gate { return &Gate{bundle: b} }

// Bundle returns the bundle the gate decides by, nil if it has none.
func (g *Gate) Bundle() *Bundle {
	if g == nil {
		return nil
	}
	return g.bundle
}

// Epoch returns the bundle's epoch, 0 without a bundle.
func (g *Gate) Epoch() Epoch {
	if g == nil || g.bundle == nil {
		return 0
	}
	return g.bundle.Epoch
}

// Permit decides and, if it allows, makes the permit. On a refusal the permit
// is the zero value, which opens nothing.
func (g *Gate) Permit(r Request) (Permit, Verdict) {
	v := g.Decide(r)
	if !v.Allow {
		return Permit{}, v
	}
	until := r.Peer.NotAfter
	if e := g.bundle.Expires; !e.IsZero() && e.Before(until) {
		until = e
	}
	return Permit{verdict: v, room: r.Room, store: r.Store, until: until}, v
}

// Decide answers without making a permit, for explanations and dry runs.
func (g *Gate) Decide(r Request) Verdict {
	v := Verdict{Policy: r.Policy, Class: r.Class, Peer: r.Peer.Name}
	refuse := func(rule, format string, a ...any) Verdict {
		v.Rule, v.Reason = rule, fmt.Sprintf(format, a...)
		return v
	}
	if g == nil || g.bundle == nil {
		return refuse(RuleNoBundle, "this node has no policy bundle, so nothing may leave it")
	}
	b := g.bundle
	v.Epoch = b.Epoch
	if !b.Expires.IsZero() && !r.Now.Before(b.Expires) {
		return refuse(RuleBundleStale, "the policy bundle of epoch %d expired at %s", b.Epoch, b.Expires.UTC().Format(time.RFC3339))
	}
	p, err := b.Policy(r.Policy)
	if err != nil {
		return refuse(RuleNoPolicy, "%v", err)
	}
	v.Policy = p.Name
	if !slices.Contains(Classes(), r.Class) {
		return refuse(RuleNoPolicy, "data class %q is unknown", r.Class)
	}
	if !r.Peer.ValidAt(r.Now) {
		return refuse(RuleCertificate, "the certificate of node %s is not valid now", r.Peer.Name)
	}
	if slices.Contains(b.Revoked, r.Peer.Serial) {
		return refuse(RuleRevoked, "the certificate of node %s is revoked", r.Peer.Name)
	}
	if r.PeerEpoch != b.Epoch {
		return refuse(RuleEpoch, "node %s has policy epoch %d, this node %d", r.Peer.Name, r.PeerEpoch, b.Epoch)
	}
	if r.Store && !r.Peer.Has(RoleOrigin) {
		return refuse(RuleStoreRole, "node %s is not an origin and stores nothing", r.Peer.Name)
	}
	zone := p.Zone(r.Class)
	ok, why := zone.Admits(r.Peer)
	if ok {
		v.Allow = true
		v.Rule, v.Reason = RuleZone, fmt.Sprintf("node %s is in %s, inside zone %q for %s", r.Peer.Name, r.Peer.Country, zone.Name, r.Class)
		return v
	}
	if !p.EdgeOutside || r.Store || !r.Class.live() || !r.Peer.Has(RoleEdge) || r.Peer.Country == "" {
		return refuse(RuleZone, "%s for %s (policy %q)", why, r.Class, p.Name)
	}
	if !r.OutsideParticipant {
		return refuse(RuleEdgeEmpty, "%s, and no participant from outside the zone is connected through it (policy %q)", why, p.Name)
	}
	v.Allow = true
	v.Rule, v.Reason = RuleEdgeOutside, fmt.Sprintf("node %s carries live %s for its own participants outside zone %q", r.Peer.Name, r.Class, zone.Name)
	return v
}
