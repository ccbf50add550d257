//go:build linux

package stream

import (
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// unsent is how much the kernel holds that TCP has not sent yet, in bytes: a
	// quarter of a second at 2 Mbit/s. What waits there is late, and cannot be
	// dropped any more.
	unsent = 64 << 10
	// sendBuffer bounds what the kernel holds in all, in bytes: 10 Mbit/s at a round
	// trip of 200 ms.
	sendBuffer = 256 << 10
	// A link that is dead while nothing is sent is found by probes.
	keepIdle, keepEvery, keepCount = 15 * time.Second, 5 * time.Second, 3
)

// tune fits a connection for media, as far as the kernel goes along.
func tune(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepEvery, Count: keepCount})
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stallAfter.Milliseconds()))
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	})
}

// looker reads what is there.
type looker struct {
	raw   syscall.RawConn
	b     []byte
	n     int
	errno error
	once  func(fd uintptr) bool // made once, so that reading allocates nothing
}

func newLooker(conn net.Conn) *looker {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	l := &looker{raw: raw}
	l.once = func(fd uintptr) bool {
		for {
			if l.n, l.errno = unix.Read(int(fd), l.b); l.errno != unix.EINTR {
				return true // also with nothing: the poller is not waited for
			}
		}
	}
	return l
}

// read returns errNothing where Read would wait.
func (l *looker) read(b []byte) (int, error) {
	if l == nil {
		return 0, errNothing
	}
	l.b = b
	err := l.raw.Read(l.once)
	l.b = nil
	switch {
	case err != nil:
		return 0, err
	case l.errno == unix.EAGAIN:
		return 0, errNothing
	case l.errno != nil:
		return 0, l.errno
	case l.n == 0:
		return 0, io.EOF
	}
	return l.n, nil
}

// trier writes what goes at once. It is used under the carrier's lock, and never
// while drain writes.
type trier struct {
	raw   syscall.RawConn
	b     []byte
	n     int
	errno error
	once  func(fd uintptr) bool // made once, so that writing allocates nothing
}

func newTrier(conn net.Conn) *trier {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	t := &trier{raw: raw}
	t.once = func(fd uintptr) bool {
		t.n, t.errno = 0, nil
		for t.n < len(t.b) {
			n, err := unix.Write(int(fd), t.b[t.n:])
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				t.errno = err
				break
			}
			t.n += n
		}
		return true // whatever is left: the poller is not waited for
	}
	return t
}

func (t *trier) write(b []byte) (int, error) {
	if t == nil {
		return 0, nil
	}
	t.b = b
	err := t.raw.Write(t.once)
	t.b = nil
	if err != nil {
		return 0, err
	}
	if t.errno != nil && t.errno != unix.EAGAIN {
		return t.n, t.errno
	}
	return t.n, nil
}
