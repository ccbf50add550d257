//go:build linux

package netlab

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// listen opens a TCP port on the host that says hello.
func listen(t *testing.T, host netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// connect speaks from inside with plain system calls: the connect of package
// net may finish on a thread outside.
func (l *Lab) connect(to netip.AddrPort, timeout time.Duration, say ...string) (string, error) {
	var got string
	err := l.Do(func() error {
		family, addr := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: int(to.Port())})
		if a := addr.(*syscall.SockaddrInet4); to.Addr().Is4() {
			a.Addr = to.Addr().As4()
		} else {
			family, addr = syscall.AF_INET6, &syscall.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
		}
		fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		tv := syscall.NsecToTimeval(timeout.Nanoseconds())
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &tv)
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv)
		if err := syscall.Connect(fd, addr); err != nil {
			return err
		}
		for _, text := range say {
			if _, err := syscall.Write(fd, []byte(text)); err != nil {
				return err
			}
		}
		b := make([]byte, 16)
		n, err := syscall.Read(fd, b)
		got = string(b[:max(n, 0)])
		return err
	})
	return got, err
}

func TestFirewallLetsOneAddressThrough(t *testing.T) {
	lab := New(t)
	open, shut := listen(t, lab.Host), listen(t, lab.Host)
	// Without the firewall both answer: what follows is its doing.
	for _, a := range []netip.AddrPort{open, shut} {
		if got, err := lab.connect(a, 10*time.Second); got != "hello" {
			t.Fatalf("before the firewall, %s: %q, %v", a, got, err)
		}
	}
	lab.Firewall(t, TCP(open))
	if d := lab.Seen(t); d.TCP != 0 || d.UDP != 0 || len(d.Passed) != 1 || d.Passed[0] != (Traffic{}) {
		t.Errorf("seen before anything was sent: %+v", d)
	}
	if got, err := lab.connect(open, 10*time.Second); got != "hello" {
		t.Errorf("the allowed address: %q, %v", got, err)
	}
	if got, err := lab.connect(shut, 300*time.Millisecond); err == nil {
		t.Errorf("the other port answered %q", got)
	}
	err := lab.Do(func() error {
		c, err := net.ListenPacket("udp4", "0.0.0.0:0")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(open))
		if errors.Is(err, syscall.EPERM) { // what a dropped packet looks like to its sender
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := lab.Seen(t); d.UDP != 1 || d.TCP == 0 || d.Passed[0].Out < 100 || d.Passed[0].In < 100 {
		t.Errorf("seen %+v, want one dropped UDP packet, at least one of TCP, and a connection that passed", d)
	}
	lab.Firewall(t)
	if d := lab.Seen(t); d.UDP != 0 {
		t.Errorf("seen %+v after a new firewall", d)
	}
	if _, err := lab.connect(open, 300*time.Millisecond); err == nil {
		t.Error("a firewall that allows nothing let a connection through")
	}
}

// A hole for TLS alone passes everything but STUN in the clear.
func TestHoleForTLS(t *testing.T) {
	lab := New(t)
	at := answerer(t, lab.Host)
	request := "\x00\x01\x00\x00\x21\x12\xa4\x42" + strings.Repeat("i", 12)
	for name, first := range map[string]string{"TURN": request, "ICE": "\x00\x14" + request, "TLS": "\x16\x03\x01" + request} {
		lab.Firewall(t, TCP(at))
		if got, err := lab.connect(at, 10*time.Second, first); got != "hello" {
			t.Errorf("%s, a plain hole: %q, %v", name, got, err)
		}
		hole := TCP(at)
		hole.OnlyTLS = true
		lab.Firewall(t, hole)
		patience := 300 * time.Millisecond
		if name == "TLS" {
			patience = 10 * time.Second // what comes is waited for, what does not come only a while
		}
		got, err := lab.connect(at, patience, first)
		if passed := got == "hello"; passed != (name == "TLS") {
			t.Errorf("%s, a hole for TLS: %q, %v", name, got, err)
		}
		if d := lab.Seen(t); (d.Clear == 0) != (name == "TLS") {
			t.Errorf("%s: seen %+v", name, d)
		}
	}
}

// answerer says hello to those who have said something.
func answerer(t *testing.T, host netip.Addr) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				defer context.AfterFunc(t.Context(), func() { c.Close() })() // what the firewall drops never comes
				if n, _ := c.Read(make([]byte, 64)); n > 0 {
					io.WriteString(c, "hello")
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestIPv6BesideIPv4(t *testing.T) {
	lab := NewDual(t)
	open, shut := listen(t, lab.Host6), listen(t, lab.Host)
	lab.Firewall(t, TCP(open))
	if got, err := lab.connect(open, 10*time.Second); got != "hello" {
		t.Errorf("%s: %q, %v", open, got, err)
	}
	if got, err := lab.connect(shut, 300*time.Millisecond); err == nil {
		t.Errorf("%s answered %q", shut, got)
	}
	if d := lab.Seen(t); d.Passed[0].In < 100 || d.TCP == 0 {
		t.Errorf("seen %+v", d)
	}
}

func TestNamesAreKnownInsideOnly(t *testing.T) {
	lab := New(t)
	lab.Hosts(t, map[string]netip.Addr{"node.test": lab.Host})
	out, err := lab.Command("getent", "hosts", "node.test").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), lab.Host.String()) {
		t.Errorf("inside: %q, %v", out, err)
	}
	if b, _ := os.ReadFile("/etc/hosts"); strings.Contains(string(b), "node.test") {
		t.Error("the host's own file was changed")
	}
}

func TestLabsStandSideBySideAndLeaveNothing(t *testing.T) {
	var gone []*Lab
	t.Run("labs", func(t *testing.T) {
		a, b := New(t), New(t)
		if a.Host == b.Host {
			t.Errorf("two labs at %s", a.Host)
		}
		at := listen(t, b.Host)
		if got, err := b.connect(at, 10*time.Second); got != "hello" {
			t.Errorf("from b: %q, %v", got, err)
		}
		if got, err := a.connect(at, 300*time.Millisecond); err == nil {
			t.Errorf("a reaches the network of b: %q", got)
		}
		gone = []*Lab{a, b}
	})
	for _, l := range gone {
		if _, err := net.InterfaceByName(l.link); err == nil {
			t.Errorf("interface %q is left", l.link)
		}
		if _, err := os.Stat(filepath.Join("/run/netns", l.Name)); err == nil {
			t.Errorf("namespace %q is left", l.Name)
		}
	}
}

func TestParseCountersRefusesOtherOutput(t *testing.T) {
	for _, s := range []string{"", "{}", `{"nftables":[{"counter":{"name":"dropped_udp","packets":1}}]}`, `{"nftables":[{"counter":{"name":"dropped_udp","packets":-1}}]}`} {
		if d, err := parseCounters([]byte(s)); err == nil {
			t.Errorf("%q: %+v", s, d)
		}
	}
}
