package relay_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// rawDial connects to a node without a Fabric, with a certificate of the mesh.
// In a simulated network it listens at the address of host.
func rawDial(t *testing.T, mesh *relaytest.Mesh, id relaytest.Identity, addr netip.AddrPort, host byte) *quic.Conn {
	t.Helper()
	var pc net.PacketConn
	if mesh.Net != nil {
		pc = mesh.Net.Listen(relaytest.Address(residency.NodeName(host)))
	} else {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc = udp
	}
	_, client := mesh.CA.TLS(id, time.Now)
	tr := &quic.Transport{Conn: pc}
	conn, err := tr.Dial(context.Background(), net.UDPAddrFromAddrPort(addr), client, &quic.Config{EnableDatagrams: true, MaxIncomingStreams: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.CloseWithError(0, "")
		tr.Close()
		pc.Close()
	})
	return conn
}

// readError waits until the connection is closed and returns why.
func readError(conn *quic.Conn) error {
	<-conn.Context().Done()
	return context.Cause(conn.Context())
}

// intruder is a node of the mesh that keeps to nothing after its HELLO.
type intruder struct {
	conn    *quic.Conn
	control *quic.Stream
	victim  *relaytest.Node
	link    *relay.Link
}

func intrude(t *testing.T) *intruder {
	t.Helper()
	mesh := relaytest.NewMesh(t, nil)
	mesh.Configure = func(_ residency.NodeName, c *relay.Config) { c.FrameDeadline = 300 * time.Millisecond }
	return intrudeOn(t, mesh)
}

// intrudeOn links with a node of a mesh as node a.
func intrudeOn(t *testing.T, mesh *relaytest.Mesh) *intruder {
	t.Helper()
	victim := mesh.Start(t, "b", netip.AddrPort{})
	victim.Answer(func(_ context.Context, m relaytest.Message) ([]byte, residency.Permit, error) {
		return []byte(m.Body), relaytest.Permit(t, m.Link.Peer(), 1, m.Room, m.Class), nil
	})
	victim.Fabric.SetPeers([]relay.Peer{{Name: "a"}})
	conn := rawDial(t, mesh, mesh.CA.Identity(t, residency.Node{Name: "a", Country: "DE"}), victim.Addr, 'a')
	control, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Write(wire.AppendHello(nil, wire.Hello{Version: wire.Version})); err != nil {
		t.Fatal(err)
	}
	return &intruder{conn: conn, control: control, victim: victim, link: relaytest.Await(t, victim.Up, "link")}
}

// expectEnd waits for the victim to close the link for the given reason.
func (in *intruder) expectEnd(t *testing.T, why string) {
	t.Helper()
	end := relaytest.Await(t, in.victim.Down, "link is down")
	le := linkError(t, end.Err)
	if le.Code != wire.CodeProtocol || !strings.Contains(le.Text, why) {
		t.Errorf("link ended with %v, want a breach of protocol that says %q", le, why)
	}
}

func envelope(t wire.Type, n uint32, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{byte(t)}, n)
	return append(b, payload...)
}

func TestHostilePeerLosesTheLink(t *testing.T) {
	frame := func(alias uint32, layer uint8, rest ...byte) []byte {
		b := make([]byte, wire.FrameSize)
		wire.PutFrame(b, wire.Frame{Alias: alias, Layer: layer})
		return append(b, rest...)
	}
	control := func(b []byte) func(*testing.T, *intruder) {
		return func(_ *testing.T, in *intruder) { in.control.Write(b) }
	}
	stream := func(b []byte) func(*testing.T, *intruder) {
		return func(t *testing.T, in *intruder) {
			bind(t, in.link, 1, relaytest.NewSink())
			s, err := in.conn.OpenUniStream()
			if err != nil {
				t.Fatal(err)
			}
			s.Write(b)
			s.Close()
		}
	}
	request := func(b []byte) func(*testing.T, *intruder) {
		return func(t *testing.T, in *intruder) {
			s, err := in.conn.OpenStream()
			if err != nil {
				t.Fatal(err)
			}
			s.Write(b)
			s.Close()
		}
	}
	datagram := func(b []byte) func(*testing.T, *intruder) {
		return func(_ *testing.T, in *intruder) { in.conn.SendDatagram(b) }
	}
	account := func(room string, epoch uint64) []byte {
		return wire.AppendAccount(nil, wire.Account{Number: 1, Epoch: epoch, Class: "chat", Room: room})
	}
	tally := func(n uint64, final bool) []byte {
		return wire.AppendTally(nil, wire.Tally{Account: 1, Packets: n, Bytes: n, Final: final})
	}
	for name, c := range map[string]struct {
		attack func(*testing.T, *intruder)
		why    string
	}{
		"control: garbage":         {control([]byte("GET / HTTP/1.1\r\n\r\n")), "type 71 is unknown"},
		"control: huge length":     {control(envelope(wire.TypeMessage, 0xffffffff)), "4294967295 bytes"},
		"control: second hello":    {control(wire.AppendHello(nil, wire.Hello{Version: 1})), "HELLO on the control stream"},
		"control: bad message":     {control(envelope(wire.TypeMessage, 3, 0, 1, 200)), "input ends too early"},
		"control: bad report":      {control(wire.AppendReport(nil, wire.Report{Alias: 0})), "alias 0"},
		"control: account 0":       {control(wire.AppendAccount(nil, wire.Account{})), "number 0"},
		"control: track of none":   {control(wire.AppendTrack(nil, wire.Track{Alias: 1, Account: 7})), "which is not open"},
		"control: other room":      {control(slices.Concat(account("r1", 1), account("r2", 1))), "another room or class"},
		"control: other epoch":     {control(slices.Concat(account("r1", 1), account("r1", 2))), "of epoch 1, then of 2"},
		"control: message of none": {control(wire.AppendMessage(nil, wire.TypeMessage, wire.Message{Room: "r1"})), "account 0"},
		"control: tally falls":     {control(slices.Concat(account("r1", 1), tally(7, false), tally(6, false))), "falls"},
		"control: tally revived":   {control(slices.Concat(account("r1", 1), tally(7, true), tally(8, false))), "falls"},
		"control: closed":          {func(_ *testing.T, in *intruder) { in.control.Close() }, "control stream ended"},
		"control: reset":           {func(_ *testing.T, in *intruder) { in.control.CancelWrite(9) }, "control stream ended"},
		"stream: garbage":          {stream([]byte("garbage that is long enough")), "layer 97"},
		"stream: alias 0":          {stream(frame(0, 0)), "alias 0"},
		"stream: cut header":       {stream([]byte{1, 2}), "input ends too early"},
		"stream: huge packet":      {stream(frame(1, 0, 0x7f, 0xff)), "32767 bytes"},
		"stream: tiny packet":      {stream(frame(1, 0, 0, 1, 7)), "1 bytes, allowed are"},
		"stream: cut packet":       {stream(frame(1, 0, 0, 100, 1, 2, 3)), "input ends too early"},
		"request: nothing":         {request(nil), "without a request"},
		"request: wrong type":      {request(wire.AppendHello(nil, wire.Hello{})), "HELLO where REQUEST"},
		"request: cut":             {request(envelope(wire.TypeRequest, 1000, 1)), "input ends too early"},
		"request: huge length":     {request(envelope(wire.TypeRequest, 1<<31)), "2147483648 bytes"},
		"datagram: cut":            {datagram([]byte{1}), "input ends too early"},
		"datagram: cut record":     {datagram([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 99, 99}), "input ends too early"},
		"datagram: heartbeat 7":    {datagram([]byte{0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0}), "heartbeat 7"},
		"datagram: unknown layer":  {datagram([]byte{0, 0, 0, 0, 0, 0, 0, 1, 7, 0, 0}), "layer 7"},
	} {
		t.Run(name, func(t *testing.T) {
			in := intrude(t)
			c.attack(t, in)
			in.expectEnd(t, c.why)
		})
	}
}

// Streams that are opened and left cost the victim a bounded number of
// goroutines and no growing memory, and in the end they cost the peer the link.
func TestFloodOfStreamsIsBounded(t *testing.T) {
	in := intrude(t)
	before := heap()
	head := make([]byte, wire.FrameSize)
	opened := 0
	for range 10_000 { // of an alias that nobody bound: read, counted, refused
		ctx, cancel := context.WithTimeout(context.Background(), relaytest.Patience)
		s, err := in.conn.OpenUniStreamSync(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		wire.PutFrame(head, wire.Frame{Alias: 9, Number: uint32(opened)})
		s.Write(head)
		s.CancelWrite(1)
		opened++
	}
	eventually(t, "all streams were seen", func() bool {
		d := in.link.Stats().Drops
		return d["unbound"]+d["cut"] == 10_000
	})
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("10,000 streams left %d bytes behind", grown)
	}
	held := 0
	for { // left open without a word
		s, err := in.conn.OpenUniStream()
		if err != nil {
			break
		}
		s.Write([]byte{0})
		held++
	}
	if held > 1024 {
		t.Errorf("%d streams could be held open", held)
	}
	eventually(t, "victim reads them", func() bool { return runtime.NumGoroutine() > held/2 })
	if n := runtime.NumGoroutine(); n > held+100 {
		t.Errorf("%d goroutines for %d streams", n, held)
	}
	in.expectEnd(t, "left open")
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A length alone must not cost memory.
func TestClaimedLengthCostsNothing(t *testing.T) {
	in := intrude(t)
	before := heap()
	for range 60 {
		s, err := in.conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		s.Write(envelope(wire.TypeRequest, wire.MaxMessage, 0))
	}
	eventually(t, "requests are being read", func() bool { return runtime.NumGoroutine() > 60 })
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("60 claims of a megabyte took %d bytes", grown)
	}
}

func TestStrangerIsRefused(t *testing.T) {
	mesh := relaytest.NewMesh(t, nil)
	b := mesh.Start(t, "b", netip.AddrPort{})
	conn := rawDial(t, mesh, mesh.CA.Identity(t, residency.Node{Name: "a", Country: "DE"}), b.Addr, 'a')
	if err := readError(conn); !strings.Contains(err.Error(), `node "b" does not link with node "a"`) {
		t.Errorf("node that is no peer: %v", err)
	}
}
