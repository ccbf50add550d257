package front

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Stats are counts since the start, and the gauges Open and Pending.
type Stats struct {
	Accepted  uint64 // TCP connections
	Refused   uint64 // closed at once: too many half-open
	Failed    uint64 // budget used up, handshake failed, or none of our protocols
	PlainHTTP uint64 // of those, HTTP on the TLS port
	HTTP      uint64 // handed to the HTTP server
	TURN      uint64
	ICE       uint64
	Open      int // connections that exist now, whatever they speak
	Pending   int // of those, inside their budget
}

type counters struct {
	accepted, refused, failed, plainHTTP, http, turn, ice atomic.Uint64
}

// Stats returns the counts at this moment.
func (f *Front) Stats() Stats {
	c := &f.counts
	return Stats{
		Accepted: c.accepted.Load(), Refused: c.refused.Load(), Failed: c.failed.Load(),
		PlainHTTP: c.plainHTTP.Load(), HTTP: c.http.Load(), TURN: c.turn.Load(), ICE: c.ice.Load(),
		Open: f.conns.len(), Pending: f.pending.len(),
	}
}

// limiter bounds half-open connections, in all and for one source.
type limiter struct {
	max, maxPerSource int

	mu      sync.Mutex
	total   int
	sources map[netip.Prefix]int
}

func newLimiter(max, perSource int) *limiter {
	return &limiter{max: max, maxPerSource: perSource, sources: map[netip.Prefix]int{}}
}

// enter counts a connection in, unless a bound is reached; release counts it out.
func (l *limiter) enter(remote net.Addr) (release func(), ok bool) {
	src := source(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.max || l.sources[src] >= l.maxPerSource {
		return nil, false
	}
	l.total++
	l.sources[src]++
	return func() { l.leave(src) }, true
}

func (l *limiter) leave(src netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.sources[src]--; l.sources[src] == 0 {
		delete(l.sources, src)
	}
}

func (l *limiter) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// source is what counts as one source: an IPv4 address or an IPv6 /64, which is
// what one subscriber line has. Addresses of no IP network share one source.
func source(remote net.Addr) netip.Prefix {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits) // fails for no valid address, and then is the zero prefix
	return p
}

// connSet knows the open connections, so that shutdown can end those that
// http.Server forgets: hijacked ones, TURN, ICE.
type connSet struct {
	mu     sync.Mutex
	open   map[*trackedConn]struct{}
	closed bool
}

func newConnSet() *connSet { return &connSet{open: map[*trackedConn]struct{}{}} }

// add takes a connection into the set; after closeAll it closes it instead.
func (s *connSet) add(c net.Conn) (net.Conn, bool) {
	t := &trackedConn{Conn: c, set: s}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open[t] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		c.Close()
	}
	return t, !closed
}

func (s *connSet) remove(t *trackedConn) {
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
	open := make([]*trackedConn, 0, len(s.open))
	for t := range s.open {
		open = append(open, t)
	}
	s.mu.Unlock()
	for _, t := range open {
		t.Close()
	}
}

// listener returns a listener whose connections are in the set.
func (s *connSet) listener(l net.Listener) net.Listener { return &trackedListener{Listener: l, set: s} }

type trackedListener struct {
	net.Listener
	set *connSet
}

func (l *trackedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t, ok := l.set.add(c)
	if !ok {
		return nil, net.ErrClosed
	}
	return t, nil
}

type trackedConn struct {
	net.Conn
	set *connSet
}

func (t *trackedConn) Close() error {
	t.set.remove(t)
	return t.Conn.Close()
}
