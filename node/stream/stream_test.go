package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// patience bounds what takes milliseconds, on a machine that does much else.
const patience = time.Minute

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (server, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	for _, end := range []net.Conn{c, s} {
		if err := end.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

// fill sends numbered blocks until one is refused or the connection is full, and
// returns what was taken.
func fill(t testing.TB, c *Conn, until func(err error) bool) (taken []byte) {
	t.Helper()
	for i := 0; i < 1<<14; i++ {
		block := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 500)
		err := c.Send(block)
		if until(err) {
			if err == nil {
				taken = append(taken, block...)
			}
			return taken
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, block...)
	}
	t.Fatal("the connection takes everything")
	return nil
}

// TestWhatDoesNotGoAtOnceIsKept and arrives when the client reads, in order.
func TestWhatDoesNotGoAtOnceIsKept(t *testing.T) {
	s, client := pair(t)
	c := New(s)
	c.Unwait()
	defer c.Close()
	want := fill(t, c, func(error) bool { return c.Full() })
	for range 3 { // control that comes behind
		if err := c.Send([]byte("control")); err != nil {
			t.Fatal(err)
		}
		want = append(want, "control"...)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came, not those that were sent: %v", len(got), err)
	}
	awaitRoom(t, c)
	if err := c.Send([]byte("after")); err != nil || c.Full() {
		t.Fatalf("full %v, %v after the client has read", c.Full(), err)
	}
	if _, err := io.ReadFull(client, got[:5]); err != nil || string(got[:5]) != "after" {
		t.Fatalf("%q, %v", got[:5], err)
	}
}

// awaitRoom waits until nothing is kept: the goroutine that writes has ended.
func awaitRoom(t testing.TB, c *Conn) {
	t.Helper()
	c.base.mu.Lock()
	draining := c.base.draining
	c.base.mu.Unlock()
	if draining == nil {
		return
	}
	select {
	case <-draining:
	case <-time.After(patience):
		t.Fatal("something is still kept")
	}
}

// TestTooMuchIsRefusedAsAWhole and leaves the connection as it was.
func TestTooMuchIsRefusedAsAWhole(t *testing.T) {
	s, client := pair(t)
	c := New(s)
	c.Unwait()
	defer c.Close()
	want := fill(t, c, func(err error) bool { return errors.Is(err, ErrFull) })
	c.base.mu.Lock()
	kept := len(c.base.kept)
	c.base.mu.Unlock()
	if kept > maxKept {
		t.Errorf("%d bytes are kept, at most %d should be", kept, maxKept)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came, not those that were taken: %v", len(got), err)
	}
}

// TestALayerThatWritesTooMuchEndsTheConnection: what it encrypted cannot be left out.
func TestALayerThatWritesTooMuchEndsTheConnection(t *testing.T) {
	s, _ := pair(t)
	c := New(s)
	c.Unwait()
	defer c.Close()
	fill(t, c, func(err error) bool { return errors.Is(err, ErrFull) })
	if _, err := c.Write(make([]byte, maxKept)); !errors.Is(err, ErrFull) {
		t.Fatalf("Write: %v, want %v", err, ErrFull)
	}
	if err := c.Send([]byte("more")); err == nil {
		t.Error("the connection goes on")
	}
}

// TestBeforeUnwaitWritesWait as on any connection, and deadlines count.
func TestBeforeUnwaitWritesWait(t *testing.T) {
	s, client := pair(t)
	c := New(s)
	defer c.Close()
	if err := c.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Write: %v, want a deadline", err)
	}
	c.Unwait()
	if err := c.SetDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := c.Send([]byte("now")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "now" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Read: %v, want a deadline", err)
	}
}

// TestAClientThatReadsNothingIsCut when stallAfter has passed, and not before.
func TestAClientThatReadsNothingIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // takes nothing at once: everything is kept
		c := New(near)
		c.Unwait()
		defer c.Close()
		if err := c.Send(make([]byte, 3*drainAtOnce)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(stallAfter - time.Second)
		if _, err := io.ReadFull(far, make([]byte, drainAtOnce)); err != nil {
			t.Fatalf("cut too early: %v", err)
		}
		begin := time.Now()
		synctest.Wait()
		<-c.base.draining
		if took := time.Since(begin); took != stallAfter {
			t.Errorf("cut after %v of silence, want %v", took, stallAfter)
		}
		if err := c.Send([]byte("more")); err == nil {
			t.Error("the connection goes on")
		}
		if _, err := io.Copy(io.Discard, far); err != nil {
			t.Errorf("the client sees %v, want the end", err)
		}
	})
}

// TestCloseDoesNotWaitForTheClient, and nobody writes after it.
func TestCloseDoesNotWaitForTheClient(t *testing.T) {
	for name, end := range map[string]func(*Conn) error{"close": (*Conn).Close, "cut": (*Conn).Cut} {
		t.Run(name, func(t *testing.T) {
			s, _ := pair(t)
			c := New(s)
			c.Unwait()
			fill(t, c, func(error) bool { return c.Full() })
			if err := end(c); err != nil {
				t.Fatal(err)
			}
			select {
			case <-c.base.draining:
			default:
				t.Error("somebody still writes")
			}
			if err := c.Send([]byte("more")); err == nil {
				t.Error("a write after the end")
			}
		})
	}
}

// TestManyWriters shows that blocks of several goroutines stay whole.
func TestManyWriters(t *testing.T) {
	const writers, blocks, size = 8, 300, 700
	s, client := pair(t)
	c := New(s)
	c.Unwait()
	defer c.Close()
	var writing sync.WaitGroup
	for w := range byte(writers) {
		writing.Go(func() {
			for range blocks {
				for c.Send(bytes.Repeat([]byte{w}, size)) != nil {
					awaitRoom(t, c)
				}
			}
		})
	}
	counts := make(map[byte]int)
	block := make([]byte, size)
	for range writers * blocks {
		if _, err := io.ReadFull(client, block); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(block, bytes.Repeat(block[:1], size)) {
			t.Fatalf("a block begins with %d and is not whole", block[0])
		}
		counts[block[0]]++
	}
	writing.Wait()
	for w, n := range counts {
		if n != blocks {
			t.Errorf("%d blocks of writer %d, want %d", n, w, blocks)
		}
	}
}
