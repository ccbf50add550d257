package transport

import (
	"encoding/binary"
	"errors"
	"iter"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/stream"
)

// Tuple is the 5-tuple of a UDP client: one of our addresses and the client's.
type Tuple struct {
	group *group
	name  sockname
}

// AddrPort is the client's address.
func (t Tuple) AddrPort() netip.AddrPort { return t.name.addrPort() }

// Local is our address.
func (t Tuple) Local() netip.AddrPort {
	if t.group == nil {
		return netip.AddrPort{}
	}
	return t.group.addr
}

// Door takes what reaches a media socket and is neither ICE, DTLS nor media. Workers
// call it: it must not block, and b is valid during the call.
type Door interface {
	// STUN has a message that is no connectivity check: TURN, or a Binding request
	// without a user name.
	STUN(w *Worker, from Tuple, b []byte)
	// QUIC has a datagram that RFC 9443 gives to QUIC.
	QUIC(from Tuple, b []byte)
}

// SetDoor puts a door in; datagrams for it are dropped as unknown before.
func (e *Engine) SetDoor(d Door) { e.door.Store(&d) }

// Reply sends a datagram to a client that has no path; it leaves with what this
// worker sends.
func (w *Worker) Reply(to Tuple, b []byte) { w.batch.reply(to, b) }

// SendTo sends a datagram to a client that has no path. It never waits.
func (e *Engine) SendTo(to Tuple, b []byte) {
	batch := e.Batch()
	batch.reply(to, b)
	e.Release(batch)
}

// TunnelConfig says how a client's datagrams go.
type TunnelConfig struct {
	// Client is as what the client is known within: what its checks are told as
	// their source. The relayed address of an allocation, or a TCP client's.
	Client netip.AddrPort
	// Owner names whose connections can be reached (ConnConfig.Owner). "": any.
	Owner string
	// Tuple is where the client is if it comes over UDP, Stream if over TCP or TLS.
	Tuple  Tuple
	Stream *stream.Conn
	// Wrap is what stands around each datagram towards the client.
	Wrap Wrap
	// Bandwidth bounds each direction, in bytes/s. 0: no bound.
	Bandwidth int
	// With is another tunnel of the same client, whose counts and bound are this one's
	// too: an allocation has a tunnel for each endpoint, and one bandwidth.
	With *Tunnel
}

// Tunnel carries one client's datagrams otherwise than in a 5-tuple of their own: in
// an ICE-TCP stream, or in a TURN allocation. To a Conn it is a path as any other.
type Tunnel struct {
	// Static after construction.
	engine *Engine
	id     uint64 // in order of their opening
	cfg    TunnelConfig
	key    tableKey // of its path

	wrap    atomic.Pointer[Wrap]
	path    atomic.Pointer[path] // the connection that proved itself here, if any
	closed  atomic.Bool
	in, out *meter // its own, or those of cfg.With

	// Owned by DeliverAll.
	lent *Worker
	take func(b []byte) bool // made once, so that delivering allocates nothing
}

// TunnelStats count since OpenTunnel, without what is wrapped around.
type TunnelStats struct {
	PacketsIn, BytesIn, PacketsOut, BytesOut uint64
}

var errNoWay = errors.New("open tunnel: it needs a 5-tuple or a stream, and not both")

// OpenTunnel makes the client reachable, and lets it reach connections.
func (e *Engine) OpenTunnel(cfg TunnelConfig) (*Tunnel, error) {
	if (cfg.Stream == nil) == (cfg.Tuple.group == nil) {
		return nil, errNoWay
	}
	if !cfg.Client.IsValid() {
		return nil, errors.New("open tunnel: the client has no address")
	}
	t := &Tunnel{engine: e, id: e.tunneled.Add(1), cfg: cfg}
	t.key = tableKey{cfg.Tuple.group, cfg.Tuple.name, t}
	t.in, t.out = &meter{rate: cfg.Bandwidth}, &meter{rate: cfg.Bandwidth}
	if cfg.With != nil {
		t.in, t.out = cfg.With.in, cfg.With.out
	}
	t.take = func(b []byte) bool { t.Deliver(t.lent, b); return true }
	t.SetWrap(cfg.Wrap)
	if cfg.Stream != nil {
		cfg.Stream.Unwait()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.New("open tunnel: engine is closed")
	}
	if cfg.Stream == nil {
		key := tableKey{group: cfg.Tuple.group, name: cfg.Tuple.name}
		e.tunnels[key] = append(slices.Clip(e.tunnels[key]), t)
	}
	return t, nil
}

// SetWrap changes what stands around datagrams from now on.
func (t *Tunnel) SetWrap(w Wrap) { t.wrap.Store(&w) }

// Stats of what went through.
func (t *Tunnel) Stats() TunnelStats {
	return TunnelStats{
		PacketsIn: t.in.packets.Load(), BytesIn: t.in.bytes.Load(),
		PacketsOut: t.out.packets.Load(), BytesOut: t.out.bytes.Load(),
	}
}

// Close forgets the path at once: what comes is dropped, and nothing is sent beyond
// what is just being handed to the kernel. It may be called from an event. A stream
// stays open: it belongs to who made it.
func (t *Tunnel) Close() {
	if t.closed.Swap(true) {
		return
	}
	e := t.engine
	e.mu.Lock()
	if t.cfg.Stream == nil {
		e.dropTunnel(t)
	}
	e.mu.Unlock()
	if p := t.path.Load(); p != nil {
		e.forget(p)
	}
}

// dropTunnel takes t out of its 5-tuple's list. Engine.mu is held.
func (e *Engine) dropTunnel(t *Tunnel) {
	key := tableKey{group: t.cfg.Tuple.group, name: t.cfg.Tuple.name}
	var rest []*Tunnel
	for _, o := range e.tunnels[key] {
		if o != t {
			rest = append(rest, o)
		}
	}
	if len(rest) == 0 {
		delete(e.tunnels, key)
		return
	}
	e.tunnels[key] = rest
}

// full tells that media for the client should be dropped before it is sealed.
func (t *Tunnel) full() bool { return t.cfg.Stream != nil && t.cfg.Stream.Full() }

// Deliver takes a datagram that came through the tunnel, in the hand of a worker:
// that of Door.STUN. b is changed.
func (t *Tunnel) Deliver(w *Worker, b []byte) { w.inner(t, b, w.batch.now) }

// DeliverAll takes the datagrams that one read of a stream brought; what they cause
// leaves together. They are changed, and must stay as they are until it returns. It
// is for the one goroutine that reads the stream.
func (t *Tunnel) DeliverAll(frames iter.Seq[[]byte]) {
	w := t.engine.lend(t.id)
	defer w.busy.Unlock()
	w.batch.now = t.engine.now()
	t.lent = w
	frames(t.take)
	t.lent = nil
	w.drained()
}

// lend returns a worker for a stream, locked: one that is idle, if there is any.
func (e *Engine) lend(shard uint64) *Worker {
	for i := range e.lent {
		if w := e.lent[(shard+uint64(i))%uint64(len(e.lent))]; w.busy.TryLock() {
			return w
		}
	}
	w := e.lent[shard%uint64(len(e.lent))]
	w.busy.Lock()
	return w
}

// inner handles a datagram that came through a tunnel.
func (w *Worker) inner(t *Tunnel, b []byte, now time.Time) {
	drops := &w.engine.drops
	if t.closed.Load() {
		drops.add(DropNoPath)
		return
	}
	if len(b) > maxDatagram {
		drops.add(DropTooLong)
		return
	}
	if !t.in.take(len(b), now) {
		drops.add(DropOverRate)
		return
	}
	switch k := classify(b); k {
	case kindDTLS, kindRTP, kindRTCP:
		p := t.path.Load()
		if p == nil {
			drops.add(DropNoPath)
			return
		}
		w.known(p, p.conn.Load(), k, b, now)
	case kindSTUN:
		w.check(t.key, b, now)
	default:
		drops.add(DropUnknown)
	}
}

// meter counts one direction of a tunnel, and bounds it.
type meter struct {
	rate           int // bytes/s; 0: no bound
	packets, bytes atomic.Uint64
	free           atomic.Int64 // when all that was taken would have passed at the rate, in ns of Unix time
}

// burst is how far a tunnel may be ahead of its bandwidth: a picture that stands for
// itself is that much larger than others.
const burst = time.Second

// take counts n bytes, unless they are too many (the virtual scheduling of GCRA).
func (m *meter) take(n int, now time.Time) bool {
	if m.rate > 0 {
		at := now.UnixNano()
		cost := int64(n) * int64(time.Second) / int64(m.rate)
		for {
			free := m.free.Load()
			next := max(free, at) + cost
			if next-at > int64(burst) {
				return false
			}
			if m.free.CompareAndSwap(free, next) {
				break
			}
		}
	}
	m.packets.Add(1)
	m.bytes.Add(uint64(n))
	return true
}

// boundKey names a TURN channel of a UDP client.
type boundKey struct {
	name   sockname
	number uint16
}

// channel handles what is ChannelData if the client has a tunnel (RFC 8656 section
// 12.4), and QUIC otherwise:
//
//	0       2       4
//	| number| length| data … |
func (w *Worker) channel(name *sockname, b []byte, now time.Time) {
	if len(b) < channelHeader {
		w.engine.drops.add(DropUnknown)
		return
	}
	t, any := w.channelOf(boundKey{*name, binary.BigEndian.Uint16(b)})
	switch n := int(binary.BigEndian.Uint16(b[2:])); {
	case !any:
		w.quic(name, b)
	case t == nil || n > len(b)-channelHeader:
		w.engine.drops.add(DropNoChannel)
	default:
		w.inner(t, b[channelHeader:channelHeader+n], now)
	}
}

// channelOf finds a channel's tunnel, among those seen before, else in the table;
// any tells whether the client has any tunnel.
func (w *Worker) channelOf(key boundKey) (t *Tunnel, any bool) {
	if t := w.bound[key]; t != nil {
		if t.bound(key.number) {
			return t, true
		}
		delete(w.bound, key)
	}
	w.engine.mu.RLock()
	all := w.engine.tunnels[tableKey{group: w.group, name: key.name}]
	w.engine.mu.RUnlock()
	for _, t := range all {
		if t.bound(key.number) {
			w.bound[key] = t
			return t, true
		}
	}
	return nil, len(all) > 0
}

// bound tells whether the channel with the number is this tunnel's.
func (t *Tunnel) bound(number uint16) bool {
	w := t.wrap.Load()
	return !t.closed.Load() && w.kind == wrapChannel && w.number == number
}

// quic passes a datagram on that is none of ours.
func (w *Worker) quic(name *sockname, b []byte) {
	door := w.engine.door.Load()
	if door == nil {
		w.engine.drops.add(DropUnknown)
		return
	}
	(*door).QUIC(Tuple{w.group, *name}, b)
}
