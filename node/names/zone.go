// Package names answers for the mesh's name in DNS: whoever asks gets the addresses
// of the nodes that are nearest, permitted and healthy, so that a client with one
// fixed name starts near, and comes back at another node when its own has died.
//
// It is authoritative for one zone and nothing else (RFC 1034 section 4.3.1). It
// resolves nothing for anybody, transfers no zone, keeps nothing of who asked, and
// decides nothing about rooms: the node that is reached asks the policy again.
package names

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/domicile/domicile/residency"
)

const (
	// maxUDP is the largest answer over UDP: what passes without fragments almost
	// everywhere (DNS flag day 2020).
	maxUDP = 1232

	// scope4 and scope6 are the longest prefixes of a client that an answer depends
	// on (RFC 7871 section 11.1 recommends them as the most to be sent).
	scope4, scope6 = 24, 56

	// least4 and least6 are the shortest prefixes that say where a client is.
	least4, least6 = 16, 24
)

// Zone is the zone that is answered for. Its answers depend on nothing but the
// question and what Rank and Node say.
type Zone struct {
	Name    string            // of the zone, without the last dot; it is the mesh's name too
	Servers []string          // names of the servers that answer for the zone, this one among them
	Rooms   map[string]Target // further names of the zone, by their first label
	Answers int               // addresses of a family in an answer, at most
	TTL     time.Duration     // of answers; whole seconds

	// Rank lists the nodes that may serve somebody from an address, nearest first.
	Rank func(t Target, from netip.Addr) []Node
	// Find returns a node by its name.
	Find func(name residency.NodeName) (Node, bool)
}

// Target says for whose rooms a name stands: the node that is named must be
// permitted to serve them. The zero Target is the mesh's default policy.
type Target struct{ Tenant, Policy string }

// Node is a node with the addresses at which attendees reach it.
type Node struct {
	Name  residency.NodeName
	Addrs []netip.Addr
}

// Result names what became of a question, for metrics.
type Result string

// The results.
const (
	Answered Result = "answered"
	NoData   Result = "no_data" // the name is there, with nothing of this type
	NoName   Result = "no_name" // the zone has no such name
	Nobody   Result = "nobody"  // no node may serve, or none is healthy
	Refused  Result = "refused" // another zone, a transfer, another class
	Broken   Result = "broken"  // no question that can be answered
	Limited  Result = "limited" // too many from one network: asked to come over TCP
	Ignored  Result = "ignored" // not a question at all
)

// Answer answers a message that came from an address; nil is no answer. q is not
// kept and not changed.
func (z *Zone) Answer(q *dns.Msg, from netip.Addr) (*dns.Msg, Result) {
	if q.Response {
		return nil, Ignored // answering answers makes loops
	}
	a := &answer{Msg: new(dns.Msg).SetReply(q), client: client{addr: from}}
	a.Compress = true
	if q.Opcode != dns.OpcodeQuery {
		return a.fail(dns.RcodeNotImplemented, Broken)
	}
	if len(q.Question) != 1 {
		return a.fail(dns.RcodeFormatError, Broken)
	}
	if code := a.extend(q.IsEdns0()); code != dns.RcodeSuccess {
		return a.fail(code, Broken)
	}
	return z.resolve(a, q.Question[0])
}

// answer is a message in the making.
type answer struct {
	*dns.Msg
	client client
}

func (a *answer) fail(code int, r Result) (*dns.Msg, Result) {
	if opt := a.IsEdns0(); opt != nil && code > 0xf {
		opt.SetExtendedRcode(uint16(code))
	}
	a.Rcode = code
	return a.Msg, r
}

func (z *Zone) resolve(a *answer, q dns.Question) (*dns.Msg, Result) {
	name := strings.ToLower(q.Name)
	label, ours := z.label(name)
	switch {
	case !ours || q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR:
		return a.fail(dns.RcodeRefused, Refused)
	case q.Qtype == dns.TypeANY: // RFC 8482: as little as possible, nobody needs more
		a.Authoritative = true
		a.Answer = append(a.Answer, &dns.HINFO{Hdr: z.header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"})
		return a.Msg, Answered
	}
	a.Authoritative = true
	switch {
	case label == "" && q.Qtype == dns.TypeSOA:
		a.Answer = append(a.Answer, z.soa())
		return a.Msg, Answered
	case label == "" && q.Qtype == dns.TypeNS:
		z.delegate(a)
		return a.Msg, Answered
	}
	nodes, there := z.nodes(label, &a.client)
	if !there {
		a.Ns = append(a.Ns, z.soa())
		return a.fail(dns.RcodeNameError, NoName)
	}
	if q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
		return z.empty(a)
	}
	if len(nodes) == 0 {
		return a.fail(dns.RcodeServerFailure, Nobody) // not remembered for long, unlike an empty answer
	}
	a.scope()
	for _, addr := range z.choose(nodes, q.Qtype == dns.TypeAAAA) {
		a.Answer = append(a.Answer, z.record(q.Name, addr))
	}
	if len(a.Answer) == 0 {
		return z.empty(a)
	}
	return a.Msg, Answered
}

// empty says that the name is there and has nothing of the type (RFC 2308).
func (z *Zone) empty(a *answer) (*dns.Msg, Result) {
	a.Ns = append(a.Ns, z.soa())
	return a.Msg, NoData
}

// label is the first label of a name of the zone, "" for the zone's own name.
func (z *Zone) label(name string) (label string, ours bool) {
	zone := dns.Fqdn(z.Name)
	if name == zone {
		return "", true
	}
	return strings.CutSuffix(name, "."+zone)
}

// nodes are those behind a label, nearest first: the nodes for everybody, for the
// rooms of a target, or a single one by its name.
func (z *Zone) nodes(label string, c *client) (list []Node, there bool) {
	t, named := z.Rooms[label]
	if label == "" || named {
		c.matters = true
		return z.Rank(t, c.where()), true
	}
	n, ok := z.Find(residency.NodeName(label))
	return []Node{n}, ok
}

// choose takes one address of each node in turn, so that who finds the first one
// dead has another node and not another address of the same.
func (z *Zone) choose(nodes []Node, six bool) (chosen []netip.Addr) {
	for _, n := range nodes {
		i := slices.IndexFunc(n.Addrs, func(a netip.Addr) bool { return a.Is6() == six })
		if i >= 0 && len(chosen) < z.Answers {
			chosen = append(chosen, n.Addrs[i])
		}
	}
	return chosen
}

func (z *Zone) header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: uint32(z.TTL / time.Second)}
}

func (z *Zone) record(name string, addr netip.Addr) dns.RR {
	if addr.Is4() {
		return &dns.A{Hdr: z.header(name, dns.TypeA), A: addr.AsSlice()}
	}
	return &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: addr.AsSlice()}
}

// soa has no number that rises: nobody transfers the zone.
func (z *Zone) soa() dns.RR {
	const hour = 3600
	return &dns.SOA{Hdr: z.header(dns.Fqdn(z.Name), dns.TypeSOA), Ns: dns.Fqdn(z.Servers[0]), Mbox: dns.Fqdn("hostmaster." + z.Name),
		Serial: 1, Refresh: hour, Retry: hour, Expire: 24 * hour, Minttl: uint32(z.TTL / time.Second)}
}

// delegate names the zone's servers, with the addresses of those that are nodes.
func (z *Zone) delegate(a *answer) {
	for _, server := range z.Servers {
		fqdn := strings.ToLower(dns.Fqdn(server))
		a.Answer = append(a.Answer, &dns.NS{Hdr: z.header(dns.Fqdn(z.Name), dns.TypeNS), Ns: fqdn})
		label, ours := z.label(fqdn)
		n, ok := z.Find(residency.NodeName(label))
		if !ours || !ok {
			continue
		}
		for _, addr := range n.Addrs {
			a.Extra = append(a.Extra, z.record(fqdn, addr))
		}
	}
}
