package e2e

import (
	"fmt"
	"testing"
	"time"
)

// sees is JavaScript that is true when a page decodes growing, large enough
// video and hears audio of n others.
const sees = `
	const d = window.__domicile
	if (!d) return false
	const a = await d.stats()
	await new Promise(r => setTimeout(r, 700))
	const b = await d.stats()
	const before = Object.fromEntries(a.participants.map(p => [p.identity, p]))
	return b.participants.length === %d && b.participants.every(p => {
		const q = before[p.identity]
		return q && p.video && q.video && p.video.framesDecoded > q.video.framesDecoded &&
			p.video.width >= 640 && p.video.height >= 360 &&
			p.audio && q.audio && p.audio.totalAudioEnergy > q.audio.totalAudioEnergy
	})`

// notBlack is JavaScript that is true when every remote picture that is shown
// has bright pixels in it.
const notBlack = `
	const videos = [...document.querySelectorAll('video')].filter(v => v.videoWidth > 0)
	if (videos.length < %d) return false
	return videos.every(v => {
		const c = document.createElement('canvas')
		c.width = 64; c.height = 36
		const x = c.getContext('2d')
		x.drawImage(v, 0, 0, 64, 36)
		const px = x.getImageData(0, 0, 64, 36).data
		let bright = 0
		for (let i = 0; i < px.length; i += 4) if (px[i] + px[i + 1] + px[i + 2] > 60) bright++
		return bright > 64 * 36 / 10
	})`

// TestMeetingAcrossThreeNodes is the product's main job: people in three
// countries meet through the node nearest to them.
func TestMeetingAcrossThreeNodes(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b := startBrowsers(t, "")
	nodes := []string{"waw", "nyc", "fra"}
	var tabs []*tab
	for _, n := range nodes {
		tabs = append(tabs, b.open(n, m.page(n, "three", n)))
	}
	for _, p := range tabs {
		p.until("sees and hears the two others", 60*time.Second, fmt.Sprintf(sees, 2))
		p.until("the pictures are not black", 20*time.Second, fmt.Sprintf(notBlack, 3))
	}
	for i, p := range tabs {
		p.must(fmt.Sprintf(`await window.__domicile.sendChat("hello from %s")`, nodes[i]), nil)
	}
	for i, p := range tabs {
		for j, from := range nodes {
			if i != j {
				p.until("reads the chat of "+from, 10*time.Second,
					fmt.Sprintf(`return JSON.stringify(window.__domicile.chat).includes("hello from %s")`, from))
			}
		}
	}
	checkHosts(t, m, tabs)

	tabs[0].close()
	left := time.Now()
	for _, p := range tabs[1:] {
		p.promptly("the one who left is gone", `return window.__domicile.room.remoteParticipants.size === 1`)
	}
	t.Logf("everybody saw the departure after %s", time.Since(left).Round(time.Millisecond))

	// Browsers show the next one in the media sections that the first one had.
	tabs[0] = b.open("waw again", m.page("waw", "three", "again"))
	for _, p := range tabs {
		p.until("sees and hears the one who came after", 30*time.Second, fmt.Sprintf(sees, 2))
	}
}

// checkHosts proves that the page asked nothing of anybody but the mesh.
func checkHosts(t *testing.T, m *mesh, tabs []*tab) {
	t.Helper()
	ours := map[string]bool{}
	for _, n := range m.Nodes {
		ours[n.WS[len("wss://"):]] = true
	}
	for _, p := range tabs {
		var hosts []string
		if err := p.ask(map[string]any{"op": "hosts", "page": p.id}, &hosts); err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			if !ours[h] && h != "" {
				t.Errorf("the page of %s contacted %q", p.name, h)
			}
		}
	}
}

// TestMute shows that a muted microphone is silent for the others (R13).
func TestMute(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b := startBrowsers(t, "")
	one := b.open("one", m.page("waw", "mute", "one", "camera=0"))
	two := b.open("two", m.page("fra", "mute", "two", "camera=0"))
	hears := `const a = await window.__domicile.stats()
		await new Promise(r => setTimeout(r, 500))
		const b = await window.__domicile.stats()
		const n = s => s.participants[0]?.audio?.packetsReceived ?? 0
		return n(b) - n(a)`
	two.until("hears the other", 40*time.Second, `return (await (async () => {`+hears+`})()) > 5`)
	one.must(`await window.__domicile.room.localParticipant.setMicrophoneEnabled(false)`, nil)
	two.until("is shown that the other is muted", 5*time.Second, `return [...window.__domicile.room.remoteParticipants.values()].every(p => !p.isMicrophoneEnabled)`)
	// What had arrived before the mute may be counted a while later by a browser that
	// waits for the processor. That not one packet is forwarded, sfu.TestMuteIsABarrier shows.
	quiet := `(await (async () => {` + hears + `})()) === 0`
	two.promptly("gets no packet any more, for a second", `return `+quiet+` && `+quiet)
	one.must(`await window.__domicile.room.localParticipant.setMicrophoneEnabled(true)`, nil)
	two.until("hears the other again", 10*time.Second, `return (await (async () => {`+hears+`})()) > 5`)
}
