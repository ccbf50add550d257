package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
)

// table is the rooms of a database, of SQLite or PostgreSQL.
type table struct {
	db     *sql.DB
	sqlite bool
}

// q turns PostgreSQL's parameters ($1) into SQLite's (?1).
func (t table) q(query string) string {
	if t.sqlite {
		return strings.ReplaceAll(query, "$", "?")
	}
	return query
}

const upsertRoom = `INSERT INTO room (handle, sid, sealed) VALUES ($1, $2, $3)
	ON CONFLICT (handle) DO UPDATE SET sid = excluded.sid, sealed = excluded.sealed`

// deleteRoom asks for the sid so that a later room of that name stays; "" is any.
const deleteRoom = `DELETE FROM room WHERE handle = $1 AND ($2 = '' OR sid = $2)`

func (t table) get(ctx context.Context, handle []byte) (row, bool, error) {
	x := row{handle: handle}
	err := t.db.QueryRowContext(ctx, t.q(`SELECT sid, sealed FROM room WHERE handle = $1`), handle).Scan(&x.sid, &x.sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, false, nil
	}
	return x, err == nil, err
}

func (t table) all(ctx context.Context) (list []row, err error) {
	rows, err := t.db.QueryContext(ctx, `SELECT handle, sid, sealed FROM room`)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var x row
		if err := rows.Scan(&x.handle, &x.sid, &x.sealed); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, rows.Err()
}

// about reads what the database says of itself; nil if it does not.
func (t table) about(ctx context.Context, name string) (value []byte, err error) {
	err = t.db.QueryRowContext(ctx, t.q(`SELECT value FROM about WHERE name = $1`), name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return value, err
}

// note has the database say something of itself, unless it does already.
func (t table) note(ctx context.Context, name string, value []byte) ([]byte, error) {
	if _, err := t.db.ExecContext(ctx, t.q(`INSERT INTO about (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`), name, value); err != nil {
		return nil, err
	}
	return t.about(ctx, name)
}

// checkKey compares the key with the one that the rooms are sealed with.
func (t table) checkKey(ctx context.Context, s *sealer) error {
	proof, err := t.note(ctx, "key", s.proof())
	if err != nil {
		return err
	}
	return s.proves(proof)
}

// inTx runs f in a transaction.
func (t table) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
