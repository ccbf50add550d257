//go:build linux

package netlab

import (
	"net"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab/impair"
)

type udpSocket = *net.UDPConn

// TestWeb sends words between two namespaces and the host: each path has its own delay,
// and a firewall cuts one direction alone.
func TestWeb(t *testing.T) {
	w := NewWeb(t, 2)
	a, b := w.Ports[0], w.Ports[1]
	for _, err := range []error{
		w.Impair(a.Inside, b.Inside, impair.Profile{Delay: 30 * time.Millisecond}),
		w.Impair(b.Inside, a.Inside, impair.Profile{Delay: 5 * time.Millisecond}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Impair(a.Inside, a.Inside, impair.Profile{}); err == nil {
		t.Error("there is a path from a namespace to itself")
	}
	inA, inB, onHost := listenIn(t, a, a.Inside), listenIn(t, b, b.Inside), listenOn(t, w.Host)
	tell := func(from, to udpSocket, patience time.Duration) (time.Duration, bool) {
		began := time.Now()
		if _, err := from.WriteTo([]byte("word"), to.LocalAddr()); err != nil {
			return 0, false // a firewall says so at once
		}
		to.SetReadDeadline(began.Add(patience))
		_, _, err := to.ReadFrom(make([]byte, 16))
		return time.Since(began), err == nil
	}
	for _, c := range []struct {
		from, to udpSocket
		least    time.Duration
	}{{inA, inB, 30 * time.Millisecond}, {inB, inA, 5 * time.Millisecond}, {inA, onHost, 0}, {onHost, inB, 0}} {
		if took, ok := tell(c.from, c.to, 20*time.Second); !ok || took < c.least {
			t.Errorf("from %s to %s in %s (%v), want at least %s", c.from.LocalAddr(), c.to.LocalAddr(), took, ok, c.least)
		}
	}
	if err := a.Cut(CutOut, b.Inside); err != nil {
		t.Fatal(err)
	}
	if _, ok := tell(inA, inB, time.Second); ok {
		t.Error("a cut path carries a word")
	}
	for _, c := range [][2]udpSocket{{inB, inA}, {inA, onHost}} {
		if _, ok := tell(c[0], c[1], 20*time.Second); !ok {
			t.Errorf("from %s to %s is cut as well", c[0].LocalAddr(), c[1].LocalAddr())
		}
	}
	if err := a.Mend(); err != nil {
		t.Fatal(err)
	}
	if _, ok := tell(inA, inB, 20*time.Second); !ok {
		t.Error("a mended path carries no word")
	}
}
