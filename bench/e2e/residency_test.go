package e2e

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// TestEEAOnly shows that in a room that is to stay in the EEA the node in New
// York gets not one media packet, even when an attendee connects to it.
func TestEEAOnly(t *testing.T) {
	t.Parallel()
	m := startMesh(t, product, t.TempDir())
	thrown, nyc, relay, span := eeaMeeting(t, m)
	contains(t, "livekit-client's error", thrown, "nyc", "US", "eea-only", "instead", "https://")
	a := m.validate("nyc", m.token("eea", "third", "eea-only"))
	if a.status != http.StatusForbidden {
		t.Errorf("/rtc/validate on nyc: %d, want 403", a.status)
	}
	contains(t, "the answer of /rtc/validate", a.body, "nyc", "US", "eea-only", "instead", "https://")
	if nyc.packets != 0 {
		t.Errorf("%d packets at the media port of nyc, want none: %+v", nyc.packets, nyc)
	}
	if rate := float64(relay.bytes) / span.Seconds(); rate > quiet {
		t.Errorf("%.0f bytes/s at the relay port of nyc, want at most %d of heartbeats", rate, quiet)
	}
	for _, l := range m.state("nyc").Links {
		if l.TxPackets+l.RxPackets+uint64(l.TxTracks+l.RxTracks) != 0 {
			t.Errorf("the link from nyc to %s: %+v, want no media", l.Peer, l)
		}
	}
	if rooms := m.state("nyc").Rooms; len(rooms) != 0 {
		t.Errorf("nyc has rooms: %+v", rooms)
	}
	t.Logf("refused: %s", thrown)
	t.Logf("in %s: media port %+v, relay port %+v", span.Round(time.Second), nyc, relay)
}

// TestEEAOnlyWithoutGate is TestEEAOnly with the gate switched off in the
// binary: the same meeting sends media through New York, and the same capture
// sees it.
func TestEEAOnlyWithoutGate(t *testing.T) {
	t.Parallel()
	m := startMesh(t, gateless(), t.TempDir())
	thrown, nyc, relay, span := eeaMeeting(t, m)
	if thrown != "" {
		t.Errorf("without the gate the attendee was refused: %s", thrown)
	}
	if nyc.media < 100 {
		t.Errorf("%+v at the media port of nyc, want media", nyc)
	}
	// What nyc gets and gives at its media port comes and goes through its links: beside
	// the heartbeats at least half of it, however much a slow machine encodes.
	if over := float64(relay.bytes) - quiet*span.Seconds(); over < float64(nyc.bytes)/2 {
		t.Errorf("%d bytes at the relay port of nyc in %s, want media beside heartbeats: %d bytes passed at its media port", relay.bytes, span, nyc.bytes)
	}
	var packets uint64
	for _, l := range m.state("nyc").Links {
		packets += l.RxPackets
	}
	if packets == 0 {
		t.Error("no packets on nyc's links")
	}
	t.Logf("in %s: media port %+v, relay port %+v, %d packets from links", span.Round(time.Second), nyc, relay, packets)
}

// quiet is how many bytes a second the two ports between nodes may carry that have no
// media: heartbeats of two links on QUIC, in both directions, five a second each, and
// their acknowledgements; on UDP as many, and what finds the longest datagram. Two people's
// sound alone is more.
const quiet = 9000

// eeaMeeting has two people meet on fra and waw while a third one goes to nyc,
// and returns what nyc answered and what passed at its ports.
func eeaMeeting(t *testing.T, m *mesh) (thrown string, media, relay traffic, span time.Duration) {
	t.Helper()
	nyc := m.node("nyc")
	b := startBrowsers(t, "")
	c := startCapture(t, "lo", "udp and host "+nyc.Media.Addr().String())
	began := time.Now()
	two := []*tab{b.open("fra", m.page("fra", "eea", "fra", "policy=eea-only")), b.open("waw", m.page("waw", "eea", "waw", "policy=eea-only"))}
	for _, p := range two {
		p.until("sees and hears the other", 40*time.Second, fmt.Sprintf(sees, 1))
	}
	third, thrown := m.plain(b, servePage(t), "nyc", m.token("eea", "third", "eea-only"))
	if thrown == "" {
		third.until("sees the two others", 20*time.Second, `return (await growing()).filter(k => k.endsWith("camera")).length === 2`)
	}
	// The meeting of the two goes on meanwhile.
	for _, p := range two {
		p.must(`window.was = (await window.__domicile.stats()).participants.map(p => p.video?.framesDecoded ?? 0).sort().pop()`, nil)
		p.until("decodes fifty pictures more", 20*time.Second,
			`return (await window.__domicile.stats()).participants.some(p => p.video?.framesDecoded > window.was + 50)`)
	}
	packets := c.stop()
	relay, beside := at(packets, nyc.Relay), at(packets, netip.AddrPortFrom(nyc.Relay.Addr(), nyc.Relay.Port()+1)) // QUIC, UDP
	relay.packets, relay.bytes, relay.media = relay.packets+beside.packets, relay.bytes+beside.bytes, relay.media+beside.media
	return thrown, at(packets, nyc.Media), relay, time.Since(began)
}
