package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestBothSignalling has an attendee of each version of the signalling meet on
// two nodes: one peer connection for all (v1), and two of them (v0).
func TestBothSignalling(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b := startBrowsers(t, "")
	old := m.joinMedia(b, "waw", "versions", "old", options{"singlePeerConnection": false})
	young := m.joinMedia(b, "nyc", "versions", "young", options{"singlePeerConnection": true})
	third := m.joinMedia(b, "nyc", "versions", "third", options{"singlePeerConnection": true})
	for p, want := range map[*tab]string{old: "/rtc", young: "/rtc/v1", third: "/rtc/v1"} {
		var paths []string
		p.must(`return sockets.map(s => new URL(s.url).pathname)`, &paths)
		if len(paths) != 1 || paths[0] != want {
			t.Errorf("%s signals over %v, want %s", p.name, paths, want)
		}
		p.must(`await publishVideo({ simulcast: true }); await publishAudio()`, nil)
	}
	for _, p := range []*tab{old, young, third} {
		p.until("sees and hears two others", 40*time.Second, bothOf(2))
	}
	// Sections of one who leaves are used for one who comes.
	third.must(`await room.disconnect()`, nil)
	for _, p := range []*tab{old, young} {
		p.promptly("sees the third leave", `return room.remoteParticipants.size === 1`)
	}
	fourth := m.joinMedia(b, "waw", "versions", "fourth", options{"singlePeerConnection": true})
	fourth.must(`await publishVideo({ simulcast: true }); await publishAudio()`, nil)
	for _, p := range []*tab{old, young, fourth} {
		p.until("sees and hears two others again", 40*time.Second, bothOf(2))
	}
}

// bothOf is JavaScript that is true when video and audio of n others grow.
func bothOf(n int) string {
	return fmt.Sprintf(`
		const all = async () => {
			const out = []
			for (const p of room.remoteParticipants.values()) for (const pub of p.trackPublications.values()) {
				const s = [...((await pub.track?.getRTCStatsReport())?.values() ?? [])].find(s => s.type === 'inbound-rtp')
				if (s) out.push([p.identity + s.kind, s.framesDecoded ?? s.totalAudioEnergy])
			}
			return Object.fromEntries(out)
		}
		const a = await all()
		await new Promise(r => setTimeout(r, 700))
		const b = await all()
		return Object.keys(b).filter(k => b[k] > a[k]).length === %d`, 2*n)
}

// cut ends the page's signalling as a lost network does: no farewell is said.
const cut = `const s = sockets.at(-1); const closed = new Promise(r => s.addEventListener('close', r)); s.close(4000); await closed`

// TestResume cuts the signalling of one attendee in the middle of a meeting and
// of a long run of reliable messages: it resumes, media goes on, the others
// notice nothing, and every message arrives once and in order.
func TestResume(t *testing.T) {
	t.Parallel()
	whole := sharedMesh(t)
	for _, single := range []bool{false, true} {
		t.Run(fmt.Sprintf("single connection %t", single), func(t *testing.T) {
			m, b := whole.in(t), startBrowsers(t, "")
			room := fmt.Sprint("resume-", single)
			one := m.joinMedia(b, "waw", room, "one", options{"singlePeerConnection": single})
			two := m.joinMedia(b, "nyc", room, "two", options{"singlePeerConnection": single})
			for _, p := range []*tab{one, two} {
				p.must(`await publishVideo({ simulcast: true }); await publishAudio()`, nil)
			}
			for _, p := range []*tab{one, two} {
				p.until("sees and hears the other", 40*time.Second, bothOf(1))
				p.must(`events.length = 0`, nil)
			}
			const messages = 300
			sending := fmt.Sprintf(`
				window.sending = (async () => {
					for (let i = 0; i < %d; i++) {
						await room.localParticipant.publishData(new TextEncoder().encode(String(i)), { reliable: true })
						await new Promise(r => setTimeout(r, 10))
					}
				})()`, messages)
			one.must(sending, nil)
			two.must(sending, nil)
			two.until("has some messages", 10*time.Second, `return data.length > 30`)
			one.must(cut, nil)
			one.until("resumes", 15*time.Second, `return events.includes("reconnected") || events.includes("signalReconnecting") && room.state === "connected"`)
			one.must(`await window.sending`, nil)
			two.must(`await window.sending`, nil)
			for _, p := range []*tab{one, two} {
				p.until("has all messages", 15*time.Second, fmt.Sprintf(`return data.length >= %d`, messages))
				var got []string
				p.must(`return data`, &got)
				for i, s := range got {
					if s != fmt.Sprint(i) {
						t.Errorf("%s: message %d of %d is %q", p.name, i, len(got), s)
						break
					}
				}
				p.until("sees and hears the other", 10*time.Second, bothOf(1))
			}
			var noticed []string
			two.must(`return events`, &noticed)
			if len(noticed) > 0 {
				t.Errorf("the other noticed: %v", noticed)
			}
			var own []string
			one.must(`return events`, &own)
			if slices.Contains(own, "disconnected") || slices.Contains(own, "trackUnsubscribed") {
				t.Errorf("the one who resumed lost more than signalling: %v", own)
			}
		})
	}
}

// TestEncryptedRoom has two attendees with one password meet on two nodes, in
// simulcast, and one who guesses: frames pass as they are, layers switch, and
// who has not the key sees nothing.
func TestEncryptedRoom(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b := startBrowsers(t, "")
	join := func(node, identity, password string) *tab {
		return m.joinMediaAt(b, loopback, node, "sealed", identity, options{"adaptiveStream": options{"pixelDensity": 1}}, password)
	}
	one, two := join("waw", "one", "correct horse"), join("nyc", "two", "correct horse")
	one.must(`await publishVideo({ simulcast: true, videoCodec: "vp8" }); await publishAudio()`, nil)
	watch(two, one, "sees the large picture and hears", 40*time.Second, func(g growth, s sending) bool {
		return isLargest(540)(g, s) && g.Energy > 0
	})
	two.must(`tile(200, 112)`, nil)
	two.until("sees a small picture in the small tile", 20*time.Second, `const g = await grows(500); return g.frames > 0 && g.height <= 180`)
	two.must(`tile(960, 540)`, nil)
	watch(two, one, "sees the large picture again", 20*time.Second, isLargest(540))
	var encrypted bool
	two.must(`return [...room.remoteParticipants.values()].every(p => p.isEncrypted)`, &encrypted)
	if !encrypted {
		t.Error("the other is not shown as encrypted")
	}
	eve := join("fra", "eve", "battery staple")
	eve.until("gets media", 20*time.Second, `return (await grows(500)).videoBytes > 0`)
	if g := eve.grows(2 * time.Second); g.Frames > 0 || g.Energy > 0 {
		t.Errorf("who has another key decodes: %+v", g)
	}
}
