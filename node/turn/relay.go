package turn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// peerTable is the allow-list: the media endpoints of this node, both ways.
type peerTable struct {
	byAdvertised map[netip.AddrPort]netip.AddrPort
	byLocal      map[netip.AddrPort]*net.UDPAddr
	addrs        map[netip.Addr]bool
	first        netip.Addr
}

func newPeerTable(peers []Peer) (*peerTable, error) {
	if len(peers) == 0 {
		return nil, errors.New("no peers: a relay that reaches nothing")
	}
	t := &peerTable{
		byAdvertised: map[netip.AddrPort]netip.AddrPort{},
		byLocal:      map[netip.AddrPort]*net.UDPAddr{},
		addrs:        map[netip.Addr]bool{},
	}
	for _, p := range peers {
		if !p.Local.IsValid() {
			p.Local = p.Advertised
		}
		if err := t.add(p); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *peerTable) add(p Peer) error {
	for _, a := range []netip.AddrPort{p.Advertised, p.Local} {
		if !a.IsValid() || !a.Addr().Is4() || a.Addr().IsUnspecified() || a.Addr().IsMulticast() || a.Port() == 0 {
			return fmt.Errorf("peer %q: want the IPv4 address and port of a media endpoint", a)
		}
	}
	if _, ok := t.byAdvertised[p.Advertised]; ok {
		return fmt.Errorf("peer %q: named twice", p.Advertised)
	}
	if _, ok := t.byLocal[p.Local]; ok {
		return fmt.Errorf("peer %q: two advertised addresses for one endpoint", p.Local)
	}
	if !t.first.IsValid() {
		t.first = p.Local.Addr()
	}
	t.byAdvertised[p.Advertised] = p.Local
	t.byLocal[p.Local] = net.UDPAddrFromAddrPort(p.Advertised)
	t.addrs[p.Advertised.Addr()] = true
	return nil
}

// bindIP is the address of the relay sockets: that of a media endpoint. The
// packets between them never leave the host, and one from elsewhere cannot
// have our own address as its source (the kernel drops it as a martian).
func (t *peerTable) bindIP() netip.Addr { return t.first }

func (t *peerTable) permits(a netip.Addr) bool { return t.addrs[a] }

func (t *peerTable) to(advertised netip.AddrPort) (netip.AddrPort, bool) {
	local, ok := t.byAdvertised[advertised]
	return local, ok
}

func (t *peerTable) from(local netip.AddrPort) (*net.UDPAddr, bool) {
	a, ok := t.byLocal[local]
	return a, ok
}

// relay is the socket of one allocation. It passes packets to and from the
// peers and drops all others; that is the last and the only decisive check.
type relay struct {
	sock     *net.UDPConn
	peers    reach
	up, down *rate.Limiter // to the peers, to the client
	counts   *counters

	once sync.Once
	gone func() // called once, when nobody reads the socket any more
}

func (s *Server) newRelay(gone func()) (*relay, error) {
	sock, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.bindIP, 0)))
	if err != nil {
		return nil, fmt.Errorf("relay socket: %w", err)
	}
	return &relay{sock: sock, peers: s.peers, up: s.limiter(), down: s.limiter(), counts: &s.counts, gone: gone}, nil
}

// WriteTo sends a packet of the client to a peer. What may not pass is dropped
// as a network would drop it, without an error.
func (r *relay) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, fmt.Errorf("relay to %T: want a UDP address", addr)
	}
	local, ok := r.peers.to(udp.AddrPort())
	switch {
	case !ok:
		r.counts.notPeer.Add(1)
	case !r.up.AllowN(time.Now(), len(b)):
		r.counts.overRate.Add(1)
	default:
		r.counts.up.Add(1)
		return r.sock.WriteToUDPAddrPort(b, local)
	}
	return len(b), nil
}

// ReadFrom waits for the next packet of a peer.
func (r *relay) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, src, err := r.sock.ReadFromUDPAddrPort(b)
		if err != nil {
			r.once.Do(r.gone)
			return 0, nil, err
		}
		advertised, ok := r.peers.from(src)
		switch {
		case !ok:
			r.counts.notFromPeer.Add(1)
		case !r.down.AllowN(time.Now(), n):
			r.counts.overRate.Add(1)
		default:
			r.counts.down.Add(1)
			return n, advertised, nil
		}
	}
}

func (r *relay) Close() error {
	if err := r.sock.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (r *relay) LocalAddr() net.Addr                { return r.sock.LocalAddr() }
func (r *relay) SetDeadline(t time.Time) error      { return r.sock.SetDeadline(t) }
func (r *relay) SetReadDeadline(t time.Time) error  { return r.sock.SetReadDeadline(t) }
func (r *relay) SetWriteDeadline(t time.Time) error { return r.sock.SetWriteDeadline(t) }

// Stats are counts since the start, and the gauges Connections and Allocations.
type Stats struct {
	Connections int
	Allocations int

	Allocated uint64 // allocations made
	OverQuota uint64 // allocations refused: quota
	Refused   uint64 // messages refused before pion saw them (inspect)
	Up, Down  uint64 // packets relayed to and from the peers

	// Dropped packets, by reason.
	NotPeer     uint64 // to an address that is no peer
	NotFromPeer uint64 // from an address that is no peer
	OverRate    uint64 // beyond the bandwidth cap
}

type counters struct {
	allocated, overQuota, refused, up, down, notPeer, notFromPeer, overRate atomic.Uint64
}

// Stats returns the counts at this moment.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	connections, allocations := len(s.clients), s.holding
	s.mu.Unlock()
	c := &s.counts
	return Stats{
		Connections: connections, Allocations: allocations,
		Allocated: c.allocated.Load(), OverQuota: c.overQuota.Load(), Refused: c.refused.Load(),
		Up: c.up.Load(), Down: c.down.Load(),
		NotPeer: c.notPeer.Load(), NotFromPeer: c.notFromPeer.Load(), OverRate: c.overRate.Load(),
	}
}
