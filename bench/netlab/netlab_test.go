//go:build linux

package netlab

import (
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

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
func (l *Lab) connect(to netip.AddrPort, timeout time.Duration) (string, error) {
	var got string
	err := l.Do(func() error {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		tv := syscall.NsecToTimeval(timeout.Nanoseconds())
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &tv)
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tv)
		if err := syscall.Connect(fd, &syscall.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
			return err
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
	lab.Firewall(t, open)
	if d := lab.Dropped(t); d.TCP != 0 || d.UDP != 0 {
		t.Errorf("dropped before anything was sent: %+v", d)
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
	if d := lab.Dropped(t); d.UDP != 1 || d.TCP == 0 {
		t.Errorf("dropped %+v, want one UDP packet and at least one of TCP", d)
	}
	lab.Firewall(t)
	if d := lab.Dropped(t); d.UDP != 0 {
		t.Errorf("dropped %+v after a new firewall", d)
	}
	if _, err := lab.connect(open, 300*time.Millisecond); err == nil {
		t.Error("a firewall that allows nothing let a connection through")
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
