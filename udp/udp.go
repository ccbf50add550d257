// Package udp hands many datagrams to the kernel in one call and takes many from
// it: sendmmsg with UDP_SEGMENT, recvmmsg with UDP_GRO, where there are such, and
// one by one elsewhere. It carries bytes between two addresses. It seals nothing,
// remembers nobody and never waits to send: what the socket's buffer does not take
// is dropped, and the caller is told how much.
package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// socketBuffer is asked for, in bytes: 160 ms at 200 Mbit/s, so that a pause of
	// the scheduler loses nothing. The kernel may grant less.
	socketBuffer = 4 << 20
	// maxSegments and maxSegmented bound what the kernel cuts into datagrams
	// (UDP_MAX_SEGMENTS before Linux 6.9, and an IP packet with its headers).
	maxSegments  = 64
	maxSegmented = 64000
	// maxMessages is how many messages a Sender gathers.
	maxMessages = 64
)

// Socket is a UDP socket, or whatever stands for one in a simulated network. One
// goroutine reads it; any number of Senders write.
type Socket struct {
	conn net.PacketConn
	in   *receiver // nil: the kernel is not asked for many
	buf  []byte    // of those one by one
	os   kernel
}

// Listen binds a socket to an address; port 0 takes any.
func Listen(addr netip.AddrPort) (*Socket, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("udp: listen on %q: %w", addr, err)
	}
	// Best effort: the kernel's limit may be lower, and media flows all the same.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	s := &Socket{conn: conn}
	if err := s.os.use(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("udp: listen on %q: %w", addr, err), conn.Close())
	}
	s.in = s.os.receiver()
	return s, nil
}

// Wrap makes a Socket of a connection that is no socket.
func Wrap(conn net.PacketConn) *Socket { return &Socket{conn: conn} }

// Addr returns the address that the socket is bound to.
func (s *Socket) Addr() netip.AddrPort {
	a, err := netip.ParseAddrPort(s.conn.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Close ends a Receive that waits with an error.
func (s *Socket) Close() error { return s.conn.Close() }

// Receive waits for datagrams and hands each to take, which may change its bytes
// and has them for the call, and is told when it arrived, by the kernel's word where
// that is to be had: a process that had to wait for its turn is no queue on the
// path. It returns when take had all that came at once.
func (s *Socket) Receive(take func(datagram []byte, at time.Time)) error {
	if s.in != nil {
		return s.in.receive(take)
	}
	if s.buf == nil {
		s.buf = make([]byte, 1<<16)
	}
	n, _, err := s.conn.ReadFrom(s.buf)
	if err != nil {
		return fmt.Errorf("udp: receive: %w", err)
	}
	take(s.buf[:n], time.Now())
	return nil
}

// Pause waits for a moment that Go's timers are too coarse for.
func (s *Socket) Pause(d time.Duration) {
	if s.in == nil {
		time.Sleep(d)
		return
	}
	pause(d)
}

// Sender sends to one address. It belongs to one goroutine.
//
//	arena: | 1400 | 1400 | 700 | 300 |       what Add was given, one behind the other
//	        message of three    and of one
type Sender struct {
	s        *Socket
	to       net.Addr
	messages []message
	os       sender
}

// message is datagrams of one size, one behind the other; the last may be shorter.
type message struct {
	b     []byte
	size  int
	count int
	open  bool
}

// Sender returns a sender to an address.
func (s *Socket) Sender(to netip.AddrPort) *Sender {
	x := &Sender{s: s, messages: make([]message, 0, maxMessages)}
	x.SetTo(to)
	return x
}

// SetTo has what is added from now on go elsewhere; nothing may wait to be flushed.
func (x *Sender) SetTo(to netip.AddrPort) {
	x.to = net.UDPAddrFromAddrPort(to)
	x.os.setTo(to)
}

// Full reports whether Flush is due.
func (x *Sender) Full() bool { return len(x.messages) == maxMessages }

// Add takes a datagram, which stays as it is until Flush. Those that lie one
// behind the other in memory leave as one message if their sizes allow it.
func (x *Sender) Add(b []byte) {
	if n := len(x.messages); n > 0 && x.s.os.segments() {
		m := &x.messages[n-1]
		if m.open && len(b) <= m.size && m.count < maxSegments && len(m.b)+len(b) <= maxSegmented && follows(m.b, b) {
			m.b = m.b[:len(m.b)+len(b)]
			m.count++
			m.open = len(b) == m.size
			return
		}
	}
	x.messages = append(x.messages, message{b: b, size: len(b), count: 1, open: true})
}

// follows reports whether b lies right behind a in the same array.
func follows(a, b []byte) bool {
	return cap(a)-len(a) >= len(b) && len(b) > 0 && &a[:len(a)+1][len(a)] == &b[0]
}

// Flush sends what was added and returns how many datagrams were not taken.
func (x *Sender) Flush() (unsent int) {
	if len(x.messages) == 0 {
		return 0
	}
	if x.s.in != nil {
		unsent = x.os.send(x.s, x.messages)
	} else {
		unsent = x.one()
	}
	clear(x.messages)
	x.messages = x.messages[:0]
	return unsent
}

// one sends datagram by datagram.
func (x *Sender) one() (unsent int) {
	for _, m := range x.messages {
		for b := m.b; len(b) > 0; {
			n := min(m.size, len(b))
			if _, err := x.s.conn.WriteTo(b[:n], x.to); err != nil {
				unsent++
			}
			b = b[n:]
		}
	}
	return unsent
}
