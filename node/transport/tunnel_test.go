package transport

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

// doorman is a Door that keeps what came.
type doorman struct {
	mu     sync.Mutex
	stun   [][]byte
	quic   [][]byte
	from   Tuple
	onSTUN func(w *Worker, from Tuple, b []byte)
}

func (d *doorman) STUN(w *Worker, from Tuple, b []byte) {
	d.mu.Lock()
	d.stun, d.from = append(d.stun, bytes.Clone(b)), from
	on := d.onSTUN
	d.mu.Unlock()
	if on != nil {
		on(w, from, b)
	}
}

func (d *doorman) QUIC(from Tuple, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.quic, d.from = append(d.quic, bytes.Clone(b)), from
}

// relayed is what clients of tunnels are known as.
var relayed = netip.MustParseAddrPort("198.51.100.7:50000")

const channelNumber = 0x4abc

func channelData(number uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, number)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

func allocate(t testing.TB) []byte {
	t.Helper()
	m, err := stun.Build(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest))
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// TestDoors says who gets what a client without a path or tunnel sends.
func TestDoors(t *testing.T) {
	d := &doorman{}
	e := listen(t, func(c *Config) { c.Door = d })
	c, a := newConn(t, e), newAgent(t, e)
	binding, err := stun.Build(stun.TransactionID, stun.BindingRequest)
	if err != nil {
		t.Fatal(err)
	}
	success, err := stun.Build(stun.TransactionID, stun.BindingSuccess)
	if err != nil {
		t.Fatal(err)
	}
	alloc := allocate(t)
	byDoor := [][]byte{alloc, binding.Raw}
	byQUIC := [][]byte{{0x40, 0, 0, 4, 1}, {0x4f, 1, 0, 0}, {0x50, 1, 2}, {0x7f, 9}, {0xc0, 0, 0, 0, 1}, {0xff, 1}}
	byNobody := [][]byte{success.Raw, request(t, "nobody", "pwd").Raw, {0, 1, 0, 0}, {16, 1}, {63}, {0x40, 0, 1}}
	for _, b := range slices.Concat(byDoor, byQUIC, byNobody) {
		a.send(b)
	}
	a.check(c.Local()) // and fails if another was answered
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.EqualFunc(d.stun, byDoor, bytes.Equal) {
		t.Errorf("the door got STUN %x, want %x", d.stun, byDoor)
	}
	if !slices.EqualFunc(d.quic, byQUIC, bytes.Equal) {
		t.Errorf("the door got QUIC %x, want %x", d.quic, byQUIC)
	}
	if d.from.AddrPort() != a.addr() || d.from.Local() != e.MediaAddrs()[0] {
		t.Errorf("it came from %v to %v", d.from.AddrPort(), d.from.Local())
	}
	want := map[string]uint64{DropBadCheck.String(): 2, DropNoUfrag.String(): 1, DropUnknown.String(): 3}
	if got := e.Stats().Drops; len(got) != len(want) || got["bad_check"] != 2 || got["no_ufrag"] != 1 || got["unknown"] != 3 {
		t.Errorf("drops %v, want %v", got, want)
	}
}

// TestRepliesOfADoor leave from where the question came, from the worker and later.
func TestRepliesOfADoor(t *testing.T) {
	d := &doorman{}
	e := listen(t, func(c *Config) { c.Door = d })
	a := newAgent(t, e)
	d.mu.Lock()
	d.onSTUN = func(w *Worker, from Tuple, b []byte) {
		for i := range byte(maxRead + 3) { // more than are kept ready
			w.Reply(from, []byte{1, i})
		}
	}
	d.mu.Unlock()
	a.send(allocate(t))
	for i := range byte(maxRead + 3) {
		if got := a.read(); !bytes.Equal(got, []byte{1, i}) {
			t.Fatalf("reply %d is %v", i, got)
		}
	}
	d.mu.Lock()
	from := d.from
	d.mu.Unlock()
	e.SendTo(from, []byte("later"))
	if got := a.read(); string(got) != "later" {
		t.Errorf("got %q", got)
	}
	e.SendTo(Tuple{}, []byte("nowhere"))
	if n := e.Stats().Drops[DropUnreachable.String()]; n != 1 {
		t.Errorf("%d drops for a reply to nowhere, want 1", n)
	}
}

// turnClient is an agent with a tunnel.
type turnClient struct {
	*agent
	tunnel *Tunnel
}

// openUDP gives an agent a tunnel as a TURN allocation with a bound channel has it.
func openUDP(t testing.TB, e *Engine, owner string, change ...func(*TunnelConfig)) *turnClient {
	t.Helper()
	a := newAgent(t, e)
	cfg := TunnelConfig{Client: relayed, Owner: owner, Tuple: Tuple{e.groups[0], nameOf(a.addr())}, Wrap: WrapChannel(channelNumber, false)}
	for _, c := range change {
		c(&cfg)
	}
	tunnel, err := e.OpenTunnel(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tunnel.Close)
	return &turnClient{a, tunnel}
}

// checkThrough makes a check through the tunnel and returns the answer.
func (c *turnClient) checkThrough(l Local, more ...stun.Setter) *stun.Message {
	c.t.Helper()
	m := request(c.t, l.Ufrag, l.Pwd, more...)
	c.send(channelData(channelNumber, m.Raw))
	got := c.read()
	if binary.BigEndian.Uint16(got) != channelNumber || int(binary.BigEndian.Uint16(got[2:])) != len(got)-4 {
		c.t.Fatalf("the answer is wrapped as %x", got[:4])
	}
	var reply stun.Message
	if err := stun.Decode(got[4:], &reply); err != nil {
		c.t.Fatal(err)
	}
	if reply.TransactionID != m.TransactionID || reply.Check(stun.NewShortTermIntegrity(l.Pwd), stun.Fingerprint) != nil {
		c.t.Fatalf("the answer is %v", reply)
	}
	return &reply
}

func ownedConn(t testing.TB, e *Engine, owner string) *Conn {
	t.Helper()
	c, err := e.NewConn(newRecorder(), ConnConfig{Owner: owner})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestChecksThroughATunnel are told the client's address as the tunnel has it, and
// make a path of their own beside a direct one from the same socket.
func TestChecksThroughATunnel(t *testing.T) {
	e := listen(t)
	c, a := ownedConn(t, e, "room\x00ada"), openUDP(t, e, "room\x00ada")
	a.check(c.Local())
	reply := a.checkThrough(c.Local(), useCandidate)
	var mapped stun.XORMappedAddress
	if err := mapped.GetFrom(reply); err != nil || mapped.String() != relayed.String() {
		t.Errorf("the check is told %v (%v), want %v", mapped, err, relayed)
	}
	if p := c.way(); p == nil || p.tunnel != a.tunnel || e.Stats().Paths != 2 {
		t.Errorf("sends on %+v of %d paths, want the tunnel of two", p, e.Stats().Paths)
	}
	a.check(c.Local(), useCandidate)
	if p := c.way(); p.tunnel != nil {
		t.Error("the tunnel is still selected")
	}
}

// TestTunnelsReachTheirOwnerAlone (A4): others' connections do not answer.
func TestTunnelsReachTheirOwnerAlone(t *testing.T) {
	e := listen(t)
	mine, other, nobodys := ownedConn(t, e, "ada"), ownedConn(t, e, "bob"), ownedConn(t, e, "")
	a := openUDP(t, e, "ada")
	for _, c := range []*Conn{other, nobodys} {
		for _, more := range [][]stun.Setter{{useCandidate}, {attribute(stun.AttrICEControlled)}, {attribute(0x7ffe)}} {
			a.send(channelData(channelNumber, request(t, c.Local().Ufrag, c.Local().Pwd, more...).Raw))
		}
	}
	a.checkThrough(mine.Local()) // fails if another was answered
	if n := e.Stats().Drops[DropNotOwner.String()]; n != 6 || other.way() != nil || nobodys.way() != nil {
		t.Errorf("%d checks dropped, want 6", n)
	}
	anybodys := openUDP(t, e, "")
	anybodys.checkThrough(other.Local())
	anybodys.check(other.Local()) // directly they all can
}

// TestALivingTunnelCannotBeTaken by another connection of the same owner.
func TestALivingTunnelCannotBeTaken(t *testing.T) {
	clock := newClock()
	e := listen(t, func(c *Config) { c.Now = clock.now })
	mine, other := ownedConn(t, e, "ada"), ownedConn(t, e, "ada")
	a := openUDP(t, e, "ada")
	a.checkThrough(mine.Local())
	a.send(channelData(channelNumber, request(t, other.Local().Ufrag, other.Local().Pwd).Raw))
	a.checkThrough(mine.Local()) // fails if the other was answered
	if n := e.Stats().Drops[DropPathTaken.String()]; n != 1 {
		t.Errorf("%d checks dropped, want 1", n)
	}
	clock.advance(takeoverAfter)
	a.checkThrough(other.Local())
	if mine.way() != nil || other.way() == nil {
		t.Error("a silent tunnel was not given to who proved himself on it")
	}
}

// TestWhatChannelsDoNotCarry is dropped by name, and never taken for QUIC.
func TestWhatChannelsDoNotCarry(t *testing.T) {
	d := &doorman{}
	e := listen(t, func(c *Config) { c.Door = d })
	c, a := ownedConn(t, e, "ada"), openUDP(t, e, "ada")
	check := request(t, c.Local().Ufrag, c.Local().Pwd).Raw
	long := channelData(channelNumber, check)
	long[3]++ // says more than there is
	for _, b := range [][]byte{
		channelData(channelNumber+1, check), long, // no_channel
		channelData(channelNumber, nil), channelData(channelNumber, allocate(t)), channelData(channelNumber, []byte{0x40, 0, 0, 0}),
		channelData(channelNumber, []byte{0xc0, 1}),                                                          // unknown, bad_check
		channelData(channelNumber, packet(1, 1, []byte("media"))), channelData(channelNumber, []byte{22, 1}), // no_path
	} {
		a.send(b)
	}
	a.checkThrough(c.Local())
	drops := e.Stats().Drops
	if drops["no_channel"] != 2 || drops["unknown"] != 3 || drops["bad_check"] != 1 || drops["no_path"] != 2 {
		t.Errorf("drops %v", drops)
	}
	if len(d.stun)+len(d.quic) > 0 {
		t.Errorf("the door got %x, %x", d.stun, d.quic)
	}
	padded := append(channelData(channelNumber, check[:len(check)-1]), 0, 0) // what stands behind the length counts for nothing
	a.send(padded)
	a.checkThrough(c.Local())
}

// TestOneClientHasSeveralTunnels, one for each of our addresses.
func TestOneClientHasSeveralTunnels(t *testing.T) {
	e := listen(t)
	c, a := ownedConn(t, e, "ada"), openUDP(t, e, "ada")
	second, err := e.OpenTunnel(TunnelConfig{Client: relayed, Owner: "ada", Tuple: a.tunnel.cfg.Tuple, Wrap: WrapChannel(channelNumber+1, false)})
	if err != nil {
		t.Fatal(err)
	}
	a.checkThrough(c.Local())
	a.send(channelData(channelNumber+1, request(t, c.Local().Ufrag, c.Local().Pwd).Raw))
	if got := a.read(); binary.BigEndian.Uint16(got) != channelNumber+1 || e.Stats().Paths != 2 {
		t.Errorf("answer on %x, %d paths", got[:2], e.Stats().Paths)
	}
	second.SetWrap(WrapChannel(channelNumber+2, false)) // channels can be bound anew
	a.send(channelData(channelNumber+1, request(t, c.Local().Ufrag, c.Local().Pwd).Raw))
	a.send(channelData(channelNumber+2, request(t, c.Local().Ufrag, c.Local().Pwd).Raw))
	if got := a.read(); binary.BigEndian.Uint16(got) != channelNumber+2 {
		t.Errorf("answer on %x", got[:2])
	}
	second.Close()
	a.checkThrough(c.Local())
	if n := e.Stats().Paths; n != 1 {
		t.Errorf("%d paths, want 1", n)
	}
}

// standingOn returns a connection as it is after the handshake, on a tunnel.
func standingOn(t testing.TB, e *Engine, h Handler, tunnel *Tunnel) *Conn {
	t.Helper()
	return standingAt(t, e, h, tunnel.key)
}

// TestClosedTunnels carry nothing any more, not even what is in a batch.
func TestClosedTunnels(t *testing.T) {
	e := listen(t)
	r, a := newRecorder(), openUDP(t, e, "")
	c := standingOn(t, e, r, a.tunnel)
	defer c.Close()
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b := e.Batch()
	if err := s.Write(b, packet(1, 1, []byte("late"))); err != nil {
		t.Fatal(err)
	}
	a.tunnel.Close()
	if c.way() != nil {
		t.Error("the connection still sends there")
	}
	e.Release(b)
	a.send(channelData(channelNumber, clientSeal(t)(packet(1, 1, []byte("late")))))
	a.send(channelData(channelNumber, request(t, c.local.ufrag, c.local.pwd).Raw))
	a.check(newConn(t, e).Local()) // fails if anything else came
	if len(r.events) > 0 {
		t.Errorf("came: %v", r.summary())
	}
	if c.proved(a.tunnel.key, true, c.local, e.now()) != nil {
		t.Error("a closed tunnel can be proved")
	}
	if drops := e.Stats().Drops; drops["unreachable"] != 1 || drops["unknown"] != 2 || len(e.tunnels) != 0 {
		t.Errorf("drops %v, %d tunnels", drops, len(e.tunnels))
	}
	a.tunnel.Close() // again
}

// TestFramesLeaveAsOneMessage also through a tunnel, of segments with their headers.
func TestFramesLeaveAsOneMessage(t *testing.T) {
	e := listen(t)
	a := openUDP(t, e, "")
	c := standingOn(t, e, silent{}, a.tunnel)
	defer c.Close()
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b := e.Batch()
	sizes := []int{1100, 1100, 1100, 700}
	for i, n := range sizes {
		room := b.Reserve(1500)
		p := room[:copy(room, packet(1, uint16(i), make([]byte, n)))]
		if err := s.Write(b, p); err != nil {
			t.Fatal(err)
		}
	}
	if len(b.messages) != 1 {
		t.Errorf("%d messages, want one", len(b.messages))
	}
	e.Release(b)
	in, err := newOpener(c.keys.Load())
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range sizes {
		got := a.read()
		if int(binary.BigEndian.Uint16(got)) != channelNumber || int(binary.BigEndian.Uint16(got[2:])) != len(got)-4 {
			t.Fatalf("packet %d is wrapped as %x of %d", i, got[:4], len(got))
		}
		plain, err := in.context.DecryptRTP(nil, got[4:], nil)
		if err != nil || len(plain) != rtpHeader+n {
			t.Errorf("packet %d: %d bytes, %v", i, len(plain), err)
		}
	}
	if st := a.tunnel.Stats(); st.PacketsOut != 4 || st.BytesOut < 4000 {
		t.Errorf("stats %+v", st)
	}
}

// TestWraps says what stands around a datagram.
func TestWraps(t *testing.T) {
	around := func(w Wrap, data []byte) []byte {
		b := make([]byte, len(data)+maxWrap)
		n := w.around(b, copy(b, data))
		return b[:n]
	}
	for _, c := range []struct {
		name string
		wrap Wrap
		want []byte
	}{
		{"none", WrapNone, []byte("media")},
		{"length", WrapLength, []byte("\x00\x05media")},
		{"channel", WrapChannel(0x4001, false), []byte("\x40\x01\x00\x05media")},
		{"channel on a stream", WrapChannel(0x4001, true), []byte("\x40\x01\x00\x05media\x00\x00\x00")},
	} {
		if got := around(c.wrap, []byte("media")); !bytes.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, peer := range []string{"192.0.2.1:7882", "[2001:db8::1]:7882"} {
		for _, data := range []string{"media", "four", ""} {
			m := &stun.Message{Raw: around(WrapData(netip.MustParseAddrPort(peer)), []byte(data))}
			if err := m.Decode(); err != nil || m.Type != stun.NewType(stun.MethodData, stun.ClassIndication) {
				t.Fatalf("%s: %v: %v", peer, m, err)
			}
			var addr stun.XORMappedAddress
			if err := addr.GetFromAs(m, stun.AttrXORPeerAddress); err != nil || addr.String() != peer {
				t.Errorf("peer %v, want %s: %v", addr, peer, err)
			}
			if got, err := m.Get(stun.AttrData); err != nil || string(got) != data {
				t.Errorf("data %q, want %q: %v", got, data, err)
			}
		}
	}
}

// TestBandwidthOfATunnel bounds each direction by itself.
func TestBandwidthOfATunnel(t *testing.T) {
	clock := newClock()
	e := listen(t, func(c *Config) { c.Now = clock.now })
	a := openUDP(t, e, "", func(c *TunnelConfig) { c.Bandwidth = 10000 })
	c := standingOn(t, e, silent{}, a.tunnel)
	defer c.Close()
	w := newWorker(e, e.groups[0], e.groups[0].socks[0], 0)
	in := func() {
		b := channelData(channelNumber, make([]byte, 1000))
		b[4] = 128
		name := nameOf(a.addr())
		w.datagram(&name, b, clock.now())
	}
	for range 15 {
		in()
	}
	if st, n := a.tunnel.Stats(), e.Stats().Drops["over_rate"]; st.PacketsIn != 10 || n != 5 {
		t.Errorf("%d packets in, %d dropped, want 10 and 5", st.PacketsIn, n)
	}
	clock.advance(100 * time.Millisecond)
	in()
	in()
	if st := a.tunnel.Stats(); st.PacketsIn != 11 {
		t.Errorf("%d packets in a tenth of a second later, want 11", st.PacketsIn)
	}
	b := e.Batch()
	for range 15 {
		b.send(c.way(), make([]byte, 1000))
	}
	if st := a.tunnel.Stats(); st.PacketsOut != 10 || len(b.messages) != 1 {
		t.Errorf("%d packets out, want 10", st.PacketsOut)
	}
	e.Release(b)
}

func TestTunnelsThatCannotBe(t *testing.T) {
	e := listen(t)
	udp := Tuple{e.groups[0], nameOf(relayed)}
	for name, cfg := range map[string]TunnelConfig{
		"no way":    {Client: relayed},
		"no client": {Tuple: udp},
	} {
		if _, err := e.OpenTunnel(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.OpenTunnel(TunnelConfig{Client: relayed, Tuple: udp}); err == nil {
		t.Error("an engine that is closed opens a tunnel")
	}
}

// TestTunnelsEndDuringTraffic of several workers, which the race detector watches.
func TestTunnelsEndDuringTraffic(t *testing.T) {
	e := listen(t)
	for range 20 {
		a := openUDP(t, e, "")
		c := standingOn(t, e, silent{}, a.tunnel)
		s, err := c.NewStream()
		if err != nil {
			t.Fatal(err)
		}
		var traffic sync.WaitGroup
		begun := make(chan struct{}, 2)
		done := make(chan struct{})
		run := func(f func(seq uint16)) {
			traffic.Go(func() {
				for seq := uint16(0); ; seq++ {
					f(seq)
					select {
					case begun <- struct{}{}:
					case <-done:
						return
					default:
					}
				}
			})
		}
		seal := clientSeal(t)
		run(func(seq uint16) { _, _ = a.sock.Write(channelData(channelNumber, seal(packet(1, seq, nil)))) })
		run(func(seq uint16) {
			b := e.Batch()
			_ = s.Write(b, packet(2, seq, make([]byte, 500)))
			e.Release(b)
		})
		<-begun
		<-begun
		a.tunnel.Close()
		c.Close()
		close(done)
		traffic.Wait()
	}
	if s := e.Stats(); s.Paths != 0 || s.Conns != 0 || len(e.tunnels) != 0 {
		t.Errorf("left: %+v, %d tunnels", s, len(e.tunnels))
	}
}
