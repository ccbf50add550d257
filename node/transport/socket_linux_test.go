package transport

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSegmentationIsRefused by the kernel for sockets without checksums: then the
// packets leave one by one, and later ones at once.
func TestSegmentationIsRefused(t *testing.T) {
	e := listen(t)
	c := listenUDP(t, "127.0.0.1:0")
	p, sock := &path{group: e.groups[0], name: nameOf(addrOf(c))}, e.groups[0].socks[0]
	if err := sock.raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	b := e.Batch()
	defer e.Release(b)
	for range 2 {
		for i := range byte(5) {
			put(b, p, bytes.Repeat([]byte{i}, 500))
		}
		put(b, p, []byte("last"))
		b.Flush()
		for i, d := range readAll(t, c, 6) {
			if i < 5 && !bytes.Equal(d, bytes.Repeat([]byte{byte(i)}, 500)) || i == 5 && string(d) != "last" {
				t.Fatalf("datagram %d is %d bytes of %v", i, len(d), d[0])
			}
		}
	}
	if !p.plain.Load() && !sock.plain.Load() {
		t.Error("nobody remembers that segmentation is refused")
	}
	if s := e.Stats(); len(s.Drops) > 0 {
		t.Errorf("drops %v", s.Drops)
	}
}

// TestSegmentationFailsOnASocket as on a device that cannot do checksums, which
// cannot be had here: the kernel's answer is played to the sender.
func TestSegmentationFailsOnASocket(t *testing.T) {
	e := listen(t)
	c := listenUDP(t, "127.0.0.1:0")
	p, sock := &path{group: e.groups[0], name: nameOf(addrOf(c))}, e.groups[0].socks[0]
	b := e.Batch()
	defer e.Release(b)
	for i := range byte(3) {
		put(b, p, []byte{i, i})
	}
	b.sender.add(&b.messages[0], b.arena)
	b.sender.sock = sock
	if err := sock.raw.Control(func(fd uintptr) { b.sender.failed(fd, 0, unix.EIO) }); err != nil {
		t.Fatal(err)
	}
	for i, d := range readAll(t, c, 3) {
		if !bytes.Equal(d, []byte{byte(i), byte(i)}) {
			t.Errorf("datagram %d is %v", i, d)
		}
	}
	if !sock.plain.Load() || p.plain.Load() {
		t.Error("the socket is not remembered as one that takes no segments")
	}
	b.sender.n, b.messages, b.used, b.packets = 0, b.messages[:0], 0, 0
	put(b, p, []byte("1"))
	put(b, p, []byte("2"))
	if len(b.messages) != 2 {
		t.Error("later packets are still joined")
	}
}

// TestReadingAllocatesNothing covers recvmmsg and what it brings.
func TestReadingAllocatesNothing(t *testing.T) {
	g, err := bindGroup(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	c := listenUDP(t, "127.0.0.1:0")
	in, want := newReceiver(g.socks[0]), nameOf(addrOf(c))
	allocs := testing.AllocsPerRun(500, func() {
		for i := range byte(3) {
			if _, err := c.WriteToUDPAddrPort([]byte{i, 7}, g.addr); err != nil {
				t.Fatal(err)
			}
		}
		for got := 0; got < 3; {
			n, err := in.receive()
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if name, b := in.datagram(i); *name != want || len(b) != 2 || b[0] != byte(got) {
					t.Fatalf("datagram %d is %v of %v", got, b, name)
				}
				got++
			}
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for three datagrams, want none", allocs)
	}
}

// TestTheRestOfAFrameIsReadBehindItsBeginning and the beginning stays as it is.
func TestTheRestOfAFrameIsReadBehindItsBeginning(t *testing.T) {
	g, err := bindGroup(netip.MustParseAddrPort("127.0.0.1:0"), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	c, in := listenUDP(t, "127.0.0.1:0"), newReceiver(g.socks[0])
	send := func(s string) {
		if _, err := c.WriteToUDPAddrPort([]byte(s), g.addr); err != nil {
			t.Fatal(err)
		}
	}
	send("first")
	n, err := in.receive()
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if n = in.linger(1); n != 1 {
		t.Errorf("%d datagrams when nothing follows, want 1", n)
	}
	send("second")
	send("third")
	if n = in.linger(1); n != 3 {
		t.Fatalf("%d datagrams, want 3", n)
	}
	for i, want := range []string{"first", "second", "third"} {
		if _, b := in.datagram(i); string(b) != want {
			t.Errorf("datagram %d is %q, want %q", i, b, want)
		}
	}
	send("next")
	if n, err = in.receive(); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if _, b := in.datagram(0); string(b) != "next" {
		t.Errorf("got %q", b)
	}
}

func TestUnfinished(t *testing.T) {
	marked := packet(1, 1, make([]byte, 1000))
	marked[1] |= 0x80
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"middle of a frame", packet(1, 1, make([]byte, 1000)), true},
		{"end of a frame", marked, false},
		{"middle of a frame, in a channel", channelData(channelNumber, packet(1, 1, make([]byte, 1000))), true},
		{"end of a frame, in a channel", channelData(channelNumber, marked), false},
		{"audio", packet(1, 1, make([]byte, 120)), false},
		{"a long report", append([]byte{0x80, 205}, make([]byte, 1000)...), false},
		{"handshake", append([]byte{22, 0xfe}, make([]byte, 1000)...), false},
		{"nothing", nil, false},
	} {
		if got := Unfinished(c.b); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
