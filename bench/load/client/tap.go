package client

import (
	"errors"
	"net"
	"net/netip"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"

	"github.com/domicile/domicile/bench/load/burst"
	"github.com/domicile/domicile/bench/load/ways"
)

// network is the machine's network whose UDP sockets count RTP and keep most of
// it from pion, so that a thousand receivers cost less than one SFU.
type network struct {
	*stdnet.Net
	in  *Inbound
	way func() *ways.Conn // what is open instead of a socket; nil: nothing is
}

// ListenUDP implements transport.Net.
func (n network) ListenUDP(proto string, addr *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := net.ListenUDP(proto, addr)
	if err != nil {
		return nil, err
	}
	if way := n.way(); way != nil {
		return &tunnel{UDPConn: conn, in: n.in, way: way}, nil
	}
	r, err := burst.NewReader(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &tap{UDPConn: conn, in: n.in, reader: r}, nil
}

// tap is a socket that hands RTP to in and everything else to its reader.
type tap struct {
	*net.UDPConn
	in     *Inbound
	reader *burst.Reader // owned by who reads
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (t *tap) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		packet, from, at, err := t.reader.Read()
		if err != nil {
			return 0, from, err
		}
		if !isRTP(packet) || t.in.arrive(packet, at) {
			return copy(b, packet), from, nil
		}
	}
}

// ReadFrom implements net.PacketConn.
func (t *tap) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := t.ReadFromAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteToAddrPort implements ice.AddrPortReaderWriter.
func (t *tap) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return t.WriteToUDPAddrPort(b, to)
}

// tunnel is a socket to pion, which gives it an address, and what pion sends and
// receives there goes through a way.
type tunnel struct {
	*net.UDPConn
	in  *Inbound
	way *ways.Conn
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (t *tunnel) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		packet, at, err := t.way.Read()
		if err != nil {
			return 0, t.way.Peer(), err
		}
		if !isRTP(packet) || t.in.arrive(packet, at) {
			return copy(b, packet), t.way.Peer(), nil
		}
	}
}

// ReadFrom implements net.PacketConn.
func (t *tunnel) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := t.ReadFromAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteToAddrPort implements ice.AddrPortReaderWriter. What is for others than the
// media endpoint is not sent: candidates that nudge makes up.
func (t *tunnel) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if netip.AddrPortFrom(to.Addr().Unmap(), to.Port()) != t.way.Peer() {
		return len(b), nil
	}
	return t.way.Write(b)
}

// WriteTo implements net.PacketConn.
func (t *tunnel) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.UnknownNetworkError(to.Network())
	}
	return t.WriteToAddrPort(b, addr.AddrPort())
}

// Close implements net.PacketConn.
func (t *tunnel) Close() error {
	return errors.Join(t.way.Close(), t.UDPConn.Close())
}

// isRTP tells RTP from STUN, DTLS and RTCP (RFC 7983, RFC 5761 section 4).
func isRTP(b []byte) bool {
	return len(b) >= 12 && b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223)
}
