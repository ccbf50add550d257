package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// servePage serves the test page of livekit-client from an origin that is no
// node's, as a platform's own page is.
func servePage(t testing.TB) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("testdata")))
	mux.Handle("/livekit-client.umd.js", http.FileServer(http.Dir("../../web/node_modules/livekit-client/dist")))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL + "/client.html"
}

// plain opens the test page and joins; it returns what livekit-client threw, ""
// if it is in the room.
func (m *mesh) plain(b *browsers, page, node, token string, flags ...string) (*tab, string) {
	m.t.Helper()
	p := b.open("livekit-client on "+node, page, flags...)
	var thrown string
	p.must(`return await join("`+m.node(node).WS+`", "`+token+`")`, &thrown)
	return p, thrown
}

func (m *mesh) mustJoin(b *browsers, page, node, room, identity string, flags ...string) *tab {
	m.t.Helper()
	p, thrown := m.plain(b, page, node, m.token(room, identity, ""), flags...)
	if thrown != "" {
		m.t.Fatalf("%s cannot join on %s: %s", identity, node, thrown)
	}
	return p
}

// TestLiveKitClient shows that livekit-client works as it is, with its default
// options: it tries signalling v1 first and falls back.
func TestLiveKitClient(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b, page := startBrowsers(t, ""), servePage(t)
	one := m.mustJoin(b, page, "nyc", "plain", "one", "--auto-select-desktop-capture-source=Entire screen", "--auto-accept-this-tab-capture")
	two := m.mustJoin(b, page, "waw", "plain", "two")
	for _, p := range []*tab{one, two} {
		p.must(`await room.localParticipant.enableCameraAndMicrophone()`, nil)
	}
	for p, other := range map[*tab]string{one: "two", two: "one"} {
		p.until("sees and hears the other", 30*time.Second,
			`const g = await growing(); return g.includes("`+other+` camera") && g.includes("`+other+` microphone")`)
	}
	one.must(`await room.localParticipant.setScreenShareEnabled(true)`, nil)
	two.until("sees the screen", 20*time.Second, `return (await growing()).includes("one screen_share")`)
	one.must(`await room.localParticipant.setScreenShareEnabled(false)`, nil)
	two.until("is told that the screen is gone", 5*time.Second, `return seen.unsubscribed.includes("screen_share")`)

	one.must(`await room.localParticipant.setMicrophoneEnabled(false)`, nil)
	two.until("is told of the mute", 5*time.Second, `return seen.muted.includes("one microphone")`)
	two.must(`await room.localParticipant.publishData(new TextEncoder().encode("hello"), { reliable: true, topic: "greeting" })`, nil)
	one.until("gets the data", 5*time.Second, `return seen.data.includes("two greeting hello")`)
	two.must(`await room.localParticipant.publishData(new TextEncoder().encode("lossy"), { reliable: false })`, nil)
	one.until("gets the lossy data", 5*time.Second, `return seen.data.some(d => d.endsWith("lossy"))`)

	left := time.Now()
	one.must(`await room.disconnect()`, nil)
	two.promptly("sees the other leave", `return seen.left.includes("one")`)
	t.Logf("the departure was seen after %s", time.Since(left).Round(time.Millisecond))
}

// contains is strings.Contains that ends in a test error.
func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q lacks %q", what, text, p)
		}
	}
}
