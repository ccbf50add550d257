package residency

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy is what a customer promises about a room. It is a value: compare it,
// copy it, never change it in place.
type Policy struct {
	Name        string
	Title       string // one line for people
	Description string
	Source      string // the platform arrangement it models, if any
	Zones       map[Class]Zone

	// EdgeOutside allows an edge outside the zones to carry live classes (media,
	// signalling, chat) while a participant outside the media zone is connected
	// through it, and only then (R3).
	EdgeOutside bool

	Recording RecordingRule
	ChatLog   bool // chat may be stored (R10); off by default
	QALog     bool // questions and answers may be stored (R10); off by default

	AttendanceLog bool // who was there and when may be stored; off by default
	Registration  bool // people may register beforehand (R11); off by default

	E2EE     E2EERule
	Evidence EvidenceRule

	// Transfers are the grounds on which data may go to third countries, those
	// outside the EEA. With TransferRequired a node there needs one in force (R22).
	Transfers        []TransferBasis
	TransferRequired bool

	// SingleOrigin accepts zones in which the register has fewer than two origins:
	// when the only one fails, nothing is left to serve the room.
	SingleOrigin bool

	// Retention says for how long each kind is kept after it is complete. What it
	// does not name is kept until somebody erases it, exports for 30 days.
	Retention map[Kept]Hours `json:",omitempty"`
}

// RecordingRule says whether a room may be recorded and what people must be told.
type RecordingRule struct {
	Allowed bool
	Notice  bool // participants are shown that recording is on
	Consent bool // nobody's track is recorded before they agreed

	// Always has every meeting recorded from its beginning to its end, whoever is its
	// host. Without it the host starts and stops recordings.
	Always bool `json:",omitempty"`

	// EraseWithdrawn has what was recorded of somebody erased when they take their
	// consent back. Without it their recording ends there.
	EraseWithdrawn bool `json:",omitempty"`

	// NoConsentLog leaves out what is kept otherwise wherever consent is asked for: who
	// was shown the notice, agreed, declined and took it back, and when.
	NoConsentLog bool `json:",omitempty"`
}

// KeepsConsents reports whether it is kept what people answered.
func (r RecordingRule) KeepsConsents() bool { return r.Allowed && r.Consent && !r.NoConsentLog }

// Zone returns the zone of a class. A class without a zone has an empty one,
// which admits nobody.
func (p *Policy) Zone(c Class) Zone {
	if z, ok := p.Zones[c]; ok {
		return z
	}
	return Zone{Name: "none"}
}

// Bundle is one version of all policies of the mesh. It is immutable.
type Bundle struct {
	Epoch    Epoch
	Issued   time.Time
	Expires  time.Time // zero: does not expire
	Default  string    // the policy of rooms that name none and belong to no tenant
	Policies map[string]*Policy
	Revoked  []string // serial numbers of revoked certificates, hexadecimal

	// Nodes is the register of the mesh. Empty, every node with a certificate of
	// the operator's CA belongs; else a node that is not listed, or that is in
	// another country than listed, gets nothing.
	Nodes []Registered

	Tenants   []Tenant
	Overrides []Override
}

// Registered is a node as the register of a bundle lists it.
type Registered struct {
	Name    NodeName
	Country Country
	Roles   []Role   // what the node may be used for at most; empty: whatever its certificate states
	Tenants []string // with them, the node serves rooms of these tenants alone (R2)
}

// Serves says whether the node may serve a room of the tenant ("" is none), and
// why not.
func (r Registered) Serves(tenant string) (ok bool, why string) {
	if len(r.Tenants) == 0 || slices.Contains(r.Tenants, tenant) {
		return true, ""
	}
	whose := "a room of no tenant"
	if tenant != "" {
		whose = fmt.Sprintf("tenant %q", tenant)
	}
	return false, fmt.Sprintf("node %s serves rooms of %s alone, not %s", r.Name, strings.Join(r.Tenants, ", "), whose)
}

// Override is the operator's word that a node is where its certificate says,
// whatever contradicts that. It lifts a quarantine until it ends.
type Override struct {
	Node   NodeName
	Reason string
	Until  time.Time // an override without an end lifts nothing
}

// Registers says whether the node belongs to the mesh by the bundle's register,
// and why not.
func (b *Bundle) Registers(n Node) (ok bool, why string) {
	if len(b.Nodes) == 0 {
		return true, ""
	}
	i := slices.IndexFunc(b.Nodes, func(r Registered) bool { return r.Name == n.Name })
	if i < 0 {
		return false, unregistered(n)
	}
	return b.Nodes[i].lists(n)
}

func unregistered(n Node) string {
	return fmt.Sprintf("node %s is not in the register of the mesh", n.Name)
}

// lists says whether the entry is about this node as its certificate states it.
func (r Registered) lists(n Node) (ok bool, why string) {
	if r.Country != n.Country {
		return false, fmt.Sprintf("node %s is in %s by its certificate, in %s by the register of the mesh", n.Name, n.Country, r.Country)
	}
	for _, role := range n.Roles {
		if len(r.Roles) > 0 && !slices.Contains(r.Roles, role) {
			return false, fmt.Sprintf("node %s is an %s by its certificate, not by the register of the mesh", n.Name, role)
		}
	}
	return true, ""
}

// Policy finds a policy by name; the empty name is the default's.
func (b *Bundle) Policy(name string) (*Policy, error) {
	if b == nil {
		return nil, fmt.Errorf("policy %q: this node has no policy bundle", name)
	}
	if name == "" {
		name = b.Default
	}
	if p := b.Policies[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("policy %q: not in the bundle of epoch %d; it has %s", name, b.Epoch, strings.Join(b.Names(), ", "))
}

// Names lists the bundle's policies in order.
func (b *Bundle) Names() []string {
	names := make([]string, 0, len(b.Policies))
	for n := range b.Policies {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Revokes reports whether the bundle revokes the certificate of a serial number.
func (b *Bundle) Revokes(serial string) bool {
	return slices.ContainsFunc(b.Revoked, func(s string) bool { return strings.EqualFold(s, serial) })
}
