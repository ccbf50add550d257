package node

import (
	"errors"
	"io/fs"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// files counts the documents below a directory of a node.
func files(t *testing.T, n *testNode, dir string) (count int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(n.cfg.DataDir, dir), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Ext(d.Name()) == ".json" {
			count++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// keptHere are the ways by which a room's data gets onto this node's disk, or off it
// to somebody. try reports whether something did; without is the way itself, gone
// without the gate's decision.
var keptHere = []struct {
	path    string
	class   residency.Class
	try     func(*testing.T, *testNode, room.Record) bool
	without func(*testNode, room.Record) error
}{
	{"record of a room", residency.ClassMetadata,
		func(t *testing.T, n *testNode, rec room.Record) bool {
			err := n.keepRecord(rec)
			_, ok, readErr := n.store.s.Room(t.Context(), rec.Name)
			if readErr != nil || ok != (err == nil) {
				t.Errorf("stored %v, %v, %v", ok, err, readErr)
			}
			return ok
		},
		func(n *testNode, rec room.Record) error { return n.saveRecord(residency.Permit{}, rec) }},
	{"room's key", residency.ClassMetadata,
		func(t *testing.T, n *testNode, rec room.Record) bool {
			err := n.pseudonymise(&rec)
			_, wrote := n.testimony.keys.get(rec.SID)
			if wrote != (err == nil) {
				t.Errorf("wrote %v, %v", wrote, err)
			}
			return wrote
		},
		func(n *testNode, rec room.Record) error {
			_, err := n.testimony.keys.ensure(residency.Permit{}, rec)
			return err
		}},
	{"message that is kept", residency.ClassChat,
		func(t *testing.T, n *testNode, rec room.Record) bool {
			before := files(t, n, "chats")
			err := n.storeChat(rec, []byte(`{"kind":"chat","text":"canary"}`))
			wrote := files(t, n, "chats") > before
			if wrote != (err == nil) {
				t.Errorf("wrote %v, %v", wrote, err)
			}
			return wrote
		},
		func(n *testNode, rec room.Record) error {
			_, err := n.chats.create(residency.Permit{}, lineKey{rec.SID, chatTrack}, metaOf(n, rec), n.now())
			return err
		}},
	{"recording", residency.ClassRecording,
		func(t *testing.T, n *testNode, rec room.Record) bool {
			before := files(t, n, "recordings")
			r, err := n.rooms.ensure(rec)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.StartRecording(t.Context())
			wrote := files(t, n, "recordings") > before
			if wrote != (err == nil) {
				t.Errorf("wrote %v, %v", wrote, err)
			}
			return wrote
		},
		func(n *testNode, rec room.Record) error {
			_, err := n.vault.Create(residency.Permit{}, metaOf(n, rec), n.now())
			return err
		}},
	{"download of chat", residency.ClassExport,
		func(t *testing.T, n *testNode, rec room.Record) bool {
			p, _ := n.tell(keeping(rec, residency.ClassExport))
			w := httptest.NewRecorder()
			err := n.exportChat(p, w, "text", rec.Name, []room.ChatLine{{Text: "canary"}})
			if wrote := w.Body.Len() > 0; wrote != (err == nil) {
				t.Errorf("wrote %v, %v", wrote, err)
			}
			return err == nil
		},
		func(n *testNode, rec room.Record) error {
			err := n.exportChat(residency.Permit{}, httptest.NewRecorder(), "text", rec.Name, []room.ChatLine{{Text: "canary"}})
			if errors.Is(err, errNoExport) {
				return residency.ErrNotKept
			}
			return err
		}},
}

// TestDiskAsks tries each way under policies that let it go, and under some that differ
// in the zone of its class, or of another class, alone.
func TestDiskAsks(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	fra := m.node("fra")
	for i, c := range keptHere {
		for j, forbidden := range []residency.Class{"", c.class, residency.ClassTelemetry} {
			b := testBundle(1)
			p := *b.Policies["eea-only"]
			p.ChatLog, p.Zones = true, zones(p.Zones[residency.ClassMedia])
			if forbidden != "" {
				p.Zones[forbidden] = residency.Zone{Name: "elsewhere", Countries: []residency.Country{"PL"}}
			}
			b.Policies["eea-only"] = &p
			b.Epoch = residency.Epoch(2 + 3*i + j)
			fra.setBundle(b)
			rec := room.Record{Name: "town-" + string(rune('a'+3*i+j)), SID: "RM_" + string(rune('a'+3*i+j)), Policy: "eea-only", CreatedMS: 1}.WithDefaults()
			if got, want := c.try(t, fra, rec), forbidden != c.class; got != want {
				t.Errorf("%s without %q: %v, want %v", c.path, forbidden, got, want)
			}
			if err := c.without(fra, rec); !errors.Is(err, residency.ErrNotKept) && !(c.path == "room's key" && forbidden != c.class) {
				t.Errorf("%s without a permit: %v", c.path, err)
			}
		}
	}
}

// TestOverstays tightens the policies over what is kept: it is told of, and stays.
func TestOverstays(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	p := *b.Policies["eea-only"]
	p.ChatLog = true
	b.Policies["eea-only"] = &p
	m := newMesh(t, b, "fra DE origin")
	fra := m.node("fra")
	rec := room.Record{Name: "town", SID: "RM_town", Policy: "eea-only", CreatedMS: 1}.WithDefaults()
	if err := fra.keepRecord(rec); err != nil {
		t.Fatal(err)
	}
	if err := fra.storeChat(rec, []byte(`{"kind":"chat","text":"canary"}`)); err != nil {
		t.Fatal(err)
	}
	fra.doOverstays(t.Context())
	if list := fra.state().Overstays; len(list) > 0 {
		t.Fatalf("permitted, and told of: %+v", list)
	}
	tight := *b
	tight.Epoch = 2
	none := p
	none.Zones = zones(residency.Zone{Name: "elsewhere", Countries: []residency.Country{"PL"}})
	tight.Policies = map[string]*residency.Policy{"eea-only": &none, "global": b.Policies["global"]}
	fra.setBundle(&tight)
	eventually(t, "the operator is told", func() bool { return len(fra.state().Overstays) == 2 })
	for i, want := range []residency.Class{residency.ClassChat, residency.ClassMetadata} {
		if o := fra.state().Overstays[i]; o.Class != want || o.Rule != residency.RuleZone || o.Hint == "" || o.ID == "" || o.Policy != "eea-only" {
			t.Errorf("%+v", o)
		}
	}
	if _, ok, err := fra.store.s.Room(t.Context(), "town"); !ok || err != nil || files(t, fra, "chats") == 0 {
		t.Errorf("what may not be kept any more is gone: %v, %v", ok, err)
	}
	fra.setBundle(testBundle(3))
	eventually(t, "all is well", func() bool { return len(fra.state().Overstays) <= 1 }) // that policy keeps no chat
}

func metaOf(n *testNode, rec room.Record) vault.Meta {
	return vault.Meta{Room: rec.Name, Policy: rec.Policy, Node: n.self().Name, Country: n.self().Country}
}
