package relay

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/udp"
)

// Fabric is this node's side of the mesh: one UDP socket and at most one link
// to each peer. Of two nodes the one whose name sorts lower dials.
type Fabric struct {
	// Static after New.
	cfg       Config
	conn      net.PacketConn
	addr      netip.AddrPort
	transport *quic.Transport
	changed   chan struct{} // holds a token while Run has not seen the latest peers
	renewed   atomic.Bool   // the certificate is not the one that Run began with
	doubts    atomic.Pointer[[]wire.Doubt]

	media     *udp.Socket                     // of the carriage on UDP, nil if there is none
	hops      atomic.Pointer[map[uint32]*hop] // immutable; by the id that datagrams bear
	couriers  *couriers                       // hand on what came there
	strangers atomic.Uint64                   // datagrams that belong to no link

	lastAccount atomic.Uint64

	// Guarded by mu.
	mu    sync.Mutex
	peers map[residency.NodeName]netip.AddrPort
	links map[residency.NodeName]*Link
	books map[residency.NodeName]*book
}

// New checks the configuration and binds the UDP socket. It starts nothing;
// Run releases the socket again.
func New(cfg Config) (*Fabric, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	conn := cfg.Conn
	if conn == nil {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(cfg.Listen))
		if err != nil {
			return nil, fmt.Errorf("relay: listen on %q: %w", cfg.Listen, err)
		}
		conn = udp
	}
	addr, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("relay: local address %q: %w", conn.LocalAddr(), err)
	}
	f := &Fabric{
		cfg:  cfg,
		conn: conn,
		addr: netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()),
		transport: &quic.Transport{
			Conn: conn,
			// Links are few and live long: a round trip more at their start
			// buys that a spoofed source costs this node no state.
			VerifySourceAddress: func(net.Addr) bool { return true },
		},
		changed: make(chan struct{}, 1),
		peers:   make(map[residency.NodeName]netip.AddrPort),
		links:   make(map[residency.NodeName]*Link),
		books:   make(map[residency.NodeName]*book),
	}
	f.lastAccount.Store(firstAccount())
	f.hops.Store(&map[uint32]*hop{})
	f.couriers = newCouriers()
	f.openMedia()
	return f, nil
}

// openMedia binds the socket of the carriage on UDP, if there is to be one. Without
// it media goes over QUIC.
func (f *Fabric) openMedia() {
	switch {
	case f.cfg.MediaConn != nil:
		f.media = udp.Wrap(f.cfg.MediaConn)
	case f.cfg.Media.IsValid():
		var err error
		if f.media, err = udp.Listen(f.cfg.Media); err != nil {
			f.media = nil
			f.cfg.Log.Warn("relay: no carriage on UDP", "err", err)
		}
	}
}

// quicConfig leaves the heartbeat to the link (no keep-alive) and the first
// packet's size to QUIC, and never accepts 0-RTT, which could be replayed.
func (f *Fabric) quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           handshakeTimeout,
		MaxIdleTimeout:                 max(idleTimeout, 2*f.cfg.DeadAfter),
		MaxIncomingStreams:             maxRequests + 1,
		MaxIncomingUniStreams:          maxFrames,
		InitialStreamReceiveWindow:     receiveWindow,
		MaxStreamReceiveWindow:         4 * receiveWindow,
		InitialConnectionReceiveWindow: 4 * receiveWindow,
		MaxConnectionReceiveWindow:     linkWindow,
		EnableDatagrams:                true,
		InitialPacketSize:              firstPacket,
	}
}

// MediaAddr returns the address of the carriage on UDP, the zero value if there is
// none.
func (f *Fabric) MediaAddr() netip.AddrPort {
	if f.media == nil {
		return netip.AddrPort{}
	}
	return f.media.Addr()
}

// Strangers counts datagrams of the carriage on UDP that belong to no link.
func (f *Fabric) Strangers() uint64 { return f.strangers.Load() }

// Addr returns the address of the UDP socket.
func (f *Fabric) Addr() netip.AddrPort { return f.addr }

// SetPeers replaces the peers. Links to nodes that are no longer among them are
// closed, and their calls are not answered any more.
func (f *Fabric) SetPeers(peers []Peer) {
	next := make(map[residency.NodeName]netip.AddrPort, len(peers))
	for _, p := range peers {
		if p.Name != f.cfg.Self.Name {
			next[p.Name] = p.Addr
		}
	}
	f.mu.Lock()
	f.peers = next
	var removed []*Link
	for name, l := range f.links {
		if _, ok := next[name]; !ok {
			removed = append(removed, l)
		}
	}
	f.mu.Unlock()
	for _, l := range removed {
		l.fail(wire.CodePeer, "node %q no longer links with node %q", f.cfg.Self.Name, l.peer.Name)
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Link returns the link to a node, nil if it is not up.
func (f *Fabric) Link(name residency.NodeName) *Link {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.links[name]
}

// Links returns the links that are up, ordered by the peer's name.
func (f *Fabric) Links() []*Link {
	f.mu.Lock()
	links := slices.Collect(maps.Values(f.links))
	f.mu.Unlock()
	slices.SortFunc(links, func(a, b *Link) int {
		if a.peer.Name < b.peer.Name {
			return -1
		}
		return 1
	})
	return links
}

// Recheck ends the links whose peers' certificates the policies in force revoke,
// and compares every open track, in both directions, and whatever is under way with
// the epoch, instead of at the next heartbeat.
// Call it when the policy changed.
func (f *Fabric) Recheck() {
	links := f.Links()
	for _, l := range links {
		l.end(l.admitPeer(l.Peer()))
	}
	for _, l := range links {
		l.sweepTracks()
		l.sweepBindings()
		l.sweepPassing()
	}
}

// Run accepts, dials and redials until ctx ends, then closes all links and the
// socket and waits for everything it started. It can be called once.
func (f *Fabric) Run(ctx context.Context) error {
	defer f.conn.Close()
	var reading sync.WaitGroup
	if f.media != nil {
		working, stop := context.WithCancel(context.Background())
		for _, w := range f.couriers.all {
			reading.Go(func() { w.run(working) })
		}
		reading.Go(f.receiveMedia)
		defer reading.Wait()
		defer stop()
		defer f.media.Close()
	}
	ln, err := f.transport.Listen(f.cfg.ServerTLS, f.quicConfig())
	if err != nil {
		f.transport.Close()
		return fmt.Errorf("relay: listen: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var acceptErr error
	wg.Go(func() {
		defer cancel()
		acceptErr = f.accept(ctx, ln)
	})
	f.superviseDialers(ctx)
	ln.Close()
	wg.Wait()
	f.transport.Close()
	return acceptErr
}

// dialer is a running dial loop.
type dialer struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// superviseDialers keeps one dial loop for each peer whose name sorts higher.
func (f *Fabric) superviseDialers(ctx context.Context) {
	running := make(map[residency.NodeName]dialer)
	stop := func(name residency.NodeName) {
		running[name].cancel()
		<-running[name].done
		delete(running, name)
	}
	for {
		f.mu.Lock()
		peers := maps.Clone(f.peers)
		f.mu.Unlock()
		for name := range running {
			if _, ok := peers[name]; !ok {
				stop(name)
			}
		}
		for name := range peers {
			if _, ok := running[name]; !ok && f.cfg.Self.Name < name {
				running[name] = f.startDialer(ctx, name)
			}
		}
		select {
		case <-f.changed:
		case <-ctx.Done():
			for name := range running {
				stop(name)
			}
			return
		}
	}
}

func (f *Fabric) startDialer(ctx context.Context, name residency.NodeName) dialer {
	ctx, cancel := context.WithCancel(ctx)
	d := dialer{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		f.dialLoop(ctx, name)
	}()
	return d
}

// peerAddr returns where a peer is, and whether it is one.
func (f *Fabric) peerAddr(name residency.NodeName) (netip.AddrPort, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addr, ok := f.peers[name]
	return addr, ok
}

// register makes l the link to its peer. An older link to the same peer is
// closed first, and its LinkDown has returned before register does.
func (f *Fabric) register(l *Link) error {
	for {
		f.mu.Lock()
		_, wanted := f.peers[l.peer.Name]
		old := f.links[l.peer.Name]
		if wanted && old == nil {
			f.links[l.peer.Name] = l
		}
		f.mu.Unlock()
		switch {
		case !wanted:
			return fmt.Errorf("node %q does not link with node %q", f.cfg.Self.Name, l.peer.Name)
		case old == nil:
			return nil
		}
		old.fail(wire.CodeReplaced, "node %q has a newer link to node %q", f.cfg.Self.Name, l.peer.Name)
		<-old.gone
	}
}

func (f *Fabric) unregister(l *Link) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.links[l.peer.Name] == l {
		delete(f.links, l.peer.Name)
	}
}
