package transport

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReportsComeApart from everything else, and the rest of a client stays together.
func TestReportsComeApart(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) { comeApart(t, netip.MustParseAddrPort(addr)) })
	}
}

func comeApart(t *testing.T, addr netip.AddrPort) {
	g, err := bindGroup(addr, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if g.reports == nil {
		t.Fatal("the kernel does not tell reports from the rest")
	}
	to := net.UDPAddrFromAddrPort(g.addr)
	if to.IP.IsUnspecified() {
		to.IP = net.IPv4(127, 0, 0, 1)
	}
	const clients = 32
	for range clients {
		client, err := net.DialUDP("udp", nil, to)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		for _, b := range [][]byte{
			{0x80, 200, 0, 6}, {0x81, 201, 0, 7}, {0x8f, 205, 0, 4}, {0x81, 206, 0, 2}, {0x80, 192}, {0x80, 223}, // RTCP
			{0x40, 0, 0, 12, 0x81, 201, 0, 7}, {0x4f, 0xff, 0, 12, 0x8f, 205}, // in ChannelData
			{0x40, 0, 0, 12, 0x80, 96, 0, 7}, {0x40, 0, 0, 12, 0, 201, 0, 7}, {0x50, 0, 0, 12, 0x81, 201}, // RTP and STUN in ChannelData, QUIC
			{0x80, 96, 0, 1}, {0x80, 0xe0, 0, 1}, {0x90, 0x80 | 63, 0, 1}, {0x80, 127}, {0x80, 191}, {0x80, 224}, // RTP, with the marker bit and without
			{0, 1, 0, 0}, {20, 254}, {0xc0, 200}, // STUN, DTLS, QUIC
		} {
			if _, err := client.Write(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := read(t, g.reports, 8); got != 8*clients {
		t.Errorf("%d reports, want %d", got, 8*clients)
	}
	first, second := read(t, g.socks[0], 12), read(t, g.socks[1], 12)
	if first+second != 12*clients {
		t.Errorf("%d and %d other datagrams, want %d together", first, second, 12*clients)
	}
	if first == 0 || second == 0 {
		t.Errorf("%d and %d: want clients on both", first, second)
	}
}

// read returns how many datagrams a socket holds, and sees that all of a client's are
// together. On loopback they are there when the sender's call returns.
func read(t *testing.T, s *socket, each int) (n int) {
	t.Helper()
	seen := map[int]int{}
	err := s.raw.Control(func(fd uintptr) {
		b := make([]byte, 16)
		for ; ; n++ {
			_, from, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			if err != nil {
				return
			}
			seen[portOf(from)]++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for port, n := range seen {
		if n != each {
			t.Errorf("%d datagrams of the client at port %d, want %d", n, port, each)
		}
	}
	return n
}

func portOf(a unix.Sockaddr) int {
	if a, ok := a.(*unix.SockaddrInet4); ok {
		return a.Port
	}
	return a.(*unix.SockaddrInet6).Port
}
