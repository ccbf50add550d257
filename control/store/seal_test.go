package store

import (
	"bytes"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFileHoldsNoNames looks for a canary on the raw disk, also of a room that an
// older version has written in clear.
func TestFileHoldsNoNames(t *testing.T) {
	const canary, sid = "canary-91c3a7f0", "RM_canary"
	dir := t.TempDir()
	path := filepath.Join(dir, "rooms.db")
	writeOldFile(t, path, Room{Name: canary + "-old", SID: sid + "-old", Tenant: canary, Policy: "eea-only", Metadata: canary, State: canary})
	if !found(t, dir, canary) {
		t.Fatal("the old file does not hold the canary, so this test proves nothing")
	}
	s := open(t, path)
	must(t, put(t.Context(), s, Room{Name: canary, SID: sid, Tenant: "acme", Metadata: canary, State: canary}))
	rooms, err := s.Rooms(t.Context())
	must(t, err)
	if len(rooms) != 2 || rooms[1].Name != canary+"-old" || rooms[1].Tenant != canary || rooms[0].Metadata != canary {
		t.Fatalf("rooms after the migration: %+v", rooms)
	}
	for range 2 { // with the write-ahead log, and without
		if found(t, dir, canary) || found(t, dir, "acme") || !found(t, dir, sid) {
			t.Error("a name is on the disk, or nothing of the room is")
		}
		if s != nil {
			closeStore(t, s)
			s = nil
		}
	}
}

// writeOldFile writes a file as version 3 did: in clear.
func writeOldFile(t *testing.T, path string, r Room) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, url.Values{"_pragma": {"journal_mode(WAL)"}}))
	must(t, err)
	exec := func(query string, args ...any) {
		t.Helper()
		_, err := db.ExecContext(t.Context(), query, args...)
		must(t, err)
	}
	exec(`CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))`)
	exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1)`)
	for i, name := range []string{"00001_rooms", "00002_tenant", "00003_state"} {
		b, err := migrationFiles.ReadFile("migrations/sqlite/" + name + ".sql")
		must(t, err)
		up, _, _ := strings.Cut(string(b), "-- +goose Down")
		exec(up)
		exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1)`, i+1)
	}
	exec(`INSERT INTO room (name, sid, tenant, policy, metadata, empty_timeout, departure_timeout, max_participants, created, state) VALUES (?, ?, ?, ?, ?, 1, 2, 3, 4, ?)`,
		r.Name, r.SID, r.Tenant, r.Policy, r.Metadata, r.State)
	must(t, db.Close())
}

// TestKeyIsAskedFor opens a sealed file without its key, with another, with one that
// others can read, and with one that is none: nothing is changed.
func TestKeyIsAskedFor(t *testing.T) {
	dir := t.TempDir()
	path, keyFile := filepath.Join(dir, "rooms.db"), filepath.Join(dir, "keys", "store.key")
	s := open(t, path)
	must(t, put(t.Context(), s, sample(1)))
	closeStore(t, s)
	before := contents(t, path)
	key, err := os.ReadFile(keyFile)
	must(t, err)
	refused := func(name string, want error, words string) {
		t.Helper()
		s, err := Open(t.Context(), path, Options{Disk: disk})
		if err == nil {
			closeStore(t, s)
		}
		if want != nil && !errors.Is(err, want) || err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.Remove(keyFile))
	refused("no key", ErrNoKey, "restore the key file")
	if _, err := os.Stat(keyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key was made that opens nothing")
	}
	must(t, makeKey(keyFile))
	refused("another key", ErrWrongKey, "another key")
	must(t, os.WriteFile(keyFile, []byte("c2hvcnQ=\n"), 0o600))
	refused("a short key", nil, "openssl rand")
	must(t, os.WriteFile(keyFile, key, 0o600))
	must(t, os.Chmod(keyFile, 0o644))
	refused("a key for everybody", nil, "chmod 0600")
	must(t, os.Chmod(keyFile, 0o600))
	if !bytes.Equal([]byte(before[path]), []byte(contents(t, path)[path])) {
		t.Error("the file was changed")
	}
	s = open(t, path)
	defer closeStore(t, s)
	if got, ok, err := s.Room(t.Context(), sample(1).Name); !ok || err != nil || got != sample(1) {
		t.Errorf("with its key: %+v, %v, %v", got, ok, err)
	}
}

// TestSealedRowsStayWhereTheyAre puts one room's row under another's name, and changes
// a bit.
func TestSealedRowsStayWhereTheyAre(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "rooms.db"))
	defer closeStore(t, s)
	must(t, put(t.Context(), s, sample(1)))
	must(t, put(t.Context(), s, sample(2)))
	for _, q := range []string{
		`UPDATE room SET sealed = (SELECT sealed FROM room WHERE sid = 'RM_0002') WHERE sid = 'RM_0001'`,
		`UPDATE room SET sealed = CAST(substr(sealed, 1, 20) || x'00' || substr(sealed, 22) AS BLOB) WHERE sid = 'RM_0002'`,
	} {
		_, err := s.file.db.ExecContext(t.Context(), q)
		must(t, err)
	}
	for i := 1; i <= 2; i++ {
		if r, ok, err := s.Room(t.Context(), sample(i).Name); err == nil {
			t.Errorf("room %d reads as %+v, %v", i, r, ok)
		}
	}
}

// TestBackup copies the file while rooms are written: the copy is of one moment, is
// verified, and is a store again.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "rooms.db"))
	for i := range 20 {
		must(t, put(t.Context(), s, sample(i)))
	}
	before, err := s.Rooms(t.Context())
	must(t, err)
	wrote := make(chan error, 1)
	go func() {
		var err error
		for i := 20; i < 60 && err == nil; i++ {
			err = put(t.Context(), s, sample(i))
		}
		wrote <- err
	}()
	backup := t.TempDir()
	must(t, s.Backup(t.Context(), filepath.Join(backup, "rooms.db")))
	must(t, <-wrote)
	if err := s.Backup(t.Context(), filepath.Join(backup, "rooms.db")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a backup over another: %v", err)
	}
	closeStore(t, s)

	key := filepath.Join(dir, "keys", "store.key")
	rooms, err := Verify(t.Context(), filepath.Join(backup, "rooms.db"), key)
	if err != nil || rooms < 20 {
		t.Errorf("Verify: %d rooms, %v", rooms, err)
	}
	s, err = Open(t.Context(), filepath.Join(backup, "rooms.db"), Options{Disk: disk, KeyFile: key})
	must(t, err)
	got, err := s.Rooms(t.Context())
	must(t, err)
	if len(got) != rooms || !slices.Equal(got[:20], before) {
		t.Errorf("the copy has %d rooms, %d were verified", len(got), rooms)
	}
	closeStore(t, s)

	data, err := os.ReadFile(filepath.Join(backup, "rooms.db"))
	must(t, err)
	for i := len(data) / 2; i < len(data); i++ {
		data[i] ^= 0x5a
	}
	must(t, os.WriteFile(filepath.Join(backup, "damaged.db"), data, 0o600))
	if _, err := Verify(t.Context(), filepath.Join(backup, "damaged.db"), key); err == nil {
		t.Error("a damaged copy is verified")
	}
}
