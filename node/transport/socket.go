package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
)

// socketBuffer is asked for on each media socket, in bytes: 40 ms at 800 Mbit/s,
// so that a pause of the scheduler loses nothing. The kernel may grant less.
const socketBuffer = 4 << 20

// group is one bound address: the sockets that share it.
type group struct {
	addr  netip.AddrPort
	socks []*socket
	// reports is where the kernel puts RTCP, if it can tell it from the rest.
	reports *socket
}

// socket is one UDP socket with its reader.
type socket struct {
	conn  *net.UDPConn
	file  *os.File // instead of conn, where the runtime's poller is not to know it
	raw   syscall.RawConn
	plain atomic.Bool // the kernel takes no UDP_SEGMENT here
}

// bindGroup opens n sockets on an address.
func bindGroup(addr netip.AddrPort, n int) (*group, error) {
	g := &group{addr: addr}
	lc := net.ListenConfig{}
	if n > 1 || canSteer {
		// Sharing a port is asked for by each socket, so another node on the same
		// port would take half of our clients without an error. Find it out first.
		probe, err := openSocket(&lc, addr)
		if err != nil {
			return nil, err
		}
		g.addr = probe.addr()
		if err := probe.conn.Close(); err != nil {
			return nil, fmt.Errorf("bind media address %q: %w", addr, err)
		}
		lc.Control = sharePort
	}
	for range n {
		s, err := openSocket(&lc, g.addr)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.addr = s.addr()
		g.socks = append(g.socks, s)
	}
	if canSteer {
		if err := g.separate(&lc); err != nil {
			return nil, errors.Join(err, g.close())
		}
	}
	return g, nil
}

// separate opens a socket for reports and has the kernel put them there.
func (g *group) separate(lc *net.ListenConfig) error {
	s, err := openSocket(lc, g.addr)
	if err != nil {
		return err
	}
	if err := s.steer(len(g.socks)); err != nil {
		return s.close() // a kernel or a sandbox that does not permit it: all sockets get reports
	}
	if err := s.unpoll(); err != nil {
		return errors.Join(fmt.Errorf("bind media address %q: %w", g.addr, err), s.close())
	}
	g.reports = s
	return nil
}

func openSocket(lc *net.ListenConfig, addr netip.AddrPort) (*socket, error) {
	pc, err := lc.ListenPacket(context.Background(), "udp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("bind media address %q: %w", addr, err)
	}
	return useSocket(pc.(*net.UDPConn), addr)
}

// useSocket makes a bound socket ready for media.
func useSocket(conn *net.UDPConn, addr netip.AddrPort) (*socket, error) {
	s := &socket{conn: conn}
	var err error
	// Best effort: the kernel's limit may be lower, and media flows all the same.
	_ = s.conn.SetReadBuffer(socketBuffer)
	_ = s.conn.SetWriteBuffer(socketBuffer)
	if s.raw, err = s.conn.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("bind media address %q: %w", addr, err), conn.Close())
	}
	s.plain.Store(!s.canSegment())
	return s, nil
}

func (s *socket) addr() netip.AddrPort {
	a := s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (g *group) close() error {
	var errs []error
	for _, s := range g.socks {
		errs = append(errs, s.close())
	}
	if g.reports != nil {
		errs = append(errs, g.reports.close())
	}
	return errors.Join(errs...)
}

func (s *socket) close() error {
	if s.file != nil {
		return s.file.Close()
	}
	return s.conn.Close()
}
