package transport

import (
	"net"
	"net/netip"
	"testing"
)

// TestSocketsAreHandedOver from one engine to the next: checks of a client reach the
// second, by the address that it always had.
func TestSocketsAreHandedOver(t *testing.T) {
	first := listen(t, func(c *Config) { c.Workers = 2 })
	a := newAgent(t, first)
	files, err := first.Files()
	if err != nil {
		t.Fatal(err)
	}
	var given []*net.UDPConn
	for _, f := range files {
		c, err := net.FilePacketConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		given = append(given, c.(*net.UDPConn))
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := listen(t, func(c *Config) { c.Sockets = given })
	if got, want := second.MediaAddrs(), first.MediaAddrs(); got[0] != want[0] || len(second.workers) != 2 {
		t.Fatalf("%d readers at %v, want 2 at %v", len(second.workers), got, want)
	}
	a.check(newConn(t, second).Local())
}

func TestSocketsOfTwoAddressesAreRefused(t *testing.T) {
	one, other := listenUDP(t, "127.0.0.1:0"), listenUDP(t, "127.0.0.1:0")
	cfg := Config{Media: []netip.AddrPort{addrOf(one)}, Sockets: []*net.UDPConn{one, other}}
	if e, err := Listen(cfg); err == nil {
		e.Close()
		t.Fatal("no error")
	}
}
