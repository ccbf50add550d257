package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestEEAOnly shows that in a room that is to stay in the EEA the node in New
// York gets not one media packet, even when an attendee connects to it.
func TestEEAOnly(t *testing.T) {
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
	m := startMesh(t, gateless(), t.TempDir())
	thrown, nyc, relay, span := eeaMeeting(t, m)
	if thrown != "" {
		t.Errorf("without the gate the attendee was refused: %s", thrown)
	}
	if nyc.media < 100 {
		t.Errorf("%+v at the media port of nyc, want media", nyc)
	}
	if rate := float64(relay.bytes) / span.Seconds(); rate < 4*quiet {
		t.Errorf("%.0f bytes/s at the relay port of nyc, want media: more than %d", rate, 4*quiet)
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

// quiet is how many bytes a second the relay port of a node may carry that has
// no media: heartbeats of two links, in both directions, five a second each,
// and their acknowledgements. One audio track alone is more.
const quiet = 6000

// eeaMeeting has two people meet on fra and waw while a third one goes to nyc,
// and returns what nyc answered and what passed at its ports.
func eeaMeeting(t *testing.T, m *mesh) (thrown string, media, relay traffic, span time.Duration) {
	t.Helper()
	nyc := m.node("nyc")
	c := startCapture(t, "lo", "udp and host "+nyc.Media.Addr().String())
	began := time.Now()
	b := startBrowsers(t, "")
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
		p.until("decodes a hundred pictures more", 20*time.Second,
			`return (await window.__domicile.stats()).participants.some(p => p.video?.framesDecoded > window.was + 100)`)
	}
	packets := c.stop()
	return thrown, at(packets, nyc.Media), at(packets, nyc.Relay), time.Since(began)
}
