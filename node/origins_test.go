package node

import (
	"context"
	"errors"
	"testing"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// TestOriginAway stops the origin that is the home of a room while nobody is in the
// room: it is found with its policy on the other, and no room is made of which the one
// that is away might know more.
func TestOriginAway(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	q := resolveRequest{Create: true, Spec: room.Record{Name: "town", Policy: "eea-only"}}
	if _, err := waw.resolve(context.Background(), q); err != nil {
		t.Fatal(err)
	}
	home, other := waw.home(room.Record{Name: "town", Policy: "eea-only"}), residency.NodeName("fra")
	if home == "fra" {
		other = "par"
	}
	gone := m.node(home).cfg.Self
	eventually(t, "the other origin has the record", func() bool {
		_, ok, err := m.node(other).store.load(t.Context(), "town")
		return ok && err == nil
	})
	m.halt(home)
	eventually(t, "the others miss the home", func() bool {
		_, _, a := waw.peer(home)
		_, _, b := m.node(other).peer(home)
		return !a && !b
	})
	for _, n := range []*testNode{waw, m.node(other)} {
		if rec, err := n.resolve(context.Background(), resolveRequest{Create: true, Spec: room.Record{Name: "town"}}); err != nil || rec.Policy != "eea-only" {
			t.Fatalf("node %s finds %+v, %v", n.cfg.Self.Name, rec, err)
		}
		rec, err := n.resolve(context.Background(), resolveRequest{Create: true, Spec: room.Record{Name: "village"}})
		var refusal *Refusal
		if !errors.As(err, &refusal) || refusal.Rule != ruleOriginAway {
			t.Fatalf("node %s made %+v, %v", n.cfg.Self.Name, rec, err)
		}
	}
	// The home decides for itself, whatever the asking node has seen.
	waw.origins.nodes = nil
	if rec, err := waw.resolve(context.Background(), resolveRequest{Create: true, Spec: room.Record{Name: "village"}}); err == nil {
		t.Fatalf("made %+v", rec)
	}
	b := *testBundle(1)
	b.Revoked = []string{gone.Serial}
	m.node(other).setBundle(&b)
	if err := m.node(other).allAsked(""); err != nil {
		t.Errorf("a retired origin still counts: %v", err)
	}
}
