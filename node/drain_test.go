package node

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// obeys goes where the node sends the client, as the page does, until the test ends.
func (c *single) obeys(m *testMesh) {
	c.wg.Go(func() {
		for c.ctx.Err() == nil {
			c.mu.Lock()
			leave := c.leave
			c.leave = nil
			c.mu.Unlock()
			if leave.GetAction() == livekit.LeaveRequest_RESUME && len(leave.GetRegions().GetRegions()) > 0 {
				c.moves(m.node(residency.NodeName(leave.Regions.Regions[0].Region)))
				c.mu.Lock()
				c.moved = true
				c.mu.Unlock()
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-c.ctx.Done():
			}
		}
	})
}

// drainBy calls the admin socket's /drain.
func drainBy(t *testing.T, n *testNode, method, query string) (s DrainState, status int) {
	t.Helper()
	w := httptest.NewRecorder()
	n.serveDrain(w, httptest.NewRequest(method, "/drain"+query, nil))
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	return s, w.Code
}

// TestDrain empties a node in the middle of a meeting: a publisher and a subscriber go
// on elsewhere, nobody is seen leaving, nobody comes to the node any more.
func TestDrain(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	waw := m.node("waw")
	anna, bob := v1(t, waw, "town", "anna"), v1(t, waw, "town", "bob")
	carl := enter(t, m.node("fra"), "town", "carl", nil)
	cam, screen := anna.show("cam"), carl.publish("screen", livekit.TrackType_VIDEO)
	bob.hears(cam)
	bob.hears(screen)
	carl.hears(cam)
	for _, c := range []*client{bob.client, carl} {
		c.flow(cam).since()
	}
	bob.flow(screen).since()
	bob.origin = "mozilla...THIS_IS_SDPARTA"
	anna.obeys(m)
	bob.obeys(m)
	if _, status := drainBy(t, waw, http.MethodPost, "?deadline=0s"); status != http.StatusBadRequest {
		t.Errorf("no time at all: %d", status)
	}
	if s, status := drainBy(t, waw, http.MethodPost, "?deadline=1m"); status != http.StatusOK || !s.Draining || s.Empty {
		t.Fatalf("drain: %d, %+v", status, s)
	}
	if status, text := refusedJoin(t, waw, "town", "dora", nil); status == http.StatusOK {
		t.Errorf("who comes to a node that drains is let in: %s", text)
	}
	for _, other := range []residency.NodeName{"fra", "vie"} {
		eventually(t, string(other)+" hears that waw drains", func() bool {
			for _, c := range m.node(other).candidates() {
				if c.Node.Name == "waw" {
					return !c.Up
				}
			}
			return false
		})
	}
	eventually(t, "the node is empty", func() bool { s, _ := drainBy(t, waw, http.MethodGet, ""); return s.Empty })
	if s, _ := drainBy(t, waw, http.MethodGet, ""); s.Gone != 2 || s.Left != 0 {
		t.Errorf("progress %+v", s)
	}
	for _, c := range []*single{anna, bob} {
		c.await("has moved", func() bool { return c.moved })
	}
	for c, want := range map[*single]string{anna: "active", bob: "passive"} {
		if sdp := c.pub.RemoteDescription().SDP; !strings.Contains(sdp, "a=setup:"+want+"\r\n") {
			t.Errorf("%s is not told that the node is %s:\n%s", c.identity, want, sdp)
		}
	}
	bob.hears(cam)
	bob.hears(screen)
	carl.hears(cam)
	for what, f := range map[string]*flow{"bob's of anna": bob.flow(cam), "bob's of carl": bob.flow(screen), "carl's of anna": carl.flow(cam)} {
		missing, pause := f.since()
		t.Logf("%s picture: %d packets missing, %s", what, missing, pause)
		if pause > 3*time.Second { // on a machine that does ten other things; see bench/results
			t.Errorf("%s picture stood still for %s", what, pause)
		}
	}
	for _, c := range []*client{anna.client, bob.client, carl} {
		c.mu.Lock()
		if len(c.gone) > 0 || len(c.people) != 2 {
			t.Errorf("%s sees %d others and %v leave", c.identity, len(c.people), c.gone)
		}
		c.mu.Unlock()
	}
	if s, _ := drainBy(t, waw, http.MethodDelete, ""); s.Draining {
		t.Error("it drains still")
	}
	eventually(t, "fra hears that waw is back", func() bool {
		for _, c := range m.node("fra").candidates() {
			if c.Node.Name == "waw" {
				return c.Up
			}
		}
		return false
	})
	enter(t, waw, "town", "dora", nil)
}

// TestDrainKnowsWherePeopleAre sends somebody on by all that is known of where they are,
// not by their country alone: there is no node in it, and the origin is far.
func TestDrainKnowsWherePeopleAre(t *testing.T) {
	places := map[residency.NodeName]router.Point{"fra": cities["fra"], "waw": cities["waw"], "vie": {Lat: 48.21, Lon: 16.37}}
	m := newMeshOf(t, testBundle(1), func(_ *testMesh, c *Config) { c.At = places[c.Self.Name] }, "fra DE origin", "waw PL", "vie AT")
	waw := m.node("waw")
	v1(t, waw, "town", "anna")
	rm := waw.rooms.get("town")
	carl := room.Served{SID: "PA_carl", Identity: "carl", Country: "HU"}
	first := func() string {
		to, _ := waw.onward(rm.Snapshot().Record, carl)
		if len(to) != 2 {
			t.Fatalf("there are %d nodes to go to", len(to))
		}
		return to[0].Region
	}
	if got := first(); got != "fra" {
		t.Errorf("of whom nothing but the country is known goes to %s", got)
	}
	budapest := router.Attendee{Country: "HU", At: router.Point{Lat: 47.5, Lon: 19.04}, Known: true}
	defer waw.arrivals.came(carl.SID, budapest)()
	if got := first(); got != "vie" {
		t.Errorf("who is in Budapest goes to %s", got)
	}
}
