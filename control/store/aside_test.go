package store

import (
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/domicile/domicile/internal/pgtest"
)

// refusedIsKeptAside has the database say no to one room of three that waited, and to
// the end of another: nothing is lost, nothing waits behind, and it is all told once the
// database takes it.
func refusedIsKeptAside(t *testing.T, pg *pgtest.Server, database string) {
	ctx := t.Context()
	o := Options{Disk: disk, Postgres: config(pg), KeyFile: sharedKey(t)}
	o.Postgres.Database = database
	s, err := Open(ctx, filepath.Join(t.TempDir(), "rooms.db"), o) // nothing runs: the test says when the database is asked
	must(t, err)
	defer closeStore(t, s)
	other := origin(t, t.TempDir(), pg, named(database))
	exec := func(q string) {
		t.Helper()
		_, err := s.shared.remote.db.ExecContext(ctx, q)
		must(t, err)
	}
	knows := func(s *Store, want ...Room) {
		t.Helper()
		for range 2 { // the copy here has followed the database after the first
			if got, err := s.Rooms(ctx); err != nil || !slices.Equal(got, want) {
				t.Fatalf("%d rooms are known, want %d: %+v, %v", len(got), len(want), got, err)
			}
		}
	}
	returns := func(aside int) {
		t.Helper()
		s.shared.doReturn(ctx)
		if st := state(t, s); st.Away || st.Waiting != 0 || st.Aside != aside || len(st.Asides) != aside {
			t.Fatalf("after its return: %+v", st)
		}
	}
	away := errors.New("away")

	exec(`ALTER TABLE room ADD CONSTRAINT narrow CHECK (sid <> 'RM_0002')`)
	s.shared.fell(away)
	for i := range 3 {
		must(t, put(ctx, s, sample(i+1)))
	}
	returns(1)
	if a := state(t, s).Asides[0]; a.Room != "RM_0002" || a.Gone || a.Since.IsZero() || !strings.HasPrefix(a.Why, "23514: ") {
		t.Errorf("the operator is told %+v", a)
	}
	knows(s, sample(1), sample(2), sample(3))
	knows(other, sample(1), sample(3))
	if r, ok, err := s.Room(ctx, sample(2).Name); !ok || err != nil || r != sample(2) {
		t.Errorf("what is aside reads as %+v, %v, %v", r, ok, err)
	}

	s.shared.doAskAgain(ctx) // in vain
	if st := state(t, s); st.Away || st.Aside != 1 {
		t.Errorf("asked again: %+v", st)
	}
	exec(`ALTER TABLE room DROP CONSTRAINT narrow`)
	s.shared.doAskAgain(ctx)
	if st := state(t, s); st.Aside != 0 || st.Replayed != 3 {
		t.Errorf("the mended database has not been told: %+v", st)
	}
	knows(other, sample(1), sample(2), sample(3))

	// A room that ends takes what is aside of it along, also where its end is refused first.
	exec(`CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql`)
	exec(`CREATE TRIGGER keep BEFORE DELETE OR UPDATE ON room FOR EACH ROW EXECUTE FUNCTION no()`)
	s.shared.fell(away)
	must(t, s.DeleteRoom(ctx, sample(1).Name, sample(1).SID))
	changed := sample(3)
	changed.Metadata = "changed"
	must(t, put(ctx, s, changed))
	returns(2)
	if a := state(t, s).Asides; !a[0].Gone || a[1].Gone || !strings.HasPrefix(a[0].Why, "P0001: ") {
		t.Errorf("the operator is told %+v", a)
	}
	s.shared.fell(away)
	must(t, s.DeleteRoom(ctx, changed.Name, "")) // of any room of that name
	if st := state(t, s); st.Aside != 1 || st.Waiting != 1 {
		t.Errorf("a record outlives its room: %+v", st)
	}
	exec(`DROP TRIGGER keep ON room`)
	returns(1)
	s.shared.doAskAgain(ctx)
	if st := state(t, s); st.Aside != 0 {
		t.Errorf("an end that was refused is not told: %+v", st)
	}
	knows(s, sample(2))
	knows(other, sample(2))
}

// TestAsideIsBounded has the journal wait rather than lose what there is no room for,
// and gives all of it to the file when the database is taken away.
func TestAsideIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	s := open(t, path)
	s.file.limit = 1000
	var n int
	for err := error(nil); err == nil; n++ {
		x, sealErr := s.sealer.row(sample(n))
		must(t, sealErr)
		x.sealed = append(x.sealed, make([]byte, 100)...)
		must(t, s.file.inTx(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(`INSERT INTO pending (handle, sid, gone, sealed) VALUES (?, ?, 0, ?)`, x.handle, x.sid, x.sealed)
			return err
		}))
		e, _, nextErr := s.file.next(t.Context())
		must(t, nextErr)
		if err = s.file.setAside(t.Context(), e, "no", sample(0).Created); err != nil && !errors.Is(err, errAsideFull) {
			t.Fatal(err)
		}
	}
	_, aside, err := s.file.asides(t.Context())
	must(t, err)
	waiting, _, err := s.file.waiting(t.Context())
	must(t, err)
	if n < 2 || aside != n-1 || waiting != 1 {
		t.Errorf("of %d, %d are aside and %d wait", n, aside, waiting)
	}
	closeStore(t, s)
	s = open(t, path)
	defer closeStore(t, s)
	list, err := s.file.table.all(t.Context())
	must(t, err)
	if _, left, err := s.file.asides(t.Context()); len(list) != aside || left != 0 || err != nil {
		t.Errorf("the file alone has %d rooms of %d, %d are aside, %v", len(list), aside, left, err)
	}
}
