package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// serveMedia serves the page of measured media on an address and returns its URL
// and the flags with which a browser lets it publish, wherever it lies.
func serveMedia(t testing.TB, host netip.Addr) (page string, flags []string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("testdata")))
	for _, file := range []string{"livekit-client.umd.js", "livekit-client.e2ee.worker.js"} {
		mux.Handle("/"+file, http.FileServer(http.Dir("../../web/node_modules/livekit-client/dist")))
	}
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL + "/media.html", []string{"--unsafely-treat-insecure-origin-as-secure=" + s.URL}
}

var loopback = netip.MustParseAddr("127.0.0.1")

// options are livekit-client's RoomOptions or TrackPublishOptions.
type options map[string]any

func (o options) String() string {
	b, err := json.Marshal(o)
	if err != nil || o == nil {
		return "{}"
	}
	return string(b)
}

// in is the mesh for a subtest.
func (m *mesh) in(t testing.TB) *mesh {
	c := *m
	c.t = t
	return &c
}

// joinMedia opens the page of measured media and joins.
func (m *mesh) joinMedia(b *browsers, node, room, identity string, o options) *tab {
	m.t.Helper()
	return m.joinMediaAt(b, loopback, node, room, identity, o, "")
}

// joinMediaAt is joinMedia with the address that serves the page, and the
// password of an encrypted room.
func (m *mesh) joinMediaAt(b *browsers, host netip.Addr, node, room, identity string, o options, password string) *tab {
	m.t.Helper()
	page, flags := serveMedia(m.t, host)
	p := b.open(identity+" on "+node, page, flags...)
	var thrown string
	p.must(fmt.Sprintf(`return await connect(%q, %q, %s, %q)`, m.node(node).WS, m.token(room, identity, ""), o, password), &thrown)
	if thrown != "" {
		m.t.Fatalf("%s cannot join on %s: %s", identity, node, thrown)
	}
	return p
}

// growth is what a page received in a while.
type growth struct {
	Frames, Height, Freezes, Audio int
	Frozen, Energy, Seconds        float64
	Samples, Concealed, VideoBytes float64
}

// sending is what a page published in a while.
type sending struct {
	Frames, Height, Audio int
	Layers                map[int]int // frames by height of the layer; scalable codecs have one
	Seconds               float64
	Limited               string // why its browser sends no more
}

// arrived is what of the frames and packets of sound that were sent came: a busy
// browser looks at its clock later than it was to, and so counts longer.
func arrived(g growth, s sending) (frames, sound float64) {
	longer := g.Seconds / s.Seconds
	return float64(g.Frames) / max(longer*float64(s.Frames), 1), float64(g.Audio) / max(longer*float64(s.Audio), 1)
}

// together measures both sides in the same while: what came says something only
// beside what was sent, which on a busy machine is less.
func together(d time.Duration, viewer, publisher *tab) (g growth, s sending) {
	viewer.t.Helper()
	sent := make(chan error, 1)
	go func() { sent <- publisher.eval(fmt.Sprintf(`return await sends(%d)`, d.Milliseconds()), &s) }()
	g = viewer.grows(d)
	if err := <-sent; err != nil {
		publisher.t.Fatalf("%s: %v", publisher.name, err)
	}
	return g, s
}

// isLargest is true when the viewer gets the largest picture that the publisher's
// browser makes, which is the largest that it has been asked for but where the
// machine lacks the time.
func isLargest(atLeast int) func(growth, sending) bool {
	return func(g growth, s sending) bool {
		held := strings.Contains(s.Limited, "cpu") || strings.Contains(s.Limited, "bandwidth")
		return g.Frames > 1 && g.Height == s.Height && (s.Height >= atLeast || held && s.Height > smallest)
	}
}

// smallest is the height of the lowest layer of the test page's pictures.
const smallest = 180

// watch waits until what one sends and the other gets is as it should be.
func watch(viewer, publisher *tab, what string, within time.Duration, ok func(growth, sending) bool) {
	viewer.t.Helper()
	began := time.Now()
	for {
		g, s := together(500*time.Millisecond, viewer, publisher)
		took := time.Since(began)
		if ok(g, s) {
			viewer.t.Logf("%s after %s: %+v of %+v", what, took.Round(100*time.Millisecond), g, s)
			return
		}
		if took > patience*within {
			viewer.t.Fatalf("%s: not within %s: %s: %+v of %+v", viewer.name, patience*within, what, g, s)
		}
	}
}

// madeUp is the share of the sound that was not there in time to be played.
func (g growth) madeUp() float64 { return g.Concealed / max(g.Samples, 1) }

func (p *tab) grows(d time.Duration) (g growth) {
	p.t.Helper()
	p.must(fmt.Sprintf(`return await grows(%d)`, d.Milliseconds()), &g)
	return g
}
