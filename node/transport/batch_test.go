package transport

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"
)

// listenUDP is a client that reads what comes.
func listenUDP(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(socketBuffer)
	t.Cleanup(func() { c.Close() })
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func readAll(t testing.TB, c *net.UDPConn, n int) (got [][]byte) {
	t.Helper()
	b := make([]byte, 1<<16)
	for range n {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		k, _, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			t.Fatalf("datagram %d of %d: %v", len(got), n, err)
		}
		got = append(got, bytes.Clone(b[:k]))
	}
	return got
}

// put writes a datagram as Stream.Write does, without a seal.
func put(b *Batch, to *path, datagram []byte) {
	room := b.Reserve(len(datagram) + 300)
	b.commit(to, copy(room, datagram))
}

// TestMessages says which datagrams share a message: sizes and clients in, sizes of
// the messages' datagrams out.
func TestMessages(t *testing.T) {
	e := listen(t)
	group := e.groups[0]
	a, b := &path{group: group}, &path{group: group}
	bare := &path{group: group}
	bare.plain.Store(true)
	type sent struct {
		to   *path
		size int
	}
	repeat := func(to *path, size, n int) (all []sent) {
		for range n {
			all = append(all, sent{to, size})
		}
		return all
	}
	for _, c := range []struct {
		name string
		in   []sent
		want string
	}{
		{"a frame", []sent{{a, 1100}, {a, 1100}, {a, 700}}, "[1100x3]"},
		{"the next frame", []sent{{a, 1100}, {a, 700}, {a, 1100}, {a, 1100}}, "[1100x2 1100x2]"},
		{"a shorter one ends it", []sent{{a, 1100}, {a, 700}, {a, 700}}, "[1100x2 700x1]"},
		{"a longer one begins another", []sent{{a, 700}, {a, 1100}}, "[700x1 1100x1]"},
		{"another client", []sent{{a, 900}, {b, 900}, {a, 900}}, "[900x1 900x1 900x1]"},
		{"a client that takes none", []sent{{bare, 900}, {bare, 900}}, "[900x1 900x1]"},
		{"too many", repeat(a, 100, maxSegments+1), "[100x64 100x1]"},
		{"too long", repeat(a, 1200, 54), "[1200x53 1200x1]"},
	} {
		batch := newBatch(e, 0)
		for _, s := range c.in {
			put(batch, s.to, make([]byte, s.size))
		}
		var got []string
		for _, m := range batch.messages {
			got = append(got, fmt.Sprintf("%dx%d", m.size, m.count))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

// TestEveryDatagramArrives writes random bursts to clients of both families, through
// batches that flush themselves when they are full, and compares with what arrives.
func TestEveryDatagramArrives(t *testing.T) {
	e := listen(t, func(c *Config) {
		c.Media = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")}
		c.Workers = 2
	})
	rng := rand.New(rand.NewPCG(1, 9))
	var clients []*net.UDPConn
	var paths []*path
	for i := range 6 {
		c := listenUDP(t, []string{"127.0.0.1:0", "[::1]:0"}[i%2])
		p := &path{group: e.groups[i%2], name: nameOf(addrOf(c))}
		p.plain.Store(i > 3)
		clients, paths = append(clients, c), append(paths, p)
	}
	want := make([][][]byte, len(clients))
	b := e.Batch()
	for range 120 {
		i, size := rng.IntN(len(clients)), 60+rng.IntN(1300)
		for range rng.IntN(12) {
			if rng.IntN(6) == 0 {
				size = 60 + rng.IntN(1300)
			}
			d := make([]byte, size)
			for k := range d {
				d[k] = byte(rng.Int())
			}
			want[i] = append(want[i], d)
			put(b, paths[i], d)
		}
	}
	e.Release(b)
	for i, c := range clients {
		for k, got := range readAll(t, c, len(want[i])) {
			if !bytes.Equal(got, want[i][k]) {
				t.Fatalf("client %d, datagram %d: %d bytes, want %d", i, k, len(got), len(want[i][k]))
			}
		}
	}
	if s := e.Stats(); len(s.Drops) > 0 || s.MessagesSent >= s.PacketsSent {
		t.Errorf("stats %+v", s)
	}
}

// TestAFailedClientHarmsNoOther: the kernel stops at the first message it refuses.
func TestAFailedClientHarmsNoOther(t *testing.T) {
	e := listen(t)
	c := listenUDP(t, "127.0.0.1:0")
	good := &path{group: e.groups[0], name: nameOf(addrOf(c))}
	bad := &path{group: e.groups[0], name: nameOf(netip.MustParseAddrPort("192.0.2.1:0"))} // no port
	b := e.Batch()
	defer e.Release(b)
	for range 3 {
		put(b, bad, []byte("lost"))
		put(b, bad, []byte("lost"))
		put(b, good, []byte("here"))
	}
	b.Flush()
	for _, d := range readAll(t, c, 3) {
		if string(d) != "here" {
			t.Errorf("got %q", d)
		}
	}
	if n := e.Stats().Drops["unreachable"]; n != 6 {
		t.Errorf("%d drops, want 6", n)
	}
}

func TestABatchOutgrown(t *testing.T) {
	e := listen(t)
	c := standing(t, e, silent{}, addrOf(listenUDP(t, "127.0.0.1:0")))
	defer c.Close()
	s, err := c.NewStream()
	if err != nil {
		t.Fatal(err)
	}
	b := e.Batch()
	defer e.Release(b)
	if err := s.Write(b, packet(1, 1, make([]byte, maxReserve))); err == nil {
		t.Error("a packet that no datagram holds was taken")
	}
	room := b.Reserve(maxReserve + 1)
	if len(room) != maxReserve+1 {
		t.Errorf("room of %d bytes", len(room))
	}
	if err := c.WriteRTCP(b, append([]byte{0x80, 201, 0, 1}, make([]byte, maxReserve)...)); err == nil {
		t.Error("a report that no datagram holds was taken")
	}
}
