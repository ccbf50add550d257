package stream

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func never(int) bool { return false }

// readAtLeast reads bursts until there are n bytes, and returns how many it took.
func readAtLeast(t testing.TB, c *Conn, n int, more func(int) bool) (got string, bursts int) {
	t.Helper()
	b := make([]byte, 1<<16)
	for len(got) < n {
		k, err := c.ReadBurst(b, more)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got += string(b[:k])
		bursts++
	}
	return got, bursts
}

// TestABurstIsReadAtOnce over TCP and TLS, however many records it came in.
func TestABurstIsReadAtOnce(t *testing.T) {
	s, client := pair(t)
	plain := New(s)
	plain.Unwait()
	defer plain.Close()
	clear, wire := &scale{Conn: client}, &scale{}
	secure, tlsClient := secured(t, func(c net.Conn) net.Conn { wire.Conn = c; return wire })
	for name, c := range map[string]struct {
		near *Conn
		far  net.Conn
		wire *scale
	}{"TCP": {plain, clear, clear}, "TLS": {secure, tlsClient, wire}} {
		t.Run(name, func(t *testing.T) {
			// write returns when all is there to be read: nothing was before.
			write := func(parts ...string) {
				c.wire.written.Store(0)
				for _, p := range parts {
					if _, err := c.far.Write([]byte(p)); err != nil {
						t.Fatal(err)
					}
				}
				awaitArrival(t, c.near, int(c.wire.written.Load()))
			}
			write("one") // wakes the reader, and is there before what follows is read
			if got, _ := readAtLeast(t, c.near, 3, never); got != "one" {
				t.Fatalf("%q", got)
			}
			parts := strings.Split("the quick brown fox jumps over the lazy dog", "")
			write(parts...) // all in the kernel's buffer when the next read begins
			if got, bursts := readAtLeast(t, c.near, len(parts), never); got != strings.Join(parts, "") || bursts != 1 {
				t.Errorf("%q in %d bursts, want one", got, bursts)
			}
			asked := 0
			write("first")
			got, bursts := readAtLeast(t, c.near, 11, func(n int) bool {
				asked++
				write("second")
				return true
			})
			if got != "firstsecond" || bursts != 1 || asked != 1 {
				t.Errorf("%q in %d bursts, asked %d times, want one", got, bursts, asked)
			}
			b := make([]byte, 4)
			write("12345678")
			for _, want := range []string{"1234", "5678"} {
				if n, err := c.near.ReadBurst(b, func(int) bool { t.Error("asked with a full buffer"); return false }); err != nil || string(b[:n]) != want {
					t.Errorf("%q, %v, want %q", b[:n], err, want)
				}
			}
			_ = c.near.SetReadDeadline(time.Unix(1, 0))
			if _, err := c.near.ReadBurst(b, never); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%v, want a deadline", err)
			}
			_ = c.near.SetReadDeadline(time.Now().Add(patience))
			write("bye")
			if w, ok := c.wire.Conn.(*net.TCPConn); !ok || w.CloseWrite() != nil {
				t.Fatal("no half close")
			}
			got = ""
			for {
				n, err := c.near.ReadBurst(b, never)
				got += string(b[:n])
				if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) { // TLS misses a goodbye
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got != "bye" {
				t.Errorf("%q before the end", got)
			}
		})
	}
}

// scale weighs what is written.
type scale struct {
	net.Conn
	written atomic.Int64
}

func (s *scale) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	s.written.Add(int64(n))
	return n, err
}

// awaitArrival waits until n bytes are there to be read: even on loopback a write may
// return before.
func awaitArrival(t *testing.T, c *Conn, n int) {
	t.Helper()
	raw, err := c.base.conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; runtime.Gosched() {
		there := 0
		if err := raw.Control(func(fd uintptr) { there, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
			t.Fatal(err)
		}
		if there >= n {
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("%d bytes of %d arrive", there, n)
		}
	}
}

// TestPiecesOfARecord arrive one by one: what is not there yet does not end TLS.
func TestPiecesOfARecord(t *testing.T) {
	c, client := secured(t, func(c net.Conn) net.Conn { return &crumbs{Conn: c} })
	const want = "a record that comes byte by byte"
	written := make(chan error, 1)
	go func() {
		_, err := client.Write([]byte(want))
		written <- err
	}()
	if got, _ := readAtLeast(t, c, len(want), never); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
}

// crumbs writes byte by byte, in segments of their own.
type crumbs struct{ net.Conn }

func (c *crumbs) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// TestWithoutASocket there is nothing to look at, and bursts are what Read brings.
func TestWithoutASocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := New(near)
		c.Unwait()
		defer c.Close()
		go func() {
			_, _ = far.Write([]byte("one"))
			_, _ = far.Write([]byte("two"))
		}()
		if got, bursts := readAtLeast(t, c, 6, func(int) bool { return true }); got != "onetwo" || bursts != 2 {
			t.Errorf("%q in %d bursts", got, bursts)
		}
	})
}
