// Package store keeps the rooms of an origin node in one SQLite file.
//
// It remembers what it is told and forgets it on request. Whether this node may
// store a room at all is the residency gate's decision and not taken here; live
// media never waits for it.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Room is the lasting record of a room.
type Room struct {
	Name     string
	SID      string
	Policy   string // name of the residency policy, empty for the bundle's default
	Metadata string

	EmptyTimeout     uint32 // seconds
	DepartureTimeout uint32 // seconds
	MaxParticipants  uint32 // 0: no limit

	Created time.Time // kept to the millisecond
}

// Store is an open file. It is safe for concurrent use: all calls share one
// connection, so there is one writer and no "database is locked" among them.
type Store struct {
	db   *sql.DB
	path string
}

// Open opens the file, creating it with mode 0600 if it does not exist, checks
// that it is whole and brings its tables up to date. The file belongs to this
// process until Close; a second Open fails with ErrLocked, on a damaged file
// with ErrCorrupt, and in both cases nothing in it has been changed.
func Open(ctx context.Context, path string, log *slog.Logger) (*Store, error) {
	fail := func(err error) (*Store, error) {
		return nil, fmt.Errorf("open store %q: %w", path, explain(err))
	}
	fresh, err := prepareFile(path)
	if err != nil {
		return fail(err)
	}
	if !fresh {
		if err := checkFile(ctx, path); err != nil {
			return fail(err)
		}
	}
	db, err := openWriter(path)
	if err != nil {
		return fail(err)
	}
	applied, err := migrate(ctx, db)
	if err != nil {
		return fail(errors.Join(err, db.Close()))
	}
	if applied > 0 {
		log.Info("store brought up to date", "path", path, "migrations", applied)
	}
	return &Store{db: db, path: path}, nil
}

// Close writes back the journal and releases the file.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close store %q: %w", s.path, explain(err))
	}
	return nil
}

// PutRoom stores a room in place of the one of the same name, if any. Once it
// returns nil the room outlives a power failure.
func (s *Store) PutRoom(ctx context.Context, r Room) error {
	if r.Name == "" || r.SID == "" {
		return fmt.Errorf("put room: name %q and sid %q must both be set", r.Name, r.SID)
	}
	_, err := s.db.ExecContext(ctx, `
		INSERT INTO room (name, sid, policy, metadata, empty_timeout, departure_timeout, max_participants, created)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET
			sid = excluded.sid, policy = excluded.policy, metadata = excluded.metadata,
			empty_timeout = excluded.empty_timeout, departure_timeout = excluded.departure_timeout,
			max_participants = excluded.max_participants, created = excluded.created`,
		r.Name, r.SID, r.Policy, r.Metadata, r.EmptyTimeout, r.DepartureTimeout, r.MaxParticipants, r.Created.UnixMilli())
	if err != nil {
		return fmt.Errorf("put room %q: %w", r.Name, explain(err))
	}
	return nil
}

const selectRoom = `SELECT name, sid, policy, metadata, empty_timeout, departure_timeout, max_participants, created FROM room `

// Room finds a room by name.
func (s *Store) Room(ctx context.Context, name string) (Room, bool, error) {
	r, err := scanRoom(s.db.QueryRowContext(ctx, selectRoom+`WHERE name = ?`, name))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Room{}, false, nil
	case err != nil:
		return Room{}, false, fmt.Errorf("read room %q: %w", name, explain(err))
	}
	return r, true, nil
}

// Rooms lists all rooms by name.
func (s *Store) Rooms(ctx context.Context) (rooms []Room, err error) {
	defer func() {
		if err != nil {
			rooms, err = nil, fmt.Errorf("list rooms: %w", explain(err))
		}
	}()
	rows, err := s.db.QueryContext(ctx, selectRoom+`ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		r, err := scanRoom(rows)
		if err != nil {
			return nil, err
		}
		rooms = append(rooms, r)
	}
	return rooms, rows.Err()
}

// DeleteRoom erases a room from the file and from its journal; none of that name
// is no error. secure_delete overwrites the row in the file, but older copies of
// its page stay in the write-ahead log until that is written back and cut.
func (s *Store) DeleteRoom(ctx context.Context, name string) error {
	if _, err := s.db.ExecContext(ctx, `DELETE FROM room WHERE name = ?`, name); err != nil {
		return fmt.Errorf("delete room %q: %w", name, explain(err))
	}
	if _, err := s.db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return fmt.Errorf("delete room %q: erase it from the journal: %w", name, explain(err))
	}
	return nil
}

// scanRoom reads a row of selectRoom.
func scanRoom(row interface{ Scan(...any) error }) (Room, error) {
	var r Room
	var created int64
	err := row.Scan(&r.Name, &r.SID, &r.Policy, &r.Metadata, &r.EmptyTimeout, &r.DepartureTimeout, &r.MaxParticipants, &created)
	r.Created = time.UnixMilli(created).UTC()
	return r, err
}
