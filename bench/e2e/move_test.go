package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// gap is what a listener missed while a publisher, or the listener itself, went to
// another node.
type gap struct {
	Silent    float64 // ms, longest time without a packet
	Concealed float64 // ms of sound that the browser made up
	Frozen    float64 // ms that pictures stood still
}

// misses measures a listener while do has somebody move.
func misses(t *testing.T, p *tab, do func()) gap {
	t.Helper()
	p.must(`window.gap = missed()`, nil)
	do()
	var g gap
	p.must(`stopMissing(); return await window.gap`, &g)
	return g
}

// goTo has a client of livekit-client come back to another node, as when its name
// leads there now, after its signalling has ended.
func goTo(p *tab, m *mesh, node string) {
	p.must(fmt.Sprintf(`room.engine.url = %q`, m.node(node).WS), nil)
	p.must(cut, nil)
}

// TestTakeOver cuts the signalling of Chromiums whose next way leads to another node:
// that one takes them over. The others see nobody leave, and hear next to no gap.
func TestTakeOver(t *testing.T) {
	m, b := sharedMesh(t), startBrowsers(t, "")
	one := m.joinMedia(b, "waw", "taken", "one", options{})
	two := m.joinMedia(b, "nyc", "taken", "two", options{})
	for _, p := range []*tab{one, two} {
		p.must(`await publishVideo({ simulcast: true, width: 640, height: 360, fps: 8 }); await publishAudio()`, nil)
	}
	for _, p := range []*tab{one, two} {
		p.until("sees and hears the other", 40*time.Second, bothOf(1))
		p.must(`events.length = 0`, nil)
	}
	for _, to := range []string{"fra", "waw"} {
		g := misses(t, two, func() {
			h := misses(t, one, func() {
				goTo(one, m, to)
				one.until("goes on", 15*time.Second, fmt.Sprintf(`return room.state === "connected" && sockets.at(-1).url.includes(%q) && sockets.at(-1).readyState === 1`, m.node(to).WS))
				one.until("sees and hears the other", 15*time.Second, bothOf(1))
				two.until("sees and hears the other", 15*time.Second, bothOf(1))
			})
			t.Logf("to %s: who moves misses %+v", to, h)
		})
		t.Logf("to %s: the other misses %+v", to, g)
		if g.Silent > 5000 { // for busy machines; make bench-moves measures
			t.Errorf("to %s: the other heard nothing for %.0f ms", to, g.Silent)
		}
		two.until("knows one on "+to, 10*time.Second, fmt.Sprintf(`return room.remoteParticipants.get("one").attributes["domicile.node"] === %q`, to))
		one.must(`await room.localParticipant.publishData(new TextEncoder().encode("from one"), { reliable: true })`, nil)
		two.until("has a message", 10*time.Second, `return data.splice(0).includes("from one")`)
		two.must(`await room.localParticipant.publishData(new TextEncoder().encode("from two"), { reliable: true })`, nil)
		one.until("has a message", 10*time.Second, `return data.splice(0).includes("from two")`)
	}
	var noticed, own []string
	two.must(`return events`, &noticed)
	if len(noticed) > 0 {
		t.Errorf("the other noticed: %v", noticed)
	}
	one.must(`return events`, &own)
	if slices.Contains(own, "reconnecting") || slices.Contains(own, "trackUnsubscribed") {
		t.Errorf("the one who moved began anew: %v", own)
	}
	t.Logf("the one who moved: %v", own)
}

// hush is JavaScript that watches the packets of sound and pictures from one other
// person, on a page or in the test's own: the longest pause between any two,
// to a tenth of a second.
const hush = `
	const room = window.__domicile?.room ?? window.room ?? eval('room')
	window.hushing = true
	window.hush = (async () => {
		let longest = 0, at = performance.now(), last = ''
		while (window.hushing) {
			let now = ''
			for (const p of room.remoteParticipants.values()) if (p.identity.includes(%[1]q) || p.name === %[1]q)
				for (const pub of p.trackPublications.values())
					for (const s of ((await pub.track?.getRTCStatsReport())?.values() ?? [])) if (s.type === 'inbound-rtp') now += s.packetsReceived + ' '
			if (now !== last && now !== '') { longest = Math.max(longest, performance.now() - at); at = performance.now(); last = now }
			await new Promise(r => setTimeout(r, 100)) // statistics cost much, and a busy machine more
		}
		return Math.max(longest, performance.now() - at)
	})()`

// hushed ends that, and returns the pause.
func hushed(p *tab) (pause float64) {
	p.t.Helper()
	p.must(`window.hushing = false; return await window.hush`, &pause)
	return pause
}

// TestKilledNode kills an attendee's node with -9: the page goes on at another node, the
// others see nobody leave, and all see and hear each other again.
func TestKilledNode(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	var tabs []*tab
	for _, n := range []string{"fra", "nyc", "waw"} {
		tabs = append(tabs, b.open(n, m.page(n, "killed", n)))
	}
	for _, p := range tabs {
		p.until("sees and hears the two others", 60*time.Second, fmt.Sprintf(sees, 2))
		p.must(`window.left = 0; window.__domicile.room.on("participantDisconnected", () => { window.left++ })`, nil)
	}
	fra, nyc, waw := tabs[0], tabs[1], tabs[2]
	fra.must(fmt.Sprintf(hush, "waw"), nil)
	nyc.must(fmt.Sprintf(hush, "waw"), nil)
	waw.must(fmt.Sprintf(hush, "fra"), nil)
	m.kill("waw")
	for _, p := range tabs {
		p.until("sees and hears the two others again", 30*time.Second, fmt.Sprintf(sees, 2))
	}
	for _, p := range tabs {
		pause := hushed(p)
		t.Logf("%s: %.0f ms without a packet", p.name, pause)
		if pause > 10_000 { // for busy machines; make bench-moves measures
			t.Errorf("%s: %.0f ms without a packet", p.name, pause)
		}
		var left int
		p.must(`return window.left`, &left)
		if left > 0 {
			t.Errorf("%s saw %d leave", p.name, left)
		}
	}
	fra.until("knows waw on its own node", 10*time.Second,
		`return [...window.__domicile.room.remoteParticipants.values()].find(p => p.name === "waw").attributes["domicile.node"] === "fra"`)
}
