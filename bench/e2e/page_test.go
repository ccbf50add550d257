package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
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
	Frozen, Energy                 float64
	Samples, Concealed, VideoBytes float64
}

func (p *tab) grows(d time.Duration) (g growth) {
	p.t.Helper()
	p.must(fmt.Sprintf(`return await grows(%d)`, d.Milliseconds()), &g)
	return g
}
