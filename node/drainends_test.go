package node

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/router"
)

// TestDrainIsCancelled ends a drain when one has gone and the other has not: each stays
// where they are, and the node takes attendees again.
func TestDrainIsCancelled(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "vie AT")
	waw := m.node("waw")
	anna, bob := v1(t, waw, "town", "anna"), v1(t, waw, "town", "bob")
	cam := anna.show("cam")
	bob.hears(cam)
	anna.obeys(m) // and bob does not
	drainBy(t, waw, http.MethodPost, "?deadline=1m")
	anna.await("has moved", func() bool { return anna.moved })
	eventually(t, "one has gone", func() bool {
		s, _ := drainBy(t, waw, http.MethodGet, "")
		return s.Gone == 1 && s.Left == 1 && !s.Empty && !s.Late
	})
	if s, status := drainBy(t, waw, http.MethodDelete, ""); status != http.StatusOK || s.Draining {
		t.Fatalf("cancelled: %d %+v", status, s)
	}
	if s, status := drainBy(t, waw, http.MethodDelete, ""); status != http.StatusOK || s.Draining {
		t.Errorf("cancelled once more: %d %+v", status, s)
	}
	bob.hears(cam)
	sees := func(at *testNode, who string) bool {
		for _, p := range at.served(t.Context()) {
			if p.Identity == who {
				return true
			}
		}
		return false
	}
	if !sees(waw, "bob") || sees(waw, "anna") {
		t.Errorf("bob is on waw: %t, and anna: %t", sees(waw, "bob"), sees(waw, "anna"))
	}
	dora := enter(t, waw, "town", "dora", nil)
	dora.hears(cam)
	for _, c := range []*client{anna.client, bob.client} {
		c.mu.Lock()
		if len(c.gone) > 0 {
			t.Errorf("%s saw %v leave", c.identity, c.gone)
		}
		c.mu.Unlock()
	}
}

// TestDrainBegunAndCancelledAtOnce has several operators order opposites: what was ordered
// last holds, whole.
func TestDrainBegunAndCancelledAtOnce(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	waw := m.node("waw")
	if s, status := drainBy(t, waw, http.MethodDelete, ""); status != http.StatusOK || s.Draining {
		t.Errorf("cancelled before any began: %d %+v", status, s)
	}
	takes := func() bool {
		for _, c := range m.node("fra").candidates() {
			if c.Node.Name == "waw" {
				return c.Up
			}
		}
		return false
	}
	for range 20 {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { drainBy(t, waw, http.MethodPost, "?deadline=1m") })
			wg.Go(func() { drainBy(t, waw, http.MethodDelete, "") })
		}
		wg.Wait()
		if s, _ := drainBy(t, waw, http.MethodGet, ""); s.Draining != waw.draining.Load() {
			t.Fatalf("it drains: %t, and takes nobody: %t", s.Draining, waw.draining.Load())
		}
	}
	for range 20 {
		drainBy(t, waw, http.MethodPost, "?deadline=1m")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if drainBy(t, waw, http.MethodDelete, ""); waw.draining.Load() {
					t.Error("it is said to be cancelled, and the node takes nobody")
				}
			})
		}
		wg.Wait()
	}
	drainBy(t, waw, http.MethodPost, "?deadline=1m")
	eventually(t, "fra hears that waw drains", func() bool { return !takes() })
	drainBy(t, waw, http.MethodDelete, "")
	eventually(t, "fra hears that waw is back", takes)
}

// TestDrainDeadline lets the time of a drain pass with somebody who may go nowhere else:
// it says so, they stay, and more time can be given.
func TestDrainDeadline(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), func(_ *testMesh, c *Config) { c.EvidencePatience = time.Second }, "fra DE origin", "nyc US")
	fra := m.node("fra")
	anna := enter(t, fra, "town", "anna", preset("eea-only"))
	cam := anna.publish("cam", livekit.TrackType_VIDEO)
	bob := enter(t, fra, "town", "bob", preset("eea-only"))
	bob.hears(cam)
	drainBy(t, fra, http.MethodPost, "?deadline=1500ms")
	eventually(t, "the deadline has passed", func() bool {
		s, _ := drainBy(t, fra, http.MethodGet, "")
		return s.Late && s.Draining && s.Left == 2 && s.Gone == 0 && s.Refused[router.RuleNobody] == 2
	})
	steady := time.Now()
	eventually(t, "evidence has been missed for as long as it may be", func() bool {
		bob.hears(cam)
		return time.Since(steady) > fra.cfg.patience()+time.Second
	})
	if s, _ := drainBy(t, fra, http.MethodGet, ""); s.Left != 2 {
		t.Errorf("%d are left", s.Left)
	}
	if status, _ := refusedJoin(t, fra, "town", "dora", preset("eea-only")); status == http.StatusOK {
		t.Error("it takes attendees after the deadline")
	}
	if s, _ := drainBy(t, fra, http.MethodPost, "?deadline=1m"); s.Late || !s.Draining || time.Until(s.Deadline) < 30*time.Second {
		t.Errorf("with more time: %+v", s)
	}
}
