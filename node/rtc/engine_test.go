package rtc

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestEngineNeedsAnAddressItCanBind(t *testing.T) {
	if _, err := NewEngine(Config{}); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("no address: got %v", err)
	}
	e := newTestEngine(t)
	taken := e.MediaAddrs()
	if _, err := NewEngine(Config{Media: append(loopback, taken...)}); err == nil || !strings.Contains(err.Error(), taken[0].String()) {
		t.Errorf("taken address %v: got %v", taken[0], err)
	}
}

func TestEachAddressIsACandidate(t *testing.T) {
	e, err := NewEngine(Config{Media: []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("127.0.0.2:0"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	offer := firstOffer(t, e)
	for _, a := range e.MediaAddrs() {
		if want := strings.ReplaceAll(a.String(), ":", " ") + " typ host"; !strings.Contains(offer, want) {
			t.Errorf("offer lacks candidate %q:\n%s", want, offer)
		}
	}
}

func TestPublicAddressReplacesTheBoundOne(t *testing.T) {
	e, err := NewEngine(Config{Media: loopback, PublicIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	offer := firstOffer(t, e)
	if !strings.Contains(offer, " 192.0.2.7 ") || strings.Contains(offer, " 127.0.0.1 ") {
		t.Errorf("offer does not name 192.0.2.7 alone:\n%s", offer)
	}
}

func firstOffer(t *testing.T, e *Engine) string {
	t.Helper()
	c := newClient(t, e)
	c.hold = true
	if err := c.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	return wait(t, c.held, "the first offer")
}

func TestTracksAreBounded(t *testing.T) {
	alice := newClientWith(t, newTestEngine(t), SessionConfig{MaxTracks: 1})
	for _, id := range []string{"one", "two"} {
		s := newVideoStream(t, id, "", 0)
		if _, err := alice.pub.AddTrack(s.track); err != nil {
			t.Fatal(err)
		}
		every(t, 5*time.Millisecond, func() { s.send(nil) })
	}
	alice.offer()
	wait(t, alice.published, "the first track")
	eventually(t, "the second track to be ignored", func() bool { return alice.session.Stats().Ignored == 1 })
	if len(alice.published) != 0 || alice.session.Stats().Published != 1 {
		t.Errorf("%d tracks are published, want 1", alice.session.Stats().Published)
	}
}
