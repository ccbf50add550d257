//go:build linux

package burst

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"
)

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestReadsEveryDatagramOnceInOrder(t *testing.T) {
	from, to := listen(t), listen(t)
	r, err := NewReader(to)
	if err != nil {
		t.Fatal(err)
	}
	untilTimed(t, r, from, to)
	// The time of the read is after the last was sent, every time. The kernel's is before,
	// but where it delivers when it has the time.
	var wrong string
	for range 10 {
		if wrong = readsAll(t, r, from, to); wrong == "" {
			return
		}
	}
	t.Error(wrong)
}

// readsAll sends more than one read takes, and says what is wrong with the times of arrival.
func readsAll(t *testing.T, r *Reader, from, to *net.UDPConn) (wrong string) {
	t.Helper()
	const n = 3*atOnce + 1
	began := time.Now()
	for i := range n {
		b := make([]byte, 10+i)
		binary.BigEndian.PutUint32(b, uint32(i))
		if _, err := from.WriteTo(b, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
	}
	ended := time.Now()
	for i := range n {
		b, addr, at, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(b) != 10+i || binary.BigEndian.Uint32(b) != uint32(i) {
			t.Fatalf("datagram %d: % x", i, b[:4])
		}
		if want := from.LocalAddr().(*net.UDPAddr).AddrPort(); addr != want {
			t.Errorf("datagram %d is from %s, want %s", i, addr, want)
		}
		if at.Before(began.Round(0)) || at.After(ended.Round(0)) {
			wrong = fmt.Sprintf("datagram %d arrived at %s, sent between %s and %s", i, at, began, ended)
		}
	}
	return wrong
}

// untilTimed waits for the kernel, which begins to time arrivals a moment after
// the first socket asked for it; until then it gives the time of the read.
func untilTimed(t *testing.T, r *Reader, from, to *net.UDPConn) {
	t.Helper()
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		sent := time.Now().Round(0)
		if _, _, at, err := r.Read(); err != nil {
			t.Fatal(err)
		} else if !at.After(sent) {
			return
		}
	}
	t.Fatal("the kernel does not time arrivals")
}

func TestReadEndsWithTheSocket(t *testing.T) {
	to := listen(t)
	r, err := NewReader(to)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, _, _, err := r.Read()
		ended <- err
	}()
	to.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
	if _, err := NewReader(to); err == nil {
		t.Error("a closed socket has a reader")
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	from, to := listen(t), listen(t)
	r, err := NewReader(to)
	if err != nil {
		t.Fatal(err)
	}
	addr := to.LocalAddr().(*net.UDPAddr).AddrPort()
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := from.WriteToUDPAddrPort([]byte("x"), addr); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a datagram", n)
	}
}
