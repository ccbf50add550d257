// Package ways opens the ways in that are not a UDP 5-tuple of one's own: a TURN
// allocation (RFC 8656) over UDP, TCP or TLS, and a stream for ICE (RFC 6544).
// Whoever opened one has a connection for datagrams to one media endpoint and
// back, and does not see what they are wrapped in:
//
//	TURN over UDP        ChannelData   number (2) length (2) datagram
//	TURN over TCP, TLS   the same, padded to a multiple of 4
//	ICE over TCP         RFC 4571      length (2) datagram
//
// It is a client for measurements: it asks for one allocation and one channel,
// as browsers come to have them, and renews neither, so that a way lasts for the
// five minutes of a channel's permission.
package ways

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/domicile/domicile/bench/load/burst"
)

// Kind is how datagrams are carried.
type Kind string

// The kinds. Direct is none: a socket of one's own.
const (
	Direct  Kind = ""
	TURNUDP Kind = "turn-udp"
	TURNTCP Kind = "turn-tcp"
	TURNTLS Kind = "turn-tls"
	ICETCP  Kind = "ice-tcp"
)

// Valid reports whether the kind is one of these.
func (k Kind) Valid() bool {
	switch k {
	case Direct, TURNUDP, TURNTCP, TURNTLS, ICETCP:
		return true
	}
	return false
}

// Config says which way to open.
type Config struct {
	Kind Kind
	// At is where the TURN server, or the node for ICE over TCP, listens.
	At netip.AddrPort
	// User and Password are good for the TURN server.
	User, Password string
	// Peer is the media endpoint; what is not for it is not sent. Invalid: an
	// allocation without a channel.
	Peer netip.AddrPort
	// From is the address to come from; the zero value lets the kernel choose.
	From netip.Addr
	// TLS for TURNTLS; nil trusts everybody.
	TLS *tls.Config
}

// Conn is an open way. Reading and writing may go on at once; only one goroutine
// reads.
type Conn struct {
	kind    Kind
	peer    netip.AddrPort
	conn    net.Conn
	packets *burst.Reader // of a UDP socket
	in      *bufio.Reader // of a stream
	last    int           // bytes of in that were returned by the last Read

	mu  sync.Mutex // guards out
	out []byte     // the frame being written, reused
}

const (
	maxDatagram = 1600
	// readAhead is what a stream is read by: a frame of six packets for a large
	// picture, several times over.
	readAhead = 64 << 10
	channel   = 0x4000
)

// Open connects, and with a TURN server allocates and binds the channel.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	c, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", cfg.Kind, cfg.At, err)
	}
	return c, nil
}

func open(ctx context.Context, cfg Config) (*Conn, error) {
	c := &Conn{kind: cfg.Kind, peer: cfg.Peer}
	if err := c.dial(ctx, cfg); err != nil {
		return nil, err
	}
	if cfg.Kind == ICETCP {
		return c, nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.conn.SetDeadline(deadline)
	}
	t := &talk{Conn: c, user: cfg.User, password: cfg.Password}
	if err := t.allocate(cfg.Peer); err != nil {
		c.Close()
		return nil, err
	}
	c.conn.SetDeadline(time.Time{})
	return c, nil
}

func (c *Conn) dial(ctx context.Context, cfg Config) (err error) {
	var d net.Dialer
	network := "tcp"
	if cfg.Kind == TURNUDP {
		network = "udp"
		if cfg.From.IsValid() {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(cfg.From, 0))
		}
	} else if cfg.From.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(cfg.From, 0))
	}
	if c.conn, err = d.DialContext(ctx, network, cfg.At.String()); err != nil {
		return err
	}
	switch cfg.Kind {
	case TURNUDP:
		c.packets, err = burst.NewReader(c.conn.(*net.UDPConn))
	case TURNTLS:
		config := cfg.TLS
		if config == nil {
			config = &tls.Config{InsecureSkipVerify: true} // a benchmark's own node
		}
		conn := tls.Client(c.conn, config)
		if err = conn.HandshakeContext(ctx); err == nil {
			c.conn, c.in = conn, bufio.NewReaderSize(conn, readAhead)
		}
	default:
		c.in = bufio.NewReaderSize(c.conn, readAhead)
	}
	if err != nil {
		c.conn.Close()
	}
	return err
}

// Peer is where the datagrams come from and go to.
func (c *Conn) Peer() netip.AddrPort { return c.peer }

// LocalAddr is this end's address.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// Close ends the way, and reads and writes under way.
func (c *Conn) Close() error { return c.conn.Close() }

// Read returns the next datagram from the peer, which is valid until the next
// call, and when it came: to the socket, or to this process with a stream.
func (c *Conn) Read() (b []byte, at time.Time, err error) {
	for {
		b, at, err = c.frame()
		switch {
		case err != nil:
			return nil, at, err
		case c.kind == ICETCP:
			return b, at, nil
		case isChannelData(b):
			return b[4:min(4+int(binary.BigEndian.Uint16(b[2:])), len(b))], at, nil
		} // else an answer that came late, an indication
	}
}

// isChannelData tells ChannelData from STUN by the first two bits (RFC 8656
// section 12).
func isChannelData(b []byte) bool { return len(b) >= 4 && b[0]>>6 == 1 }

// frame returns the next message as it came: of ICE without its length.
func (c *Conn) frame() ([]byte, time.Time, error) {
	if c.packets != nil {
		b, _, at, err := c.packets.Read()
		return b, at, err
	}
	c.in.Discard(c.last)
	c.last = 0
	head, err := c.in.Peek(map[bool]int{true: 2, false: 4}[c.kind == ICETCP])
	if err != nil {
		return nil, time.Time{}, err
	}
	skip, size := c.measure(head)
	if size > readAhead {
		return nil, time.Time{}, fmt.Errorf("message of %d bytes: %w", size, io.ErrShortBuffer)
	}
	b, err := c.in.Peek(size)
	if err != nil {
		return nil, time.Time{}, err
	}
	c.last = size
	return b[skip:], time.Now(), nil
}

// measure returns how long a message of a stream is with everything, and how
// much of that is in front of it.
func (c *Conn) measure(head []byte) (skip, size int) {
	switch {
	case c.kind == ICETCP:
		return 2, 2 + int(binary.BigEndian.Uint16(head))
	case isChannelData(head):
		return 0, 4 + (int(binary.BigEndian.Uint16(head[2:]))+3)&^3
	}
	return 0, 20 + int(binary.BigEndian.Uint16(head[2:])) // STUN
}

// Write sends a datagram to the peer.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) > maxDatagram {
		return 0, fmt.Errorf("datagram of %d bytes: at most %d", len(b), maxDatagram)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = c.out[:0]
	if c.kind != ICETCP {
		c.out = binary.BigEndian.AppendUint16(c.out, channel)
	}
	c.out = binary.BigEndian.AppendUint16(c.out, uint16(len(b)))
	c.out = append(c.out, b...)
	for c.in != nil && c.kind != ICETCP && len(c.out)%4 != 0 {
		c.out = append(c.out, 0)
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, err
	}
	return len(b), nil
}
