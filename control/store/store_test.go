package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/domicile/domicile/residency"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		writeUntilKilled(path)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
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
		Policy: "eea-only", Metadata: `{"title":"Übung"}`,
		EmptyTimeout: 300, DepartureTimeout: 20, MaxParticipants: 1<<32 - 1,
		Created: time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC),
	}
}

func TestRoomsOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	s := open(t, path)
	first, second := sample(1), sample(2)
	must(t, s.PutRoom(t.Context(), second))
	must(t, s.PutRoom(t.Context(), first))
	second.Metadata, second.Policy = "changed", ""
	must(t, s.PutRoom(t.Context(), second))
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

	must(t, s.DeleteRoom(t.Context(), first.Name))
	must(t, s.DeleteRoom(t.Context(), first.Name)) // twice is no error
	if _, ok, err := s.Room(t.Context(), first.Name); ok || err != nil {
		t.Fatalf("Room after DeleteRoom: %v, %v", ok, err)
	}
}

func TestPutRoomRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "rooms.db"))
	defer closeStore(t, s)
	must(t, s.PutRoom(t.Context(), sample(1)))
	noName, noSID, sameSID := sample(2), sample(2), sample(2)
	noName.Name, noSID.SID, sameSID.SID = "", "", sample(1).SID
	for name, r := range map[string]Room{"no name": noName, "no sid": noSID, "sid of another room": sameSID} {
		if err := s.PutRoom(t.Context(), r); err == nil {
			t.Errorf("%s: stored", name)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.PutRoom(cancelled, sample(3)); err == nil {
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
				if err := s.PutRoom(t.Context(), r); err != nil {
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
	if _, err := s.db.ExecContext(t.Context(), `ALTER TABLE room ADD COLUMN host_email TEXT`); err != nil {
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
	rows, err := s.db.QueryContext(t.Context(), `
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
