package geo

import (
	"net/http"
	"net/netip"
	"strings"
)

// ClientAddr returns the address that a request came from. X-Forwarded-For is
// heard only if the connection itself comes from a trusted proxy, and then from
// the right: each trusted proxy vouches for the entry to its left, and the first
// address that is not a trusted proxy is the client. Entries left of it may be
// made up by anyone. An entry that is no address gives the zero Addr: somebody
// we trust says nothing we understand, so the client is unknown.
func ClientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	addr := parseHop(r.RemoteAddr)
	hops := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
	for hops != "" && addr.IsValid() && contains(trusted, addr) {
		i := strings.LastIndexByte(hops, ',')
		addr = parseHop(hops[i+1:])
		hops = hops[:max(i, 0)]
	}
	return addr
}

// parseHop takes an address with or without a port, IPv6 with or without
// brackets, and drops zones and the IPv4-in-IPv6 form.
func parseHop(s string) netip.Addr {
	s = strings.TrimSpace(s)
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		s = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
