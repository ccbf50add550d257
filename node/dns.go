package node

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/node/names"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// DNS says for which zone the node answers, and how. Without Listen it answers for none.
type DNS struct {
	Listen    netip.AddrPort // UDP and TCP
	Zone      string
	Servers   []string
	Rooms     map[string]names.Target
	Answers   int
	TTL       time.Duration
	Addresses map[residency.NodeName][]netip.Addr // of nodes whose attendees reach them elsewhere than other nodes do
}

const (
	// checkEvery is how often it is looked whether the front doors of the nodes that
	// are named answer. A node that is dead is noticed sooner, by its link.
	checkEvery   = 5 * time.Second
	checkTimeout = 2 * time.Second

	socketDNS    = "dns"     // the UDP socket, when it is handed on
	socketDNSTCP = "dns_tcp" // the TCP socket
)

// openDNS binds the sockets.
func (n *Node) openDNS() error {
	cfg := n.cfg.DNS
	if !cfg.Listen.IsValid() {
		return nil
	}
	given, err := n.cfg.Sockets.Packets(socketDNS, cfg.Listen)
	if err != nil {
		return err
	}
	var packets *net.UDPConn
	if len(given) > 0 {
		packets = given[0]
	} else if packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Listen)); err != nil {
		return err
	}
	streams, err := n.cfg.Sockets.Listen(socketDNSTCP, cfg.Listen)
	if err != nil {
		packets.Close()
		return err
	}
	if f, err := packets.File(); err == nil {
		n.cfg.Sockets.Keep(socketDNS, []*os.File{f})
	}
	zone := &names.Zone{Name: cfg.Zone, Servers: cfg.Servers, Rooms: cfg.Rooms, Answers: cfg.Answers, TTL: cfg.TTL, Rank: n.nearest, Find: n.named}
	n.names = names.NewServer(zone, packets, streams, n.log)
	return nil
}

// nearest are the nodes that may serve somebody from an address in the rooms of a
// target, nearest first, without those whose front door does not answer.
func (n *Node) nearest(t names.Target, from netip.Addr) []names.Node {
	p := n.place(room.Record{Tenant: t.Tenant, Policy: t.Policy}, n.geo.Attendee(from), seat{})
	list := n.candidates()
	var nodes []names.Node
	for _, r := range p.Ranked {
		i := slices.IndexFunc(list, func(c router.Candidate) bool { return c.Node.Name == r.Node })
		if r.Allowed && i >= 0 {
			nodes = append(nodes, names.Node{Name: r.Node, Addrs: n.attendeeAddrs(list[i])})
		}
	}
	return n.health.Well(nodes)
}

// named finds one node, whether or not it may serve anybody.
func (n *Node) named(name residency.NodeName) (names.Node, bool) {
	for _, c := range n.candidates() {
		if c.Node.Name == name {
			return names.Node{Name: name, Addrs: n.attendeeAddrs(c)}, true
		}
	}
	return names.Node{}, false
}

// attendeeAddrs are the addresses at which attendees reach a node: as configured,
// as its public URL says them, or else where other nodes reach it.
func (n *Node) attendeeAddrs(c router.Candidate) []netip.Addr {
	if a := n.cfg.DNS.Addresses[c.Node.Name]; len(a) > 0 {
		return a
	}
	if u, err := url.Parse(c.URL); err == nil {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			return []netip.Addr{a.Unmap()}
		}
	}
	relayAddr := n.claim().RelayAddr
	if !c.Local {
		m, _ := n.mesh.Snapshot().Member(c.Node.Name)
		relayAddr = m.RelayAddr
	}
	if a := relayAddr.Addr().Unmap(); a.IsValid() && !a.IsUnspecified() {
		return []netip.Addr{a}
	}
	return nil
}

// runDNS answers, and looks after the nodes that it names.
func (n *Node) runDNS(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var checks sync.WaitGroup
	checks.Go(func() { n.checkFronts(ctx) })
	defer checks.Wait()
	defer stop()
	return n.names.Run(ctx)
}

func (n *Node) checkFronts(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		n.checkFrontsOnce(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// checkFrontsOnce opens a connection to each node's front door, all at once, and
// returns when all have answered or not.
func (n *Node) checkFrontsOnce(ctx context.Context) {
	type check struct {
		addr netip.Addr
		well bool
	}
	done := make(chan check)
	var all []netip.Addr
	for _, c := range n.candidates() {
		port := frontPort(c.URL)
		for _, a := range n.attendeeAddrs(c) {
			if slices.Contains(all, a) {
				continue
			}
			all = append(all, a)
			go func() {
				d := net.Dialer{Timeout: checkTimeout}
				conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
				if err == nil {
					conn.Close()
				}
				done <- check{a, err == nil}
			}()
		}
	}
	for range all {
		if c := <-done; ctx.Err() == nil {
			n.health.Note(c.addr, c.well)
		}
	}
	n.health.Keep(all)
}

// frontPort is the port of a public URL.
func frontPort(s string) uint16 {
	const https = 443
	u, err := url.Parse(s)
	if err != nil {
		return https
	}
	p, err := netip.ParseAddrPort("0.0.0.0:" + u.Port())
	if err != nil {
		return https
	}
	return p.Port()
}
