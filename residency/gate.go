package residency

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Request asks whether one data class of one room may go to (or be stored on) a node.
type Request struct {
	Room   string // opaque; only carried into the permit
	Tenant string // name of the room's tenant; empty is none
	Policy string // name of the room's policy; empty is the tenant's or the bundle's default
	Class  Class

	// QA says that the chat is a question or an answer, whose log has a switch of
	// its own (R10).
	QA bool

	Peer      Node  // as its certificate states it
	PeerEpoch Epoch // the policy epoch the peer says it has

	// Store says that the peer would keep the bytes, not only pass them on.
	Store bool

	// Place is where the peer would keep them, if not on its own disk.
	Place Place

	// OutsideParticipant says that a participant outside the media zone is
	// connected through the peer right now (R3). The peer's own record of its
	// participants says so.
	OutsideParticipant bool

	// Contradiction says why the peer is not believed to be where its certificate
	// says; empty if nothing contradicts it. The bundle's overrides are asked here.
	Contradiction string

	// NoEvidence says why what happens cannot be proved afterwards; empty if it can.
	NoEvidence string

	Now time.Time
}

// Verdict is the gate's answer with its grounds: what an operator, an attendee
// or an auditor is shown.
type Verdict struct {
	Allow  bool     `json:"allow"`
	Rule   string   `json:"rule"`           // stable name of the rule that decided, such as "zone"
	Reason string   `json:"reason"`         // one sentence for people
	Hint   string   `json:"hint,omitempty"` // on a refusal: what would work
	Tenant string   `json:"tenant,omitempty"`
	Policy string   `json:"policy"`
	Class  Class    `json:"class"`
	Peer   NodeName `json:"peer"`
	Serial string   `json:"serial,omitempty"` // of the peer's certificate, hexadecimal
	Epoch  Epoch    `json:"epoch"`

	// Until is the moment from which what is allowed has to be asked again.
	Until time.Time `json:"until,omitzero"`
}

// The rules by which the gate decides, in the order in which they are asked.
const (
	RuleNoBundle    = "no-bundle"      // no policy bundle: refuse everything
	RuleBundleStale = "bundle-stale"   // the bundle has expired
	RuleNoPolicy    = "no-policy"      // the policy or the class is unknown
	RuleCertificate = "certificate"    // the peer's certificate is not valid now
	RuleRevoked     = "revoked"        // the bundle revokes the peer's certificate
	RuleRegister    = "register"       // the bundle lists the mesh's nodes, and not this one
	RuleEpoch       = "epoch"          // the peer has another version of the policies
	RuleQuarantine  = "quarantine"     // the peer is not believed to be where its certificate says
	RuleTenant      = "tenant"         // the room's tenant is unknown, may not have the policy, or not this node
	RuleEvidence    = "evidence"       // nothing could be proved afterwards, and the policy wants it
	RuleNotStored   = "not-stored"     // the policy has nobody keep this class
	RuleStoreRole   = "store-role"     // only origins store
	RuleZone        = "zone"           // the peer lies in the zone of the class: allow; or not: refuse
	RuleEdgeOutside = "edge-outside"   // outside the zone's countries, but for its own outside participants
	RuleEdgeEmpty   = "edge-empty"     // would be that, but nobody outside is connected there
	RuleTransfer    = "transfer-basis" // the peer is in a third country, and no ground to go there is in force
)

// Gate answers for one bundle. It is immutable and safe for concurrent use; a
// new bundle needs a new gate.
type Gate struct {
	bundle  *Bundle
	nodes   map[NodeName]Registered
	tenants map[string]Tenant
	revoked map[string]struct{}        // serial numbers in lower case
	shut    struct{ rule, why string } // see Shut
}

// NewGate returns the gate of a bundle. A nil bundle refuses everything.
func NewGate(b *Bundle) *Gate {
	g := &Gate{bundle: b}
	if b == nil {
		return g
	}
	g.nodes = make(map[NodeName]Registered, len(b.Nodes))
	for _, n := range b.Nodes {
		if _, twice := g.nodes[n.Name]; !twice {
			g.nodes[n.Name] = n
		}
	}
	g.tenants = make(map[string]Tenant, len(b.Tenants))
	for _, t := range b.Tenants {
		if _, twice := g.tenants[t.Name]; !twice {
			g.tenants[t.Name] = t
		}
	}
	g.revoked = make(map[string]struct{}, len(b.Revoked))
	for _, serial := range b.Revoked {
		g.revoked[strings.ToLower(serial)] = struct{}{}
	}
	return g
}

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
	return Permit{verdict: v, room: r.Room, place: r.Place, store: r.Store}, v
}

// Decide answers without making a permit, for explanations and dry runs.
func (g *Gate) Decide(r Request) Verdict {
	q := question{Request: r, gate: g, until: r.Peer.NotAfter}
	v := Verdict{Tenant: r.Tenant, Policy: r.Policy, Class: r.Class, Peer: r.Peer.Name, Serial: r.Peer.Serial, Epoch: g.Epoch()}
	for i, rule := range rules {
		if !enforced && i >= unenforced {
			break
		}
		if v.Rule, v.Reason = rule(&q); v.Rule != "" {
			break
		}
	}
	if q.policy != nil {
		v.Policy = q.policy.Name
	}
	if v.Rule == "" {
		v.Allow, v.Until = true, q.until
		v.Rule, v.Reason = q.grounds()
		return v
	}
	v.Hint = q.hint(v.Rule)
	return v
}

// question is a request on its way through the rules.
type question struct {
	Request
	gate    *Gate
	policy  *Policy
	zone    Zone
	outside bool      // the peer is outside the zone's countries, and the edge rule lets it in
	placed  bool      // the peer is permitted, and its place is asked about
	until   time.Time // the earliest end of what the answer rests on
}

// ends notes that something the answer rests on ends at t.
func (q *question) ends(t time.Time) {
	if t.Before(q.until) {
		q.until = t
	}
}

// unenforced is how many of the rules a binary without the gate still asks: a
// room needs a policy to be one.
const unenforced = 2

// rules are asked in this order; the first that names itself refuses.
var rules = []func(*question) (rule, why string){
	(*question).bundleInForce,
	(*question).policyKnown,
	(*question).peerInForce,
	(*question).peerBelieved,
	(*question).peerServes,
	(*question).canBeProved,
	(*question).mayBeKept,
	(*question).inZone,
	(*question).transferable,
	(*question).keptInZone,
}

// bundleInForce asks whether there are policies to decide by.
func (q *question) bundleInForce() (rule, why string) {
	if q.gate.Epoch() == 0 {
		return RuleNoBundle, "this node has no policy bundle, so nothing may leave it"
	}
	if q.gate.shut.rule != "" {
		return q.gate.shut.rule, q.gate.shut.why
	}
	b := q.gate.bundle
	if b.Expires.IsZero() {
		return "", ""
	}
	if q.ends(b.Expires); !q.Now.Before(b.Expires) {
		return RuleBundleStale, fmt.Sprintf("the policy bundle of epoch %d expired at %s", b.Epoch, b.Expires.UTC().Format(time.RFC3339))
	}
	return "", ""
}

// policyKnown finds the policy in force for the room, which its tenant must be
// allowed to have.
func (q *question) policyKnown() (rule, why string) {
	if rule, why := q.tenantKnown(); rule != "" {
		return rule, why
	}
	p, err := q.gate.bundle.Policy(q.Policy)
	if err != nil {
		return RuleNoPolicy, err.Error()
	}
	if !slices.Contains(Classes(), q.Class) {
		return RuleNoPolicy, fmt.Sprintf("data class %q is unknown", q.Class)
	}
	q.policy, q.zone = p, p.Zone(q.Class)
	return "", ""
}

// tenantKnown puts the tenant's default in place of no policy.
func (q *question) tenantKnown() (rule, why string) {
	if q.Tenant == "" {
		return "", ""
	}
	t, ok := q.gate.tenants[q.Tenant]
	if !ok {
		return RuleTenant, fmt.Sprintf("tenant %q is not in the policy bundle of epoch %d", q.Tenant, q.gate.Epoch())
	}
	if q.Policy == "" {
		q.Policy = t.Policy
	}
	if !t.May(q.Policy) {
		return RuleTenant, fmt.Sprintf("tenant %q may not have rooms of policy %q", t.Name, q.Policy)
	}
	return "", ""
}

// peerInForce asks whether what the peer states can be relied on now: its
// certificate is valid, and it decides by the same policies.
func (q *question) peerInForce() (rule, why string) {
	n := q.Peer
	switch {
	case n.Name == "":
		return RuleCertificate, "the peer has no certificate that names it"
	case !n.ValidAt(q.Now):
		return RuleCertificate, fmt.Sprintf("the certificate of node %s is not valid now", n.Name)
	case q.gate.revokes(n.Serial):
		return RuleRevoked, fmt.Sprintf("the certificate of node %s is revoked", n.Name)
	}
	if ok, why := q.gate.registers(n); !ok {
		return RuleRegister, why
	}
	if epoch := q.gate.Epoch(); q.PeerEpoch != epoch {
		return RuleEpoch, fmt.Sprintf("node %s has policy epoch %d, this node %d", n.Name, q.PeerEpoch, epoch)
	}
	return "", ""
}

// Serves reports whether a node is there for rooms of the tenant ("" is none), as
// far as the register says. It permits nothing.
func (g *Gate) Serves(name NodeName, tenant string) bool {
	if g == nil {
		return false
	}
	ok, _ := g.nodes[name].Serves(tenant)
	return ok
}

func (g *Gate) revokes(serial string) bool {
	_, ok := g.revoked[strings.ToLower(serial)]
	return ok
}

func (g *Gate) registers(n Node) (ok bool, why string) {
	if len(g.nodes) == 0 {
		return true, ""
	}
	r, ok := g.nodes[n.Name]
	if !ok {
		return false, unregistered(n)
	}
	return r.lists(n)
}

// peerBelieved asks whether the peer is where its certificate says, as far as
// anybody can tell. The operator's word in the bundle settles it, for a time.
func (q *question) peerBelieved() (rule, why string) {
	if q.Contradiction == "" {
		return "", ""
	}
	var until time.Time
	for _, o := range q.gate.bundle.Overrides {
		if o.Node == q.Peer.Name && o.Until.After(until) {
			until = o.Until
		}
	}
	if q.Now.Before(until) {
		q.ends(until)
		return "", ""
	}
	return RuleQuarantine, fmt.Sprintf("node %s is not believed to be in %s: %s", q.Peer.Name, q.Peer.Country, q.Contradiction)
}

// peerServes asks whether the peer is there for the room's tenant.
func (q *question) peerServes() (rule, why string) {
	if ok, why := q.gate.nodes[q.Peer.Name].Serves(q.Tenant); !ok {
		return RuleTenant, why
	}
	return "", ""
}

// canBeProved asks whether there will be evidence, if the policy wants it.
func (q *question) canBeProved() (rule, why string) {
	if q.NoEvidence == "" || q.policy.Evidence == EvidenceOff {
		return "", ""
	}
	return RuleEvidence, fmt.Sprintf("no evidence can be written, and policy %q wants it: %s", q.policy.Name, q.NoEvidence)
}

// mayBeKept asks whether the policy has this class kept at all, and by nodes of
// this role.
func (q *question) mayBeKept() (rule, why string) {
	p := q.policy
	switch {
	case q.Class == ClassRecording && !p.Recording.Allowed:
		return RuleNotStored, fmt.Sprintf("policy %q allows no recording", p.Name)
	case !q.Store:
		return "", ""
	case q.Class == ClassMedia || q.Class == ClassSignalling:
		return RuleNotStored, fmt.Sprintf("%s passes through a node and is not kept", q.Class)
	case q.Class == ClassChat && q.QA && !p.QALog:
		return RuleNotStored, fmt.Sprintf("policy %q keeps no questions and answers", p.Name)
	case q.Class == ClassChat && !q.QA && !p.ChatLog:
		return RuleNotStored, fmt.Sprintf("policy %q keeps no chat", p.Name)
	case !q.Peer.Has(RoleOrigin):
		return RuleStoreRole, fmt.Sprintf("node %s is not an origin and stores nothing", q.Peer.Name)
	}
	return "", ""
}

// inZone asks whether the class may go to the peer. The edge rule widens the
// countries of a zone and nothing else: who may run the node stays as it is.
func (q *question) inZone() (rule, why string) {
	n, p := q.Peer, q.policy
	within, where := q.zone.admitsCountry(n)
	q.outside = !within
	if q.outside && !(p.EdgeOutside && !q.Store && q.Class.live() && n.Has(RoleEdge) && n.Country.Known()) {
		return RuleZone, fmt.Sprintf("%s for %s (policy %q)", where, q.Class, p.Name)
	}
	if ok, who := q.zone.admitsOperator(n); !ok {
		return RuleZone, fmt.Sprintf("%s for %s (policy %q)", who, q.Class, p.Name)
	}
	if q.outside && !q.OutsideParticipant {
		return RuleEdgeEmpty, fmt.Sprintf("%s, and no participant from outside the zone is connected through it (policy %q)", where, p.Name)
	}
	return "", ""
}

// transferable asks for a ground on which data may go to the peer's country. It
// holds as long as one of several does.
func (q *question) transferable() (rule, why string) { return q.mayGoTo(q.Peer) }

func (q *question) mayGoTo(n Node) (rule, why string) {
	c := n.Country
	if !q.policy.TransferRequired || !c.Third() {
		return "", ""
	}
	until, ok := transferEnd(q.policy.Transfers, c, q.Now)
	if !ok {
		return RuleTransfer, fmt.Sprintf("node %s is in the third country %s, %s (policy %q)", n.Name, c, noTransfer(q.policy.Transfers, c, q.Now), q.policy.Name)
	}
	if !until.IsZero() {
		q.ends(until)
	}
	return "", ""
}

// grounds names the rule that lets the class go to the peer.
func (q *question) grounds() (rule, why string) {
	n := q.Peer
	if !enforced {
		return RuleGateOff, "this binary was built without the gate"
	}
	if q.outside {
		return RuleEdgeOutside, fmt.Sprintf("node %s carries live %s for its own participants outside zone %q", n.Name, q.Class, q.zone.Name)
	}
	return RuleZone, fmt.Sprintf("node %s is in %s, inside zone %q for %s", n.Name, n.Country, q.zone.Name, q.Class)
}
