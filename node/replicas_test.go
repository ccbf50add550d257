package node

import (
	"context"
	"errors"
	"testing"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// TestRecordsAreReplicated loses the home of a room with what was written there: the
// other origin has all of it, and an old home that comes back overwrites nothing.
func TestRecordsAreReplicated(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	anna := enter(t, waw, "town", "anna", preset("eea-only"))
	rec := waw.rooms.get("town").Snapshot().Record
	home, other := waw.home(rec), residency.NodeName("par")
	if home == "par" {
		other = "fra"
	}
	h, o := m.node(home), m.node(other)
	writes := func(at *testNode, text string) {
		t.Helper()
		if _, err := (service{at.Node}).UpdateRoomMetadata(t.Context(), "town", text); err != nil {
			t.Fatal(err)
		}
	}
	stored := func(n *testNode) room.Record {
		r, _, err := n.store.load(t.Context(), "town")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	writes(waw, "first")
	eventually(t, "the other origin has it", func() bool { return stored(o).Metadata == "first" })
	if stored(o).Pseudonym != rec.Pseudonym || stored(o).SID != rec.SID || stored(o).Policy != "eea-only" {
		t.Errorf("it has %+v of %+v", stored(o), rec)
	}
	m.halt(home)
	eventually(t, "the other is home", func() bool {
		r := o.rooms.get("town")
		return r != nil && r.Snapshot().Home == other && waw.rooms.get("town").Snapshot().Home == other && waw.rooms.get("town").Snapshot().Record.Term > rec.Term
	})
	writes(waw, "second")
	anna.await("the news", func() bool { return anna.room.GetMetadata() == "second" })

	h.cfg.Listen.Gossip = freePort(t)
	h = m.start(h.cfg)
	m.converge()
	eventually(t, "who was home is it again, in a later term, and has what was written since", func() bool {
		r := h.rooms.get("town")
		if r == nil || waw.rooms.get("town").Snapshot().Home != home {
			return false
		}
		s := r.Snapshot().Record
		return s.Metadata == "second" && s.Term > stored(o).Term-1 && stored(h).Metadata == "second"
	})
	if got := waw.rooms.get("town").Snapshot().Record.Metadata; got != "second" {
		t.Errorf("the edge has %q", got)
	}
	anna.close()
	if err := (service{waw.Node}).DeleteRoom(t.Context(), "town"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "deleted is deleted on both", func() bool { return stored(h).SID == "" && stored(o).SID == "" })
}

// TestNoReplicaOutsideTheZone keeps records where their policy keeps metadata, whoever
// else is an origin.
func TestNoReplicaOutsideTheZone(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "nyc US origin")
	fra := m.node("fra")
	rec, err := fra.resolve(context.Background(), resolveRequest{Create: true, Spec: room.Record{Name: "town", Policy: "eea-only"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []residency.NodeName{"fra", "par"} {
		eventually(t, string(at)+" has the record", func() bool {
			_, ok, err := m.node(at).store.load(t.Context(), "town")
			return ok && err == nil
		})
	}
	if r, ok, err := m.node("nyc").store.load(t.Context(), "town"); ok || err != nil {
		t.Errorf("nyc has %+v, %v", r, err)
	}
	// Nor does it take one that somebody hands it, or hand one out.
	permit, v := fra.recordPermit(rec, "nyc")
	if v.Allow {
		t.Errorf("fra may send it there: %+v", permit)
	}
	var refusal *Refusal
	if _, err := m.node("nyc").takeReplica(t.Context(), "fra", replicaMessage{Record: rec}); !errors.As(err, &refusal) {
		t.Errorf("nyc takes it: %v", err)
	}
}

// TestRoomsDoNotWaitForTheDisk stops the disk: whoever has a record written is answered
// at once, the last word is what is written, and it is read as if it had been.
func TestRoomsDoNotWaitForTheDisk(t *testing.T) {
	stopped, wrote := make(chan struct{}), make(chan room.Record, 10)
	forgot := make(chan string, 10)
	failed := make(chan string, 10)
	w := &recordWriter{save: func(_ residency.Permit, r room.Record) error {
		<-stopped
		wrote <- r
		if r.Metadata == "bad" {
			return errors.New("the disk is full")
		}
		return nil
	}, forget: func(name, _ string) error { forgot <- name; return nil }, failed: func(name string, _ error) { failed <- name }}
	put := func(name, text string) {
		t.Helper()
		if err := w.put(residency.Permit{}, room.Record{Name: name, Metadata: text}); err != nil {
			t.Fatal(err)
		}
	}
	put("first", "")
	for range 1000 {
		put("town", "old")
	}
	put("town", "new")
	put("over", "")
	put("sick", "bad")
	if err := w.drop(room.Record{Name: "over"}); err != nil {
		t.Fatal(err)
	}
	if r, kept, waits := w.waiting("town"); !kept || !waits || r.Metadata != "new" {
		t.Errorf("read: %+v, %v, %v", r, kept, waits)
	}
	if _, kept, waits := w.waiting("over"); kept || !waits {
		t.Errorf("what is forgotten is read")
	}
	close(stopped)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	w.settle(ctx, "over")
	w.close()
	close(wrote)
	var texts []string
	for r := range wrote {
		texts = append(texts, r.Name+" "+r.Metadata)
	}
	if len(texts) != 3 || texts[1] != "town new" || texts[2] != "sick bad" || <-forgot != "over" || <-failed != "sick" {
		t.Errorf("written: %q", texts)
	}
	w.working = true // nobody works
	w.queue = make([]string, maxRooms)
	if err := w.put(residency.Permit{}, room.Record{Name: "more"}); !errors.Is(err, errManyRecords) {
		t.Errorf("one too many: %v", err)
	}
}
