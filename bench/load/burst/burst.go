//go:build linux

// Package burst reads a UDP socket several datagrams at a time, with the kernel's
// time of arrival of each, so that a thousand sockets cost their process little.
// Subscribers of the load generator and the floor read with it alike: what a
// wakeup and a read cost the sender is in both figures.
package burst

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	atOnce  = 12   // two frames' packets
	maxSize = 1600 // bytes of a datagram; more is cut
	oobSize = 64   // one SCM_TIMESTAMPNS
)

// Reader reads one socket. It is not safe for concurrent use.
type Reader struct {
	raw   syscall.RawConn
	slots [atOnce]slot
	heads [atOnce]header
	read  func(fd uintptr) bool // kept, because a closure for each call would be allocated
	errno syscall.Errno
	count int // datagrams of the last read
	next  int // the first of them that was not returned
}

// header is struct mmsghdr of recvmmsg(2).
type header struct {
	unix.Msghdr
	size uint32
}

type slot struct {
	iov  unix.Iovec
	from unix.RawSockaddrInet4
	oob  [oobSize]byte
	data [maxSize]byte
}

// NewReader makes a reader of an IPv4 socket and has the kernel time arrivals,
// so that the time until this process comes to look is part of no latency.
func NewReader(conn *net.UDPConn) (*Reader, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("read bursts: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		// Room for a burst to a process that waits for its turn on a busy machine.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	})
	if err == nil {
		err = set
	}
	if err != nil {
		return nil, fmt.Errorf("read bursts: switch kernel timestamps on: %w", err)
	}
	r := &Reader{raw: raw}
	r.read = r.recvmmsg
	return r, nil
}

// Read returns the next datagram, which is valid until the next call, its sender
// and its time of arrival. It waits for one if none is there.
func (r *Reader) Read() (data []byte, from netip.AddrPort, at time.Time, err error) {
	if r.next == r.count {
		r.next, r.count = 0, 0
		if err := r.raw.Read(r.read); err != nil {
			return nil, netip.AddrPort{}, time.Time{}, err
		}
		if r.errno != 0 {
			return nil, netip.AddrPort{}, time.Time{}, r.errno
		}
	}
	h, s := &r.heads[r.next], &r.slots[r.next]
	r.next++
	port := (*[2]byte)(unsafe.Pointer(&s.from.Port))
	from = netip.AddrPortFrom(netip.AddrFrom4(s.from.Addr), binary.BigEndian.Uint16(port[:]))
	return s.data[:h.size], from, arrivalOf(s.oob[:h.Controllen]), nil
}

// recvmmsg reports whether it is done: not while nothing is there.
func (r *Reader) recvmmsg(fd uintptr) bool {
	for i := range r.heads {
		s := &r.slots[i]
		s.iov.Base = &s.data[0]
		s.iov.SetLen(maxSize)
		h := &r.heads[i].Msghdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.from)), unix.SizeofSockaddrInet4
		h.Iov, h.Iovlen = &s.iov, 1
		h.Control = &s.oob[0]
		h.SetControllen(oobSize)
	}
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.heads[0])), atOnce, unix.MSG_DONTWAIT, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return false
	}
	if r.errno = errno; errno == 0 {
		r.count = int(n)
	}
	return true
}

// arrivalOf reads a SCM_TIMESTAMPNS control message: length (8), level (4), type
// (4), seconds (8), nanoseconds (8).
func arrivalOf(oob []byte) time.Time {
	if len(oob) < 32 || binary.NativeEndian.Uint32(oob[8:]) != unix.SOL_SOCKET ||
		binary.NativeEndian.Uint32(oob[12:]) != unix.SCM_TIMESTAMPNS {
		return time.Now()
	}
	return time.Unix(int64(binary.NativeEndian.Uint64(oob[16:])), int64(binary.NativeEndian.Uint64(oob[24:])))
}
