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
	RuleRegister    = "register"     // the bundle lists the mesh's nodes, and not this one
	RuleEpoch       = "epoch"        // the peer has another version of the policies
	RuleNotStored   = "not-stored"   // the policy has nobody keep this class
	RuleStoreRole   = "store-role"   // only origins store
	RuleZone        = "zone"         // the peer lies in the zone of the class: allow; or not: refuse
	RuleEdgeOutside = "edge-outside" // outside the zone's countries, but for its own outside participants
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

// Stores reports whether the permit was asked for keeping the bytes.
func (p Permit) Stores() bool { return p.store }

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

// Epoch returns the bundle's epoch, 0 without a bundle. A bundle of epoch 0 is
// as good as none.
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
	v := Verdict{Policy: r.Policy, Class: r.Class, Peer: r.Peer.Name, Epoch: g.Epoch()}
	p, rule, why := g.policyFor(r)
	if p != nil && !enforced {
		v.Policy, v.Allow, v.Rule, v.Reason = p.Name, true, RuleGateOff, "this binary was built without the gate"
		return v
	}
	if p != nil {
		v.Policy = p.Name
		rule, why = g.peerInForce(r)
	}
	if rule == "" {
		rule, why = p.keeps(r)
	}
	if rule == "" {
		v.Allow, rule, why = p.reaches(r)
	}
	v.Rule, v.Reason = rule, why
	return v
}

// policyFor finds the policy in force for the request. Without one it names
// the rule that refuses.
func (g *Gate) policyFor(r Request) (p *Policy, rule, why string) {
	if g.Epoch() == 0 {
		return nil, RuleNoBundle, "this node has no policy bundle, so nothing may leave it"
	}
	b := g.bundle
	if !b.Expires.IsZero() && !r.Now.Before(b.Expires) {
		return nil, RuleBundleStale, fmt.Sprintf("the policy bundle of epoch %d expired at %s", b.Epoch, b.Expires.UTC().Format(time.RFC3339))
	}
	p, err := b.Policy(r.Policy)
	if err != nil {
		return nil, RuleNoPolicy, err.Error()
	}
	if !slices.Contains(Classes(), r.Class) {
		return nil, RuleNoPolicy, fmt.Sprintf("data class %q is unknown", r.Class)
	}
	return p, "", ""
}

// peerInForce asks whether what the peer states can be relied on now: its
// certificate is valid, and it decides by the same policies. An empty rule
// means yes.
func (g *Gate) peerInForce(r Request) (rule, why string) {
	n, b := r.Peer, g.bundle
	switch {
	case n.Name == "":
		return RuleCertificate, "the peer has no certificate that names it"
	case !n.ValidAt(r.Now):
		return RuleCertificate, fmt.Sprintf("the certificate of node %s is not valid now", n.Name)
	case b.Revokes(n.Serial):
		return RuleRevoked, fmt.Sprintf("the certificate of node %s is revoked", n.Name)
	}
	if ok, why := b.Registers(n); !ok {
		return RuleRegister, why
	}
	if r.PeerEpoch != b.Epoch {
		return RuleEpoch, fmt.Sprintf("node %s has policy epoch %d, this node %d", n.Name, r.PeerEpoch, b.Epoch)
	}
	return "", ""
}

// keeps asks whether the policy has this class kept at all, and by nodes of
// this role. An empty rule means that it does, or that nothing is to be kept.
func (p *Policy) keeps(r Request) (rule, why string) {
	switch {
	case r.Class == ClassRecording && !p.Recording.Allowed:
		return RuleNotStored, fmt.Sprintf("policy %q allows no recording", p.Name)
	case !r.Store:
		return "", ""
	case r.Class == ClassMedia || r.Class == ClassSignalling:
		return RuleNotStored, fmt.Sprintf("%s passes through a node and is not kept", r.Class)
	case r.Class == ClassChat && !p.ChatLog:
		return RuleNotStored, fmt.Sprintf("policy %q keeps no chat", p.Name)
	case !r.Peer.Has(RoleOrigin):
		return RuleStoreRole, fmt.Sprintf("node %s is not an origin and stores nothing", r.Peer.Name)
	}
	return "", ""
}

// reaches asks whether the class may go to the peer. The edge rule widens the
// countries of a zone and nothing else: who may run the node stays as it is.
func (p *Policy) reaches(r Request) (allow bool, rule, why string) {
	n, zone := r.Peer, p.Zone(r.Class)
	within, where := zone.admitsCountry(n)
	if !within && !(p.EdgeOutside && !r.Store && r.Class.live() && n.Has(RoleEdge) && n.Country.Known()) {
		return false, RuleZone, fmt.Sprintf("%s for %s (policy %q)", where, r.Class, p.Name)
	}
	if ok, who := zone.admitsOperator(n); !ok {
		return false, RuleZone, fmt.Sprintf("%s for %s (policy %q)", who, r.Class, p.Name)
	}
	switch {
	case within:
		return true, RuleZone, fmt.Sprintf("node %s is in %s, inside zone %q for %s", n.Name, n.Country, zone.Name, r.Class)
	case !r.OutsideParticipant:
		return false, RuleEdgeEmpty, fmt.Sprintf("%s, and no participant from outside the zone is connected through it (policy %q)", where, p.Name)
	}
	return true, RuleEdgeOutside, fmt.Sprintf("node %s carries live %s for its own participants outside zone %q", n.Name, r.Class, zone.Name)
}
