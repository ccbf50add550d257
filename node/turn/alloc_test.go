package turn

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"

	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn/alloc"
)

// What data costs on its way through: nothing for the collector, neither in
// channels of a stream nor in indications.
func TestDataAllocatesNothing(t *testing.T) {
	engine, err := transport.Listen(transport.Config{Media: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	c, out := fed(t, engine)
	defer c.server.Close()
	settle(t, c, out)
	p := &probe{t: t, way: "tcp4"}
	packet := append([]byte{0x80, 111}, make([]byte, 1098)...)
	var burst []byte
	for range 3 {
		burst = append(burst, p.channelData(0x4000, packet)...)
	}
	kind := stun.NewType(stun.MethodSend, stun.ClassIndication)
	indication := p.build(kind, peer(c.server.endpoints[0]), attribute{stun.AttrData, packet}).Raw
	for name, b := range map[string][]byte{"channel data": burst, "a Send indication": indication} {
		// Exchanges come from a pool, of which the race detector takes some away, one in
		// four, and other goroutines of the process are counted too.
		if n := least(50, func() {
			if err := c.feed(b, len(b)); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %.1f allocations", name, n)
		}
	}
	if s := c.server.Stats(); s.PacketsUp < 200 || s.Messages[alloc.NotAllowed.String()] != 0 {
		t.Errorf("stats %+v", s)
	}
}

// least is the fewest allocations of one run among a number of samples, up to one that
// has none.
func least(samples int, run func()) float64 {
	n := testing.AllocsPerRun(50, run)
	for ; samples > 1 && n > 0; samples-- {
		n = min(n, testing.AllocsPerRun(3, run))
	}
	return n
}
