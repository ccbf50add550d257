package alloc

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// allocate is RFC 8656 section 7.2. What asks for something that this server
// does not have is told so before anything is counted.
func (t *Table) allocate(x *Exchange, a *Allocation, now time.Time) Reason {
	r := &x.req
	if a != nil {
		if a.transaction == r.transaction {
			return Granted // the answer was lost: once more
		}
		return Occupied
	}
	switch {
	case r.transport == nil:
		return BadRequest
	case r.transport[0] != protocolUDP:
		return NotUDP
	case r.evenPort || r.reservation:
		return EvenPort
	}
	ip, ok := t.family(r)
	if !ok {
		return WrongFamily
	}
	if why := t.room(x); why != Granted {
		return why
	}
	relayed, ok := t.address(ip)
	if !ok {
		return NodeFull
	}
	a = &Allocation{Flow: x.Flow, Session: x.claims.Session, Relayed: relayed, transaction: r.transaction, ends: now.Add(Lifetime)}
	t.flows[a.Flow] = a
	t.sessions[a.Session] = append(t.sessions[a.Session], a)
	t.sources[a.Flow.Source()]++
	t.relayed[a.Relayed] = struct{}{}
	a.due = a.ends
	heap.Push(&t.due, a)
	t.events = append(t.events, Event{Kind: Opened, Allocation: a})
	return Granted
}

// family is the address that relayed ones look like. A client that names no family
// gets IPv4 (RFC 8656 section 7.2), or IPv6 where there is nothing else: browsers
// name none.
func (t *Table) family(r *request) (netip.Addr, bool) {
	if r.family != nil {
		return t.peers.relayed(r.family[0])
	}
	if ip, ok := t.peers.relayed(familyIPv4); ok {
		return ip, true
	}
	return t.peers.relayed(familyIPv6)
}

// room tells whether the limits leave room for one more.
func (t *Table) room(x *Exchange) Reason {
	switch {
	case len(t.flows) >= t.limits.PerNode:
		return NodeFull
	case len(t.sessions[x.claims.Session]) >= t.limits.PerSession:
		return SessionFull
	case t.sources[x.Flow.Source()] >= t.limits.PerSource:
		return SourceFull
	}
	return Granted
}

// address is a relayed address that nobody has, no endpoint either. The step
// shares no factor with the number of ports and so visits them all.
func (t *Table) address(ip netip.Addr) (netip.AddrPort, bool) {
	for range numPorts {
		t.port = (t.port + 20011) % numPorts
		a := netip.AddrPortFrom(ip, uint16(firstPort+t.port))
		if _, taken := t.relayed[a]; !taken && !t.peers.has(a) {
			return a, true
		}
	}
	return netip.AddrPort{}, false
}

// refresh is section 8.2.
func (t *Table) refresh(r *request, a *Allocation, now time.Time) Reason {
	if r.family != nil && r.family[0] != familyOf(a.Relayed.Addr()) {
		return WrongFamily
	}
	if r.asked() == 0 {
		t.end(a)
		return Granted
	}
	a.ends = now.Add(Lifetime)
	return Granted
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

// permit is section 10.2: all of the addresses, or none.
func (t *Table) permit(r *request, a *Allocation, now time.Time) Reason {
	if r.numPeers == 0 || r.badPeer {
		return BadRequest
	}
	peers := r.peers[:r.numPeers]
	for _, p := range peers {
		if familyOf(p.Addr()) != familyOf(a.Relayed.Addr()) {
			return WrongFamily
		}
		if !t.peers.permits(p.Addr()) {
			return NoPeer
		}
	}
	for _, p := range peers {
		a.allow(p.Addr(), now)
	}
	t.hasten(a)
	return Granted
}

func (a *Allocation) allow(addr netip.Addr, now time.Time) {
	ends := now.Add(PermissionLife)
	for i := range a.permits {
		if a.permits[i].addr == addr {
			a.permits[i].ends = ends
			return
		}
	}
	a.permits = append(a.permits, permit{addr, ends})
}

// bind is section 12.2. The port counts here: a channel leads to one endpoint.
func (t *Table) bind(r *request, a *Allocation, now time.Time) Reason {
	if r.channel == nil || r.numPeers != 1 || r.badPeer {
		return BadRequest
	}
	number, peer := binary.BigEndian.Uint16(r.channel), r.peers[0]
	if number < MinChannel || number > MaxChannel {
		return BadChannel
	}
	if familyOf(peer.Addr()) != familyOf(a.Relayed.Addr()) {
		return WrongFamily
	}
	if !t.peers.has(peer) {
		return NoPeer
	}
	for i := range a.channels {
		c := &a.channels[i]
		if (c.number == number) != (c.peer == peer) {
			return BadChannel
		}
		if c.number == number {
			c.ends = now.Add(ChannelLife)
			a.allow(peer.Addr(), now)
			t.hasten(a)
			return Granted
		}
	}
	a.channels = append(a.channels, channel{number, peer, now.Add(ChannelLife)})
	a.allow(peer.Addr(), now)
	t.hasten(a)
	t.events = append(t.events, Event{Kind: Bound, Allocation: a, Peer: peer, Number: number})
	return Granted
}

func (a *Allocation) permitted(addr netip.Addr) bool {
	return slices.ContainsFunc(a.permits, func(p permit) bool { return p.addr == addr })
}

// Permits decides about a Send indication (section 11.2): where its payload may
// go, and for whom. The payload is valid until the Exchange is used again.
func (t *Table) Permits(x *Exchange) (a *Allocation, peer netip.AddrPort, payload []byte, why Reason) {
	a, peer = t.flows[x.Flow], x.req.peers[0]
	switch {
	case a == nil:
		return nil, peer, nil, NoAllocation
	case !t.peers.has(peer):
		return nil, peer, nil, NotToEndpoint
	case !a.permitted(peer.Addr()):
		return nil, peer, nil, NotAllowed
	}
	return a, peer, x.req.data, Granted
}
