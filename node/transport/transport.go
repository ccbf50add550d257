// Package transport carries WebRTC between a node's UDP sockets and its sessions:
// it answers ICE checks as a lite agent, does the DTLS handshake, seals and opens
// SRTP, runs data channels over SCTP, and hands what came to the Handler of each
// connection. It sends in batches, several packets of one receiver in one message
// (UDP_SEGMENT), since the kernel's way per message costs more than all the rest.
// Clients that cannot come by UDP come through a Tunnel: an ICE-TCP stream, which it
// reads itself, or a TURN allocation, which somebody else has granted.
//
// It writes and reads no descriptions, knows no tracks and no rooms, decides on no
// packet's worth, sends nothing of its own to an address that has not proved with a
// check that it knows the connection's password, and never probes anybody. What is
// neither ICE nor media it hands to a Door.
package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/stream"
)

// Config says where an Engine takes media.
type Config struct {
	// Media are the UDP addresses to bind, at least one. Port 0 takes any.
	Media []netip.AddrPort
	// Sockets are bound already, all to the first of Media, with SO_REUSEPORT if they
	// are several: they are used instead of binding it, and there are as many readers.
	// The Engine closes them.
	Sockets []*net.UDPConn
	// PublicIPs replace the bound addresses of their family in what clients are
	// told, for nodes behind one-to-one NAT. Empty: the bound addresses.
	PublicIPs []netip.Addr
	// TCP are the addresses at which clients reach ServeTCP (ICE-TCP); whoever calls
	// it listens there. Clients are told of them as of Media, and of none if there is
	// none. SetTCP can do it later.
	TCP []netip.AddrPort
	// Door takes what is for neither ICE nor a connection. SetDoor can do it later.
	Door Door
	// Workers is how many sockets and readers share each address; the kernel
	// spreads clients over them. 0: one. More than cores are of no use.
	Workers int
	// Beat is called every BeatEvery while there are connections, after the reports
	// that came meanwhile were handed over. What repeats belongs there: each timer
	// of its own would wake the process once more.
	Beat func()
	Log  *slog.Logger
	Now  func() time.Time // nil: time.Now
}

// tickEvery is how often silence is looked for: a tenth of what counts as one.
const tickEvery = 500 * time.Millisecond

// candidatesEvery is how often the machine's own addresses are read again, when
// an address to bind was unspecified: interfaces come and go, but seldom.
const candidatesEvery = 30 * time.Second

// Engine owns the media sockets that all connections of a node share.
type Engine struct {
	// Static after construction.
	cfg     Config
	now     func() time.Time
	log     *slog.Logger
	ident   *identity
	groups  []*group
	workers []*Worker
	lent    []*Worker     // without a socket, for the readers of streams
	reports []*Worker     // of the sockets to which the kernel steers RTCP; the beat reads them
	inUse   chan struct{} // takes one element when a connection is made
	stop    chan struct{}
	running sync.WaitGroup
	batches sync.Pool

	candidates atomic.Pointer[[]Candidate]
	drops      counters
	sent       sendCounters
	shard      atomic.Uint32
	gone       atomic.Uint64 // paths that are no more
	tunneled   atomic.Uint64 // tunnels so far
	unproved   sources       // streams that have not made a good check
	door       atomic.Pointer[Door]
	tcp        atomic.Pointer[[]netip.AddrPort]

	mu     sync.RWMutex // guards what follows
	closed bool
	ufrags map[string]credential
	table  map[tableKey]*path
	// tunnels are those of UDP clients, by 5-tuple. Lists are replaced, not changed.
	tunnels map[tableKey][]*Tunnel
	streams map[*Tunnel]*stream.Conn // those of ServeTCP
	conns   map[*Conn]struct{}
}

// credential is what a check has to be made with to reach a connection.
type credential struct {
	conn  *Conn
	ufrag string
	pwd   string
	era   uint32 // counts ICE restarts
}

// Listen binds the media sockets and starts their readers.
func Listen(cfg Config) (*Engine, error) {
	if len(cfg.Media) == 0 {
		return nil, errors.New("listen for media: no address given")
	}
	ident, err := newIdentity()
	if err != nil {
		return nil, fmt.Errorf("listen for media: %w", err)
	}
	e := &Engine{
		cfg: cfg, now: cfg.Now, log: cfg.Log, ident: ident, stop: make(chan struct{}), inUse: make(chan struct{}, 1),
		ufrags: make(map[string]credential), table: make(map[tableKey]*path), conns: make(map[*Conn]struct{}),
		tunnels: make(map[tableKey][]*Tunnel), streams: make(map[*Tunnel]*stream.Conn),
		unproved: sources{by: make(map[netip.Prefix]int)},
	}
	e.tcp.Store(&cfg.TCP)
	if cfg.Door != nil {
		e.SetDoor(cfg.Door)
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.batches.New = func() any { return newBatch(e, int(e.shard.Add(1))) }
	if err := e.bind(); err != nil {
		e.closeSockets()
		return nil, fmt.Errorf("listen for media: %w", err)
	}
	e.findCandidates()
	for _, w := range e.workers {
		e.running.Go(w.run)
	}
	e.running.Go(e.beat)
	e.running.Go(e.tick)
	return e, nil
}

func (e *Engine) bind() error {
	for i, addr := range e.cfg.Media {
		g, err := e.group(i, addr)
		if err != nil {
			return err
		}
		e.groups = append(e.groups, g)
		for i, s := range g.socks {
			e.workers = append(e.workers, newWorker(e, g, s, i))
		}
		if g.reports != nil {
			e.reports = append(e.reports, newWorker(e, g, g.reports, len(g.socks)))
		}
	}
	for i := range max(e.cfg.Workers, 1) {
		e.lent = append(e.lent, newLent(e, i))
	}
	return nil
}

// group makes the sockets of one address.
func (e *Engine) group(i int, addr netip.AddrPort) (*group, error) {
	if i > 0 || len(e.cfg.Sockets) == 0 {
		return bindGroup(addr, max(e.cfg.Workers, 1))
	}
	return takeGroup(e.cfg.Sockets)
}

// tick drives what happens because nothing happens.
func (e *Engine) tick() {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	looked := e.now()
	for {
		select {
		case <-e.stop:
			return
		case <-t.C:
		}
		now := e.now()
		for _, c := range e.snapshot() {
			c.tick(now)
		}
		if now.Sub(looked) >= candidatesEvery {
			looked = now
			e.findCandidates()
		}
	}
}

func (e *Engine) snapshot() []*Conn {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make([]*Conn, 0, len(e.conns))
	for c := range e.conns {
		all = append(all, c)
	}
	return all
}

// MediaAddrs returns the addresses that are bound.
func (e *Engine) MediaAddrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, g := range e.groups {
		addrs = append(addrs, g.addr)
	}
	return addrs
}

// Fingerprint is the value of a=fingerprint for every description of this node.
func (e *Engine) Fingerprint() string { return e.ident.fingerprint }

// Batch lends a batch to a goroutine that is no Worker. Release it after Flush.
func (e *Engine) Batch() *Batch {
	b := e.batches.Get().(*Batch)
	b.now = e.now()
	return b
}

// Release takes a batch back, and sends what is still in it.
func (e *Engine) Release(b *Batch) {
	b.Flush()
	e.batches.Put(b)
}

// Close closes all connections and gives the sockets up. It must not be called
// from an event.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.mu.Unlock()
	for _, c := range e.snapshot() {
		c.Close()
	}
	close(e.stop)
	e.cutStreams()
	err := e.closeSockets()
	e.running.Wait()
	return err
}

func (e *Engine) closeSockets() error {
	var errs []error
	for _, g := range e.groups {
		errs = append(errs, g.close())
	}
	return errors.Join(errs...)
}
