package alloc

import (
	"fmt"
	"net/netip"
)

// Endpoints are the addresses at which attendees are told to find this node's
// media, and all that an allocation reaches. An allow-list of addresses with
// their ports, compared as they are: what is not on it needs no name, and no
// other spelling of an address is equal to one that is.
type Endpoints struct {
	addrs map[netip.Addr]bool
	all   map[netip.AddrPort]bool
	first map[byte]netip.Addr // by family: what relayed addresses look like
}

// NewEndpoints checks the addresses. None is fine, and leads nowhere.
func NewEndpoints(peers []netip.AddrPort) (*Endpoints, error) {
	e := &Endpoints{addrs: map[netip.Addr]bool{}, all: map[netip.AddrPort]bool{}, first: map[byte]netip.Addr{}}
	for _, p := range peers {
		a := p.Addr()
		if !p.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || p.Port() == 0 {
			return nil, fmt.Errorf("peer %q: want the address and port of a media endpoint", p)
		}
		if e.all[p] {
			return nil, fmt.Errorf("peer %q: named twice", p)
		}
		e.all[p], e.addrs[a] = true, true
		if _, ok := e.first[familyOf(a)]; !ok {
			e.first[familyOf(a)] = a
		}
	}
	return e, nil
}

func (e *Endpoints) permits(a netip.Addr) bool { return e.addrs[a] }

func (e *Endpoints) has(p netip.AddrPort) bool { return e.all[p] }

func (e *Endpoints) relayed(family byte) (netip.Addr, bool) {
	a, ok := e.first[family]
	return a, ok
}
