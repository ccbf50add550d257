package node

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/domicile/domicile/control/membership"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// TestTwoNodesOfOneName starts a second node under a name that is taken: the
// mesh says so, in its state and in the log.
func TestTwoNodesOfOneName(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	waw := m.node("waw")
	first := m.nodes["fra"]
	second := m.start(m.config("fra DE origin"))
	m.nodes["fra"] = first
	conflict := func(n *testNode) bool {
		for _, r := range n.state().Refused {
			if r.Name == "fra" && r.Rule == membership.RuleConflict && strings.Contains(r.Reason, "uses the name") {
				return true
			}
		}
		return false
	}
	eventually(t, "somebody reports the conflict", func() bool { return conflict(first) || conflict(waw) })
	eventually(t, "the log does", func() bool {
		return strings.Contains(first.log.String()+waw.log.String(), "a second node at "+second.cfg.Listen.Gossip.String())
	})
}

// TestDeletedRoomStaysDeleted says hello from a node that did not hear of the end.
func TestDeletedRoomStaysDeleted(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL", "nyc US")
	fra, waw := m.node("fra"), m.node("waw")
	hello := func(from *testNode, rec room.Record, outside bool) {
		t.Helper()
		body, err := json.Marshal(room.Hello{Presence: room.Presence{Node: from.cfg.Self.Name, Participants: 1, Outside: outside}, Record: rec})
		if err != nil {
			t.Fatal(err)
		}
		permit, v := from.permit(rec, residency.ClassSignalling, "fra", false)
		if !v.Allow {
			t.Fatal(v.Reason)
		}
		if err := from.link("fra").Send(permit, room.KindHello, body); err != nil {
			t.Fatal(err)
		}
	}
	anna := enter(t, waw, "town", "anna", preset("eea-only"))
	gone := fra.rooms.get("town").Snapshot().Record
	if err := (service{fra.Node}).DeleteRoom(context.Background(), "town"); err != nil {
		t.Fatal(err)
	}
	anna.await("is told", func() bool { return anna.leave != nil })
	hello(waw, gone, false)
	other, closed := gone, gone
	other.Name, other.SID = "other", "RM_other"
	closed.Name, closed.SID = "closed", "RM_closed"
	hello(m.node("nyc"), closed, true) // it may not be in such a room, and revives none
	hello(waw, other, false)           // after which the first has been handled
	eventually(t, "a room that fra has forgotten is revived", func() bool { return fra.rooms.get("other") != nil })
	if fra.rooms.get("town") != nil {
		t.Error("the deleted room is back")
	}
	if _, ok, _ := fra.store.load(context.Background(), "town"); ok {
		t.Error("its record is back")
	}
	wide := gone
	wide.Name, wide.SID, wide.Policy = "wide", "RM_wide", "global"
	hello(m.node("nyc"), wide, true) // the same link: the one before has been handled
	eventually(t, "nyc revives a room that it may be in", func() bool { return fra.rooms.get("wide") != nil })
	if fra.rooms.get("closed") != nil {
		t.Error("nyc has revived a room that it may not be in")
	}
}

// TestNewReleasesWhatItOpened starts a node whose last socket is taken.
func TestNewReleasesWhatItOpened(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	cfg := m.config("waw PL origin")
	cfg.Listen.Relay, cfg.Listen.Media = freePort(t), freePort(t)
	taken := cfg
	taken.Listen.HTTP = m.node("fra").addr
	if _, err := New(taken); err == nil || !strings.Contains(err.Error(), "start node waw") {
		t.Fatalf("got %v", err)
	}
	cfg.Listen.HTTP = netip.MustParseAddrPort("127.0.0.1:0")
	m.start(cfg) // every address is free again
	m.converge()
}
