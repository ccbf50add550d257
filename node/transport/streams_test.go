package transport

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/domicile/domicile/node/stream"
)

// streamClient is a client whose tunnel is a stream.
type streamClient struct {
	tunnel *Tunnel
	conn   *Conn
	out    *Stream
	far    net.Conn // what the client reads
	wire   net.Conn // the TCP connection below it
}

// openStream gives a client a tunnel over TCP, or over TLS, with a standing
// connection on it.
func openStream(t testing.TB, e *Engine, h Handler, secure bool, wrap Wrap) *streamClient {
	t.Helper()
	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	c := &streamClient{far: far, wire: far}
	base := stream.New(near)
	s := stream.Over(base, base)
	if secure {
		s, c.far = overTLS(t, e, base, far)
	}
	if c.tunnel, err = e.OpenTunnel(TunnelConfig{Client: relayed, Stream: s, Wrap: wrap}); err != nil {
		t.Fatal(err)
	}
	c.conn = standingOn(t, e, h, c.tunnel)
	if c.out, err = c.conn.NewStream(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close(); c.tunnel.Close(); s.Cut() })
	return c
}

func overTLS(t testing.TB, e *Engine, base *stream.Conn, far net.Conn) (*stream.Conn, net.Conn) {
	t.Helper()
	server := tls.Server(base, &tls.Config{Certificates: []tls.Certificate{e.ident.cert}, DynamicRecordSizingDisabled: true})
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return stream.Over(server, base), client
}

// readFrame reads one packet with two bytes of length before it.
func readFrame(r io.Reader, room []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, room[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(room))
	_, err := io.ReadFull(r, room[2:2+n])
	return room[2 : 2+n], err
}

// TestAClientThatDoesNotReadHurtsNobodyElse: the same packets go to one that reads
// nothing and to one that reads all. Nothing waits, what is kept is bounded, and the
// other loses nothing.
func TestAClientThatDoesNotReadHurtsNobodyElse(t *testing.T) {
	const packets = 4000 // of 1 kB: several times what kernel and node keep
	e := listen(t)
	stuck, lively := openStream(t, e, silent{}, true, WrapLength), openStream(t, e, silent{}, true, WrapLength)
	read := make(chan int, packets)
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		defer close(read)
		room, in := make([]byte, 1<<16), clientOpen(t, lively.conn)
		for i := range packets {
			b, err := readFrame(lively.far, room)
			if err != nil {
				t.Errorf("packet %d: %v", i, err)
				return
			}
			if seq := in(b); seq != uint16(i) {
				t.Errorf("packet %d is number %d", i, seq)
				return
			}
			read <- i
		}
	})
	for i := range packets {
		b := e.Batch()
		for _, c := range []*streamClient{stuck, lively} {
			if err := c.out.Write(b, packet(1, uint16(i), make([]byte, 1000))); err != nil {
				t.Fatal(err)
			}
		}
		e.Release(b)
		if _, ok := <-read; !ok {
			t.Fatal("the lively client has lost a packet")
		}
	}
	drops := stuck.conn.Stats().Drops
	if drops["stream_full"] < packets/2 || len(lively.conn.Stats().Drops) > 0 {
		t.Errorf("drops %v to the stuck client, %v to the other", drops, lively.conn.Stats().Drops)
	}
	// What was taken arrives, whole and in order, when the client reads again.
	room, in := make([]byte, 1<<16), clientOpen(t, stuck.conn)
	last := -1
	for range packets - int(drops["stream_full"]) {
		b, err := readFrame(stuck.far, room)
		if err != nil {
			t.Fatal(err)
		}
		seq := int(in(b))
		if seq <= last {
			t.Fatalf("packet %d comes after %d", seq, last)
		}
		last = seq
	}
}

// clientOpen opens what a connection sent.
func clientOpen(t testing.TB, c *Conn) func(b []byte) (seq uint16) {
	t.Helper()
	in, err := newOpener(c.keys.Load())
	if err != nil {
		t.Fatal(err)
	}
	return func(b []byte) uint16 {
		var h rtp.Header
		if _, err := in.context.DecryptRTP(nil, b, &h); err != nil {
			t.Errorf("a packet that does not open: %v", err)
		}
		return h.SequenceNumber
	}
}

// counted counts the records of TLS that pass a connection.
type counted struct {
	net.Conn
	records int
	rest    []byte
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.rest = append(c.rest, b[:n]...)
	for len(c.rest) >= 5 {
		size := 5 + int(binary.BigEndian.Uint16(c.rest[3:]))
		if len(c.rest) < size {
			break
		}
		c.records++
		c.rest = c.rest[size:]
	}
	return n, err
}

// TestAFrameIsOneRecord also when packets for others lie between.
func TestAFrameIsOneRecord(t *testing.T) {
	e := listen(t)
	other := openStream(t, e, silent{}, false, WrapLength)
	near, far, err := tcpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	wire := &counted{Conn: far}
	base := stream.New(near)
	s, client := overTLS(t, e, base, wire)
	defer s.Close()
	tunnel, err := e.OpenTunnel(TunnelConfig{Client: relayed, Stream: s, Wrap: WrapChannel(channelNumber, true)})
	if err != nil {
		t.Fatal(err)
	}
	c := standingOn(t, e, silent{}, tunnel)
	defer c.Close()
	out, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	const packets, size = 6, 1101
	send := func(seq uint16) {
		b := e.Batch()
		for i := range uint16(packets) {
			for _, s := range []*Stream{out, other.out} {
				if err := s.Write(b, packet(1, seq+i, make([]byte, size))); err != nil {
					t.Fatal(err)
				}
			}
		}
		e.Release(b)
	}
	sealed := rtpHeader + size + 16
	total := packets * (4 + (sealed+3)/4*4)
	send(0)
	if _, err := io.ReadFull(client, make([]byte, total)); err != nil {
		t.Fatal(err)
	}
	before := wire.records // with those of the handshake
	send(packets)
	room := make([]byte, total)
	if _, err := io.ReadFull(client, room); err != nil {
		t.Fatal(err)
	}
	if n := wire.records - before; n != 1 {
		t.Errorf("%d records for a frame, want 1", n)
	}
	for i, rest := 0, room; len(rest) > 0; i++ {
		if binary.BigEndian.Uint16(rest) != channelNumber || int(binary.BigEndian.Uint16(rest[2:])) != sealed {
			t.Fatalf("packet %d begins with %x", i, rest[:4])
		}
		rest = rest[4+(sealed+3)/4*4:]
	}
	frame := make([]byte, 1<<16)
	for i := range 2 * packets {
		if b, err := readFrame(other.far, frame); err != nil || len(b) != sealed {
			t.Fatalf("packet %d for the other: %d bytes, %v", i, len(b), err)
		}
	}
}

// TestOneWriteIsBounded, however much there is for a client.
func TestOneWriteIsBounded(t *testing.T) {
	e := listen(t)
	c := openStream(t, e, silent{}, false, WrapLength)
	var want [][]byte
	b := e.Batch()
	for i := range 150 { // 150 kB in one flush
		d := bytes.Repeat([]byte{byte(i)}, 1000)
		want = append(want, d)
		b.send(c.conn.way(), d)
	}
	if len(b.messages) < 3 {
		t.Errorf("%d messages", len(b.messages))
	}
	e.Release(b)
	room := make([]byte, 1<<16)
	for i, w := range want {
		if got, err := readFrame(c.far, room); err != nil || !bytes.Equal(got, w) {
			t.Fatalf("datagram %d: %d bytes, %v", i, len(got), err)
		}
	}
}

// TestTunnelsAllocateNothing in and out, over UDP and TCP.
func TestTunnelsAllocateNothing(t *testing.T) {
	const runs, burst = 500, 6
	e := listen(t)
	w := newWorker(e, e.groups[0], e.groups[0].socks[0], 0)
	udp := openUDP(t, e, "")
	udpConn := standingOn(t, e, silent{}, udp.tunnel)
	defer udpConn.Close()
	udpOut, err := udpConn.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	tcp := openStream(t, e, silent{}, false, WrapChannel(channelNumber, true))
	go func() { _, _ = io.Copy(io.Discard, tcp.far) }()
	name, now := nameOf(udp.addr()), time.Now()
	seal := clientSeal(t)
	sealed := make([][]byte, 2*(runs+1)*burst)
	for i := range sealed {
		sealed[i] = channelData(channelNumber, seal(packet(uint32(1+i%2), uint16(i/2), make([]byte, 1100))))
	}
	next := 0
	take := func() []byte { next++; return sealed[next-1] }
	batch, p, seq := e.Batch(), packet(1, 0, make([]byte, 1100)), uint16(0)
	defer e.Release(batch)
	send := func(s *Stream) {
		for range burst {
			seq++
			room := batch.Reserve(1200)
			copy(room, p)
			binary.BigEndian.PutUint16(room[2:], seq)
			if err := s.Write(batch, room[:len(p)]); err != nil {
				t.Fatal(err)
			}
		}
		batch.Flush()
	}
	frames := func(yield func([]byte) bool) {
		for range burst {
			if !yield(take()[4:]) {
				return
			}
		}
	}
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"UDP in", func() {
			for range burst {
				w.datagram(&name, take(), now)
			}
			w.drained()
		}},
		{"UDP out", func() { send(udpOut) }},
		{"TCP in", func() { tcp.tunnel.DeliverAll(frames) }},
		{"TCP out", func() { send(tcp.out) }},
	} {
		if allocs := testing.AllocsPerRun(runs, c.f); allocs > 0 {
			t.Errorf("%s: %v allocations for %d packets, want none", c.name, allocs, burst)
		}
	}
	in := udpConn.Stats().PacketsIn + tcp.conn.Stats().PacketsIn
	if drops := []map[string]uint64{udpConn.Stats().Drops, e.Stats().Drops}; in != uint64(len(sealed)) || len(drops[0])+len(drops[1]) > 0 {
		t.Errorf("%d packets in, want %d; drops %v", in, len(sealed), drops)
	}
}

// TestManyStreamsAtOnce lends fewer workers than there are readers, while others
// settle; each client's packets come once and in order.
func TestManyStreamsAtOnce(t *testing.T) {
	const clients, packets = 8, 200
	e := listen(t, func(c *Config) { c.Workers = 2 })
	var reading sync.WaitGroup
	for range clients {
		var mu sync.Mutex
		var got []uint16
		r := newRecorder()
		r.onRTP = func(_ *Worker, pkt []byte) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, binary.BigEndian.Uint16(pkt[2:]))
		}
		c := openStream(t, e, r, false, WrapLength)
		seal := clientSeal(t)
		reading.Go(func() {
			for seq := range uint16(packets) {
				b := seal(packet(1, seq, nil))
				c.tunnel.DeliverAll(slices.Values([][]byte{b}))
			}
			mu.Lock()
			defer mu.Unlock()
			if len(got) != packets || !slices.IsSorted(got) {
				t.Errorf("%d packets came, in order %v", len(got), slices.IsSorted(got))
			}
		})
	}
	reading.Go(func() {
		for range 100 {
			e.Settle()
		}
	})
	reading.Wait()
}
