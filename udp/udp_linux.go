//go:build linux

package udp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is what a socket is to the kernel.
type kernel struct {
	raw   syscall.RawConn
	plain atomic.Bool // it takes no UDP_SEGMENT here
}

func (k *kernel) segments() bool { return k.raw != nil && !k.plain.Load() }

// use finds out what the kernel can do for a socket. Datagrams are never cut in
// two: one that is too long for the path is lost, and the path's length found so.
func (k *kernel) use(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	k.raw = raw
	return raw.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		k.plain.Store(err != nil)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1)           // without it datagrams come one by one
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) // without it the time of reading counts
		if unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE) != nil {
			return
		}
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE) // of sockets for both
	})
}

func pause(d time.Duration) {
	moment := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&moment, nil) // a signal makes it shorter
}

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// control is room for one ancillary message: the size of segments.
//
//	0         8       12      16     20       24
//	| length  | level | type  | size | padding |     (64-bit machines)
type control [unix.SizeofCmsghdr + 8]byte

// controls is room for what comes with a message: its size of segments, and when it
// arrived.
type controls [96]byte

// maxRead is how many messages a read may bring. With UDP_GRO each holds many
// datagrams of one sender, so few of them are a lot.
const maxRead = 16

// receiver reads many datagrams in one call.
type receiver struct {
	k     *kernel
	hdrs  [maxRead]mmsghdr
	iovs  [maxRead]unix.Iovec
	ctls  [maxRead]controls
	bufs  [maxRead][1 << 16]byte
	n     int
	errno syscall.Errno
	read  func(fd uintptr) bool // made once, so that reading allocates nothing
}

func (k *kernel) receiver() *receiver {
	r := &receiver{k: k}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(len(r.bufs[i]))
		r.hdrs[i].hdr.Iov = &r.iovs[i]
		r.hdrs[i].hdr.SetIovlen(1)
	}
	r.read = func(fd uintptr) bool {
		for i := range r.hdrs {
			r.hdrs[i].hdr.Control = &r.ctls[i][0]
			r.hdrs[i].hdr.SetControllen(len(r.ctls[i]))
		}
		// Raw: a call that never waits need not tell the scheduler.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])), maxRead, unix.MSG_DONTWAIT, 0, 0)
		r.n, r.errno = int(n), errno
		return errno != unix.EAGAIN && errno != unix.EINTR
	}
	return r
}

// receive passes over errors of single destinations, which the kernel reports here.
func (r *receiver) receive(take func([]byte, time.Time)) error {
	if err := r.k.raw.Read(r.read); err != nil {
		return err
	}
	if r.errno == unix.EBADF {
		return r.errno
	}
	if r.errno != 0 {
		return nil
	}
	now := time.Now()
	for i := range r.n {
		b := r.bufs[i][:r.hdrs[i].len]
		size, at := r.told(i, now)
		if size <= 0 {
			size = max(len(b), 1)
		}
		for len(b) > 0 {
			n := min(size, len(b))
			take(b[:n:n], at)
			b = b[n:]
		}
	}
	return nil
}

// mostAge is how long a datagram may have waited to be read; beyond it the clock of
// the day was set.
const mostAge = 2 * time.Second

// told reads what came with message i: the size of its datagrams, 0 for one, and
// when it arrived. The kernel says so by the clock of the day, which may be set
// meanwhile: how long ago is what counts.
func (r *receiver) told(i int, now time.Time) (size int, at time.Time) {
	at = now
	rest := r.ctls[i][:min(int(r.hdrs[i].hdr.Controllen), len(r.ctls[i]))]
	for len(rest) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(rest) {
			break
		}
		body := rest[unix.SizeofCmsghdr:n]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(body) >= 2:
			size = int(binary.NativeEndian.Uint16(body))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_TIMESTAMPNS && len(body) >= int(unsafe.Sizeof(unix.Timespec{})):
			ts := (*unix.Timespec)(unsafe.Pointer(&body[0]))
			if age := now.Sub(time.Unix(ts.Unix())); age > 0 && age < mostAge {
				at = now.Add(-age)
			}
		}
		rest = rest[min(unix.CmsgSpace(n-unix.SizeofCmsghdr), len(rest)):]
	}
	return size, at
}

// sender hands messages to the kernel, many in one call.
type sender struct {
	name   [28]byte // struct sockaddr_in or sockaddr_in6
	length uint32
	hdrs   [maxMessages]mmsghdr
	iovs   [maxMessages]unix.Iovec
	ctls   [maxMessages]control

	// During send.
	messages []message
	socket   *Socket
	unsent   int
	call     func(fd uintptr) // made once, so that sending allocates nothing
}

func (x *sender) setTo(to netip.AddrPort) {
	x.name = [28]byte{}
	binary.BigEndian.PutUint16(x.name[2:], to.Port())
	if a := to.Addr().Unmap(); a.Is4() {
		binary.NativeEndian.PutUint16(x.name[:], unix.AF_INET)
		ip := a.As4()
		copy(x.name[4:], ip[:])
		x.length = unix.SizeofSockaddrInet4
		return
	}
	binary.NativeEndian.PutUint16(x.name[:], unix.AF_INET6)
	ip := to.Addr().As16()
	copy(x.name[8:], ip[:])
	x.length = unix.SizeofSockaddrInet6
}

func (x *sender) send(s *Socket, messages []message) int {
	if x.call == nil {
		x.call = x.sendAll
	}
	for i := range messages {
		m, h := &messages[i], &x.hdrs[i].hdr
		h.Name, h.Namelen = &x.name[0], x.length
		x.iovs[i].Base = &m.b[0]
		x.iovs[i].SetLen(len(m.b))
		h.Iov = &x.iovs[i]
		h.SetIovlen(1)
		h.Control = nil
		h.SetControllen(0)
		if m.count > 1 {
			c := (*unix.Cmsghdr)(unsafe.Pointer(&x.ctls[i][0]))
			c.Level, c.Type = unix.SOL_UDP, unix.UDP_SEGMENT
			c.SetLen(unix.CmsgLen(2))
			binary.NativeEndian.PutUint16(x.ctls[i][unix.SizeofCmsghdr:], uint16(m.size))
			h.Control = &x.ctls[i][0]
			h.SetControllen(unix.CmsgSpace(2))
		}
	}
	x.messages, x.socket, x.unsent = messages, s, 0
	if err := s.os.raw.Control(x.call); err != nil {
		for _, m := range messages {
			x.unsent += m.count // the socket is closed
		}
	}
	for i := range messages {
		x.iovs[i].Base = nil
	}
	return x.unsent
}

func (x *sender) sendAll(fd uintptr) {
	for i := 0; i < len(x.messages); {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&x.hdrs[i])), uintptr(len(x.messages)-i), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			i += int(n)
		case errno == unix.EINTR:
		case errno == unix.EAGAIN || errno == unix.ENOBUFS:
			for _, m := range x.messages[i:] {
				x.unsent += m.count
			}
			return
		default:
			x.failed(fd, i, errno)
			i++
		}
	}
}

// failed deals with a message that the kernel did not take. Segmentation fails as
// a whole where a device cannot do checksums (EIO) or the kernel was built without
// it, and where a segment is longer than the device's packets (EINVAL). The
// datagrams leave one by one then, and where it is the device's doing, later ones.
func (x *sender) failed(fd uintptr, i int, errno syscall.Errno) {
	m := &x.messages[i]
	if m.count < 2 {
		x.unsent++
		return
	}
	if errno == unix.EIO || errno == unix.EOPNOTSUPP || errno == unix.ENOPROTOOPT {
		x.socket.os.plain.Store(true)
	}
	for b := m.b; len(b) > 0; {
		n := min(m.size, len(b))
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(n), unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(&x.name[0])), uintptr(x.length))
		if errno != 0 {
			x.unsent++
		}
		b = b[n:]
	}
}
