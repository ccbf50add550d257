// Package store keeps the rooms of an origin node in one SQLite file, or in a
// PostgreSQL that origins of one zone share, with the file as its journal.
//
// It remembers what it is told and forgets it on request. What names a room or a
// person is sealed before it reaches a database. Whether this node may store a room,
// and in that database, is the residency gate's decision; without its permit nothing
// is written. Live media never waits for the store.
package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
)

// Room is the lasting record of a room.
type Room struct {
	Name     string
	SID      string
	Tenant   string // whose room it is, empty if no tenant's
	Policy   string // name of the residency policy, empty for the bundle's default
	Metadata string

	EmptyTimeout     uint32 // seconds
	DepartureTimeout uint32 // seconds
	MaxParticipants  uint32 // 0: no limit

	Created time.Time // kept to the millisecond

	State string // how far the room's homes have come; opaque here
}

// Options say how a store is opened.
type Options struct {
	// Disk is shown the permits to write: where the rooms lie in the end.
	Disk residency.Disk
	// KeyFile has the key that rooms are sealed with. "": keys/store.key beside the
	// file, which is made if there is none and nothing is sealed yet.
	KeyFile string
	Log     *slog.Logger

	// Postgres is the database that origins share; nil: the file is all.
	Postgres *Postgres
	// JournalBytes bounds what waits in the file while the database is away. 0: 64 MB.
	JournalBytes int64
	// Merge puts together two records of one name that two origins have written. Nil:
	// the later one wins.
	Merge func(kept, put Room) Room
	// May says whether this node may have a room that another origin has put into the
	// database. Nil: all.
	May func(Room) bool
	// Retry is how often a database that is away is looked for. 0: 1 s.
	Retry time.Duration
}

// defaultJournal is room for some 50,000 rooms of 1 kB.
const defaultJournal = 64_000_000

// Store is open. It is safe for concurrent use: all calls share one connection to
// the file, so there is one writer and no "database is locked" among them.
type Store struct {
	path   string
	disk   residency.Disk
	sealer *sealer
	file   file
	shared *shared // nil without PostgreSQL
}

// State is what an operator is told of a store.
type State struct {
	Backend string `json:"backend"` // "sqlite" or "postgres"
	// Away says that the shared database is not there, since when and why; writes wait.
	Away    bool       `json:"away"`
	Since   *time.Time `json:"since,omitempty"`
	Problem string     `json:"problem,omitempty"`
	// Waiting are writes in the journal, LimitBytes what it takes at most.
	Waiting      int   `json:"waiting"`
	WaitingBytes int64 `json:"waiting_bytes"`
	LimitBytes   int64 `json:"limit_bytes,omitempty"`
	// Replayed are those that the database has taken since the node's start, Refused
	// those that it did not want. Aside are kept here because it still does not; Asides
	// are the first of them.
	Replayed uint64  `json:"replayed"`
	Refused  uint64  `json:"refused"`
	Aside    int     `json:"aside"`
	Asides   []Aside `json:"asides,omitempty"`
}

// Open opens the file, creating it with mode 0600 if it does not exist, checks
// that it is whole and brings its tables up to date. The file belongs to this
// process until Close; a second Open fails with ErrLocked, on a damaged file
// with ErrCorrupt, without its key with ErrNoKey, and in all cases nothing in it has
// been changed. A shared database that is away is looked for by Run; one that
// has another key, or tables of a newer version, is refused.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	o.Log, o.Retry, o.JournalBytes = cmp.Or(o.Log, slog.New(slog.DiscardHandler)), cmp.Or(o.Retry, time.Second), cmp.Or(o.JournalBytes, defaultJournal)
	s := &Store{path: path, disk: o.Disk}
	err := s.openFile(ctx, o)
	if err == nil {
		err = s.openShared(ctx, o)
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w", path, explain(err))
	}
	return s, nil
}

func (s *Store) openFile(ctx context.Context, o Options) error {
	keyFile, given := o.KeyFile, o.KeyFile != ""
	if !given {
		keyFile = filepath.Join(filepath.Dir(s.path), "keys", "store.key")
	}
	_, err := os.Stat(keyFile)
	haveKey := err == nil || !errors.Is(err, fs.ErrNotExist)
	fresh, err := prepareFile(s.path)
	if err != nil {
		return err
	}
	if !fresh {
		if err := checkFile(ctx, s.path, haveKey); err != nil {
			return err
		}
	}
	if !haveKey && !given {
		if err := makeKey(keyFile); err != nil {
			return err
		}
	}
	key, err := readKey(keyFile)
	if err != nil {
		return err
	}
	if s.sealer, err = newSealer(key); err != nil {
		return err
	}
	db, err := openWriter(s.path)
	if err != nil {
		return err
	}
	s.file = file{table: table{db: db, sqlite: true}, limit: o.JournalBytes}
	applied, err := migrateFile(ctx, db, s.sealer)
	if err == nil {
		err = s.file.checkKey(ctx, s.sealer)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	if applied > 0 {
		o.Log.Info("store brought up to date", "path", s.path, "migrations", applied)
	}
	return nil
}

func (s *Store) openShared(ctx context.Context, o Options) error {
	if o.Postgres == nil {
		return s.file.alone(ctx)
	}
	remote, err := openPostgres(*o.Postgres, s.sealer, o.Merge)
	if err != nil {
		return err
	}
	s.shared = newShared(s.file, remote, o, func(x row) bool {
		r, err := s.sealer.room(x)
		return err == nil && (o.May == nil || o.May(r))
	})
	asked, cancel := context.WithTimeout(ctx, 2*remoteWait)
	defer cancel()
	switch err := s.shared.back(asked); {
	case errors.Is(err, ErrNewer) || errors.Is(err, ErrWrongKey):
		return fmt.Errorf("the shared database: %w", err)
	case err != nil:
		s.shared.fell(err)
	}
	return nil
}

// Run looks for a shared database that is away and brings it what has waited, until
// ctx ends.
func (s *Store) Run(ctx context.Context) error {
	if s.shared != nil {
		s.shared.run(ctx)
	}
	return nil
}

// Close writes back the file's journal and releases it, and leaves the database.
func (s *Store) Close() error {
	var err error
	if s.shared != nil {
		err = s.shared.remote.db.Close()
	}
	if err = errors.Join(err, s.file.db.Close()); err != nil {
		return fmt.Errorf("close store %q: %w", s.path, explain(err))
	}
	return nil
}

// State says how the store is.
func (s *Store) State(ctx context.Context) (State, error) {
	if s.shared == nil {
		return State{Backend: "sqlite"}, nil
	}
	return s.shared.state(ctx)
}

// rooms is what holds the rows: the file, or the shared database with it.
func (s *Store) rooms() interface {
	put(context.Context, row) error
	get(ctx context.Context, handle []byte) (row, bool, error)
	all(context.Context) ([]row, error)
	del(ctx context.Context, handle []byte, sid string) error
} {
	if s.shared != nil {
		return s.shared
	}
	return s.file
}

// PutRoom stores a room in place of the one of the same name, if any, by a permit
// to keep that room's metadata where this store keeps it. Once it returns nil the room
// outlives a power failure, in the database or in the journal; after
// residency.ErrNotKept nothing has been written.
func (s *Store) PutRoom(ctx context.Context, p residency.Permit, r Room) error {
	if r.Name == "" || r.SID == "" {
		return fmt.Errorf("put room: name and sid must both be set, sid is %q", r.SID)
	}
	if err := s.admit(p, r); err != nil {
		return fmt.Errorf("put room %q: %w", r.SID, err)
	}
	x, err := s.sealer.row(r)
	if err == nil {
		err = s.rooms().put(ctx, x)
	}
	if err != nil {
		return fmt.Errorf("put room %q: %w", r.SID, explain(err))
	}
	return nil
}

// admit checks that the permit is for this very room, also for whose it is and
// under which policy.
func (s *Store) admit(p residency.Permit, r Room) error {
	if err := s.disk.Admit(p, r.Name); err != nil {
		return err
	}
	if v := p.Verdict(); v.Tenant != r.Tenant || r.Policy != "" && v.Policy != r.Policy {
		return fmt.Errorf("%w: the permit is for policy %q of tenant %q", residency.ErrNotKept, v.Policy, v.Tenant)
	}
	return nil
}

// Room finds a room by name.
func (s *Store) Room(ctx context.Context, name string) (Room, bool, error) {
	x, ok, err := s.rooms().get(ctx, s.sealer.handle(name))
	var r Room
	if ok && err == nil {
		r, err = s.sealer.room(x)
	}
	if err != nil {
		return Room{}, false, fmt.Errorf("read a room: %w", explain(err))
	}
	return r, ok, nil
}

// Rooms lists all rooms by name.
func (s *Store) Rooms(ctx context.Context) ([]Room, error) {
	rows, err := s.rooms().all(ctx)
	rooms := make([]Room, len(rows))
	for i := 0; i < len(rows) && err == nil; i++ {
		rooms[i], err = s.sealer.room(rows[i])
	}
	if err != nil {
		return nil, fmt.Errorf("list rooms: %w", explain(err))
	}
	slices.SortFunc(rooms, func(a, b Room) int { return cmp.Compare(a.Name, b.Name) })
	return rooms, nil
}

// DeleteRoom erases a room; none of that name is no error. With a sid it erases that
// room alone, not a later one of the same name.
func (s *Store) DeleteRoom(ctx context.Context, name, sid string) error {
	if err := s.rooms().del(ctx, s.sealer.handle(name), sid); err != nil {
		return fmt.Errorf("delete room %q: %w", sid, explain(err))
	}
	return nil
}
