//go:build linux

package transport

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// canSteer: the kernel lets a program choose among the sockets of a port.
const canSteer = true

// steer attaches the program to all sockets of the port, of which the last, s, is
// for reports and n others are for everything else.
func (s *socket) steer(n int) error {
	raw, err := bpf.Assemble(steering(n))
	if err != nil {
		return err
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	var set error
	err = s.raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
	if err != nil {
		return err
	}
	return set
}

// network is where a program finds the IP header (SKF_NET_OFF); offsets without it
// count from the first byte of the datagram.
const network = 1<<32 - 0x100000

// steering is the program: RTCP (RFC 5761 section 4: a second byte of 192 to 223),
// also within TURN's ChannelData, goes to socket n, the rest by the client's port to
// one of 0 to n-1, so that the packets of a client stay in order. What is too short
// for a load goes to 0. One in a hundred of QUIC's datagrams looks like a report in
// ChannelData, and is late by a beat.
func steering(n int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadConstant{Dst: bpf.RegX, Val: 0},
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 4, SkipTrue: 1}, // RFC 8656: 0x40 to 0x4f
		bpf.LoadConstant{Dst: bpf.RegX, Val: 4},                 // behind channel number and length

		bpf.LoadIndirect{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 6},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 2, SkipTrue: 4}, // RTP's version
		bpf.LoadIndirect{Off: 1, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 5},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 6, SkipTrue: 1}, // 192 to 223
		bpf.RetConstant{Val: uint32(n)},

		bpf.LoadAbsolute{Off: network, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipTrue: 2},
		bpf.LoadAbsolute{Off: network + 20, Size: 2}, // behind an IPv4 header without options
		bpf.Jump{Skip: 1},
		bpf.LoadAbsolute{Off: network + 40, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(n)},
		bpf.RetA{},
	}
}

// unpoll takes the socket away from the runtime's poller, which wakes a thread for
// each datagram whether anybody reads or not.
func (s *socket) unpoll() error {
	fd, err := s.dup()
	if err != nil {
		return fmt.Errorf("duplicate socket: %w", err)
	}
	// The poller takes what does not block. Reading does not wait all the same.
	if err := unix.SetNonblock(fd, false); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	s.file = os.NewFile(uintptr(fd), "reports")
	if err := s.conn.Close(); err != nil {
		return err
	}
	s.raw, err = s.file.SyscallConn()
	return err
}

func (s *socket) dup() (fd int, err error) {
	outer := s.raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(outer, err)
}
