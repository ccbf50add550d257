// Package residency decides where a meeting's bytes may go.
//
// It is a pure core: countries, zones, policies and the Gate that turns them
// into a verdict. It performs no I/O, reads no clock and keeps no state beyond
// the bundle it was given; callers pass `now`. Whatever it does not know it
// refuses: an unknown country, class, policy or epoch is never "probably fine".
package residency

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Country is an ISO 3166-1 alpha-2 code in upper case. The zero value is an
// unknown country and lies in no zone.
type Country string

// ParseCountry accepts two ASCII letters in either case.
func ParseCountry(s string) (Country, error) {
	up := strings.ToUpper(s)
	if len(up) != 2 || up[0] < 'A' || up[0] > 'Z' || up[1] < 'A' || up[1] > 'Z' {
		return "", fmt.Errorf("country %q: want an ISO 3166-1 code of two letters such as \"DE\"", s)
	}
	return Country(up), nil
}

// String names the country, or "unknown".
func (c Country) String() string {
	if c == "" {
		return "unknown"
	}
	return string(c)
}

// NodeName is the name of a node, unique in the mesh, as its certificate states it.
type NodeName string

// Role says what a node may be used for.
type Role string

// The roles a certificate can carry.
const (
	RoleOrigin Role = "origin" // stores: room records, recordings, evidence
	RoleEdge   Role = "edge"   // carries live traffic for its attendees
)

// Class is a kind of data with a zone of its own (requirement R5).
type Class string

// The data classes, as policies name them.
const (
	ClassMedia       Class = "media"
	ClassSignalling  Class = "signalling"
	ClassChat        Class = "chat"
	ClassChatOffline Class = "chat_offline"
	ClassMetadata    Class = "metadata"
	ClassRecording   Class = "recording"
	ClassTranscript  Class = "transcript"
	ClassExport      Class = "export"
	ClassTelemetry   Class = "telemetry"
)

// Classes lists every data class; a policy must give each of them a zone.
func Classes() []Class {
	return []Class{ClassMedia, ClassSignalling, ClassChat, ClassChatOffline, ClassMetadata,
		ClassRecording, ClassTranscript, ClassExport, ClassTelemetry}
}

// live reports whether the class passes through a node without being stored
// there, which is what an edge outside the zone may at most do (R3).
func (c Class) live() bool {
	return c == ClassMedia || c == ClassSignalling || c == ClassChat
}

// Epoch numbers the versions of the policy bundle; higher is newer. 0 is no bundle.
type Epoch uint64

// Node is what a node's certificate states. It is a claim of the operator's CA
// and the only ground on which a zone admits a node: addresses, gossip and
// round-trip times can contradict it, never establish it.
type Node struct {
	Name            NodeName
	Country         Country
	Operator        string
	OperatorCountry Country
	Parent          string // the operator's ultimate parent; the operator itself if it has none
	ParentCountry   Country
	Roles           []Role
	NotBefore       time.Time
	NotAfter        time.Time
	Serial          string // the certificate's serial number, hexadecimal
}

// Has reports whether the node carries the role.
func (n Node) Has(r Role) bool { return slices.Contains(n.Roles, r) }

// ValidAt reports whether the certificate behind the node is valid at now.
func (n Node) ValidAt(now time.Time) bool {
	return !now.Before(n.NotBefore) && now.Before(n.NotAfter)
}

// Zone is a set of countries with conditions on who runs the node there.
// An empty Countries admits nobody; "everywhere" is said with Anywhere.
type Zone struct {
	Name      string
	Countries []Country
	Anywhere  bool // any known country

	// Conditions, each switched off when empty.
	OperatorCountries       []Country // the operator's country must be among these
	ParentCountries         []Country // the ultimate parent's country must be among these
	ExcludedParentCountries []Country // the ultimate parent's country must not be among these
	Operators               []string  // the operator must be among these
}

// Contains reports whether a country lies in the zone, without looking at conditions.
func (z Zone) Contains(c Country) bool {
	return c != "" && (z.Anywhere || slices.Contains(z.Countries, c))
}

// Admits says whether the node lies in the zone, and why not in words an
// operator can act on.
func (z Zone) Admits(n Node) (ok bool, why string) {
	switch {
	case n.Country == "":
		return false, fmt.Sprintf("node %s: its country is unknown", n.Name)
	case !z.Contains(n.Country):
		return false, fmt.Sprintf("node %s is in %s, outside zone %q", n.Name, n.Country, z.Name)
	case len(z.Operators) > 0 && !slices.Contains(z.Operators, n.Operator):
		return false, fmt.Sprintf("node %s is run by %q, which zone %q does not name", n.Name, n.Operator, z.Name)
	case len(z.OperatorCountries) > 0 && !slices.Contains(z.OperatorCountries, n.OperatorCountry):
		return false, fmt.Sprintf("node %s: its operator sits in %s, outside what zone %q allows", n.Name, n.OperatorCountry, z.Name)
	case len(z.ParentCountries) > 0 && !slices.Contains(z.ParentCountries, n.ParentCountry):
		return false, fmt.Sprintf("node %s: its operator's ultimate parent sits in %s, outside what zone %q allows", n.Name, n.ParentCountry, z.Name)
	case n.ParentCountry == "" && len(z.ExcludedParentCountries) > 0:
		return false, fmt.Sprintf("node %s: the country of its operator's ultimate parent is unknown", n.Name)
	case slices.Contains(z.ExcludedParentCountries, n.ParentCountry):
		return false, fmt.Sprintf("node %s: its operator's ultimate parent sits in %s, which zone %q excludes", n.Name, n.ParentCountry, z.Name)
	}
	return true, ""
}

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
}

// RecordingRule says whether a room may be recorded and what people must be told.
type RecordingRule struct {
	Allowed bool
	Notice  bool // participants are shown that recording is on
	Consent bool // nobody's track is recorded before they agreed
}

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
	Default  string    // the policy of rooms that name none
	Policies map[string]*Policy
	Revoked  []string // serial numbers of revoked certificates, hexadecimal
}

// Policy finds a policy by name; the empty name is the default's.
func (b *Bundle) Policy(name string) (*Policy, error) {
	if b == nil {
		return nil, fmt.Errorf("policy %q: this node has no policy bundle", name)
	}
	if name == "" {
		name = b.Default
	}
	if p, ok := b.Policies[name]; ok {
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
