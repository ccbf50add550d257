package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// ErrJournalFull says that the shared database has been away for too long.
var ErrJournalFull = errors.New("the shared database is away, and the journal of what it is to be told is full")

// file is the SQLite file of this node. Where origins share a database it holds what
// this one knows of that, and the journal: what the database is still to be told.
type file struct {
	table
	limit int64 // bytes of the journal
}

// entry is something the shared database is to be told.
type entry struct {
	row
	seq  int64
	gone bool
}

func (f file) put(ctx context.Context, x row) error {
	return f.inTx(ctx, func(tx *sql.Tx) error {
		if err := superseded(ctx, tx, x); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, f.q(upsertRoom), x.handle, x.sid, x.sealed)
		return err
	})
}

// del erases a room from the file and from its write-ahead log. secure_delete
// overwrites the row in the file, but older copies of its page stay in the log until
// that is written back and cut.
func (f file) del(ctx context.Context, handle []byte, sid string) error {
	err := f.inTx(ctx, func(tx *sql.Tx) error {
		if err := superseded(ctx, tx, row{handle: handle, sid: sid}); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, f.q(deleteRoom), handle, sid)
		return err
	})
	if err != nil {
		return err
	}
	return f.cut(ctx)
}

func (f file) cut(ctx context.Context) error {
	if _, err := f.db.ExecContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
		return fmt.Errorf("erase it from the journal: %w", err)
	}
	return nil
}

// waiting counts the journal.
func (f file) waiting(ctx context.Context) (entries int, bytes int64, err error) {
	err = f.db.QueryRowContext(ctx, waitingQuery).Scan(&entries, &bytes)
	return entries, bytes, err
}

// entrySize is what an entry takes beside what is sealed in it: handle, sid, page.
const entrySize = 100

var waitingQuery = fmt.Sprintf(`SELECT count(*), coalesce(sum(length(sealed) + %d), 0) FROM pending`, entrySize)

// later writes a room, or its end, here and into the journal, at once. Of one room the
// last word alone waits, which says all that those before it said. The end of a room
// is always taken: what is to be erased must not be refused.
func (f file) later(ctx context.Context, x row, gone bool) error {
	err := f.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM pending WHERE handle = ? AND (sid = ? OR ? = '')`, x.handle, x.sid, x.sid); err != nil {
			return err
		}
		if err := superseded(ctx, tx, x); err != nil {
			return err
		}
		var entries int
		var bytes int64
		if err := tx.QueryRowContext(ctx, waitingQuery).Scan(&entries, &bytes); err != nil {
			return err
		}
		if bytes+int64(len(x.sealed)+entrySize) > f.limit && !gone {
			return ErrJournalFull
		}
		here, args := f.q(upsertRoom), []any{x.handle, x.sid, x.sealed}
		if gone {
			here, args = f.q(deleteRoom), []any{x.handle, x.sid}
		}
		if _, err := tx.ExecContext(ctx, here, args...); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO pending (handle, sid, gone, sealed) VALUES (?, ?, ?, ?)`, x.handle, x.sid, gone, append([]byte{}, x.sealed...))
		return err
	})
	if err != nil || !gone {
		return err
	}
	return f.cut(ctx)
}

// next returns the oldest entry of the journal.
func (f file) next(ctx context.Context) (e entry, ok bool, err error) {
	err = f.db.QueryRowContext(ctx, `SELECT seq, handle, sid, gone, sealed FROM pending ORDER BY seq LIMIT 1`).Scan(&e.seq, &e.handle, &e.sid, &e.gone, &e.sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return entry{}, false, nil
	}
	return e, err == nil, err
}

// told takes an entry out of the journal. What the database has made of it is kept
// here, unless there is a later word.
func (f file) told(ctx context.Context, e entry, kept row) error {
	return f.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM pending WHERE seq = ?`, e.seq); err != nil || e.gone || len(kept.sealed) == 0 {
			return err
		}
		var later bool
		if err := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pending WHERE handle = ?)`, e.handle).Scan(&later); err != nil || later {
			return err
		}
		_, err := tx.ExecContext(ctx, f.q(upsertRoom), kept.handle, kept.sid, kept.sealed)
		return err
	})
}

// follow makes the file what the shared database has. Nothing waits in the journal, and
// what the database has refused is aside.
func (f file) follow(ctx context.Context, theirs []row) error {
	own, err := f.table.all(ctx)
	if err != nil {
		return err
	}
	stale := make(map[string]row, len(own))
	for _, x := range own {
		stale[string(x.handle)] = x
	}
	var changed []row
	for _, x := range theirs {
		if old, ok := stale[string(x.handle)]; !ok || string(old.sealed) != string(x.sealed) {
			changed = append(changed, x)
		}
		delete(stale, string(x.handle))
	}
	if len(changed)+len(stale) == 0 {
		return nil
	}
	err = f.inTx(ctx, func(tx *sql.Tx) error {
		for _, x := range stale { // first: one of another name may have the sid now
			if _, err := tx.ExecContext(ctx, f.q(deleteRoom), x.handle, ""); err != nil {
				return err
			}
		}
		for _, x := range changed {
			if _, err := tx.ExecContext(ctx, f.q(upsertRoom), x.handle, x.sid, x.sealed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(stale) == 0 {
		return err
	}
	return f.cut(ctx)
}

// join notes which shared database has what is here. One that has it not, because
// there was none before or because it is another, is to be told all of it.
func (f file) join(ctx context.Context, id []byte) error {
	return f.inTx(ctx, func(tx *sql.Tx) error {
		var before []byte
		err := tx.QueryRowContext(ctx, `SELECT value FROM about WHERE name = 'shared'`).Scan(&before)
		if err != nil && !errors.Is(err, sql.ErrNoRows) || string(before) == string(id) {
			return err
		}
		for _, q := range []string{
			`INSERT INTO pending (handle, sid, gone, sealed) SELECT handle, sid, gone, sealed FROM aside WHERE handle NOT IN (SELECT handle FROM pending) ORDER BY seq`,
			`DELETE FROM aside`, // another database may take it
			`INSERT INTO pending (handle, sid, gone, sealed) SELECT handle, sid, 0, sealed FROM room WHERE handle NOT IN (SELECT handle FROM pending)`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO about (name, value) VALUES ('shared', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, id)
		return err
	})
}

// alone forgets that there was a shared database: what is here is all there is.
func (f file) alone(ctx context.Context) error {
	return f.inTx(ctx, func(tx *sql.Tx) error {
		for _, q := range []string{
			`DELETE FROM pending`, `DELETE FROM about WHERE name = 'shared'`,
			// What the database had refused is a room like any other here, if its place is free.
			`INSERT OR IGNORE INTO room (handle, sid, sealed) SELECT handle, sid, sealed FROM aside WHERE gone = 0 ORDER BY seq DESC`,
			`DELETE FROM aside WHERE gone = 1 OR EXISTS (SELECT 1 FROM room WHERE room.handle = aside.handle AND room.sealed = aside.sealed)`,
		} {
			if _, err := tx.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	})
}
