package store

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// Postgres says where a database is that origins of one zone share.
type Postgres struct {
	Host     string // a name, an address, or the directory of a Unix socket
	Port     uint16
	Database string
	User     string
	Password string
	// TLS is how the server proves who it is; nil only on this very machine.
	TLS *tls.Config
}

// ErrClear says that the database would be spoken to in clear.
var ErrClear = errors.New("a database on another machine is reached over TLS only")

// Local reports whether the host is this very machine: nobody listens on the way.
func (p Postgres) Local() bool {
	if strings.HasPrefix(p.Host, "/") || p.Host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(p.Host)
	return err == nil && addr.Unmap().IsLoopback()
}

const (
	// remoteWait bounds a read or write: who waits for a record waits no longer before
	// the journal has it. Twice the round trip around the world, with a slow disk.
	remoteWait = time.Second
	// remoteConns is how many connections a node has at most. Writes come one by one.
	remoteConns = 4
)

// postgres is the shared database.
type postgres struct {
	table
	sealer *sealer
	merge  func(kept, put Room) Room
}

// openPostgres connects to nothing yet.
func openPostgres(p Postgres, s *sealer, merge func(kept, put Room) Room) (*postgres, error) {
	if p.TLS == nil && !p.Local() {
		return nil, fmt.Errorf("host %q: %w", p.Host, ErrClear)
	}
	cfg, err := pgx.ParseConfig("sslmode=disable")
	if err != nil {
		return nil, err
	}
	// Nothing of the environment counts, which ParseConfig has read.
	cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.Password = p.Host, p.Port, p.Database, p.User, p.Password
	cfg.TLSConfig, cfg.Fallbacks, cfg.ConnectTimeout = p.TLS, nil, remoteWait
	cfg.RuntimeParams = map[string]string{"application_name": "domicile"}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statements: poolers lose them
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(remoteConns)
	db.SetMaxIdleConns(remoteConns)
	return &postgres{table: table{db: db}, sealer: s, merge: merge}, nil
}

// prepare brings the tables up to date, compares keys, and returns the database's id.
func (p *postgres) prepare(ctx context.Context) (id []byte, err error) {
	if err := p.db.PingContext(ctx); err != nil {
		return nil, err
	}
	if _, err := migratePostgres(ctx, p.db); err != nil {
		return nil, err
	}
	if err := p.checkKey(ctx, p.sealer); err != nil {
		return nil, err
	}
	fresh := make([]byte, 16)
	rand.Read(fresh) //nolint:errcheck // it never fails
	return p.note(ctx, "id", fresh)
}

// put writes a room. What another origin has written of the same room since is not
// lost: the two are put together, and the result is returned.
func (p *postgres) put(ctx context.Context, x row) (row, error) {
	const rounds = 3 // a room that is deleted between two statements is looked for again
	for range rounds {
		kept, err := x, error(nil)
		err = p.inTx(ctx, func(tx *sql.Tx) error {
			kept, err = p.putIn(ctx, tx, x)
			return err
		})
		if !errors.Is(err, sql.ErrNoRows) {
			return kept, err
		}
	}
	return row{}, fmt.Errorf("room %q comes and goes", x.sid)
}

func (p *postgres) putIn(ctx context.Context, tx *sql.Tx, x row) (row, error) {
	done, err := tx.ExecContext(ctx, `INSERT INTO room (handle, sid, sealed) VALUES ($1, $2, $3) ON CONFLICT (handle) DO NOTHING`, x.handle, x.sid, x.sealed)
	if err != nil {
		return row{}, err
	}
	if n, err := done.RowsAffected(); n == 1 || err != nil {
		return x, err
	}
	kept := row{handle: x.handle}
	if err := tx.QueryRowContext(ctx, `SELECT sid, sealed FROM room WHERE handle = $1 FOR UPDATE`, x.handle).Scan(&kept.sid, &kept.sealed); err != nil {
		return row{}, err
	}
	if x, err = p.together(kept, x); err != nil {
		return row{}, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE room SET sid = $2, sealed = $3 WHERE handle = $1`, x.handle, x.sid, x.sealed)
	return x, err
}

func (p *postgres) together(kept, put row) (row, error) {
	if p.merge == nil {
		return put, nil
	}
	a, err := p.sealer.room(kept)
	if err != nil {
		return row{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	b, err := p.sealer.room(put)
	if err != nil {
		return row{}, fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return p.sealer.row(p.merge(a, b))
}

func (p *postgres) del(ctx context.Context, handle []byte, sid string) error {
	_, err := p.db.ExecContext(ctx, deleteRoom, handle, sid)
	return err
}

// errUnreadable says that a room has a row that cannot be put together with another.
var errUnreadable = errors.New("it cannot be read")

// refusals are the SQLSTATE classes of an answer about this very room: a value that the
// database cannot take, a violated constraint, a view's check, a limit, a trigger's no
// (PostgreSQL's manual, appendix A).
var refusals = []string{"22", "23", "44", "54", "P0"}

// refuses reports whether the database was there and said no to this very room, so
// that asking again at once is in vain, or has a row of it that does not open.
func refuses(err error) bool {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return len(e.Code) == 5 && slices.Contains(refusals, e.Code[:2])
	}
	return errors.Is(err, errUnreadable)
}
