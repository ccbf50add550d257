package transport

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// sockname is a client's address as the kernel gives it and wants it back, so
// that the way in and out needs no conversion:
//
//	0       2       4               8                        24      28
//	| family| port  | IPv4 address  | 0                      | 0     |
//	| family| port  | flow label    | IPv6 address           | scope |
//
// The family is in the machine's order, port and addresses in the network's.
type sockname [28]byte

const (
	family4, len4 = 2, 16  // AF_INET
	family6, len6 = 10, 28 // AF_INET6 of Linux; elsewhere it is only our own mark
)

func nameOf(a netip.AddrPort) (n sockname) {
	binary.BigEndian.PutUint16(n[2:], a.Port())
	if a.Addr().Is4() {
		binary.NativeEndian.PutUint16(n[:], family4)
		ip := a.Addr().As4()
		copy(n[4:], ip[:])
		return n
	}
	binary.NativeEndian.PutUint16(n[:], family6)
	ip := a.Addr().As16()
	copy(n[8:], ip[:])
	return n
}

func (n *sockname) len() uint32 {
	if binary.NativeEndian.Uint16(n[:]) == family4 {
		return len4
	}
	return len6
}

// addrPort is the address as the client would write it: IPv4 stays IPv4 when it
// came through a socket for both.
func (n *sockname) addrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(n[2:])
	if n.len() == len4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(n[4:8])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(n[8:24])).Unmap(), port)
}

// Candidate is an address at which clients reach the node, always of type host.
type Candidate struct {
	Foundation string
	Priority   uint32
	Addr       netip.AddrPort
	TCP        bool // passive: the client connects (RFC 6544)
}

// String is the value of a=candidate (RFC 8839 section 5.1, RFC 6544 section 4.5).
func (c Candidate) String() string {
	if c.TCP {
		return fmt.Sprintf("%s 1 tcp %d %s %d typ host tcptype passive", c.Foundation, c.Priority, c.Addr.Addr(), c.Addr.Port())
	}
	return fmt.Sprintf("%s 1 udp %d %s %d typ host", c.Foundation, c.Priority, c.Addr.Addr(), c.Addr.Port())
}

// hostPriority is RFC 8445 section 5.1.2.1 for a host candidate of component 1;
// what stands first in the configuration is preferred.
func hostPriority(index int) uint32 {
	const hostType, component = 126, 1
	return hostType<<24 | uint32(65535-min(index, 65535))<<8 | (256 - component)
}

func (e *Engine) findCandidates() {
	var own []netip.Addr
	udp, tcp := e.MediaAddrs(), *e.tcp.Load()
	for _, a := range slices.Concat(udp, tcp) {
		if a.Addr().IsUnspecified() && own == nil {
			own = ownAddrs()
		}
	}
	found := hostCandidates(udp, e.cfg.PublicIPs, own)
	for i, c := range hostCandidates(tcp, e.cfg.PublicIPs, own) {
		c.Foundation, c.Priority, c.TCP = fmt.Sprint(len(found)+1), tcpPriority(i), true
		found = append(found, c)
	}
	e.candidates.Store(&found)
}

// Candidates are what clients are told, in order. They must not be changed.
func (e *Engine) Candidates() []Candidate { return *e.candidates.Load() }

// SetTCP says at which addresses clients reach ServeTCP from now on.
func (e *Engine) SetTCP(addrs []netip.AddrPort) {
	e.tcp.Store(&addrs)
	e.findCandidates()
}

// tcpPriority puts ICE-TCP behind TURN over UDP and before TURN over TLS. A pair
// counts by the lower of its two priorities (RFC 8445 section 6.1.2.3), and there
// browsers' relayed candidates have type preferences of 2 (UDP), 1 (TCP) and 0 (TLS):
// so ours is just below the lowest of the first.
func tcpPriority(index int) uint32 {
	const belowRelayedUDP = 2<<24 - 1
	return belowRelayedUDP - uint32(min(index, 255))
}

// hostCandidates are the addresses to tell clients: of each bound address the
// public ones of its family, else itself, else (unspecified) the machine's own.
func hostCandidates(bound []netip.AddrPort, public, own []netip.Addr) []Candidate {
	var addrs []netip.AddrPort
	for _, b := range bound {
		family := func(a netip.Addr) bool {
			return a.Is4() == b.Addr().Is4() || (a.Is4() && b.Addr() == netip.IPv6Unspecified())
		}
		use := filter(public, family)
		if len(use) == 0 && b.Addr().IsUnspecified() {
			use = filter(own, family)
		} else if len(use) == 0 {
			use = []netip.Addr{b.Addr()}
		}
		for _, a := range use {
			if ap := netip.AddrPortFrom(a, b.Port()); !slices.Contains(addrs, ap) {
				addrs = append(addrs, ap)
			}
		}
	}
	found := make([]Candidate, len(addrs))
	for i, a := range addrs {
		found[i] = Candidate{Foundation: fmt.Sprint(i + 1), Priority: hostPriority(i), Addr: a}
	}
	return found
}

func filter(addrs []netip.Addr, keep func(netip.Addr) bool) []netip.Addr {
	var kept []netip.Addr
	for _, a := range addrs {
		if keep(a) {
			kept = append(kept, a)
		}
	}
	return kept
}

// ownAddrs are the addresses of the machine's interfaces, loopback last: it
// reaches nobody but clients on the machine itself.
func ownAddrs() []netip.Addr {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var addrs, loopback []netip.Addr
	for _, f := range found {
		prefix, err := netip.ParsePrefix(f.String())
		switch addr := prefix.Addr().Unmap(); {
		case err != nil, addr.IsLinkLocalUnicast(), addr.IsMulticast():
		case addr.IsLoopback():
			loopback = append(loopback, addr)
		default:
			addrs = append(addrs, addr)
		}
	}
	return append(addrs, loopback...)
}
