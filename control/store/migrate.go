package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*/*.sql
var migrationFiles embed.FS

// sealingVersion is from when on the file's rooms are sealed.
const sealingVersion = 4

// migrateFile runs the migrations that the file has not seen.
func migrateFile(ctx context.Context, db *sql.DB, s *sealer) (int, error) {
	done, err := migrate(ctx, db, goose.DialectSQLite3, "sqlite",
		goose.WithGoMigrations(goose.NewGoMigration(sealingVersion, &goose.GoFunc{RunTx: s.sealRooms}, nil)))
	if err == nil && done > 0 {
		// What was in clear is overwritten where it stood, and in the journal.
		for _, q := range []string{`VACUUM`, `PRAGMA wal_checkpoint(TRUNCATE)`} {
			if _, err := db.ExecContext(ctx, q); err != nil {
				return done, fmt.Errorf("migrate: %w", err)
			}
		}
	}
	return done, err
}

// migratePostgres does the same of a database that several origins may open at once.
func migratePostgres(ctx context.Context, db *sql.DB) (int, error) {
	// Tries each 100 ms, for as long as ctx lasts.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 60), lock.WithUnlockTimeout(1, 5))
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	return migrate(ctx, db, goose.DialectPostgres, "postgres", goose.WithSessionLocker(locker))
}

// migrate counts the migrations that it ran. A database written by a newer version is
// refused before anything is done: its tables may not be what we expect.
func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect, kind string, more ...goose.ProviderOption) (int, error) {
	dir, err := fs.Sub(migrationFiles, "migrations/"+kind)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	p, err := goose.NewProvider(dialect, db, dir, append(more, goose.WithDisableGlobalRegistry(true))...)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	if have > want {
		return 0, fmt.Errorf("migrate: %w (it has version %d, this program knows %d)", ErrNewer, have, want)
	}
	if have == want {
		return 0, nil
	}
	done, err := p.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	return len(done), nil
}

// sealRooms is migration 4 of the file: rooms that lie there in clear are sealed.
func (s *sealer) sealRooms(ctx context.Context, tx *sql.Tx) error {
	rooms, err := clearRooms(ctx, tx)
	if err != nil {
		return err
	}
	for _, q := range []string{
		`DROP TABLE room`,
		`CREATE TABLE room (
			handle BLOB NOT NULL PRIMARY KEY, -- keyed hash of the name
			sid    TEXT NOT NULL UNIQUE,
			sealed BLOB NOT NULL              -- the room: see document in seal.go
		) STRICT`,
		`CREATE TABLE about (
			name  TEXT NOT NULL PRIMARY KEY, -- "key": something sealed; "shared": the id of the database that has all of this
			value BLOB NOT NULL
		) STRICT`,
		`CREATE TABLE pending (
			seq    INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of what a shared database is to be told
			handle BLOB    NOT NULL,
			sid    TEXT    NOT NULL,
			gone   INTEGER NOT NULL,                  -- 1: the room is deleted
			sealed BLOB    NOT NULL
		) STRICT`,
	} {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	for _, r := range rooms {
		x, err := s.row(r)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO room (handle, sid, sealed) VALUES (?, ?, ?)`, x.handle, x.sid, x.sealed); err != nil {
			return err
		}
	}
	return nil
}

// clearRooms reads the rooms of a file of version 3.
func clearRooms(ctx context.Context, tx *sql.Tx) (rooms []Room, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT name, sid, tenant, policy, metadata, empty_timeout, departure_timeout, max_participants, created, state FROM room`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r Room
		var created int64
		if err := rows.Scan(&r.Name, &r.SID, &r.Tenant, &r.Policy, &r.Metadata, &r.EmptyTimeout, &r.DepartureTimeout, &r.MaxParticipants, &created, &r.State); err != nil {
			return nil, err
		}
		r.Created = time.UnixMilli(created)
		rooms = append(rooms, r)
	}
	return rooms, rows.Err()
}
