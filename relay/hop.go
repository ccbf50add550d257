package relay

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/sfu/bwe"
	"github.com/domicile/domicile/relay/flow"
	"github.com/domicile/domicile/relay/seal"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/udp"
)

const (
	// hopLabel is for private use without registration (RFC 5705 section 4).
	hopLabel = "EXPERIMENTAL domicile link media"
	// hopVersion is the first wire version that knows CARRIAGE.
	hopVersion = 3
	// hopArena is room for what leaves in one round: 10 ms at 100 Mbit/s.
	hopArena = 128 << 10
	// inboxSlots is how much feedback may wait for hop.run.
	inboxSlots = 32
	// startRate is what is assumed of an unknown path, bit/s: two pictures and some
	// voices at once. Probes reach ten times that within a second.
	startRate = 5e6
	// maxRate bounds the estimate, bit/s.
	maxRate = 10e9
	// firstTrip is assumed until a heartbeat has come back.
	firstTrip = 100 * time.Millisecond
)

// hop is the carriage on UDP: media in datagrams that are sealed by keys of the
// link's handshake, asked for again by the next node when one is lost, and no more
// of it than the path carries. A packet's way:
//
//	offer → queue → run → sendAudio, sendVideo → write → seal → udp.Sender
//	Fabric.receiveMedia → receive → open → deliver → binding.deliver
//	                             └→ Arrivals → answer ──► heard → resend
//
// The datagrams go to the address at which QUIC has the peer, at the port that it
// told on the control stream, and nowhere else.
type hop struct {
	// Static.
	l      *Link
	id     uint32 // that the peer puts into its datagrams
	socket *udp.Socket
	ready  readyList
	wake   chan struct{}      // holds a token while there may be something to do
	peer   chan wire.Carriage // the peer's, once
	opened atomic.Pointer[opening]

	// Written by run.
	active atomic.Bool  // media goes this way
	silent atomic.Int64 // nanoseconds without a datagram after which one is due; 0: none is
	limit  atomic.Int32 // longest datagram
	state  atomic.Pointer[hopState]
	count  hopCounters

	in inbox

	send sending // owned by run
}

// opening is what hop needs to receive. The lock is held for a datagram at a time.
type opening struct {
	mu       sync.Mutex
	opener   *seal.Opener
	arrivals flow.Arrivals
}

// hopState is what others may see of run's.
type hopState struct {
	carriage flow.Carriage
	why      flow.Reason
	estimate float64
	cause    bwe.Reason
	queue    time.Duration
	loss     float64
	moves    int
	held     int
	phase    uint32
}

// hopCounters are of datagrams.
type hopCounters struct {
	sent, received, repairs, unsent, missed atomic.Uint64
}

// newHop makes the UDP side of a link, nil if this node has none.
func newHop(l *Link) *hop {
	if l.f.media == nil || l.version < hopVersion {
		return nil
	}
	h := &hop{l: l, socket: l.f.media, wake: make(chan struct{}, 1), peer: make(chan wire.Carriage, 1)}
	h.limit.Store(flow.FirstLength)
	h.state.Store(&hopState{carriage: flow.QUIC, why: flow.Alone})
	h.id = l.f.addHop(h)
	l.outbox.put(outgoing{tally: true, envelope: wire.AppendCarriage(nil, wire.Carriage{ID: h.id, Port: h.socket.Addr().Port()})})
	return h
}

// export gives the secrets of the direction in which end sends.
func (h *hop) export(end residency.NodeName) seal.Export {
	return func(phase uint32) ([]byte, error) {
		state := h.l.conn.ConnectionState().TLS
		return state.ExportKeyingMaterial(hopLabel, binary.BigEndian.AppendUint32([]byte(end), phase), seal.SecretSize)
	}
}

// takeCarriage handles the peer's CARRIAGE.
func (l *Link) takeCarriage(c wire.Carriage) error {
	if l.hop == nil {
		return nil // it has one, this node has not
	}
	select {
	case l.hop.peer <- c:
		return nil
	default:
	}
	return protocolError(fmt.Errorf("a second carriage at port %d", c.Port))
}

// open makes the keys, for the peer's carriage.
func (h *hop) open(c wire.Carriage) error {
	now := time.Now()
	opener, err := seal.NewOpener(h.export(h.l.peer.Name))
	if err != nil {
		return err
	}
	sealer, err := seal.NewSealer(h.export(h.l.cfg.Self.Name), c.ID, now)
	if err != nil {
		return err
	}
	o := &opening{opener: opener}
	o.arrivals.Patience = h.l.cfg.FrameDeadline
	h.send.init(h, sealer, c.Port, now)
	h.opened.Store(o)
	return nil
}

// to is where the peer takes datagrams.
func (h *hop) to(port uint16) netip.AddrPort {
	a, err := netip.ParseAddrPort(h.l.conn.RemoteAddr().String())
	if err != nil {
		if u, ok := h.l.conn.RemoteAddr().(*net.UDPAddr); ok {
			a = u.AddrPort()
		}
	}
	return netip.AddrPortFrom(a.Addr(), port)
}

// takes reports whether a packet of n bytes goes this way.
func (h *hop) takes(n int) bool {
	return h.active.Load() && n <= int(h.limit.Load())-mediaOverhead-wire.RecordOverhead
}

// mediaOverhead is what a datagram has beside its records. MEDIA leaves room for
// becoming a REPAIR.
const mediaOverhead = wire.HopSize + wire.RepairSize + wire.HopTag

// offer queues a packet of a layer, unless the path does not carry the layer.
func (h *hop) offer(t *Track, layer uint8, marker bool, rtp []byte) {
	o := t.outlet(layer)
	o.offered.Add(uint64(len(rtp)))
	if t.thinned.Load()>>layer&1 != 0 {
		t.count.drop(DropThinned, 1)
		return
	}
	var head [wire.RecordOverhead]byte
	wire.PutRecord(head[:], t.alias, layer, len(rtp))
	t.count.drop(DropQueueFull, o.queue.push(head[:], rtp, marker))
	h.ready.put(o)
	h.wakeUp()
}

func (h *hop) wakeUp() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// live has a datagram leave, unless one did within half a beat.
func (h *hop) live(beat time.Duration) {
	h.silent.Store(int64(beat / 2))
	h.wakeUp()
}

func (h *hop) chosen() (flow.Carriage, flow.Reason) {
	s := h.state.Load()
	return s.carriage, s.why
}

// rtt is the round trip of heartbeats.
func (h *hop) rtt() time.Duration {
	if d := h.l.heart.smoothed(); d > 0 {
		return d
	}
	return firstTrip
}

// inbox holds feedback between the goroutine that reads and the one that sends.
// What does not fit is dropped: the next says most of it again.
type inbox struct {
	// Guarded by mu.
	mu    sync.Mutex
	slots [inboxSlots][]byte
	n     int
}

func (in *inbox) put(b []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.n < inboxSlots {
		in.slots[in.n] = append(in.slots[in.n][:0], b...)
		in.n++
	}
}

// take moves all into to, whose memory the inbox uses from now on.
func (in *inbox) take(to *[inboxSlots][]byte) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.n
	for i := range n {
		in.slots[i], to[i] = to[i], in.slots[i]
	}
	in.n = 0
	return n
}
