package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/internal/pgtest"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// sharing gives the origins of a mesh a database in a country, and its key.
func sharing(t *testing.T, host string, country residency.Country) func(*testMesh, *Config) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "store.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("A", 43)+"=\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(_ *testMesh, c *Config) {
		if c.Self.Has(residency.RoleOrigin) {
			c.Store = Store{KeyFile: key, Postgres: &store.Postgres{Host: host, Port: pgtest.Port, Database: pgtest.Database, User: pgtest.User}}
			c.Places = Places{residency.ClassMetadata: {What: "database", Country: country, Operator: "Example GmbH", OperatorCountry: "DE", Parent: "Example GmbH", ParentCountry: "DE"}}
		}
	}
}

// TestMeetingOutlivesItsDatabase kills the database of two origins under a meeting. The
// meeting goes on, what is written meanwhile is acknowledged, an origin that is started
// again knows its rooms; and when the database is back it has all of it.
func TestMeetingOutlivesItsDatabase(t *testing.T) {
	t.Cleanup(pgtest.Clear)
	pg := pgtest.New(t)
	m := newMeshOf(t, testBundle(1), sharing(t, pg.Dir, "DE"), "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	anna, ben := enter(t, waw, "town", "anna", preset("eea-only")), enter(t, waw, "town", "ben", preset("eea-only"))
	anna.sees("ben")
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	ben.hears(camera)
	writes := func(text string) {
		t.Helper()
		if _, err := (service{waw.Node}).UpdateRoomMetadata(t.Context(), "town", text); err != nil {
			t.Fatal(err)
		}
	}
	state := func(n *testNode) StoreState { return *n.storeState() }
	writes("before")
	home := waw.home(waw.rooms.get("town").Snapshot().Record)
	if s := state(m.node(home)); s.Away || s.Waiting != 0 || s.Country != "DE" {
		t.Fatalf("the store of %s: %+v", home, s)
	}

	pg.Kill(t)
	writes("while it is away")
	ben.await("the news", func() bool { return ben.room.GetMetadata() == "while it is away" })
	ben.hears(camera)
	enter(t, waw, "village", "carl", preset("eea-only"))
	if s := state(m.node(home)); !s.Away || s.Waiting == 0 || s.Problem == "" {
		t.Errorf("the store of %s: %+v", home, s)
	}

	again := m.node(home)
	m.halt(home)
	again.cfg.Listen.Gossip = freePort(t)
	again = m.start(again.cfg)
	m.converge()
	if rec, ok, err := again.store.load(t.Context(), "town"); !ok || err != nil || rec.Metadata != "while it is away" {
		t.Errorf("a node that starts without the database knows %+v, %v, %v", rec, ok, err)
	}
	ben.hears(camera)

	pg.Start(t)
	for _, name := range []residency.NodeName{"fra", "par"} {
		eventually(t, "the database hears what has waited at "+string(name), func() bool { s := state(m.node(name)); return !s.Away && s.Waiting == 0 })
	}
	for _, name := range []residency.NodeName{"fra", "par"} {
		rows, err := m.node(name).files.Rooms(t.Context())
		if err != nil || len(rows) != 2 || rows[0].Name != "town" || rows[0].Metadata != "while it is away" || rows[1].Name != "village" {
			t.Errorf("%s finds %d rooms in the database, %v: %+v", name, len(rows), err, rows)
		}
	}
}

// TestDatabaseOutsideTheZone declares a database where the policy wants nothing kept: no
// room is, and the operator is told why.
func TestDatabaseOutsideTheZone(t *testing.T) {
	m := newMeshOf(t, testBundle(1), sharing(t, t.TempDir(), "US"), "fra DE origin")
	fra := m.node("fra")
	_, err := fra.create(room.Record{Name: "town"}, "eea-only")
	var r *Refusal
	if !errors.As(err, &r) || r.Rule != residency.RuleZone || !strings.Contains(r.Message, "fra's database is in US") {
		t.Errorf("a room is created: %v", err)
	}
	if rows, err := fra.files.Rooms(t.Context()); err != nil || len(rows) != 0 {
		t.Errorf("%d rooms are kept, %v", len(rows), err)
	}
}
