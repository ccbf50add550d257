package relaytest

import (
	"container/heap"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// Path is what happens to packets on their way.
type Path struct {
	Delay  time.Duration // one way
	Jitter time.Duration // added at random up to this; packets then overtake each other
	Loss   float64       // share of packets that vanish
	Rate   int           // bits a second, 0 for no limit
	Queue  time.Duration // with Rate: packets that would wait longer vanish; default 100 ms
}

// Network is a simulated packet network. The same seed and the same calls lose
// and delay the same packets. It starts no goroutine and reads the time package's
// clock, so that testing/synctest can turn it.
type Network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	conns map[netip.AddrPort]*PacketConn
	paths map[[2]netip.Addr]Path
	busy  map[[2]netip.Addr]time.Time // when a limited path is free again
	path  Path
	sent  uint64

	block  func(to netip.AddrPort) bool
	meddle func(from, to netip.AddrPort, b []byte) []Forgery
}

// Forgery is a packet that somebody on the path makes of one that he sees.
type Forgery struct {
	From, To netip.AddrPort
	Data     []byte
}

// Block loses every packet to an address for which f says so; nil: none.
func (n *Network) Block(f func(to netip.AddrPort) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.block = f
}

// Meddle puts somebody on every path who sees each packet and adds others.
func (n *Network) Meddle(f func(from, to netip.AddrPort, b []byte) []Forgery) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.meddle = f
}

// NewNetwork makes a network whose packets all take path.
func NewNetwork(seed uint64, path Path) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		conns: make(map[netip.AddrPort]*PacketConn),
		paths: make(map[[2]netip.Addr]Path),
		busy:  make(map[[2]netip.Addr]time.Time),
		path:  path,
	}
}

// SetPath changes what happens to packets from one address to another, whatever
// their ports: they share the path.
func (n *Network) SetPath(from, to netip.AddrPort, p Path) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paths[[2]netip.Addr{from.Addr(), to.Addr()}] = p
}

// Cut loses every packet between two addresses, both ways.
func (n *Network) Cut(a, b netip.AddrPort) {
	n.SetPath(a, b, Path{Loss: 1})
	n.SetPath(b, a, Path{Loss: 1})
}

// Sent counts the packets that were written so far.
func (n *Network) Sent() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

// Listen opens a connection at an address. Closing it frees the address.
func (n *Network) Listen(addr netip.AddrPort) *PacketConn {
	c := &PacketConn{n: n, addr: addr, poke: make(chan struct{}, 1), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[addr] = c
	return c
}

// send sends a packet, and what somebody made of it.
func (n *Network) send(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.carry(from, to, b)
	if n.meddle == nil {
		return
	}
	for _, f := range n.meddle(from, to, b) {
		n.carry(f.From, f.To, f.Data)
	}
}

// carry decides the fate of a packet; mu is held.
func (n *Network) carry(from, to netip.AddrPort, b []byte) {
	n.sent++
	key := [2]netip.Addr{from.Addr(), to.Addr()}
	p, ok := n.paths[key]
	if !ok {
		p = n.path
	}
	c := n.conns[to]
	lost := n.rng.Float64() < p.Loss || n.block != nil && n.block(to)
	jitter := time.Duration(n.rng.Float64() * float64(p.Jitter))
	now := time.Now()
	leaves := now
	if p.Rate > 0 {
		if busy := n.busy[key]; busy.After(now) {
			leaves = busy
		}
		limit := p.Queue
		if limit == 0 {
			limit = 100 * time.Millisecond
		}
		lost = lost || leaves.Sub(now) > limit
		if !lost {
			leaves = leaves.Add(time.Duration(len(b)) * 8 * time.Second / time.Duration(p.Rate))
			n.busy[key] = leaves
		}
	}
	if c != nil && !lost {
		c.arrive(packet{due: leaves.Add(p.Delay + jitter), seq: n.sent, from: from, data: append([]byte(nil), b...)})
	}
}

// receiveBuffer is how many packets wait at a connection that is not read.
const receiveBuffer = 4096

// PacketConn is one end in a Network.
type PacketConn struct {
	n      *Network
	addr   netip.AddrPort
	poke   chan struct{} // holds a token when something changed for a reader
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	packets  packetHeap
	deadline time.Time
}

type packet struct {
	due  time.Time
	seq  uint64
	from netip.AddrPort
	data []byte
}

func (c *PacketConn) arrive(p packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.packets) < receiveBuffer {
		heap.Push(&c.packets, p)
		c.wake()
	}
}

func (c *PacketConn) wake() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// ReadFrom returns the next packet that is due.
func (c *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p, wait, err := c.next(time.Now())
		if err != nil {
			return 0, nil, err
		}
		if p != nil {
			return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
		}
		if err := c.wait(wait); err != nil {
			return 0, nil, err
		}
	}
}

// next returns a packet that is due, or how long to wait for one; 0 is forever.
func (c *PacketConn) next(now time.Time) (*packet, time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.deadline.IsZero() && !now.Before(c.deadline) {
		return nil, 0, os.ErrDeadlineExceeded
	}
	if len(c.packets) > 0 && !now.Before(c.packets[0].due) {
		p := heap.Pop(&c.packets).(packet)
		return &p, 0, nil
	}
	var wait time.Duration
	if len(c.packets) > 0 {
		wait = c.packets[0].due.Sub(now)
	}
	if !c.deadline.IsZero() && (wait == 0 || c.deadline.Sub(now) < wait) {
		wait = c.deadline.Sub(now)
	}
	return nil, wait, nil
}

func (c *PacketConn) wait(d time.Duration) error {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-c.poke:
	case <-due:
	case <-c.closed:
		return net.ErrClosed
	}
	return nil
}

// WriteTo sends a packet into the network; it never blocks.
func (c *PacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	addr, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, err
	}
	c.n.send(c.addr, addr, b)
	return len(b), nil
}

// Close frees the address.
func (c *PacketConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		if c.n.conns[c.addr] == c {
			delete(c.n.conns, c.addr)
		}
	})
	return nil
}

// LocalAddr returns the address in the network.
func (c *PacketConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.addr) }

// SetReadDeadline wakes a reader that waits beyond t.
func (c *PacketConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	c.wake()
	return nil
}

// SetDeadline is SetReadDeadline: writing never waits.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline does nothing.
func (c *PacketConn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer exist because quic-go asks for them.
func (c *PacketConn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing.
func (c *PacketConn) SetWriteBuffer(int) error { return nil }

type packetHeap []packet

func (h packetHeap) Len() int { return len(h) }
func (h packetHeap) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].seq < h[j].seq
	}
	return h[i].due.Before(h[j].due)
}
func (h packetHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *packetHeap) Push(x any)   { *h = append(*h, x.(packet)) }
func (h *packetHeap) Pop() any {
	old := *h
	p := old[len(old)-1]
	*h = old[:len(old)-1]
	return p
}
