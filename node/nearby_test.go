package node

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/domicile/domicile/router"
)

func TestNearbyRemembersNetworks(t *testing.T) {
	var m nearby
	now := time.Now()
	at := netip.MustParseAddr
	for i, ms := range []router.Millis{40, 0.1, 41, 39, 900} { // one lies, one stalls
		m.note(at("192.0.2.9"), ms, -1, now.Add(time.Duration(i)*time.Second))
	}
	m.note(at("198.51.100.1"), 1, 890, now) // faster than light
	m.note(at("198.51.100.1"), -4, -1, now)
	m.note(at("2001:db8:1:2::3"), 12, -1, now)
	m.note(at("127.0.0.1"), 1, -1, now)
	for addr, want := range map[string]router.Millis{"192.0.2.200": 40, "::ffff:192.0.2.1": 40, "192.0.3.9": 0, "198.51.100.1": 0, "2001:db8:1:ffff::": 12, "2001:db8:2::3": 0, "127.0.0.1": 0} {
		if got, _ := m.trip(at(addr), now.Add(time.Minute)); got.MS != want {
			t.Errorf("%s: %v, want %v", addr, got.MS, want)
		}
	}
	if _, ok := m.trip(netip.Addr{}, now); ok {
		t.Error("no address has a line")
	}
	if _, ok := m.trip(at("192.0.2.9"), now.Add(2*time.Hour)); ok {
		t.Error("remembered for too long")
	}
	for i := range 3 * maxNearby {
		m.note(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 5, -1, now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(m.nets) > maxNearby {
		t.Errorf("%d networks", len(m.nets))
	}
	if _, ok := m.trip(netip.AddrFrom4([4]byte{10, byte((3*maxNearby - 1) >> 8 & 0xff), byte((3*maxNearby - 1) & 0xff), 1}), now); !ok {
		t.Error("the latest is forgotten")
	}
}

// Who connects with any client is measured, and the next from the same network is
// placed by that; nothing of it is logged.
func TestConnectionsAreMeasured(t *testing.T) {
	t.Parallel()
	m := behindProxies(t)
	fra := m.node("fra")
	n := fra.Node
	u := fmt.Sprintf("ws://%s/rtc?%s", fra.addr, url.Values{"access_token": {tokenFor(t, "town", "anna", nil)}, "protocol": {"16"}}.Encode())
	ws, _, err := websocket.Dial(t.Context(), u, &websocket.DialOptions{HTTPHeader: http.Header{"X-Forwarded-For": {"198.51.100.9"}}}) //nolint:bodyclose // the library closes it
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { // pongs go out while somebody reads
		for err == nil {
			_, _, err = ws.Read(context.Background())
		}
	})
	defer reading.Wait()
	defer ws.CloseNow() //nolint:errcheck // the test is over
	eventually(t, "a real connection is measured", func() bool {
		trip, ok := n.nearby.trip(netip.MustParseAddr("198.51.100.1"), time.Now())
		return ok && trip.MS > 0
	})
	if _, ok := n.nearby.trip(netip.MustParseAddr("192.0.2.77"), time.Now()); ok {
		t.Fatal("remembered before anybody came")
	}
	n.measureLine(t.Context(), fakeLine(7*time.Millisecond), netip.MustParseAddr("192.0.2.7")) // too fast from Warsaw? 890 km take 4.5 ms at least
	a := n.remembered(n.geo.Attendee(netip.MustParseAddr("192.0.2.77")))
	if got := a.Trips["fra"]; got.MS != 7 || got.How != router.Measured {
		t.Errorf("remembered: %+v", got)
	}
	if p := n.place(roomCalled("other"), a, seat{}); p.Node() != "fra" || p.Rule != router.RuleMeasured {
		t.Errorf("placed:\n%s", p)
	}
	if s := fra.log.String(); strings.Contains(s, "192.0.2.") || strings.Contains(s, "198.51.100.") {
		t.Error("an address is in the log")
	}
}

type fakeLine time.Duration

func (f fakeLine) RoundTrip(context.Context) (time.Duration, error) { return time.Duration(f), nil }
