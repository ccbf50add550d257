package node

import (
	"context"
	"errors"
	"testing"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// TestOriginAway stops the origin that holds a room's record while nobody is in
// the room: the name must not be made again under a wider policy.
func TestOriginAway(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	q := resolveRequest{Create: true, Spec: room.Record{Name: "town", Policy: "eea-only"}}
	if _, err := waw.resolve(context.Background(), q); err != nil {
		t.Fatal(err)
	}
	home, other := waw.home("town", "eea-only"), residency.NodeName("fra")
	if home == "fra" {
		other = "par"
	}
	gone := m.node(home).cfg.Self
	m.halt(home)
	eventually(t, "the others miss the home", func() bool {
		_, _, a := waw.peer(home)
		_, _, b := m.node(other).peer(home)
		return !a && !b
	})
	for _, n := range []*testNode{waw, m.node(other)} {
		rec, err := n.resolve(context.Background(), resolveRequest{Create: true, Spec: room.Record{Name: "town"}})
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Rule != ruleOriginAway {
			t.Fatalf("node %s made %+v, %v", n.cfg.Self.Name, rec, err)
		}
	}
	// The home decides for itself, whatever the asking node has seen.
	waw.origins.nodes = nil
	if rec, err := waw.resolve(context.Background(), resolveRequest{Create: true, Spec: room.Record{Name: "town"}}); err == nil {
		t.Fatalf("made %+v", rec)
	}
	b := *testBundle(1)
	b.Revoked = []string{gone.Serial}
	m.node(other).setBundle(&b)
	if err := m.node(other).allAsked(); err != nil {
		t.Errorf("a retired origin still counts: %v", err)
	}
}
