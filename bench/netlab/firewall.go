//go:build linux

package netlab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// Hole is what a firewall lets out: packets to one port of one address, and the
// answers to them in.
type Hole struct {
	Network string // "tcp" or "udp"
	To      netip.AddrPort
	// OnlyTLS drops segments that begin with STUN in the clear, as TURN (RFC 8656)
	// and ICE over TCP (RFC 4571) send them: what a firewall that looks for TLS
	// leaves of a port.
	OnlyTLS bool
}

// TCP is a hole for TCP.
func TCP(to netip.AddrPort) Hole { return Hole{Network: "tcp", To: to} }

// UDP is a hole for UDP.
func UDP(to netip.AddrPort) Hole { return Hole{Network: "udp", To: to} }

// Firewall closes the namespace: afterwards only the holes are open. Everything
// is counted. Calling it again replaces the rules and starts the counts anew.
func (l *Lab) Firewall(t testing.TB, holes ...Hole) {
	t.Helper()
	cmd := l.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules(holes))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("netlab: nft: %v\n%s", err, out)
	}
}

// cookie is STUN's (RFC 8489), at the byte of a segment where it stands: after
// type and length, in ICE over TCP after the frame's own length as well.
const cookie = "meta l4proto tcp @ih,%d,32 0x2112a442 counter name dropped_clear drop\n"

func rules(holes []Hole) string {
	var counters, out, in strings.Builder
	for i, h := range holes {
		ip := "ip"
		if h.To.Addr().Is6() {
			ip = "ip6"
		}
		fmt.Fprintf(&counters, "\tcounter out_%d { }\n\tcounter in_%d { }\n", i, i)
		match := fmt.Sprintf("\t\t%s daddr %s %s dport %d ", ip, h.To.Addr(), h.Network, h.To.Port())
		if h.OnlyTLS {
			out.WriteString(match + fmt.Sprintf(cookie, 32) + match + fmt.Sprintf(cookie, 48))
		}
		fmt.Fprintf(&out, "%scounter name out_%d accept\n", match, i)
		fmt.Fprintf(&in, "\t\t%s saddr %s %s sport %d counter name in_%d accept\n", ip, h.To.Addr(), h.Network, h.To.Port(), i)
	}
	return fmt.Sprintf(`table inet lab
delete table inet lab
table inet lab {
	counter dropped_udp { }
	counter dropped_tcp { }
	counter dropped_clear { }
	counter dropped_other { }
	counter dropped_in { }
%s	chain out {
		type filter hook output priority 0; policy drop;
		oifname "lo" accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
%s		meta l4proto udp counter name dropped_udp drop
		meta l4proto tcp counter name dropped_tcp drop
		counter name dropped_other drop
	}
	chain in {
		type filter hook input priority 0; policy drop;
		iifname "lo" accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
%s		counter name dropped_in drop
	}
}
`, &counters, &out, &in)
}

// Traffic is what passed a hole, in bytes of IP packets.
type Traffic struct{ Out, In uint64 }

// Seen is what a firewall has seen: what passed each hole, in the order of
// Firewall's arguments, and how many packets it dropped.
type Seen struct {
	Passed   []Traffic
	UDP, TCP uint64 // on their way out, no hole for them
	Clear    uint64 // on its way out, STUN in the clear in a hole for TLS
	Other    uint64 // on its way out, ICMP and the like
	In       uint64 // on its way in, no answer to anything
}

// Seen reads the firewall's counters.
func (l *Lab) Seen(t testing.TB) Seen {
	t.Helper()
	out, err := l.Command("nft", "-j", "list", "counters", "table", "inet", "lab").Output()
	if err != nil {
		t.Fatalf("netlab: nft: %v", err)
	}
	c, err := parseCounters(out)
	if err != nil {
		t.Fatalf("netlab: nft: %v\n%s", err, out)
	}
	return c
}

func parseCounters(list []byte) (c Seen, err error) {
	type counter struct {
		Name           string
		Packets, Bytes uint64
	}
	var parsed struct {
		Nftables []struct{ Counter counter }
	}
	if err := json.Unmarshal(list, &parsed); err != nil {
		return c, err
	}
	found := map[string]counter{}
	for _, o := range parsed.Nftables {
		found[o.Counter.Name] = o.Counter
	}
	for name, to := range map[string]*uint64{"dropped_udp": &c.UDP, "dropped_tcp": &c.TCP, "dropped_clear": &c.Clear,
		"dropped_other": &c.Other, "dropped_in": &c.In} {
		n, ok := found[name]
		if !ok {
			return c, fmt.Errorf("no counter %q", name)
		}
		*to = n.Packets
	}
	for i := 0; ; i++ {
		out, ok := found[fmt.Sprintf("out_%d", i)]
		if !ok {
			return c, nil
		}
		c.Passed = append(c.Passed, Traffic{Out: out.Bytes, In: found[fmt.Sprintf("in_%d", i)].Bytes})
	}
}
