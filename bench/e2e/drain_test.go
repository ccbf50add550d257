package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestDrainWithPages empties a node with `domicile drain` while two pages meet on it a
// third: the two go on at another node, nobody is seen leaving, and no message is lost.
func TestDrainWithPages(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	var tabs []*tab
	names := []string{"fra0", "waw1", "waw2"}
	for _, name := range names {
		tabs = append(tabs, b.open(name, m.page(name[:3], "drained", name)))
	}
	for _, p := range tabs {
		p.until("sees and hears the two others", 60*time.Second, fmt.Sprintf(sees, 2))
		p.must(`window.left = 0; window.__domicile.room.on("participantDisconnected", () => { window.left++ })`, nil)
	}
	tabs[0].must(fmt.Sprintf(hush, "waw1"), nil)
	tabs[1].must(fmt.Sprintf(hush, "fra0"), nil)
	tabs[2].must(fmt.Sprintf(hush, "waw1"), nil)
	for _, p := range tabs {
		p.must(listens, nil)
	}
	for _, p := range tabs {
		p.must(counts, nil)
	}
	drain := func(args ...string) *exec.Cmd {
		return exec.Command(product, append([]string{"drain", "--config", m.node("waw").Config}, args...)...)
	}
	// In its first second a drain sends nobody away.
	out, err := drain("--deadline", "500ms").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the deadline has passed: 2 left in 1 rooms, 0 gone") || !strings.Contains(string(out), "the node takes nobody") {
		t.Errorf("drain in half a second: %v\n%s", err, out)
	}
	if out, err := drain("--cancel").CombinedOutput(); err != nil || !strings.Contains(string(out), "the node takes attendees again") {
		t.Fatalf("cancel: %v\n%s", err, out)
	}
	interrupt(t, drain("--deadline", "2m"))
	out, err = drain("--deadline", "2m").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "2 left in 1 rooms, 0 gone") || !strings.Contains(string(out), "the node is empty: 2 went") {
		t.Fatalf("drain: %v\n%s", err, out)
	}
	for _, p := range tabs {
		p.until("sees and hears the two others still", 30*time.Second, fmt.Sprintf(sees, 2))
	}
	said := make([]int, len(tabs))
	for i, p := range tabs {
		p.must(`clearInterval(window.counting); return window.said`, &said[i])
	}
	for i, p := range tabs {
		for j, name := range names {
			if i != j {
				heardAll(p, name, said[j])
			}
		}
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
	if out, err := drain("--cancel").CombinedOutput(); err != nil {
		t.Errorf("cancel: %v\n%s", err, out)
	}
}

// interrupt has an operator press Ctrl-C when a drain says how far it is: it is cancelled.
func interrupt(t *testing.T, drain *exec.Cmd) {
	t.Helper()
	says, err := drain.StdoutPipe()
	var fails bytes.Buffer
	drain.Stderr = &fails
	if err == nil {
		err = drain.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(says).ReadString('\n'); err != nil {
		t.Error(err)
	}
	if err := drain.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := drain.Wait(); err == nil || !strings.Contains(fails.String(), "interrupted: the drain is cancelled") {
		t.Errorf("interrupted: %v\n%s", err, fails.String())
	}
}

// listens is JavaScript that keeps the numbers that others say.
const listens = `
	window.counted = {}
	window.__domicile.room.on("dataReceived", (b, p, _, topic) => {
		if (topic === "count") (window.counted[p.name] ??= []).push(Number(new TextDecoder().decode(b)))
	})`

// counts is JavaScript that says numbers reliably, twenty a second.
const counts = `
	window.said = 0
	window.counting = setInterval(() => window.__domicile.room.localParticipant.publishData(
		new TextEncoder().encode(String(window.said++)), { reliable: true, topic: "count" }), 50)`

// heardAll waits until a page has what somebody said, each number once and in order.
func heardAll(p *tab, name string, said int) {
	p.t.Helper()
	p.until(fmt.Sprintf("has the last of %d messages of %s", said, name), 30*time.Second,
		fmt.Sprintf(`return window.counted[%q]?.at(-1) === %d`, name, said-1))
	var list []int
	p.must(fmt.Sprintf(`return window.counted[%q]`, name), &list)
	for i, n := range list {
		if i != n || len(list) != said {
			p.t.Errorf("%s has message %d of %s as its %d. of %d; %d were said", p.name, n, name, i, len(list), said)
			return
		}
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
