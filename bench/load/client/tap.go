package client

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
	"golang.org/x/sys/unix"
)

// network is the machine's network whose UDP sockets count RTP and keep most of
// it from pion, so that a hundred receivers cost less than one SFU.
type network struct {
	*stdnet.Net
	in *Inbound
}

// ListenUDP implements transport.Net.
func (n network) ListenUDP(proto string, addr *net.UDPAddr) (transport.UDPConn, error) {
	conn, err := net.ListenUDP(proto, addr)
	if err != nil {
		return nil, err
	}
	t := &tap{UDPConn: conn, in: n.in}
	if err := t.timestamps(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("switch kernel timestamps on: %w", err)
	}
	return t, nil
}

// tap is a socket that hands RTP to in and everything else to its reader.
type tap struct {
	*net.UDPConn
	in  *Inbound
	oob [64]byte // owned by the reader
}

// timestamps makes the kernel say when a packet arrived, so that the time this
// process needs to look at it is not part of any latency.
func (t *tap) timestamps() error {
	raw, err := t.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
		// Room for a burst to a process that waits for its turn on a busy machine.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	})
	if err != nil {
		return err
	}
	return set
}

// ReadFromAddrPort implements ice.AddrPortReaderWriter.
func (t *tap) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, oobn, _, from, err := t.ReadMsgUDPAddrPort(b, t.oob[:])
		if err != nil {
			return n, from, err
		}
		if !isRTP(b[:n]) || t.in.arrive(b[:n], arrivalOf(t.oob[:oobn])) {
			return n, from, nil
		}
	}
}

// ReadFrom implements net.PacketConn.
func (t *tap) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := t.ReadFromAddrPort(b)
	return n, net.UDPAddrFromAddrPort(from), err
}

// WriteToAddrPort implements ice.AddrPortReaderWriter.
func (t *tap) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return t.WriteToUDPAddrPort(b, to)
}

// isRTP tells RTP from STUN, DTLS and RTCP (RFC 7983, RFC 5761 section 4).
func isRTP(b []byte) bool {
	return len(b) >= 12 && b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223)
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
