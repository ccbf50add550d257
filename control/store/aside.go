package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// What the shared database refuses of the journal is kept aside in the file, for good:
// those behind it go on. It is asked again when the database was away, when the node
// starts and each askAgainEvery rounds, and goes when the database takes it or a later
// word on the room has been said. Meanwhile it counts where the database has no room of
// that name, so that the room is known here, and erased when it is to be.

// errAsideFull stops the journal: what is refused is not lost for want of room.
var errAsideFull = errors.New("the place for what the shared database refuses is full")

// askAgainEvery is how many rounds of run (each Options.Retry) lie between two times.
const askAgainEvery = 600

// maxAsides bounds how many an operator is shown.
const maxAsides = 20

// Aside is one write that the shared database refuses.
type Aside struct {
	Room  string    `json:"room"`              // sid
	Gone  bool      `json:"deleted,omitempty"` // the room's end, else its record
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// why is what a database said, without the values that it may quote in its details.
func why(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code + ": " + e.Message
	}
	return err.Error()
}

// setAside moves an entry of the journal to what is refused.
func (f file) setAside(ctx context.Context, e entry, reason string, now time.Time) error {
	return f.inTx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM aside WHERE handle = ? AND sid = ?`, e.handle, e.sid); err != nil {
			return err
		}
		var bytes int64
		if err := tx.QueryRowContext(ctx, fmt.Sprintf(`SELECT coalesce(sum(length(sealed) + %d), 0) FROM aside`, entrySize)).Scan(&bytes); err != nil {
			return err
		}
		if bytes+int64(len(e.sealed)+entrySize) > f.limit && !e.gone {
			return errAsideFull
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO aside (handle, sid, gone, sealed, reason, since) VALUES (?, ?, ?, ?, ?, ?)`,
			e.handle, e.sid, e.gone, append([]byte{}, e.sealed...), reason, now.UnixMilli()); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM pending WHERE seq = ?`, e.seq)
		return err
	})
}

// superseded forgets what is aside of a room on which a later word was said; sid "" is
// any of that name.
func superseded(ctx context.Context, tx *sql.Tx, x row) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM aside WHERE handle = ? AND (sid = ? OR ? = '')`, x.handle, x.sid, x.sid)
	return err
}

// nextAside returns the first that was put aside after another.
func (f file) nextAside(ctx context.Context, after int64) (e entry, ok bool, err error) {
	err = f.db.QueryRowContext(ctx, `SELECT seq, handle, sid, gone, sealed FROM aside WHERE seq > ? ORDER BY seq LIMIT 1`, after).
		Scan(&e.seq, &e.handle, &e.sid, &e.gone, &e.sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return entry{}, false, nil
	}
	return e, err == nil, err
}

// asides lists the first that are aside, and counts all.
func (f file) asides(ctx context.Context) (list []Aside, total int, err error) {
	if err := f.db.QueryRowContext(ctx, `SELECT count(*) FROM aside`).Scan(&total); err != nil || total == 0 {
		return nil, total, err
	}
	rows, err := f.db.QueryContext(ctx, `SELECT sid, gone, since, reason FROM aside ORDER BY seq LIMIT ?`, maxAsides)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var a Aside
		var since int64
		if err := rows.Scan(&a.Room, &a.Gone, &since, &a.Why); err != nil {
			return nil, 0, err
		}
		a.Since = time.UnixMilli(since).UTC()
		list = append(list, a)
	}
	return list, total, rows.Err()
}

// get is table's, or what is aside.
func (f file) get(ctx context.Context, handle []byte) (row, bool, error) {
	if x, ok, err := f.table.get(ctx, handle); ok || err != nil {
		return x, ok, err
	}
	return f.aside(ctx, handle)
}

func (f file) aside(ctx context.Context, handle []byte) (row, bool, error) {
	x := row{handle: handle}
	err := f.db.QueryRowContext(ctx, `SELECT sid, sealed FROM aside WHERE handle = ? AND gone = 0 ORDER BY seq DESC LIMIT 1`, handle).Scan(&x.sid, &x.sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, false, nil
	}
	return x, err == nil, err
}

// all is table's, and what is aside.
func (f file) all(ctx context.Context) ([]row, error) {
	list, err := f.table.all(ctx)
	if err != nil {
		return nil, err
	}
	return f.withAside(ctx, list)
}

// withAside adds rooms that are aside, one of each name that is not in a list.
func (f file) withAside(ctx context.Context, list []row) (_ []row, err error) {
	rows, err := f.db.QueryContext(ctx, `SELECT handle, sid, sealed FROM aside WHERE gone = 0 ORDER BY seq DESC`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var has map[string]bool // made for who needs it: there is hardly ever something
	for rows.Next() {
		if has == nil {
			has = make(map[string]bool, len(list))
			for _, x := range list {
				has[string(x.handle)] = true
			}
		}
		var x row
		if err := rows.Scan(&x.handle, &x.sid, &x.sealed); err != nil {
			return nil, err
		}
		if !has[string(x.handle)] {
			has[string(x.handle)] = true
			list = append(list, x)
		}
	}
	return list, rows.Err()
}

// doAskAgain tells the database once more what it has refused. Writes wait for one of
// them at most.
func (s *shared) doAskAgain(ctx context.Context) {
	var last int64
	for {
		e, ok, err := s.askAgain(ctx, last)
		switch {
		case err != nil && ctx.Err() == nil:
			s.fell(err)
			return
		case err != nil || !ok:
			return
		}
		last = e.seq
	}
}

func (s *shared) askAgain(ctx context.Context, after int64) (entry, bool, error) {
	if err := s.take(ctx); err != nil {
		return entry{}, false, err
	}
	defer s.give()
	if !s.isDirect() {
		return entry{}, false, nil
	}
	e, ok, err := s.file.nextAside(ctx, after)
	if !ok || err != nil {
		return e, ok, err
	}
	kept, err := s.tell(ctx, e.row, e.gone)
	if err != nil {
		if refuses(err) {
			err = nil
		}
		return e, true, err
	}
	s.log.Info("the shared database has taken what it had refused", "room", e.sid)
	s.count(true)
	if e.gone {
		kept = e.row
	}
	return e, true, s.keep(ctx, kept, e.gone)
}
