//go:build linux

package netlab

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// said is a datagram as a capture saw it.
type said struct {
	out bool
	at  time.Time
}

// follow reads a capture until a datagram with the word passes.
func follow(t *testing.T, c *Capture, word string) said {
	t.Helper()
	b := make([]byte, 65536)
	for {
		n, at, out, err := c.Next(b)
		if err != nil {
			t.Fatal(err)
		}
		if n > 1514 {
			t.Errorf("a frame of %d bytes: the kernel gave it to the interface in one piece", n)
		}
		if bytes.Contains(b[:n], []byte(word)) {
			return said{out, at}
		}
	}
}

// talk opens a UDP socket in a namespace.
func talk(t *testing.T, l *Lab) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	if err := l.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Inside, 0)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func listening(t *testing.T, l *Lab) *Capture {
	t.Helper()
	c, err := l.Capture()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestSwitch has two namespaces and the host talk: each capture sees what its own
// namespace says and hears, with its direction and time, and nothing of the others.
func TestSwitch(t *testing.T) {
	s := NewSwitch(t, 3)
	var captures []*Capture
	var sockets []*net.UDPConn
	for _, l := range s.Ports {
		captures, sockets = append(captures, listening(t, l)), append(sockets, talk(t, l))
	}
	began := time.Now()
	addr := func(i int) netip.AddrPort { return sockets[i].LocalAddr().(*net.UDPAddr).AddrPort() }
	if _, err := sockets[0].WriteToUDPAddrPort([]byte("to the second"), addr(1)); err != nil {
		t.Fatal(err)
	}
	for i, out := range []bool{true, false} {
		if got := follow(t, captures[i], "to the second"); got.out != out || got.at.Before(began.Add(-time.Second)) || time.Since(got.at) < 0 {
			t.Errorf("the capture of %d: %+v, begun at %s", i, got, began)
		}
	}
	host, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(addr(2)))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if a := host.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); a != s.Host {
		t.Errorf("the host is at %s, want %s", a, s.Host)
	}
	host.Write([]byte("from the host"))
	// The first that the third capture sees with any of the two words is the host's.
	if follow(t, captures[2], "the ").out {
		t.Error("the third namespace sent something")
	}
	for _, c := range captures {
		if n, err := c.Lost(); n > 0 || err != nil {
			t.Errorf("lost %d, %v", n, err)
		}
	}
}

// TestCaptureKnowsWhatItLost gives a capture no room.
func TestCaptureKnowsWhatItLost(t *testing.T) {
	s := NewSwitch(t, 2)
	c, from, to := listening(t, s.Ports[1]), talk(t, s.Ports[0]), talk(t, s.Ports[1])
	if err := c.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, err := from.WriteToUDPAddrPort(make([]byte, 1000), to.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
			t.Fatal(err)
		}
	}
	// They may still be on their way: the kernel delivers when it has the time.
	end := time.Now().Add(20 * time.Second)
	for n, err := c.Lost(); n < 100; n, err = c.Lost() {
		if err != nil || time.Now().After(end) {
			t.Fatalf("lost %d of 200, %v", n, err)
		}
	}
}

func TestSwitchLeavesNothing(t *testing.T) {
	var gone *Switch
	t.Run("switch", func(t *testing.T) { gone = NewSwitch(t, 2) })
	if _, err := net.InterfaceByName(gone.link); err == nil {
		t.Errorf("interface %q is left", gone.link)
	}
	for _, name := range []string{gone.name, gone.Ports[0].Name, gone.Ports[1].Name} {
		if _, err := os.Stat(filepath.Join("/run/netns", name)); err == nil {
			t.Errorf("namespace %q is left", name)
		}
	}
}
