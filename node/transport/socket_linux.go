//go:build linux

package transport

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sharePort lets several sockets have one port. The kernel picks one by the hash
// of the 5-tuple, so a client's packets stay in order.
func sharePort(_, _ string, raw syscall.RawConn) error {
	var set error
	err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	if err != nil {
		return err
	}
	return set
}

// canSegment asks whether the kernel knows UDP_SEGMENT: before Linux 4.18 it
// would ignore the option and send all segments as one datagram.
func (s *socket) canSegment() bool {
	known := false
	err := s.raw.Control(func(fd uintptr) {
		_, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT)
		known = err == nil
	})
	return err == nil && known
}

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// receiver reads datagrams of a socket, many in one call.
type receiver struct {
	sock  *socket
	hdrs  [maxRead]mmsghdr
	iovs  [maxRead]unix.Iovec
	names [maxRead]sockname
	bufs  [maxRead][maxDatagram + 1]byte
	first int // where the next read begins
	n     int // how many it brought
	errno syscall.Errno
	read  func(fd uintptr) bool // made once, like the next, so that reading allocates nothing
	look  func(fd uintptr)      // reads without waiting
}

func newReceiver(s *socket) *receiver {
	r := &receiver{sock: s}
	for i := range r.hdrs {
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(len(r.bufs[i]))
		r.hdrs[i].hdr.Name = &r.names[i][0]
		r.hdrs[i].hdr.Iov = &r.iovs[i]
		r.hdrs[i].hdr.SetIovlen(1)
	}
	r.read = func(fd uintptr) bool {
		rest := r.hdrs[r.first:]
		for i := range rest {
			rest[i].hdr.Namelen = uint32(len(sockname{}))
		}
		// Raw: a call that never waits need not tell the scheduler, which would find
		// another thread for the rest of the program meanwhile, and wake its watchdog.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)), unix.MSG_DONTWAIT, 0, 0)
		r.n, r.errno = int(n), errno
		return errno != unix.EAGAIN && errno != unix.EINTR
	}
	r.look = func(fd uintptr) { r.read(fd) }
	return r
}

// receive waits for datagrams and returns how many came. Errors of single
// destinations, which the kernel reports here, are passed over.
func (r *receiver) receive() (int, error) {
	r.first = 0
	for {
		if err := r.sock.raw.Read(r.read); err != nil {
			return 0, err
		}
		if r.errno == 0 {
			return r.n, nil
		}
		if r.errno == unix.EBADF {
			return 0, r.errno
		}
	}
}

// poll returns how many datagrams there are, without waiting.
func (r *receiver) poll() int {
	r.first = 0
	if err := r.sock.raw.Control(r.look); err != nil || r.errno != 0 {
		return 0
	}
	return r.n
}

// linger waits a moment for what follows the n datagrams that came, and returns how
// many there are then.
func (r *receiver) linger(n int) int {
	moment := unix.NsecToTimespec(int64(lingerFor))
	_ = unix.Nanosleep(&moment, nil) // a signal makes it shorter; Go's own timers are good for a millisecond
	r.first = n
	if err := r.sock.raw.Control(r.look); err != nil || r.errno != 0 {
		return n
	}
	return n + r.n
}

// datagram returns one of those that came, valid until the next receive.
func (r *receiver) datagram(i int) (*sockname, []byte) {
	return &r.names[i], r.bufs[i][:r.hdrs[i].len]
}

// control is the ancillary message that asks for segmentation:
//
//	0         8       12      16     18       24
//	| length  | level | type  | size | padding |     (64-bit machines)
type control [unix.SizeofCmsghdr + 8]byte

func newControl() (c control) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return c
}

func (c *control) setSize(n int) { binary.NativeEndian.PutUint16(c[unix.SizeofCmsghdr:], uint16(n)) }

// sender hands messages to the kernel, many in one call.
type sender struct {
	hdrs  [maxMessages]mmsghdr
	iovs  [maxMessages]unix.Iovec
	ctls  [maxMessages]control
	to    [maxMessages]*message // what each header stands for
	n     int
	sock  *socket
	batch *Batch
	send  func(fd uintptr) // made once, so that sending allocates nothing
}

func newSender(b *Batch) *sender {
	s := &sender{batch: b}
	for i := range s.hdrs {
		s.hdrs[i].hdr.Iov = &s.iovs[i]
		s.hdrs[i].hdr.SetIovlen(1)
		s.ctls[i] = newControl()
	}
	s.send = s.sendAll
	return s
}

// add puts a message in line.
func (s *sender) add(m *message, arena []byte) {
	h := &s.hdrs[s.n].hdr
	h.Name, h.Namelen = &m.to.name[0], m.to.name.len()
	s.iovs[s.n].Base = &arena[m.off]
	s.iovs[s.n].SetLen(m.len)
	h.Control = nil
	h.SetControllen(0)
	if m.count > 1 {
		s.ctls[s.n].setSize(m.size)
		h.Control = &s.ctls[s.n][0]
		h.SetControllen(unix.CmsgSpace(2))
	}
	s.to[s.n] = m
	s.n++
}

// flush sends what is in line through a socket. Nothing waits: what the socket's
// buffer does not take is media that would come late.
func (s *sender) flush(sock *socket) {
	if s.n == 0 {
		return
	}
	s.sock = sock
	if err := sock.raw.Control(s.send); err != nil {
		s.batch.engine.drops[DropUnreachable].Add(uint64(s.n)) // the socket is closed
	}
	for i := range s.n {
		s.hdrs[i].hdr.Name, s.to[i] = nil, nil
	}
	s.n = 0
}

func (s *sender) sendAll(fd uintptr) {
	for i := 0; i < s.n; {
		// Raw, as with reading. The longest call, 512 messages, keeps the collector
		// waiting for a millisecond.
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.hdrs[i])), uintptr(s.n-i), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			i += int(n)
		case errno == unix.EINTR:
		case errno == unix.EAGAIN || errno == unix.ENOBUFS:
			s.batch.dropped(DropSocketFull, s.to[i:s.n])
			return
		default:
			s.failed(fd, i, errno)
			i++
		}
	}
}

// failed deals with a message that the kernel did not take. Segmentation fails as
// a whole where a device cannot do checksums (EIO) or the kernel was built without
// it, and for one client whose path takes less than a segment (EINVAL). Then the
// packets leave one by one, these and all later ones.
func (s *sender) failed(fd uintptr, i int, errno syscall.Errno) {
	m := s.to[i]
	if m.count < 2 {
		s.batch.dropped(DropUnreachable, s.to[i:i+1])
		return
	}
	if errno == unix.EINVAL || errno == unix.EMSGSIZE {
		m.to.plain.Store(true)
	} else if errno == unix.EIO || errno == unix.EOPNOTSUPP || errno == unix.ENOPROTOOPT {
		s.sock.plain.Store(true)
	}
	b := unsafe.Slice(s.iovs[i].Base, m.len)
	for len(b) > 0 {
		n := min(m.size, len(b))
		if errno := sendOne(fd, &m.to.name, b[:n]); errno == unix.EAGAIN || errno == unix.ENOBUFS {
			s.batch.engine.drops.add(DropSocketFull)
		} else if errno != 0 {
			s.batch.engine.drops.add(DropUnreachable)
		}
		b = b[n:]
	}
}

func sendOne(fd uintptr, to *sockname, b []byte) syscall.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT,
		uintptr(unsafe.Pointer(&to[0])), uintptr(to.len()))
	return errno
}
