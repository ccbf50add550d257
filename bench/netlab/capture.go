//go:build linux

package netlab

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Capture is all that passes one interface of a namespace of a switch. It knows of
// each packet that it could not keep, so that who looks for something can tell
// "nothing was there" from "nobody looked".
type Capture struct {
	file *os.File
	raw  syscall.RawConn
	lost uint64
}

// captureBuffer is what the kernel keeps while a busy machine keeps the reader from
// running: 128 MiB are 50,000 full packets with what the kernel adds to each, several
// seconds of a busy node.
const captureBuffer = 128 << 20

// Capture begins to listen at the lab's end of its switch. Close it.
func (l *Lab) Capture() (*Capture, error) {
	fd := -1
	err := l.Do(func() (err error) {
		fd, err = listenPackets()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("capture in %q: %w", l.Name, err)
	}
	c := &Capture{file: os.NewFile(uintptr(fd), "capture of "+l.Name)}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		c.file.Close()
		return nil, fmt.Errorf("capture in %q: %w", l.Name, err)
	}
	return c, nil
}

// listenPackets opens a packet socket (packet(7)) in the namespace of the calling thread.
func listenPackets() (fd int, err error) {
	iface, err := interfaceIndex(meshLink)
	if err != nil {
		return -1, err
	}
	// Protocol 0 until it is bound: nothing of another interface comes in between.
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: iface}))
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func interfaceIndex(name string) (int, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, req)
	}
	if err != nil {
		return 0, fmt.Errorf("find %q: %w", name, err)
	}
	return int(req.Uint32()), nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Next waits for a packet and reads it, an Ethernet frame, into b. out says that the
// namespace sent it, at is when it passed the interface.
func (c *Capture) Next(b []byte) (n int, at time.Time, out bool, err error) {
	var control [64]byte
	var controls int
	var from unix.Sockaddr
	failed := c.raw.Read(func(fd uintptr) bool {
		n, controls, _, from, err = unix.Recvmsg(int(fd), b, control[:], unix.MSG_TRUNC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err = errors.Join(failed, err); err != nil {
		return 0, at, false, err
	}
	if n > len(b) {
		return 0, at, false, fmt.Errorf("a packet has %d bytes, more than %d", n, len(b))
	}
	link, ok := from.(*unix.SockaddrLinklayer)
	return n, timeOf(control[:controls]), ok && link.Pkttype == unix.PACKET_OUTGOING, nil
}

// timeOf finds the kernel's time of a packet (SO_TIMESTAMPNS).
func timeOf(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Now()
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			ts := (*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			return time.Unix(ts.Unix())
		}
	}
	return time.Now()
}

// Lost is how many packets passed that the kernel had no room for. It is called by
// one goroutine at a time.
func (c *Capture) Lost() (uint64, error) {
	var failed error
	err := c.raw.Control(func(fd uintptr) {
		s, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			failed = err
			return
		}
		c.lost += uint64(s.Drops) // since the last time that it was asked
	})
	return c.lost, errors.Join(err, failed)
}

// Close ends the capture and a Next that waits.
func (c *Capture) Close() error { return c.file.Close() }
