package front

import (
	"net"
	"net/netip"
	"sync"

	"github.com/domicile/domicile/node/front/admission"
	"github.com/domicile/domicile/node/stream"
)

// conn is a connection from accept to close: it knows whose it is, and is
// counted out once, whoever closes it.
//
//	socket → stream.Conn → conn → peekedConn → tls.Conn, where there is TLS
type conn struct {
	net.Conn // base
	base     *stream.Conn
	client   net.Addr // not the proxy's, where a proxy stands in front
	ticket   *admission.Ticket
	set      *connSet
}

// RemoteAddr is the client's address.
func (c *conn) RemoteAddr() net.Addr { return c.client }

// Close closes the connection and counts it out.
func (c *conn) Close() error {
	c.set.remove(c)
	c.ticket.Leave()
	return c.Conn.Close()
}

// connSet knows the open connections, so that shutdown can end those that
// http.Server forgets: hijacked ones, TURN, ICE.
type connSet struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

func newConnSet() *connSet { return &connSet{open: map[*conn]struct{}{}} }

// add takes an accepted connection into the set; after closeAll it closes it instead.
func (s *connSet) add(c net.Conn, ticket *admission.Ticket) (*conn, bool) {
	base := stream.New(c)
	t := &conn{Conn: base, base: base, client: c.RemoteAddr(), ticket: ticket, set: s}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open[t] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		t.Close()
	}
	return t, !closed
}

func (s *connSet) remove(t *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, t)
}

func (s *connSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *connSet) closeAll() {
	s.mu.Lock()
	s.closed = true
	open := make([]*conn, 0, len(s.open))
	for t := range s.open {
		open = append(open, t)
	}
	s.mu.Unlock()
	for _, t := range open {
		t.Close()
	}
}

// addrOf is the IP address of a network address, the zero one if it has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
