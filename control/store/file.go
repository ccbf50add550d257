package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Errors of Open, wrapped with the file's name and a hint.
var (
	ErrCorrupt = errors.New("the file is damaged or no database; nothing was changed: " +
		"restore it from a backup, or move it and its -wal file away to start with no rooms")
	ErrLocked = errors.New("another process has the file open: " +
		"stop the node that uses this data directory, or give this one its own")
	ErrNewer = errors.New("a newer version has written it: run the newer program")
)

// lockWait is how long Open waits for another process to let go of the file,
// such as a node that is just shutting down.
const lockWait = time.Second

// prepareFile creates the file readable to its owner alone, or takes others'
// rights to an existing one away. SQLite gives its journal the same mode. fresh
// says that there is nothing in the file to check.
func prepareFile(path string) (fresh bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, errors.New("not a regular file")
	}
	if info.Mode().Perm() != 0o600 {
		if err := f.Chmod(0o600); err != nil {
			return false, err
		}
	}
	if info.Size() == 0 {
		return true, checkNoJournal(path)
	}
	return false, checkHeader(f)
}

// checkHeader refuses what SQLite would take for an empty database and write
// over: a file too short to be one, whatever is in it.
func checkHeader(f *os.File) error {
	const magic = "SQLite format 3\x00"
	header := make([]byte, 100) // https://sqlite.org/fileformat.html section 1.3
	if _, err := io.ReadFull(f, header); errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w (shorter than a header)", ErrCorrupt)
	} else if err != nil {
		return err
	}
	if string(header[:len(magic)]) != magic {
		return fmt.Errorf("%w (no SQLite header)", ErrCorrupt)
	}
	return nil
}

// checkNoJournal refuses an empty file with a filled journal: SQLite would
// delete that, and it may be all that is left of the rooms.
func checkNoJournal(path string) error {
	info, err := os.Stat(path + "-wal")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		return fmt.Errorf("%w (empty, with a journal of %d bytes)", ErrCorrupt, info.Size())
	}
	return nil
}

// checkFile reads the whole file through a connection that cannot write to it,
// so that a damaged one is left as it was found for whoever mends it. One that is
// sealed is refused without its key, for which a new one would be no help.
func checkFile(ctx context.Context, path string, haveKey bool) (err error) {
	db, err := sql.Open("sqlite", dsn(path, url.Values{"mode": {"ro"}}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var verdict string
	if err := db.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w (%s)", ErrCorrupt, verdict)
	}
	var tables int
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema WHERE name = 'about'`).Scan(&tables); err != nil {
		return err
	}
	if tables > 0 && !haveKey {
		return ErrNoKey
	}
	return nil
}

// openWriter opens the one connection that writes. The locking mode must come
// before the journal mode: it makes the process the file's only user and spares
// the shared-memory file.
func openWriter(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, url.Values{
		"mode": {"rw"},
		"_pragma": {
			"locking_mode(EXCLUSIVE)",
			"journal_mode(WAL)",
			"synchronous(FULL)", // a stored room outlives a power failure
			"secure_delete(ON)", // an erased one is overwritten
		},
		"_txlock": {"immediate"},
	}))
	if err != nil {
		return nil, err
	}
	// The lock lives in the connection, so the pool must hold on to it.
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	db.SetConnMaxIdleTime(0)
	db.SetConnMaxLifetime(0)
	return db, nil
}

// dsn makes SQLite's URI of a path that may contain anything, "?" included.
func dsn(path string, options url.Values) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path // without a working directory the open below fails with the reason
	}
	options["_pragma"] = append([]string{fmt.Sprintf("busy_timeout(%d)", lockWait.Milliseconds())}, options["_pragma"]...)
	u := url.URL{Scheme: "file", Path: abs, RawQuery: options.Encode()}
	return u.String()
}

// explain adds the hint to SQLite's errors about the file itself.
func explain(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff { // the primary code; the rest is detail
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w (%w)", ErrCorrupt, err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("%w (%w)", ErrLocked, err)
	}
	return err
}
