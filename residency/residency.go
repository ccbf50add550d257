// Package residency decides where a meeting's bytes may go.
//
// It is a pure core: countries, zones, policies and the Gate that turns them
// into a verdict. It performs no I/O, reads no clock and keeps no state beyond
// the bundle it was given; callers pass `now`. Whatever it does not know it
// refuses: an unknown country, class, policy or epoch is never "probably fine".
package residency

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Country is an ISO 3166-1 alpha-2 code in upper case. The zero value is an
// unknown country and lies in no zone.
type Country string

// ParseCountry accepts the code of a known country in either case.
func ParseCountry(s string) (Country, error) {
	c := Country(strings.ToUpper(s))
	if c.Known() {
		return c, nil
	}
	switch _, zone := NamedZone(string(c)); {
	case zone:
		return "", fmt.Errorf("country %q: is a zone of several countries, not a country", s)
	case c == "UK":
		return "", fmt.Errorf("country %q: the United Kingdom is \"GB\"", s)
	}
	return "", fmt.Errorf("country %q: want a code of ISO 3166-1 such as \"DE\"", s)
}

// String names the country, or "unknown".
func (c Country) String() string {
	if c == "" {
		return "unknown"
	}
	return string(c)
}

// NodeName is the name of a node, unique in the mesh, as its certificate states
// it. It is a DNS label, so that it can stand in a URL, a file name or a log
// line as it is.
type NodeName string

// MaxNodeName bounds a node's name, in bytes (a DNS label, RFC 1035 section 2.3.4).
const MaxNodeName = 63

// ParseNodeName accepts a DNS label in lower case: a-z, 0-9 and inner hyphens.
func ParseNodeName(s string) (NodeName, error) {
	ok := s != "" && len(s) <= MaxNodeName && s[0] != '-' && s[len(s)-1] != '-'
	for i := 0; ok && i < len(s); i++ {
		ok = s[i] == '-' || s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9'
	}
	if !ok {
		return "", fmt.Errorf("node name %q: want 1 to %d of a-z, 0-9 and inner hyphens", s, MaxNodeName)
	}
	return NodeName(s), nil
}

// Role says what a node may be used for.
type Role string

// The roles a certificate can carry.
const (
	RoleOrigin Role = "origin" // stores: room records, recordings, evidence
	RoleEdge   Role = "edge"   // carries live traffic for its attendees
)

// Roles lists every role.
func Roles() []Role { return []Role{RoleOrigin, RoleEdge} }

// ParseRole accepts the name of a role.
func ParseRole(s string) (Role, error) {
	if r := Role(s); slices.Contains(Roles(), r) {
		return r, nil
	}
	return "", fmt.Errorf("role %q: want \"origin\" or \"edge\"", s)
}

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

// MaxOrganisation bounds the names of operators and parents, in bytes. They
// travel in gossip, whose packets are small.
const MaxOrganisation = 64

// Validate reports the first fact that is missing or cannot be: certificates
// are neither issued nor accepted with such a fault.
func (n Node) Validate() error {
	if _, err := ParseNodeName(string(n.Name)); err != nil {
		return err
	}
	for _, o := range []struct{ what, name string }{{"operator", n.Operator}, {"parent", n.Parent}} {
		if err := validOrganisation(o.name); err != nil {
			return fmt.Errorf("node %s: %s %q: %w", n.Name, o.what, o.name, err)
		}
	}
	for _, c := range []struct {
		what    string
		country Country
	}{{"country", n.Country}, {"operator country", n.OperatorCountry}, {"parent country", n.ParentCountry}} {
		if !c.country.Known() {
			return fmt.Errorf("node %s: %s %q: want an upper-case code of ISO 3166-1 such as \"DE\"", n.Name, c.what, string(c.country))
		}
	}
	if len(n.Roles) == 0 {
		return fmt.Errorf("node %s: no role: want \"origin\", \"edge\" or both", n.Name)
	}
	for i, r := range n.Roles {
		if _, err := ParseRole(string(r)); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		if slices.Contains(n.Roles[:i], r) {
			return fmt.Errorf("node %s: role %q is stated twice", n.Name, r)
		}
	}
	return nil
}

func validOrganisation(s string) error {
	switch {
	case s == "":
		return errors.New("want a name")
	case len(s) > MaxOrganisation:
		return fmt.Errorf("want at most %d bytes, not %d", MaxOrganisation, len(s))
	case strings.TrimSpace(s) != s || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("want printable text without space around it")
	}
	return nil
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

// Contains reports whether a country lies in the zone, without looking at
// conditions. An unknown country lies in none, not even in "anywhere".
func (z Zone) Contains(c Country) bool {
	return c.Known() && (z.Anywhere || slices.Contains(z.Countries, c))
}

// Admits says whether the node lies in the zone, and why not in words an
// operator can act on.
func (z Zone) Admits(n Node) (ok bool, why string) {
	if ok, why := z.admitsCountry(n); !ok {
		return false, why
	}
	return z.admitsOperator(n)
}

// admitsCountry asks where the node is.
func (z Zone) admitsCountry(n Node) (ok bool, why string) {
	switch {
	case !n.Country.Known():
		return false, fmt.Sprintf("node %s: its country is unknown", n.Name)
	case !z.Contains(n.Country):
		return false, fmt.Sprintf("node %s is in %s, outside zone %q", n.Name, n.Country, z.Name)
	}
	return true, ""
}

// admitsOperator asks who runs the node, wherever it is. An unknown country
// meets no condition.
func (z Zone) admitsOperator(n Node) (ok bool, why string) {
	switch {
	case len(z.Operators) > 0 && !slices.Contains(z.Operators, n.Operator):
		return false, fmt.Sprintf("node %s is run by %q, which zone %q does not name", n.Name, n.Operator, z.Name)
	case len(z.OperatorCountries) > 0 && !contains(z.OperatorCountries, n.OperatorCountry):
		return false, fmt.Sprintf("node %s: the country of its operator is %s, outside what zone %q allows", n.Name, n.OperatorCountry, z.Name)
	case len(z.ParentCountries) > 0 && !contains(z.ParentCountries, n.ParentCountry):
		return false, fmt.Sprintf("node %s: the country of its operator's ultimate parent is %s, outside what zone %q allows", n.Name, n.ParentCountry, z.Name)
	case len(z.ExcludedParentCountries) == 0:
		return true, ""
	case !n.ParentCountry.Known():
		return false, fmt.Sprintf("node %s: the country of its operator's ultimate parent is unknown", n.Name)
	case slices.Contains(z.ExcludedParentCountries, n.ParentCountry):
		return false, fmt.Sprintf("node %s: the country of its operator's ultimate parent is %s, which zone %q excludes", n.Name, n.ParentCountry, z.Name)
	}
	return true, ""
}

func contains(set []Country, c Country) bool { return c.Known() && slices.Contains(set, c) }
