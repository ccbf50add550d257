package relaytest

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Patience is how long Await waits before the test fails.
const Patience = 20 * time.Second

// Await returns what arrives on ch.
func Await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		t.Fatalf("%s: nothing in %s", what, Patience)
		panic("unreachable")
	}
}

// Node is a fabric that runs, with what its handler saw.
type Node struct {
	*Recorder

	Name   residency.NodeName
	ID     Identity
	Fabric *relay.Fabric
	Addr   netip.AddrPort
	Epoch  atomic.Uint64

	stop context.CancelFunc
	done chan error
}

// Stop ends the node as an operator would, and waits for it.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	n.stop()
	if err := Await(t, n.done, "node stops"); err != nil {
		t.Errorf("node %s: %v", n.Name, err)
	}
	n.done <- nil // Stop may be called again
}

// Mesh is a set of nodes with one CA.
type Mesh struct {
	CA  *CA
	Net *Network // nil: loopback addresses
	// UDP gives nodes the carriage on UDP, too.
	UDP bool
	// Configure changes a node's configuration before it starts.
	Configure func(name residency.NodeName, c *relay.Config)

	mu    sync.Mutex
	nodes map[residency.NodeName]*Node
}

// NewMesh makes an empty mesh.
func NewMesh(t testing.TB, net *Network) *Mesh {
	return &Mesh{CA: NewCA(t), Net: net, nodes: make(map[residency.NodeName]*Node)}
}

// Address is where a node of the simulated network listens.
func Address(name residency.NodeName) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, name[0]}), 7000)
}

// Start starts a node in Germany at addr; the zero value takes any free port.
func (m *Mesh) Start(t testing.TB, name residency.NodeName, addr netip.AddrPort) *Node {
	t.Helper()
	return m.StartAs(t, m.CA.Identity(t, residency.Node{Name: name, Country: "DE"}), addr)
}

// StartAs starts a node with an identity of any CA.
func (m *Mesh) StartAs(t testing.TB, id Identity, addr netip.AddrPort) *Node {
	t.Helper()
	n := &Node{Recorder: NewRecorder(), Name: id.Node.Name, ID: id, done: make(chan error, 1)}
	n.Epoch.Store(1)
	server, client := m.CA.TLS(id, time.Now)
	cfg := relay.Config{
		Self: id.Node, ServerTLS: server, ClientTLS: client, PeerNode: PeerNode, Handler: n.Recorder,
		Epoch:  func() residency.Epoch { return residency.Epoch(n.Epoch.Load()) },
		Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port()),
	}
	if m.Net != nil {
		cfg.Conn = m.Net.Listen(Address(id.Node.Name))
	}
	switch {
	case m.UDP && m.Net != nil:
		a := Address(id.Node.Name)
		cfg.MediaConn = m.Net.Listen(netip.AddrPortFrom(a.Addr(), a.Port()+1))
	case m.UDP:
		cfg.Media = netip.AddrPortFrom(cfg.Listen.Addr(), 0)
	}
	if m.Configure != nil {
		m.Configure(id.Node.Name, &cfg)
	}
	f, err := relay.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Fabric, n.Addr = f, f.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() { n.done <- f.Run(ctx) }()
	t.Cleanup(func() { n.Stop(t) })
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes[n.Name] = n
	return n
}

// Introduce tells all nodes of each other.
func (m *Mesh) Introduce() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var peers []relay.Peer
	for _, n := range m.nodes {
		peers = append(peers, relay.Peer{Name: n.Name, Addr: n.Addr})
	}
	for _, n := range m.nodes {
		n.Fabric.SetPeers(peers)
	}
}

// Pair starts the nodes "a" and "b" and returns them with their links.
func (m *Mesh) Pair(t testing.TB) (a, b *Node, ab, ba *relay.Link) {
	t.Helper()
	a, b = m.Start(t, "a", netip.AddrPort{}), m.Start(t, "b", netip.AddrPort{})
	m.Introduce()
	return a, b, Await(t, a.Up, "link at a"), Await(t, b.Up, "link at b")
}

// Permit returns a permit for data of a class and room to a peer, by a policy
// that allows everything, at the given epoch.
func Permit(t testing.TB, peer residency.Node, epoch residency.Epoch, room string, class residency.Class) residency.Permit {
	t.Helper()
	zones := make(map[residency.Class]residency.Zone)
	for _, c := range residency.Classes() {
		zones[c] = residency.Zone{Name: "anywhere", Anywhere: true}
	}
	gate := residency.NewGate(&residency.Bundle{
		Epoch: epoch, Default: "open",
		Policies: map[string]*residency.Policy{"open": {Name: "open", Zones: zones}},
	})
	p, v := gate.Permit(residency.Request{Room: room, Class: class, Peer: peer, PeerEpoch: epoch, Now: time.Now()})
	if !v.Allow {
		t.Fatalf("permit for node %s: %s", peer.Name, v.Reason)
	}
	return p
}

// Message is a message or request that arrived.
type Message struct {
	Link  *relay.Link
	Kind  relay.Kind
	Room  string
	Class residency.Class
	Body  string
}

// End is the end of a link.
type End struct {
	Link *relay.Link
	Err  error
}

// Recorder is a handler that writes down what it is given.
type Recorder struct {
	Up       chan *relay.Link
	Down     chan End
	Messages chan Message

	onMessage atomic.Pointer[func(Message)]
	answer    atomic.Pointer[Answer]
}

// Answer answers a request.
type Answer func(context.Context, Message) ([]byte, residency.Permit, error)

// OnMessage has fn called for every message before it is written down.
func (r *Recorder) OnMessage(fn func(Message)) { r.onMessage.Store(&fn) }

// Answer has requests answered by fn; without it they fail.
func (r *Recorder) Answer(fn Answer) { r.answer.Store(&fn) }

// NewRecorder makes a recorder whose channels hold what a test leaves unread.
func NewRecorder() *Recorder {
	return &Recorder{Up: make(chan *relay.Link, 64), Down: make(chan End, 64), Messages: make(chan Message, 4096)}
}

// LinkUp writes down the link.
func (r *Recorder) LinkUp(l *relay.Link) { r.Up <- l }

// LinkDown writes down the link's end.
func (r *Recorder) LinkDown(l *relay.Link, err error) { r.Down <- End{l, err} }

// Message writes down the message.
func (r *Recorder) Message(l *relay.Link, kind relay.Kind, room string, class residency.Class, body []byte) {
	m := Message{l, kind, room, class, string(body)}
	if fn := r.onMessage.Load(); fn != nil {
		(*fn)(m)
	}
	r.Messages <- m
}

// Request has the request answered.
func (r *Recorder) Request(ctx context.Context, l *relay.Link, kind relay.Kind, room string, class residency.Class, body []byte) ([]byte, residency.Permit, error) {
	fn := r.answer.Load()
	if fn == nil {
		return nil, residency.Permit{}, errors.New("nobody answers here")
	}
	return (*fn)(ctx, Message{l, kind, room, class, string(body)})
}

// Packet is a packet that a sink was given.
type Packet struct {
	Layer uint8
	Seq   uint16
	TS    uint32
	Size  int
	At    time.Time // arrival, as the link says
}

// Sink is a media sink that writes down packets and reports.
type Sink struct {
	Packets chan Packet
	Reports chan wire.SenderReport
	busy    [wire.MaxLayer + 1]atomic.Bool
	Clashes atomic.Int32 // calls for one layer at the same time
}

// NewSink makes a sink whose channels hold what a test leaves unread.
func NewSink() *Sink {
	return &Sink{Packets: make(chan Packet, 1<<16), Reports: make(chan wire.SenderReport, 64)}
}

// Media writes down the packets.
func (s *Sink) Media(layer uint8, rtp [][]byte, arrival time.Time) {
	if s.busy[layer].Swap(true) {
		s.Clashes.Add(1)
	}
	defer s.busy[layer].Store(false)
	for _, p := range rtp {
		s.Packets <- Packet{layer, binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint32(p[4:]), len(p), arrival}
	}
}

// Report writes down the report.
func (s *Sink) Report(_ uint8, sr wire.SenderReport, _ time.Time) { s.Reports <- sr }

// RTP makes a packet of size bytes.
func RTP(seq uint16, ts uint32, marker bool, size int) []byte {
	b := make([]byte, max(size, wire.MinPacket))
	b[0], b[1] = 0x80, 96
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	return b
}
