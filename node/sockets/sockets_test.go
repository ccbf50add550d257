package sockets

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/domicile/domicile/internal/leaks"
)

// TestMain is also the program that the tests start: a listener that says what it
// is, and becomes itself again when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("SOCKETS_TEST_CHILD") != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	leaks.Main(m)
}

// child greets each TCP client with its generation, answers each datagram with it,
// and becomes its own successor for a line on standard input.
func child() error {
	set, err := Inherit()
	if err != nil {
		return err
	}
	want := netip.MustParseAddrPort(os.Getenv("SOCKETS_TEST_ADDR"))
	l, err := set.Listen("https", want)
	if err != nil {
		return err
	}
	udp, err := set.Packets("media", want)
	if err != nil {
		return err
	}
	for _, c := range udp {
		f, err := c.File()
		if err != nil {
			return err
		}
		set.Keep("media", []*os.File{f})
	}
	generation := os.Getenv("SOCKETS_TEST_CHILD")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, generation)
			c.Close()
		}
	}()
	for _, c := range udp {
		go func() {
			b := make([]byte, 16)
			for {
				_, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				c.WriteToUDPAddrPort([]byte(generation), from)
			}
		}()
	}
	fmt.Printf("up %s pid %d udp %d unused %q\n", generation, os.Getpid(), len(udp), set.Unused())
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return nil
	}
	l.Close()
	for _, c := range udp {
		c.Close()
	}
	time.Sleep(100 * time.Millisecond) // nobody accepts: connections have to wait in the queue
	n, err := strconv.Atoi(generation)
	if err != nil {
		return err
	}
	os.Setenv("SOCKETS_TEST_CHILD", strconv.Itoa(n+1))
	return set.Exec("/proc/self/exe", os.Args, os.Environ())
}

// program is a running child.
type program struct {
	in  io.WriteCloser
	out *bufio.Reader
	pid int
}

// run starts this test's program by a shell command that ends in it.
func run(t *testing.T, addr netip.AddrPort, shell string, files ...*os.File) *program {
	t.Helper()
	cmd := exec.Command("sh", "-c", shell+` exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "SOCKETS_TEST_CHILD=1", "SOCKETS_TEST_ADDR="+addr.String())
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v", err)
		}
	})
	return &program{in, bufio.NewReader(out), cmd.Process.Pid}
}

func (p *program) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the child says %q, %v", s, err)
	}
	return strings.TrimSpace(s)
}

func greeting(t *testing.T, addr netip.AddrPort) string {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// listenAs systemd does: the sockets of a .socket unit.
func listenAs(t *testing.T) (netip.AddrPort, []*os.File) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	addr := tcp.Addr().(*net.TCPAddr).AddrPort()
	lf, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	files := []*os.File{lf}
	for range 2 {
		files = append(files, sharedUDP(t, addr))
	}
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	return addr, files
}

func sharedUDP(t *testing.T, addr netip.AddrPort) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "udp")
}

func TestSocketsOfSystemd(t *testing.T) {
	addr, files := listenAs(t)
	p := run(t, addr, `export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=https:media:media;`, files...)
	if got, want := p.line(t), fmt.Sprintf("up 1 pid %d udp 2 unused []", p.pid); got != want {
		t.Fatalf("%q, want %q", got, want)
	}
	if got := greeting(t, addr); got != "1" {
		t.Errorf("greeted with %q", got)
	}
}

func TestNamesThatNobodyAsksFor(t *testing.T) {
	addr, files := listenAs(t)
	p := run(t, addr, `export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=https:typo;`, files...)
	if got := p.line(t); !strings.HasSuffix(got, `unused ["typo"]`) {
		t.Errorf("%q", got)
	}
}

// TestEnvironmentOfAnotherProcess is not ours: it came down from a parent.
func TestEnvironmentOfAnotherProcess(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	p := run(t, addr, `export LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=https;`)
	if got := p.line(t); !strings.HasSuffix(got, "unused []") {
		t.Errorf("%q", got)
	}
	if got := greeting(t, addr); got != "1" {
		t.Errorf("greeted with %q", got)
	}
}

// TestNobodyIsRefusedMeanwhile: clients connect in a loop while the process becomes
// another one three times. Each gets through, and datagrams are answered after.
func TestNobodyIsRefusedMeanwhile(t *testing.T) {
	addr, files := listenAs(t)
	p := run(t, addr, `export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=https:media:media;`, files...)
	for _, f := range files {
		f.Close() // the child alone keeps them now
	}
	p.line(t)
	stop, clients := make(chan struct{}), make(chan map[string]int)
	go func() {
		seen := map[string]int{}
		defer func() { clients <- seen }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			c, err := net.Dial("tcp", addr.String())
			if err != nil {
				seen[err.Error()]++
				continue
			}
			b, err := io.ReadAll(c)
			c.Close()
			if err != nil {
				seen[err.Error()]++
			}
			seen["generation "+string(b)]++
		}
	}()
	for i := 2; i <= 4; i++ {
		fmt.Fprintln(p.in)
		if got, want := p.line(t), fmt.Sprintf("up %d pid %d udp 2 unused []", i, p.pid); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
		greeting(t, addr)
	}
	close(stop)
	seen := <-clients
	for what, n := range seen {
		if !strings.HasPrefix(what, "generation ") || what == "generation " {
			t.Errorf("%d clients: %q", n, what)
		}
	}
	t.Logf("clients: %v", seen)
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 16)
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || string(b[:n]) != "4" {
		t.Errorf("a datagram is answered with %q, %v", b[:n], err)
	}
}

func TestGivenSocketsMustAgree(t *testing.T) {
	for _, c := range []struct {
		got, want string
		ok        bool
	}{
		{"127.0.0.1:443", "127.0.0.1:443", true},
		{"[::]:443", "0.0.0.0:443", true}, // systemd's ListenStream=443
		{"[::]:443", "203.0.113.5:443", true},
		{"203.0.113.5:443", "0.0.0.0:443", true},
		{"[::ffff:203.0.113.5]:443", "203.0.113.5:443", true},
		{"127.0.0.1:443", "127.0.0.1:0", true},
		{"127.0.0.1:444", "127.0.0.1:443", false},
		{"127.0.0.1:443", "127.0.0.2:443", false},
	} {
		if err := agrees("https", netip.MustParseAddrPort(c.got), netip.MustParseAddrPort(c.want)); (err == nil) != c.ok {
			t.Errorf("given %s, configured %s: %v", c.got, c.want, err)
		}
	}
}

func TestGivenSocketsOfAnotherKind(t *testing.T) {
	addr, files := listenAs(t)
	s := &Set{given: map[string][]*os.File{"https": {files[1]}, "media": {files[0]}}, kept: map[string][]*os.File{}}
	defer s.Close()
	if _, err := s.Listen("https", addr); err == nil {
		t.Error("a UDP socket listens for HTTPS")
	}
	if _, err := s.Packets("media", addr); err == nil {
		t.Error("a TCP socket takes media")
	}
}

func TestNoSet(t *testing.T) {
	var s *Set
	l, err := s.Listen("https", netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if c, err := s.Packets("media", netip.AddrPort{}); len(c) > 0 || err != nil || s.Unused() != nil {
		t.Errorf("%v, %v", c, err)
	}
	s.Keep("media", nil)
	s.Close()
}

func TestParseSockets(t *testing.T) {
	for _, list := range []string{"https", "https=", "=7", "https=-1", "https=0", "https=2", "https=x", "https=99999999999", ",", strings.Repeat("a=999,", maxInherited) + "a=999"} {
		if _, err := parseSockets(list); err == nil {
			t.Errorf("%.40q is taken", list)
		}
	}
}
