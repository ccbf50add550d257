package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestDrainWithPages empties a node with `domicile drain` while two pages meet on it a
// third: the two go on at another node, nobody is seen leaving.
func TestDrainWithPages(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	var tabs []*tab
	for _, n := range []string{"fra", "waw", "waw"} {
		tabs = append(tabs, b.open(n, m.page(n, "drained", fmt.Sprint(n, len(tabs)))))
	}
	for _, p := range tabs {
		p.until("sees and hears the two others", 60*time.Second, fmt.Sprintf(sees, 2))
		p.must(`window.left = 0; window.__domicile.room.on("participantDisconnected", () => { window.left++ })`, nil)
	}
	tabs[0].must(fmt.Sprintf(hush, "waw1"), nil)
	tabs[1].must(fmt.Sprintf(hush, "fra0"), nil)
	tabs[2].must(fmt.Sprintf(hush, "waw1"), nil)
	out, err := exec.Command(product, "drain", "--config", m.node("waw").Config, "--deadline", "2m").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the node is empty: 2 went") {
		t.Fatalf("drain: %v\n%s", err, out)
	}
	for _, p := range tabs {
		p.until("sees and hears the two others still", 30*time.Second, fmt.Sprintf(sees, 2))
	}
	for _, p := range tabs {
		pause := hushed(p)
		t.Logf("%s: %.0f ms without a packet", p.name, pause)
		if pause > 5000 { // for busy machines; make bench-moves measures
			t.Errorf("%s: %.0f ms without a packet", p.name, pause)
		}
		var left int
		p.must(`return window.left`, &left)
		if left > 0 {
			t.Errorf("%s saw %d leave", p.name, left)
		}
	}
	if out, err := exec.Command(product, "drain", "--config", m.node("waw").Config, "--cancel").CombinedOutput(); err != nil {
		t.Errorf("cancel: %v\n%s", err, out)
	}
}

// TestTwoReleases has one node of three be of a build that knows the wire version of the
// release before alone: a meeting goes over both of its links.
func TestTwoReleases(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	m.kill("waw")
	m.bin = build("domicile-before", "../../cmd/domicile", "-ldflags", "-X github.com/domicile/domicile/relay.onlyVersion=2")
	m.run(m.node("waw"))
	var state struct {
		Links []struct {
			Peer    string
			Version int
		}
	}
	eventually(t, "the old release has links to both of the new", 30*time.Second, func() bool {
		out, err := exec.Command(product, "state", "--config", m.node("waw").Config).Output()
		return err == nil && json.Unmarshal(out, &state) == nil && len(state.Links) == 2
	})
	for _, l := range state.Links {
		if l.Version != 2 {
			t.Errorf("link to %s has version %d", l.Peer, l.Version)
		}
	}
	one := m.joinMedia(b, "waw", "releases", "one", options{})
	two := m.joinMedia(b, "fra", "releases", "two", options{})
	for _, p := range []*tab{one, two} {
		p.must(`await publishVideo({ simulcast: true, width: 640, height: 360, fps: 8 }); await publishAudio()`, nil)
	}
	for _, p := range []*tab{one, two} {
		p.until("sees and hears the other", 40*time.Second, bothOf(1))
	}
	one.must(`await room.localParticipant.publishData(new TextEncoder().encode("from one"), { reliable: true })`, nil)
	two.until("has a message", 10*time.Second, `return data.includes("from one")`)
}
