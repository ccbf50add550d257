package turn

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn/alloc"
)

// via is how a message came: one of the two.
type via struct {
	tuple  transport.Tuple
	client *client // a stream's
}

// route leads to one endpoint, through a channel if it has a number.
type route struct {
	peer   netip.AddrPort
	number uint16
	tunnel *transport.Tunnel
}

// carrier carries one allocation's packets: a tunnel for each endpoint that the
// client has addressed, since an answer has to come from where the question went.
type carrier struct {
	// Static after construction.
	allocation *alloc.Allocation
	via        via

	// routes is replaced as a whole under Server.mu, and read by the stream's reader.
	routes atomic.Pointer[[]route]

	// Guarded by Server.mu.
	first *transport.Tunnel // whose counts and bound all share
}

func (c *carrier) all() []route { return *c.routes.Load() }

func (c *carrier) find(match func(route) bool) (route, bool) {
	routes := c.all()
	if i := slices.IndexFunc(routes, match); i >= 0 {
		return routes[i], true
	}
	return route{}, false
}

func (c *carrier) to(peer netip.AddrPort) (route, bool) {
	return c.find(func(r route) bool { return r.peer == peer })
}

// channel is the tunnel of a channel, or nil. It is on a stream's way in.
func (c *carrier) channel(number uint16) *transport.Tunnel {
	for _, r := range c.all() {
		if r.number == number {
			return r.tunnel
		}
	}
	return nil
}

func (c *carrier) wrap(peer netip.AddrPort, number uint16) transport.Wrap {
	if number == 0 {
		return transport.WrapData(peer)
	}
	return transport.WrapChannel(number, c.via.client != nil)
}

// follow does what the events say, in their order, and returns the allocations
// that have ended. mu is held; tunnels are closed without it, by shut.
func (s *Server) follow(events []alloc.Event, from via) (ended []*carrier) {
	for _, e := range events {
		c := s.carriers[e.Allocation]
		switch e.Kind {
		case alloc.Opened:
			c = &carrier{allocation: e.Allocation, via: from}
			c.routes.Store(&[]route{})
			s.carriers[e.Allocation] = c
			if from.client != nil {
				from.client.carrier.Store(c)
			}
		case alloc.Bound:
			s.route(c, e.Peer, e.Number)
		case alloc.Unbound:
			if e.Permitted {
				s.route(c, e.Peer, 0)
			} else {
				s.unroute(c, func(r route) bool { return r.peer == e.Peer })
			}
		case alloc.Lapsed:
			s.unroute(c, func(r route) bool { return r.number == 0 && r.peer.Addr() == e.Peer.Addr() })
		case alloc.Ended:
			delete(s.carriers, e.Allocation)
			s.past.add(c)
			ended = append(ended, c)
		}
	}
	return ended
}

// route makes a tunnel to an endpoint, or changes the channel of the one there is.
func (s *Server) route(c *carrier, peer netip.AddrPort, number uint16) *transport.Tunnel {
	routes := slices.Clone(c.all())
	i := slices.IndexFunc(routes, func(r route) bool { return r.peer == peer })
	if i < 0 {
		t, err := s.open(c, peer, number)
		if err != nil { // only an engine that is closed
			s.cfg.Log.Debug("no tunnel for an allocation", "error", err)
			return nil
		}
		i, routes = len(routes), append(routes, route{peer: peer, tunnel: t})
	}
	routes[i].number = number
	routes[i].tunnel.SetWrap(c.wrap(peer, number))
	c.routes.Store(&routes)
	return routes[i].tunnel
}

func (s *Server) open(c *carrier, peer netip.AddrPort, number uint16) (*transport.Tunnel, error) {
	cfg := transport.TunnelConfig{
		Client: c.allocation.Relayed, Owner: owner(c.allocation.Session),
		Wrap: c.wrap(peer, number), Bandwidth: s.cfg.Bandwidth, Tuple: c.via.tuple,
	}
	if c.via.client != nil {
		cfg.Stream = c.via.client.conn
	}
	cfg.With = c.first
	if s.unowned {
		cfg.Owner = ""
	}
	t, err := s.engine.OpenTunnel(cfg)
	if err == nil && c.first == nil {
		c.first = t
	}
	return t, err
}

// unroute closes tunnels that lead nowhere any more. Closing one takes the
// engine's lock for a moment, no more.
func (s *Server) unroute(c *carrier, gone func(route) bool) {
	var rest []route
	for _, r := range c.all() {
		if !gone(r) {
			rest = append(rest, r)
			continue
		}
		r.tunnel.Close()
	}
	c.routes.Store(&rest)
}

// shut closes the tunnels of allocations that have ended: nothing passes any
// more when it returns.
func (s *Server) shut(ended []*carrier) {
	for _, c := range ended {
		for _, r := range c.all() {
			r.tunnel.Close()
		}
		if c.via.client != nil {
			c.via.client.carrier.CompareAndSwap(c, nil)
		}
	}
}

// cut is shut, and ends the streams too: their clients did not want the end.
func (s *Server) cut(ended []*carrier) {
	s.shut(ended)
	for _, c := range ended {
		if c.via.client != nil {
			_ = c.via.client.conn.Cut()
		}
	}
}
