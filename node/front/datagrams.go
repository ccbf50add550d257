package front

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queuedDatagrams is how many of QUIC wait to be read: 60 ms of a page's upload
	// at 50 Mbit/s, or the handshakes of some hundred clients that begin at once.
	queuedDatagrams = 256
	// maxQUIC bounds a datagram, in bytes: QUIC keeps to what an Ethernet frame holds.
	maxQUIC = 1500
)

// Remote is a way back to a client, as whoever owns the UDP sockets knows it.
type Remote interface {
	comparable
	AddrPort() netip.AddrPort
}

// Datagrams is QUIC's share of a UDP socket that somebody else reads: what came is
// put in with Deliver, what QUIC says goes out through send. It is a
// net.PacketConn, and its addresses are the Remotes of what it was given.
//
// Deliver never waits: what finds the queue full, or is too long, is dropped and
// counted. QUIC sends it again.
type Datagrams[R Remote] struct {
	send  func(R, []byte)
	queue chan *datagram[R]
	free  sync.Pool
	local net.Addr

	closing sync.Once
	closed  chan struct{}

	full, long atomic.Uint64

	mu       sync.Mutex // guards what follows
	deadline *time.Timer
	expired  chan struct{} // closed at the deadline
}

type datagram[R Remote] struct {
	from R
	n    int
	b    [maxQUIC]byte
}

// NewDatagrams makes QUIC's share of the socket at local. send must not block.
func NewDatagrams[R Remote](local netip.AddrPort, send func(R, []byte)) *Datagrams[R] {
	d := &Datagrams[R]{send: send, queue: make(chan *datagram[R], queuedDatagrams), local: udpAddr{local},
		closed: make(chan struct{}), expired: make(chan struct{})}
	d.free.New = func() any { return new(datagram[R]) }
	return d
}

// Deliver puts in a datagram that came. b is copied.
func (d *Datagrams[R]) Deliver(from R, b []byte) {
	if len(b) > maxQUIC {
		d.long.Add(1)
		return
	}
	if len(d.queue) == cap(d.queue) { // before the copy: a flood should cost little
		d.full.Add(1)
		return
	}
	g := d.free.Get().(*datagram[R])
	g.from, g.n = from, copy(g.b[:], b)
	select {
	case d.queue <- g:
	default:
		d.free.Put(g)
		d.full.Add(1)
	}
}

// Drops counts what was dropped, by reason.
func (d *Datagrams[R]) Drops() map[string]uint64 {
	return map[string]uint64{"quic_queue_full": d.full.Load(), "quic_too_long": d.long.Load()}
}

// ReadFrom implements net.PacketConn.
func (d *Datagrams[R]) ReadFrom(b []byte) (int, net.Addr, error) {
	d.mu.Lock()
	expired := d.expired
	d.mu.Unlock()
	select {
	case g := <-d.queue:
		n, from := copy(b, g.b[:g.n]), &remoteAddr[R]{g.from}
		d.free.Put(g)
		return n, from, nil
	case <-expired:
		return 0, nil, errTimeout
	case <-d.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn. to is an address that ReadFrom returned.
func (d *Datagrams[R]) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-d.closed:
		return 0, net.ErrClosed
	default:
	}
	r, ok := to.(*remoteAddr[R])
	if !ok {
		return 0, net.InvalidAddrError("no address that datagrams came from")
	}
	d.send(r.remote, b)
	return len(b), nil
}

// Close implements net.PacketConn. The socket stays open.
func (d *Datagrams[R]) Close() error {
	d.closing.Do(func() { close(d.closed) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (d *Datagrams[R]) LocalAddr() net.Addr { return d.local }

// SetReadDeadline implements net.PacketConn: a reader that waits is woken.
func (d *Datagrams[R]) SetReadDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deadline != nil {
		d.deadline.Stop()
	}
	select {
	case <-d.expired:
		d.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	expired := d.expired
	var once sync.Once
	expire := func() { once.Do(func() { close(expired) }) }
	if in := time.Until(t); in > 0 {
		d.deadline = time.AfterFunc(in, expire)
	} else {
		expire()
	}
	return nil
}

// SetDeadline implements net.PacketConn; writes do not wait.
func (d *Datagrams[R]) SetDeadline(t time.Time) error { return d.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (d *Datagrams[R]) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer is asked for by quic-go, which complains to the log otherwise. The
// socket's owner has chosen.
func (d *Datagrams[R]) SetReadBuffer(int) error { return nil }

// SetWriteBuffer is asked for in the same way.
func (d *Datagrams[R]) SetWriteBuffer(int) error { return nil }

// remoteAddr is a Remote as a net.Addr.
type remoteAddr[R Remote] struct{ remote R }

func (a *remoteAddr[R]) Network() string          { return "udp" }
func (a *remoteAddr[R]) String() string           { return a.remote.AddrPort().String() }
func (a *remoteAddr[R]) AddrPort() netip.AddrPort { return a.remote.AddrPort() }

// udpAddr is an address of ours.
type udpAddr struct{ netip.AddrPort }

func (udpAddr) Network() string { return "udp" }

// errTimeout is the error of a read after its deadline.
var errTimeout net.Error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }
func (timeoutError) Unwrap() error   { return os.ErrDeadlineExceeded }
