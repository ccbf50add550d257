package turn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/stream"
	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn/alloc"
)

const (
	// maxBefore is how many messages a stream may bring before it has an
	// allocation. An honest client needs two, three with a stale nonce.
	maxBefore = 8
	// maxFrame bounds a message on a stream, in bytes: a datagram of the longest
	// that is carried, with the most that TURN puts around it.
	maxFrame = 2200
	// smallBuffer is what an idle stream costs for reading, in bytes; a client that
	// fills it gets largeBuffer, which takes a whole TLS record.
	smallBuffer = 4 << 10
	largeBuffer = 16<<10 + maxFrame

	stunHeader    = 20
	channelHeader = 4
)

var (
	errTooManyBefore = errors.New("too many messages before the first allocation")
	errFrame         = errors.New("neither STUN nor ChannelData")
	errNoTCP         = errors.New("serve TURN: no TCP address")
)

// client is one TURN client on a stream. Its goroutine is the connection's: an
// allocation adds none.
type client struct {
	// Static after construction.
	server *Server
	conn   *stream.Conn
	flow   alloc.Flow

	carrier atomic.Pointer[carrier] // nil without an allocation

	// Owned by the reader.
	buf     []byte
	have    int // bytes in buf
	before  int // messages before an allocation
	pending [][]byte
	to      *transport.Tunnel         // of pending
	each    func(func(b []byte) bool) // pending, for DeliverAll
	more    func(n int) bool          // unfinished, made once
}

// ServeStream serves one TURN connection (TCP, or TLS already shaken hands) until
// it ends, and closes it.
func (s *Server) ServeStream(conn *stream.Conn) {
	c, err := s.newClient(conn)
	if err != nil || !s.join(c) {
		_ = conn.Cut()
		return
	}
	defer s.leave(c)
	conn.Unwait()
	c.read()
}

func (s *Server) newClient(conn *stream.Conn) (*client, error) {
	remote, ok1 := conn.RemoteAddr().(*net.TCPAddr)
	local, ok2 := conn.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return nil, errNoTCP
	}
	return s.client(conn, plain(remote), plain(local)), nil
}

func (s *Server) client(conn *stream.Conn, remote, local netip.AddrPort) *client {
	c := &client{
		server: s, conn: conn, buf: make([]byte, smallBuffer),
		flow: alloc.Flow{Client: remote, Server: local, Stream: s.streams.Add(1)},
	}
	c.each = func(yield func([]byte) bool) {
		for _, b := range c.pending {
			if !yield(b) {
				return
			}
		}
	}
	c.more = c.unfinished
	return c
}

func plain(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

func (s *Server) join(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.clients[c] = struct{}{}
	s.serving.Add(1)
	return true
}

func (s *Server) leave(c *client) {
	s.mu.Lock()
	ended := s.follow(s.table.Close(c.flow), via{})
	delete(s.clients, c)
	s.mu.Unlock()
	s.shut(ended)
	_ = c.conn.Cut()
	s.serving.Done()
}

// read reads until the end. Without an allocation a client has little time.
func (c *client) read() {
	c.hurry()
	for {
		n, err := c.conn.ReadBurst(c.buf[c.have:], c.more)
		c.have += n
		if n > 0 && c.frames() != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// unfinished tells whether the n bytes just read are likely to be followed by others
// at once: they end in a message, or with a packet in the middle of a picture.
func (c *client) unfinished(n int) bool {
	for b := c.buf[:c.have+n]; len(b) > 0; {
		body, total, err := frame(b)
		switch {
		case err != nil:
			return false
		case total == 0:
			return true
		case total == len(b):
			return transport.Unfinished(b[:body])
		}
		b = b[total:]
	}
	return false
}

// hurry gives a client without an allocation its time; patience ends it.
func (c *client) hurry() {
	_ = c.conn.SetReadDeadline(time.Now().Add(c.server.cfg.FirstAllocate))
}

func (c *client) patience() { _ = c.conn.SetReadDeadline(time.Time{}) }

// frames handles what is complete in the buffer and keeps the rest, which is less
// than a frame. What goes through one tunnel is handed over together. A client that
// fills its buffer gets a larger one.
func (c *client) frames() error {
	rest := c.buf[:c.have]
	full := c.have == len(c.buf)
	for {
		body, total, err := frame(rest)
		if err != nil {
			return err
		}
		if total == 0 {
			break
		}
		if err := c.frame(rest, body); err != nil {
			return err
		}
		rest = rest[total:]
	}
	c.deliver()
	into := c.buf
	if full && len(into) < largeBuffer {
		into = make([]byte, largeBuffer)
	}
	c.buf, c.have = into, copy(into, rest)
	return nil
}

// frame finds the length of the message that b begins with (RFC 8656 section
// 12.5, RFC 8489 section 6.2.2): body without, total with its padding; total is 0
// when b does not hold it all. Anything else ends the stream, since there is no
// way back into step.
//
//	0       2       4
//	| type  | length| cookie …        STUN: 20 + length
//	| number| length| data … padding  ChannelData: 4 + length, padded to 4
func frame(b []byte) (body, total int, err error) {
	if len(b) < channelHeader {
		return 0, 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case b[0] < 0x04:
		body = stunHeader + length
		total = body
	case b[0]&0xF0 == 0x40:
		body = channelHeader + length
		total = (body + 3) &^ 3
	default:
		return 0, 0, errFrame
	}
	if total > maxFrame {
		return 0, 0, fmt.Errorf("message of %d bytes: longer than %d", total, maxFrame)
	}
	if total > len(b) {
		return 0, 0, nil
	}
	return body, total, nil
}

// frame handles the message that b begins with.
func (c *client) frame(b []byte, body int) error {
	carrier := c.carrier.Load()
	if carrier == nil {
		if c.before++; c.before > maxBefore {
			return errTooManyBefore
		}
	}
	if b[0] < 0x40 {
		c.deliver() // in the order in which it came
		return c.message(b[:body:body])
	}
	if carrier == nil {
		c.server.counts[alloc.NoAllocation].Add(1)
		return nil
	}
	t := carrier.channel(binary.BigEndian.Uint16(b))
	if t == nil {
		c.server.counts[alloc.BadChannel].Add(1)
		return nil
	}
	c.queue(t, b[channelHeader:body:body])
	return nil
}

// queue adds a datagram to those of this read.
func (c *client) queue(t *transport.Tunnel, b []byte) {
	if c.to != t {
		c.deliver()
	}
	c.to, c.pending = t, append(c.pending, b)
}

func (c *client) deliver() {
	if len(c.pending) == 0 {
		return
	}
	c.to.DeliverAll(c.each)
	clear(c.pending)
	c.to, c.pending = nil, c.pending[:0]
}

// message handles a STUN message.
func (c *client) message(b []byte) error {
	s := c.server
	had := c.carrier.Load() != nil
	x := s.exchanges.Get().(*alloc.Exchange)
	defer s.exchanges.Put(x)
	if t, payload := s.take(x, c.flow, b, via{client: c}); t != nil {
		c.queue(t, payload)
		c.deliver() // payload lies in x
	}
	switch has := c.carrier.Load() != nil; {
	case has && !had:
		c.patience()
	case had && !has:
		c.hurry()
	}
	if x.Reply == nil {
		return nil
	}
	return c.conn.Send(x.Reply)
}
