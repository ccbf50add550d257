package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/internal/pgtest"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		writeUntilKilled(path)
	}
	code := leaks.Run(m)
	pgtest.Clear()
	removeKey()
	os.Exit(code)
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// disk is where the tests' store is.
var disk = residencytest.Disk(residency.ClassMetadata)

// put stores a room by a permit for it.
func put(ctx context.Context, s *Store, r Room) error {
	return s.PutRoom(ctx, residencytest.Keep(r.Name, r.Tenant, residency.ClassMetadata), r)
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sample is a room with a value in every field.
func sample(i int) Room {
	return Room{
		Name: fmt.Sprintf("room-%04d", i), SID: fmt.Sprintf("RM_%04d", i),
		Tenant: "acme", Policy: "eea-only", Metadata: `{"title":"Übung"}`,
		EmptyTimeout: 300, DepartureTimeout: 20, MaxParticipants: 1<<32 - 1,
		Created: time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC), State: `{"term":7}`,
	}
}

func TestRoomsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	s := open(t, path)
	first, second := sample(1), sample(2)
	must(t, put(t.Context(), s, second))
	must(t, put(t.Context(), s, first))
	second.Metadata, second.Policy = "changed", ""
	must(t, put(t.Context(), s, second))
	closeStore(t, s)

	s = open(t, path)
	defer closeStore(t, s)
	rooms, err := s.Rooms(t.Context())
	must(t, err)
	if d := cmp.Diff([]Room{first, second}, rooms); d != "" {
		t.Fatalf("rooms after reopening (-want +got):\n%s", d)
	}
	got, ok, err := s.Room(t.Context(), second.Name)
	must(t, err)
	if !ok || got != second {
		t.Fatalf("Room(%q) = %+v, %v", second.Name, got, ok)
	}

	must(t, s.DeleteRoom(t.Context(), first.Name, first.SID))
	must(t, s.DeleteRoom(t.Context(), first.Name, first.SID)) // twice is no error
	if _, ok, err := s.Room(t.Context(), first.Name); ok || err != nil {
		t.Fatalf("Room after DeleteRoom: %v, %v", ok, err)
	}
}

func TestPutRoomRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "rooms.db"))
	defer closeStore(t, s)
	must(t, put(t.Context(), s, sample(1)))
	noName, noSID, sameSID := sample(2), sample(2), sample(2)
	noName.Name, noSID.SID, sameSID.SID = "", "", sample(1).SID
	for name, r := range map[string]Room{"no name": noName, "no sid": noSID, "sid of another room": sameSID} {
		if err := put(t.Context(), s, r); err == nil {
			t.Errorf("%s: stored", name)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := put(cancelled, s, sample(3)); err == nil {
		t.Error("cancelled context: stored")
	}
	rooms, err := s.Rooms(t.Context())
	must(t, err)
	if len(rooms) != 1 {
		t.Errorf("%d rooms, want the first alone", len(rooms))
	}
}

func TestConcurrentCallersShareOneWriter(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "rooms.db"))
	defer closeStore(t, s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				r := sample(w*100 + i)
				if err := put(t.Context(), s, r); err != nil {
					t.Error(err)
				}
				if _, ok, err := s.Room(t.Context(), r.Name); !ok || err != nil {
					t.Errorf("Room(%q): %v, %v", r.Name, ok, err)
				}
			}
		})
	}
	wg.Wait()
	rooms, err := s.Rooms(t.Context())
	must(t, err)
	if len(rooms) != 80 {
		t.Errorf("%d rooms, want 80", len(rooms))
	}
}

// TestEveryColumnIsRegistered is R12: nothing is stored without a data class
// and a retention, and the registry names nothing that does not exist.
func TestEveryColumnIsRegistered(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "rooms.db"))
	defer closeStore(t, s)
	if d := cmp.Diff(registered(), stored(t, s)); d != "" {
		t.Errorf("columns in the file differ from the registry (-registered +stored):\n%s", d)
	}
	for _, c := range Columns() {
		if !slices.Contains(residency.Classes(), c.Class) {
			t.Errorf("%s.%s: data class %q is unknown", c.Table, c.Name, c.Class)
		}
		if c.Retention != WithRoom && c.Retention != WithFile {
			t.Errorf("%s.%s: retention %q is unknown", c.Table, c.Name, c.Retention)
		}
	}

	// The comparison sees a column that nobody registered.
	if _, err := s.file.db.ExecContext(t.Context(), `ALTER TABLE room ADD COLUMN host_email TEXT`); err != nil {
		t.Fatal(err)
	}
	if cmp.Equal(registered(), stored(t, s)) {
		t.Error("an unregistered column goes unnoticed")
	}
}

func registered() []string {
	var names []string
	for _, c := range Columns() {
		names = append(names, c.Table+"."+c.Name)
	}
	slices.Sort(names)
	return names
}

func stored(t *testing.T, s *Store) []string {
	t.Helper()
	rows, err := s.file.db.QueryContext(t.Context(), `
		SELECT m.name || '.' || c.name FROM sqlite_schema AS m JOIN pragma_table_xinfo(m.name) AS c
		WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\'`)
	must(t, err)
	var names []string
	for rows.Next() {
		var name string
		must(t, rows.Scan(&name))
		names = append(names, name)
	}
	must(t, rows.Err())
	must(t, rows.Close())
	slices.Sort(names)
	return names
}

// TestPutRoomAsksForItsPermit shows the store permits for something else.
func TestPutRoomAsksForItsPermit(t *testing.T) {
	dir := t.TempDir()
	at := residencytest.Noon
	d := disk
	d.Now = func() time.Time { return at }
	s, err := Open(t.Context(), filepath.Join(dir, "rooms.db"), Options{Disk: d})
	must(t, err)
	defer closeStore(t, s)
	r := sample(1)
	const canary = "canary-7c211433f02071597741e6ff5a8ea34789abbf43"
	r.SID = canary // which is in clear
	for _, c := range []struct {
		name string
		p    residency.Permit
		at   time.Time
	}{
		{"none", residency.Permit{}, at},
		{"of another room", residencytest.Keep("room", r.Tenant, residency.ClassMetadata), at},
		{"of another tenant's room", residencytest.Keep(r.Name, "", residency.ClassMetadata), at},
		{"of another class", residencytest.Keep(r.Name, r.Tenant, residency.ClassTelemetry), at},
		{"of another epoch", residencytest.KeepAt(r.Name, r.Tenant, residency.ClassMetadata, 6, at.Add(time.Hour)), at},
		{"that has ended", residencytest.Keep(r.Name, r.Tenant, residency.ClassMetadata), at.Add(time.Hour)},
	} {
		at = c.at
		if err := s.PutRoom(t.Context(), c.p, r); !errors.Is(err, residency.ErrNotKept) {
			t.Errorf("a permit %s: %v", c.name, err)
		}
	}
	at = residencytest.Noon
	other := r
	other.Policy = "global"
	if err := put(t.Context(), s, other); !errors.Is(err, residency.ErrNotKept) {
		t.Errorf("a permit of another policy: %v", err)
	}
	if found(t, dir, canary) {
		t.Error("the room is on the disk")
	}
	must(t, put(t.Context(), s, r))
	if !found(t, dir, canary) {
		t.Error("a permitted room is not on the disk, so this test proves nothing")
	}
}
