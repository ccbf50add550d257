package transport

import (
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/domicile/domicile/node/stream"
)

// TestIdleClientsAreSmall bounds what a client costs that came over TLS, has proved
// itself and is silent: 40 KB is the goal for all that an attendee has, and here it
// has to do for both ends of the connection.
func TestIdleClientsAreSmall(t *testing.T) {
	const clients, most, alone = 100, 40 << 10, "TRANSPORT_IDLE_CLIENTS"
	if os.Getenv(alone) == "" { // in a process of its own: what other tests leave behind would count
		cmd := exec.Command(os.Args[0], "-test.run=^TestIdleClientsAreSmall$")
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	e := listen(t)
	used := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what a pool kept is gone with the second
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	var far []net.Conn
	open := func() {
		near, c, err := tcpPair()
		if err != nil {
			t.Fatal(err)
		}
		s, client := overTLS(t, e, stream.New(near), c)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = e.ServeTCP(s) }()
		t.Cleanup(func() { c.Close(); <-ended })
		conn := newConn(t, e)
		if _, err := client.Write(frame(request(t, conn.Local().Ufrag, conn.Local().Pwd).Raw)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
		far = append(far, client)
	}
	open() // what is there once
	before := used()
	for range clients {
		open()
	}
	each := (used() - before) / clients
	if each < 1<<10 || each > most {
		t.Errorf("%d bytes for both ends of an idle client, want 1 KB to %d", each, most)
	}
	runtime.KeepAlive(far)
}
