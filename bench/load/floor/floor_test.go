package floor

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestMeasure(t *testing.T) {
	r, err := Measure(t.Context(), Load{Sockets: 3, Rate: 3000, Size: 1150, Burst: 6, For: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if r.PlainUS <= 0 || r.SegmentedUS <= 0 {
		t.Errorf("measured %+v, want times", r)
	}
}

func TestMeasureRefuses(t *testing.T) {
	if _, err := Measure(t.Context(), Load{}); err == nil {
		t.Error("an empty load was measured")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, Load{Sockets: 1, Rate: 100, Size: 1150, Burst: 6, For: time.Hour}); err == nil {
		t.Error("a cancelled measurement went on")
	}
}

// Both ways put the same datagrams on the wire: as many, as long, each sealed.
func TestSendersSendTheWholeFrame(t *testing.T) {
	l := Load{Sockets: 1, Size: 1150, Burst: 6}
	for name, way := range map[string]func(*net.UDPConn, []netip.AddrPort, Load) (func() error, error){
		"plain": plain, "segmented": segmented,
	} {
		t.Run(name, func(t *testing.T) {
			from, to := listenUDP(t), listenUDP(t)
			send, err := way(from, []netip.AddrPort{to.LocalAddr().(*net.UDPAddr).AddrPort()}, l)
			if err != nil {
				t.Fatal(err)
			}
			if err := send(); err != nil {
				t.Fatal(err)
			}
			to.SetReadDeadline(time.Now().Add(20 * time.Second))
			seen := map[string]bool{}
			for range l.Burst {
				b := make([]byte, 20000)
				n, err := to.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				if n != l.Size+tagSize {
					t.Errorf("a datagram has %d bytes, want %d", n, l.Size+tagSize)
				}
				seen[string(b[headerSize:n])] = true
			}
			if len(seen) != l.Burst {
				t.Errorf("%d different datagrams, want %d", len(seen), l.Burst)
			}
		})
	}
}

func listenUDP(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
