package configs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/domicile/domicile/residency"
)

// DNS has the node answer for the mesh's name, with the addresses of the permitted
// and healthy nodes that are nearest to who asks. It answers at listen.dns.
type DNS struct {
	// Zone is the name, such as meet.example.org, delegated to the nodes that
	// answer. NODE.ZONE is a node by itself. Required where the node answers.
	Zone string `yaml:"zone"`

	// Servers are the names of the nodes that answer, as the delegation has them,
	// such as [fra.meet.example.org, waw.meet.example.org]. Required where the node answers.
	Servers []string `yaml:"servers"`

	// Names are further names of the zone, by their first label: such a name leads
	// only to nodes that may serve the rooms of its tenant or policy.
	Names map[string]DNSName `yaml:"names"`

	// Answers is how many nodes an answer names at most, 1 to 8. Default 2: the
	// second takes over when the first is dead before the answer is forgotten. Some
	// resolvers change the order, so that a part of the clients starts at the
	// second; 1 brings everybody to the nearest, and after its death they wait.
	Answers int `yaml:"answers"`

	// TTLSeconds is how long an answer may be remembered, 1 to 3600. Default 20.
	TTLSeconds int `yaml:"ttl_s"`

	// Addresses are where attendees reach nodes, by node, IPv4 and IPv6. Default:
	// the host of the node's public URL if it is an address, else the address at
	// which other nodes reach it.
	Addresses map[string][]netip.Addr `yaml:"addresses"`
}

// DNSName says whose rooms a name is for.
type DNSName struct {
	Tenant string `yaml:"tenant"`
	Policy string `yaml:"policy"`
}

// maxZone leaves room for a label in front of the zone (RFC 1035: 255 bytes in all).
const maxZone = 180

func (d *document) validateDNS(n *Node) {
	if !n.Listen.DNS.IsValid() {
		if d.has("dns") {
			d.fault("dns", Fault{Message: "the node answers nowhere", Hint: "say where: listen: {dns: 203.0.113.5:53}, or leave dns out"})
		}
		return
	}
	if !domainName(n.DNS.Zone) {
		d.need("dns.zone", "the name of the mesh", "meet.example.org")
	}
	if len(n.DNS.Servers) == 0 {
		d.need("dns.servers", "the names of the nodes that answer", "[fra.meet.example.org]")
	}
	for i, s := range n.DNS.Servers {
		if !domainName(s) {
			d.need(join("dns.servers", fmt.Sprint(i)), "the name of a node that answers", "fra.meet.example.org")
		}
	}
	for label, of := range n.DNS.Names {
		path := join("dns.names", label)
		if !domainName(label) || strings.Contains(label, ".") {
			d.faultf(path, "not a label of a name: letters, digits and hyphens")
		}
		if of == (DNSName{}) {
			d.fault(path, Fault{Message: "whose rooms is this name for?", Hint: "say tenant: or policy:"})
		}
	}
	for name, addrs := range n.DNS.Addresses {
		path := join("dns.addresses", name)
		if _, err := residency.ParseNodeName(name); err != nil {
			d.fault(path, Fault{Message: "not a node name", Allowed: nameForm})
		}
		if len(addrs) == 0 || slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" }) {
			d.faultf(path, "want addresses that attendees can reach")
		}
	}
	d.within("dns.answers", float64(n.DNS.Answers), 1, 8)
	d.within("dns.ttl_s", float64(n.DNS.TTLSeconds), 1, 3600)
}

// need is the fault of a name that is missing or none.
func (d *document) need(path, what, example string) {
	f := Fault{Message: "not " + what, Allowed: "a name of DNS, such as " + example}
	if !d.has(path) {
		f.Message = fmt.Sprintf("the key %q is missing: %s", path, what)
	}
	d.fault(path, f)
}

// domainName reports whether s is a host name of letters, digits and hyphens
// (RFC 1123 section 2.1), without a last dot.
func domainName(s string) bool {
	_, ok := dns.IsDomainName(s)
	if !ok || s == "" || len(s) > maxZone {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
