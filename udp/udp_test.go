package udp_test

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/udp"
)

func pair(t testing.TB) (in *udp.Socket, out *udp.Sender) {
	t.Helper()
	local := netip.MustParseAddrPort("127.0.0.1:0")
	in, err := udp.Listen(local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	from, err := udp.Listen(local)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close() })
	return in, from.Sender(in.Addr())
}

// Datagrams of any sizes, one behind the other, come out with the same borders.
func TestBordersAreKept(t *testing.T) {
	in, out := pair(t)
	sizes := []int{1200, 1200, 1200, 700, 300, 300, 1400, 1, 9000, 1200, 1200}
	arena := make([]byte, 0, 64<<10)
	var want [][]byte
	for i, n := range sizes {
		at := len(arena)
		arena = append(arena, bytes.Repeat([]byte{byte(i + 1)}, n)...)
		want = append(want, bytes.Clone(arena[at:]))
		out.Add(arena[at : at+n])
	}
	if n := out.Flush(); n != 0 {
		t.Fatalf("%d datagrams were not taken", n)
	}
	for len(want) > 0 {
		if err := in.Receive(func(b []byte, at time.Time) {
			if age := time.Since(at); age < 0 || age > time.Minute {
				t.Errorf("it arrived %s ago", age)
			}
			if len(want) == 0 || !bytes.Equal(b, want[0]) {
				t.Fatalf("a datagram of %d bytes of %d arrived, %d are due", len(b), b[0], len(want))
			}
			want = want[1:]
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	in, out := pair(t)
	arena := make([]byte, 32<<10)
	got := 0
	take := func(b []byte, _ time.Time) { got += len(b) }
	if n := testing.AllocsPerRun(100, func() {
		for i := range 20 {
			out.Add(arena[i*1200 : i*1200+1200])
		}
		out.Flush()
		for got = 0; got < 20*1200; {
			if in.Receive(take) != nil {
				return
			}
		}
	}); n > 0 {
		t.Errorf("%v allocations for 20 datagrams", n)
	}
}

func TestCloseEndsReceive(t *testing.T) {
	in, _ := pair(t)
	done := make(chan error, 1)
	go func() { done <- in.Receive(func([]byte, time.Time) {}) }()
	in.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("no error after Close")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Receive did not end")
	}
}
