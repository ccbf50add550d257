// Package stream makes of a TCP connection, with TLS over it or not, one that media
// can be written to: a write never waits. What the kernel does not take at once is
// kept, within a bound, and written as soon as it goes; meanwhile the connection is
// Full, and whoever has more for it drops whole packets before they are encrypted,
// since half a record or a frame can never be taken back.
//
// It frames nothing, encrypts nothing, and decides of no packet whether it is worth
// to be sent.
package stream

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxKept bounds what waits for a client, in bytes. Media stops as soon as
	// anything waits, so it is one flush of a busy batch that has to fit, and
	// what little control there is behind it.
	maxKept = 256 << 10
	// stallAfter is how long a client may take nothing while something waits. TCP
	// over a dead link gives up at the same time (TCP_USER_TIMEOUT). A phone that
	// comes out of a tunnel before goes on; media over UDP is given up after 25 s.
	stallAfter = 20 * time.Second
)

// ErrFull says that a write was refused as a whole: nothing of it is sent.
var ErrFull = errors.New("too much waits for the client already")

// Conn is a TCP connection. Before Unwait it behaves as the one it was made of.
type Conn struct {
	net.Conn          // to read, and for addresses; the TLS connection where there is one
	base     *carrier // what all layers of a connection share
	top      bool     // a layer above the carrier: encrypts, or gives peeked bytes back
}

// New wraps an accepted connection, below TLS.
func New(conn net.Conn) *Conn {
	return &Conn{Conn: conn, base: &carrier{conn: conn}}
}

// Over returns the connection as seen through a layer that reads from base and
// writes to it, a *tls.Conn for instance.
func Over(layer net.Conn, base *Conn) *Conn {
	return &Conn{Conn: layer, base: base.base, top: true}
}

// Unwait lets no write wait any more, from now on, and has the kernel hold little.
// Deadlines for writing mean nothing then. No write may be under way.
func (c *Conn) Unwait() { c.base.unwait() }

// Full tells that something waits for the client: media should not be written.
func (c *Conn) Full() bool { return c.base.full.Load() }

// Send writes all of b or, after Unwait, keeps what does not go at once. With
// ErrFull nothing of it was written and the connection is as good as before.
func (c *Conn) Send(b []byte) error {
	if c.base.crowded(len(b)) {
		return ErrFull
	}
	_, err := c.Write(b)
	return err
}

// Write is Send for those above; a layer above that writes more than there is room
// for ends the connection, since what it encrypted cannot be left out.
func (c *Conn) Write(b []byte) (int, error) {
	if c.top {
		return c.Conn.Write(b)
	}
	return c.base.Write(b)
}

// SetDeadline sets that for reading, and before Unwait that for writing too.
func (c *Conn) SetDeadline(t time.Time) error {
	if c.base.waitless.Load() {
		return c.SetReadDeadline(t)
	}
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline does nothing after Unwait.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.base.waitless.Load() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// Close closes all layers. What waits is lost.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.base.wait()
	return err
}

// Cut closes the connection without a word, where TLS says goodbye first.
func (c *Conn) Cut() error {
	err := c.base.conn.Close()
	c.base.wait()
	return err
}

// carrier is the TCP connection below all layers.
type carrier struct {
	conn net.Conn // static

	waitless atomic.Bool
	full     atomic.Bool // something is kept

	// Owned by the reader.
	look  *looker // nil: nothing is known to be there
	hasty bool    // Read does not wait

	mu       sync.Mutex // guards what follows; held for the system call that writes at once
	try      *trier     // nil: nothing is known to go at once
	kept     []byte
	draining chan struct{} // closed when the goroutine that writes what is kept has ended
	ended    error         // the first that writing met
}

func (c *carrier) unwait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waitless.Load() {
		return
	}
	_ = c.conn.SetWriteDeadline(time.Time{}) // that of whoever admitted the connection
	tune(c.conn)
	c.try, c.look = newTrier(c.conn), newLooker(c.conn)
	c.waitless.Store(true)
}

// wait returns when nobody writes any more, after the connection was closed.
func (c *carrier) wait() {
	c.mu.Lock()
	if c.ended == nil {
		c.ended = net.ErrClosed
	}
	draining := c.draining
	c.mu.Unlock()
	if draining != nil {
		<-draining
	}
}

// crowded tells that n bytes more would be too many.
func (c *carrier) crowded(n int) bool {
	if !c.full.Load() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.kept)+n > maxKept
}

// Write writes what goes and keeps the rest. A layer that encrypts cannot take back
// what it wrote, so a carrier that has no room for it is cut.
func (c *carrier) Write(b []byte) (int, error) {
	if !c.waitless.Load() {
		return c.conn.Write(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return 0, c.ended
	}
	rest := b
	if len(c.kept) == 0 {
		n, err := c.try.write(b)
		if err != nil {
			c.fail(err)
			return n, err
		}
		rest = b[n:]
	}
	if len(rest) == 0 {
		return len(b), nil
	}
	if len(c.kept)+len(rest) > maxKept+overhead {
		c.fail(ErrFull)
		return 0, ErrFull
	}
	c.keep(rest)
	return len(b), nil
}

// overhead is what encryption may add to what fitted: 16 KiB records of 22 bytes more.
const overhead = 4 << 10

// keep takes what did not go. mu is held.
func (c *carrier) keep(rest []byte) {
	idle := len(c.kept) == 0
	c.kept = append(c.kept, rest...)
	if idle {
		c.full.Store(true)
		c.draining = make(chan struct{})
		go c.drain(c.draining) // ends when nothing is kept, when the client stalls, and with Close
	}
}

// fail ends writing, and with it the connection. mu is held.
func (c *carrier) fail(err error) {
	if c.ended == nil {
		c.ended = err
	}
	_ = c.conn.Close()
}

// drain writes what is kept until there is no more of it.
func (c *carrier) drain(done chan struct{}) {
	defer close(done)
	for {
		c.mu.Lock()
		chunk := c.kept[:min(len(c.kept), drainAtOnce)]
		c.mu.Unlock()
		_ = c.conn.SetWriteDeadline(time.Now().Add(stallAfter))
		n, err := c.conn.Write(chunk)
		if c.drained(n, err) {
			return
		}
	}
}

// drainAtOnce is how much of what is kept has to go within stallAfter, in bytes: a
// client that takes 0.8 kB/s gets no picture, but is not dead.
const drainAtOnce = 16 << 10

// drained takes n bytes off.
func (c *carrier) drained(n int, err error) (done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = c.kept[n:]
	if err != nil {
		c.kept = nil
		c.fail(err)
		return true
	}
	if len(c.kept) > 0 {
		return false
	}
	c.kept = nil
	_ = c.conn.SetWriteDeadline(time.Time{})
	c.full.Store(false)
	return true
}
