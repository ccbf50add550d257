package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node"
)

// keptLine is what a node tells a host of a recording.
type keptLine struct {
	ID     string
	Tracks []struct{ ID, Kind, Participant string }
}

// host is a token of the host of a room.
func (m *mesh) host(room string) string {
	m.t.Helper()
	return m.mint(control.Grants{Identity: "host", Video: &auth.VideoGrant{RoomAdmin: true, Room: room}}, time.Now())
}

// asHost calls a node for the host of a room.
func (m *mesh) asHost(method, at, room, path string, body, into any) {
	m.t.Helper()
	a := m.do(method, m.origin(at)+"/api/rooms/"+room+"/"+path, m.host(room), body)
	if a.status != http.StatusOK {
		m.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), into); err != nil {
		m.t.Fatalf("%s %s: %v: %s", method, path, err, a.body)
	}
}

// webm has a node make a WebM of a part of a recording.
func (m *mesh) webm(at, room string, more map[string]any) (e node.ExportState) {
	m.t.Helper()
	order := map[string]any{"kind": "recording", "format": "webm"}
	for k, v := range more {
		order[k] = v
	}
	m.asHost(http.MethodPost, at, room, "exports", order, &e)
	eventually(m.t, "the film is made", 10*time.Second, func() bool {
		m.asHost(http.MethodGet, at, room, "exports/"+string(e.ID), nil, &e)
		return e.State != "waiting" && e.State != "running"
	})
	if e.State != "done" {
		m.t.Fatalf("the film: %+v", e)
	}
	return e
}

// played is JavaScript that is true when the page's player has played a film: its
// beginning, at its pace, and its end, to which it has jumped.
const played = `const v = document.querySelector(".library-player video")
	if (!v || !v.src.includes("%s")) return false
	if (v.error) throw new Error("the player: " + v.error.message)
	v.muted = true
	if (v.currentTime > 0.5 && !v.dataset.jumped && v.duration > 2) { v.dataset.jumped = v.currentTime; v.currentTime = v.duration - 0.5 }
	if (v.paused && !v.ended) await v.play()
	return v.dataset.jumped && v.ended`

// player is what a page's video element knows of a film.
type player struct {
	Duration, Jumped float64
	Width            int
	Part             int    // the status of an answer to a part of the film
	Range            string // which part that was
}

// watches has the host's page play a film of a recording up to its end.
func (p *tab) watches(e node.ExportState) (v player) {
	p.t.Helper()
	p.until("offers to watch "+e.Name, 10*time.Second, fmt.Sprintf(`const b = document.querySelector("[data-export=%s] button.primary"); b?.click(); return b`, e.ID))
	p.until("plays "+e.Name, 10*time.Second, fmt.Sprintf(played, e.ID))
	p.must(`const v = document.querySelector(".library-player video")
		const part = await fetch(v.src, { headers: { Range: "bytes=100-299" } })
		const got = { Duration: v.duration, Jumped: +v.dataset.jumped, Width: v.videoWidth, Part: part.status, Range: part.headers.get("Content-Range") }
		;[...document.querySelectorAll("button")].find((b) => b.textContent === "Close").click()
		return got`, &v)
	return v
}

// watchable has a mesh's nodes and a browser show that a recording's host can watch it:
// all of a participant, and a voice alone. How much of the end a cut takes, playable says.
func watchable(t *testing.T, m *mesh, p *tab, at, room string, length time.Duration) {
	t.Helper()
	var kept struct{ Recordings []keptLine }
	m.asHost(http.MethodGet, at, room, "recordings", nil, &kept)
	if len(kept.Recordings) != 1 {
		t.Fatalf("%s keeps %+v of the room, want one recording", at, kept)
	}
	r := kept.Recordings[0]
	orders := map[string]map[string]any{}
	for _, track := range r.Tracks {
		if track.Kind == "audio" {
			orders["audio"] = map[string]any{"recording": r.ID, "track": track.ID}
			orders["video"] = map[string]any{"recording": r.ID, "participant": track.Participant}
		}
	}
	films := map[string]node.ExportState{}
	for what, order := range orders {
		films[what] = m.webm(at, room, order)
	}
	p.eval(fmt.Sprintf(`location.href = %q`, m.origin(at)+"/?recordings="+room+"#token="+m.host(room)), nil) // the answer may be lost with the page
	for _, what := range []string{"audio", "video"} {
		v := p.watches(films[what])
		t.Logf("%s: %+v", what, v)
		if got := time.Duration(v.Duration * float64(time.Second)); got < length/2 || got > length+time.Second {
			t.Errorf("%s: it is %s long, want about %s", what, got, length)
		}
		if (v.Width > 0) != (what == "video") {
			t.Errorf("%s: the picture is %d wide", what, v.Width)
		}
		if v.Part != http.StatusPartialContent || !strings.HasPrefix(v.Range, "bytes 100-299/") {
			t.Errorf("%s: a part of it is answered with %d, %q", what, v.Part, v.Range)
		}
	}
}
