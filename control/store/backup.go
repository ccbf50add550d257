package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// Backup copies the file, as it is at one moment, to a new one that its owner alone
// can read. The store goes on meanwhile; writes wait for the copy. With a shared database
// it is what this node knows of that, and what the database is still to be told.
func (s *Store) Backup(ctx context.Context, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close() // SQLite fills an empty file, with the mode that it has
	}
	if err == nil {
		_, err = s.file.db.ExecContext(ctx, `VACUUM INTO ?`, to)
	}
	if err != nil {
		return fmt.Errorf("back up store %q: %w", s.path, explain(err))
	}
	return nil
}

// Verify reads a file that no store has open, changes nothing, and opens every room
// in it with the key. It returns how many there are.
func Verify(ctx context.Context, path, keyFile string) (rooms int, err error) {
	key, err := readKey(keyFile)
	if err != nil {
		return 0, fmt.Errorf("verify %q: %w", path, err)
	}
	sealer, err := newSealer(key)
	if err == nil {
		err = checkFile(ctx, path, true)
	}
	if err == nil {
		rooms, err = countRooms(ctx, path, sealer)
	}
	if err != nil {
		return 0, fmt.Errorf("verify %q: %w", path, explain(err))
	}
	return rooms, nil
}

func countRooms(ctx context.Context, path string, s *sealer) (_ int, err error) {
	db, err := sql.Open("sqlite", dsn(path, url.Values{"mode": {"ro"}}))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	t := table{db: db, sqlite: true}
	proof, err := t.about(ctx, "key")
	if err == nil {
		err = s.proves(proof)
	}
	if err != nil {
		return 0, err
	}
	rows, err := t.all(ctx)
	for i := 0; i < len(rows) && err == nil; i++ {
		_, err = s.room(rows[i])
	}
	return len(rows), err
}
