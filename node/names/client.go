package names

import (
	"net/netip"

	"github.com/miekg/dns"
)

// client is what is known of where an answer is to be near: the network that the
// resolver states for its client (RFC 7871), or else the resolver itself.
type client struct {
	addr    netip.Addr // of the resolver
	subnet  netip.Prefix
	option  *dns.EDNS0_SUBNET // of the answer, nil if the question had none
	matters bool              // the answer depends on it
}

// where is the address to be near to. A network that is too large to be anywhere,
// or that its client wants to keep to itself (length 0), leaves the resolver's.
func (c *client) where() netip.Addr {
	least := least6
	if c.subnet.Addr().Is4() {
		least = least4
	}
	if c.subnet.IsValid() && c.subnet.Bits() >= least {
		return c.subnet.Addr()
	}
	return c.addr
}

// extend answers the extensions of a question (RFC 6891): a code that is not
// success ends it.
func (a *answer) extend(opt *dns.OPT) (code int) {
	if opt == nil {
		return dns.RcodeSuccess
	}
	a.SetEdns0(maxUDP, false)
	if opt.Version() != 0 {
		return dns.RcodeBadVers
	}
	for _, o := range opt.Option {
		s, ok := o.(*dns.EDNS0_SUBNET)
		if !ok {
			continue // RFC 6891 section 6.1.2: what is not known is ignored
		}
		if a.client.option != nil {
			return dns.RcodeFormatError
		}
		p, ok := subnet(s)
		if !ok {
			return dns.RcodeFormatError // RFC 7871 section 7.1.2
		}
		a.client.subnet = p
		a.client.option = &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: s.Family, SourceNetmask: s.SourceNetmask, Address: s.Address}
		reply := a.IsEdns0()
		reply.Option = append(reply.Option, a.client.option)
	}
	return dns.RcodeSuccess
}

// subnet reads the option. The zero Prefix is a client that says nothing.
func subnet(s *dns.EDNS0_SUBNET) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(s.Address)
	switch {
	case s.SourceScope != 0:
		return netip.Prefix{}, false
	case s.Family == 0 && s.SourceNetmask == 0:
		return netip.Prefix{}, true
	case !ok:
		return netip.Prefix{}, false
	}
	if s.Family == 1 {
		addr = addr.Unmap()
	}
	bits := int(s.SourceNetmask)
	if s.Family != 1 && s.Family != 2 || s.Family == 1 != addr.Is4() || bits > addr.BitLen() {
		return netip.Prefix{}, false
	}
	if bits == 0 {
		return netip.Prefix{}, true
	}
	p := netip.PrefixFrom(addr, bits)
	return p, p.Masked().Addr() == addr // bits beyond the network must be 0
}

// scope says for which networks the answer holds, so that resolvers keep it for no
// others (RFC 7871 section 7.2.1).
func (a *answer) scope() {
	if a.client.option == nil || !a.client.matters || a.client.where() == a.client.addr {
		return
	}
	limit := scope6
	if a.client.option.Family == 1 {
		limit = scope4
	}
	a.client.option.SourceScope = uint8(min(a.client.subnet.Bits(), limit))
}
