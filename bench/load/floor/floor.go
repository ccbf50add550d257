// Package floor measures what forwarding cannot cost less than on this machine
// and at this hour: sealing packets with AES-128-GCM and handing them to as many
// UDP sockets at the same pace, and nothing else. A server's figure divided by
// the floor of the same run can be compared between machines; neither figure
// alone can.
package floor

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/domicile/domicile/bench/load/burst"
)

// Load is what is sent.
type Load struct {
	Sockets int
	Rate    float64 // packets a second, to all sockets together
	Size    int     // bytes of RTP
	Burst   int     // packets of one frame, which leave together
	For     time.Duration
}

// Result is the CPU time of the sending thread for one packet, in microseconds.
type Result struct {
	PlainUS     float64 `json:"plain_us"`     // seal and WriteToUDPAddrPort, packet by packet
	SegmentedUS float64 `json:"segmented_us"` // seal a frame, sendmmsg with UDP_SEGMENT
}

const (
	headerSize = 12
	tagSize    = 16
	batch      = 64 // messages for one sendmmsg
)

// Measure sends the load twice, plainly and in segments.
func Measure(ctx context.Context, l Load) (Result, error) {
	var r Result
	if l.Sockets < 1 || l.Rate <= 0 || l.Size <= headerSize || l.Burst < 1 {
		return r, fmt.Errorf("measure floor: impossible load %+v", l)
	}
	sinks, stop, err := listen(l.Sockets)
	if err != nil {
		return r, fmt.Errorf("measure floor: %w", err)
	}
	defer stop()
	for _, m := range []struct {
		to   *float64
		make func(*net.UDPConn, []netip.AddrPort, Load) (func() error, error)
	}{{&r.PlainUS, plain}, {&r.SegmentedUS, segmented}} {
		if *m.to, err = run(ctx, l, sinks, m.make); err != nil {
			return r, fmt.Errorf("measure floor: %w", err)
		}
	}
	return r, nil
}

// listen opens sockets that throw away what comes, each read by a goroutine and
// with the reader that the generator's subscribers have: waking them is part of
// what sending costs, here as there.
func listen(n int) (addrs []netip.AddrPort, stop func(), err error) {
	var conns []*net.UDPConn
	var readers sync.WaitGroup
	stop = func() {
		for _, c := range conns {
			c.Close()
		}
		readers.Wait()
	}
	for range n {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			stop()
			return nil, nil, err
		}
		conns = append(conns, c)
		addrs = append(addrs, c.LocalAddr().(*net.UDPAddr).AddrPort())
		r, err := burst.NewReader(c)
		if err != nil {
			stop()
			return nil, nil, err
		}
		readers.Go(func() {
			for err == nil {
				_, _, _, err = r.Read()
			}
		})
	}
	return addrs, stop, nil
}

// run calls a sender of one frame to all sockets at the load's pace and returns
// the CPU time of its thread, per packet.
func run(ctx context.Context, l Load, to []netip.AddrPort, make func(*net.UDPConn, []netip.AddrPort, Load) (func() error, error)) (float64, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	send, err := make(conn, to, l)
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	perRound := l.Sockets * l.Burst
	every := time.Duration(float64(perRound) / l.Rate * float64(time.Second))
	begin, next, rounds := threadTime(), time.Now(), 0
	for end := next.Add(l.For); next.Before(end); next = next.Add(every) {
		time.Sleep(time.Until(next))
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := send(); err != nil {
			return 0, err
		}
		rounds++
	}
	return float64(threadTime()-begin) / 1e3 / float64(rounds*perRound), nil
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// sealer seals packets as SRTP's GCM profile does (RFC 7714).
type sealer struct {
	aead  cipher.AEAD
	plain []byte
	nonce [12]byte
	count uint64
}

func newSealer(size int) (*sealer, error) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	return &sealer{aead: aead, plain: make([]byte, size)}, err
}

// seal appends one packet to b, which has the room.
func (s *sealer) seal(b []byte) []byte {
	s.count++
	binary.BigEndian.PutUint64(s.nonce[4:], s.count)
	at := len(b)
	b = append(b, s.plain[:headerSize]...)
	return s.aead.Seal(b, s.nonce[:], s.plain[headerSize:], b[at:])
}

func plain(conn *net.UDPConn, to []netip.AddrPort, l Load) (func() error, error) {
	s, err := newSealer(l.Size)
	buf := make([]byte, 0, l.Size+tagSize)
	return func() error {
		for range l.Burst {
			for _, addr := range to {
				if _, err := conn.WriteToUDPAddrPort(s.seal(buf), addr); err != nil {
					return err
				}
			}
		}
		return nil
	}, err
}

func segmented(conn *net.UDPConn, to []netip.AddrPort, l Load) (func() error, error) {
	s, err := newSealer(l.Size)
	if err != nil {
		return nil, err
	}
	pc := ipv4.NewPacketConn(conn)
	option := segmentOption(l.Size + tagSize)
	msgs := make([]ipv4.Message, len(to))
	for i := range msgs {
		msgs[i] = ipv4.Message{Buffers: [][]byte{make([]byte, l.Burst*(l.Size+tagSize))}, OOB: option,
			Addr: net.UDPAddrFromAddrPort(to[i])}
	}
	return func() error {
		for i := range msgs {
			b := msgs[i].Buffers[0][:0]
			for range l.Burst {
				b = s.seal(b)
			}
		}
		for rest := msgs; len(rest) > 0; {
			n, err := pc.WriteBatch(rest[:min(len(rest), batch)], 0)
			if err != nil {
				return err
			}
			if n == 0 {
				return errors.New("sendmmsg took nothing")
			}
			rest = rest[n:]
		}
		return nil
	}, nil
}

// segmentOption is the control message that makes the kernel cut a message into
// datagrams of a size: length (8), level (4), type (4), size (2), padding.
func segmentOption(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(b[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(b[16:], uint16(size))
	return b
}
