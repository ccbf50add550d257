//go:build !linux

package transport

import (
	"errors"
	"net"
	"syscall"
)

// sharePort is for Linux, where the kernel spreads clients over sockets.
// canSteer is for Linux too.
const canSteer = false

func (s *socket) steer(int) error { return errors.New("steering needs Linux") }

func (s *socket) unpoll() error { return nil }

func sharePort(_, _ string, _ syscall.RawConn) error {
	return errors.New("several workers on one address need Linux")
}

func (s *socket) canSegment() bool { return false }

// receiver reads one datagram at a time.
type receiver struct {
	sock *socket
	name sockname
	buf  [maxDatagram + 1]byte
	n    int
}

func newReceiver(s *socket) *receiver { return &receiver{sock: s} }

func (r *receiver) receive() (int, error) {
	for {
		n, from, err := r.sock.conn.ReadFromUDPAddrPort(r.buf[:])
		if err == nil {
			r.n, r.name = n, nameOf(from)
			return 1, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return 0, err
		}
	}
}

// poll is for sockets that reports are steered to, of which there are none.
func (r *receiver) poll() int { return 0 }

// linger has no room for more.
func (r *receiver) linger(n int) int { return n }

func (r *receiver) datagram(int) (*sockname, []byte) { return &r.name, r.buf[:r.n] }

// sender sends one datagram at a time.
type sender struct {
	batch *Batch
	to    [maxMessages]*message
	bufs  [maxMessages][]byte
	n     int
}

func newSender(b *Batch) *sender { return &sender{batch: b} }

func (s *sender) add(m *message, arena []byte) {
	s.to[s.n], s.bufs[s.n] = m, arena[m.off:m.off+m.len]
	s.n++
}

func (s *sender) flush(sock *socket) {
	for i := range s.n {
		if _, err := sock.conn.WriteToUDPAddrPort(s.bufs[i], s.to[i].to.name.addrPort()); err != nil {
			s.batch.dropped(DropUnreachable, s.to[i:i+1])
		}
		s.to[i] = nil
	}
	s.n = 0
}
