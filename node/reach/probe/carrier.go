package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
)

// carrier is one way in as a packet socket: whatever is sent through it arrives
// at the node's media port, and ICE, DTLS and SCTP do not notice how.
type carrier struct {
	net.PacketConn
	peer *net.UDPAddr // the node, as ICE knows it
	mute error        // what it means that nothing comes

	heard   atomic.Int64  // datagrams that came
	refused chan struct{} // closed when the network says that nobody is there
	once    sync.Once
	gone    func() // called when nothing can come any more; may be nil, set before the first read
	close   func() // ends what lies below; may be nil
}

func newCarrier(c net.PacketConn, node netip.AddrPort) *carrier {
	return &carrier{PacketConn: c, peer: net.UDPAddrFromAddrPort(node), mute: fail(Filtered, ""), refused: make(chan struct{})}
}

// ReadFrom counts, and goes on after an ICMP error: what it tells may be over in
// a moment, and one can be forged.
func (c *carrier) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, _, err := c.PacketConn.ReadFrom(b)
		switch {
		case err == nil:
			c.heard.Add(1)
			return n, c.peer, nil
		case isICMP(err):
			c.once.Do(func() { close(c.refused) })
		default:
			if c.gone != nil {
				c.gone()
			}
			return n, nil, err
		}
	}
}

// WriteTo takes an ICMP error for an answer to an earlier datagram, and what this
// machine's own firewall drops for lost, as if another had done it.
func (c *carrier) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.PacketConn.WriteTo(b, to)
	switch {
	case isICMP(err):
		c.once.Do(func() { close(c.refused) })
		return len(b), nil
	case errors.Is(err, syscall.EPERM):
		return len(b), nil
	}
	return n, err
}

func isICMP(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EACCES)
}

// Close closes what lies below, too.
func (c *carrier) Close() error {
	err := c.PacketConn.Close()
	if c.close != nil {
		c.close()
	}
	return err
}

// connected is a connected UDP socket, which is told of ICMP errors.
type connected struct{ *net.UDPConn }

func (c connected) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := c.Read(b)
	return n, c.RemoteAddr(), err
}

func (c connected) WriteTo(b []byte, _ net.Addr) (int, error) { return c.Write(b) }

// LocalAddr is without a zone, which ICE has no use for.
func (c connected) LocalAddr() net.Addr {
	a := c.UDPConn.LocalAddr().(*net.UDPAddr).AddrPort()
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()))
}

func dialUDP(to netip.AddrPort) (connected, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	return connected{c}, err
}

// direct is UDP to the node's media port.
func direct(node netip.AddrPort) (*carrier, error) {
	c, err := dialUDP(node)
	if err != nil {
		return nil, err
	}
	return newCarrier(c, node), nil
}

// framed is a stream that carries datagrams with their length before them (RFC
// 4571), as ICE over TCP does (RFC 6544 section 10):
//
//	 0                   1
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
//	+-------------------------------+----------------
//	|            length             |  datagram …
//	+-------------------------------+----------------
type framed struct{ net.Conn }

func (f framed) ReadFrom(b []byte) (int, net.Addr, error) {
	var head [2]byte
	if _, err := io.ReadFull(f.Conn, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > len(b) {
		return 0, nil, fmt.Errorf("a frame of %d bytes: %w", n, io.ErrShortBuffer)
	}
	_, err := io.ReadFull(f.Conn, b[:n])
	return n, f.RemoteAddr(), err
}

func (f framed) WriteTo(b []byte, _ net.Addr) (int, error) {
	if len(b) > 0xFFFF {
		return 0, fmt.Errorf("a datagram of %d bytes does not fit into a frame", len(b))
	}
	if _, err := f.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// LocalAddr is what ICE wants to see.
func (f framed) LocalAddr() net.Addr {
	a := f.Conn.LocalAddr().(*net.TCPAddr).AddrPort()
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()))
}

// quiet keeps libraries from writing to a terminal.
func quiet() *logging.DefaultLoggerFactory {
	f := logging.NewDefaultLoggerFactory()
	f.DefaultLogLevel = logging.LogLevelDisabled
	return f
}

// relayed allocates at a TURN server over a socket, which it closes in the end,
// and goes on to the node's media port from there.
func relayed(ctx context.Context, below *carrier, t turnURL, node netip.AddrPort) (*carrier, error) {
	family := turn.RequestedAddressFamilyIPv4
	if node.Addr().Is6() {
		family = turn.RequestedAddressFamilyIPv6
	}
	client, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: below.peer.String(), Username: t.username, Password: t.password, Conn: below,
		RequestedAddressFamily: family, LoggerFactory: quiet(),
	})
	if err != nil {
		below.Close()
		return nil, err
	}
	below.gone = client.Close // nobody waits for an answer that cannot come
	defer context.AfterFunc(ctx, func() { below.Close() })()
	if err := client.Listen(); err != nil {
		below.Close()
		return nil, err
	}
	relay, err := client.Allocate()
	if err != nil {
		below.Close()
		return nil, allocateError(ctx, below, err)
	}
	c := newCarrier(relay, node)
	c.mute = fail(Stuck, "the TURN server gives a relay, but the node's media does not answer behind it")
	c.close = func() { below.Close() }
	return c, nil
}

// allocateError says why there is no allocation.
func allocateError(ctx context.Context, below *carrier, err error) error {
	switch {
	case below.heard.Load() == 0 && below.isRefused():
		return fail(Closed, "")
	case ctx.Err() != nil && below.heard.Load() == 0:
		return fail(Filtered, "")
	case ctx.Err() != nil:
		return fail(Stuck, "the TURN server answers, but not to the end")
	case below.heard.Load() == 0:
		return fail(Cut, "the connection is closed before the TURN server answers")
	}
	return fail(Refused, "the TURN server says: %v", err)
}

func (c *carrier) isRefused() bool {
	select {
	case <-c.refused:
		return true
	default:
		return false
	}
}
