package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// shared keeps rooms in a database that other origins write to, too. While that is
// away, the file has what this origin knows, and writes wait in the journal. As long
// as anything waits there, every write goes behind it: the database hears of all in
// the order in which it was acknowledged.
type shared struct {
	// Static.
	file   file
	remote *postgres
	may    func(row) bool // whether this node may have a room's record here
	log    *slog.Logger
	retry  time.Duration
	wake   chan struct{} // capacity 1
	turn   chan struct{} // capacity 1: held by who writes

	mu       sync.Mutex
	direct   bool // the database is there, and nothing waits
	since    time.Time
	problem  string
	said     bool // that it is away
	replayed uint64
	refused  uint64
}

// errNotYet is why nothing is asked of the database before Run has found it.
var errNotYet = errors.New("it has not been reached yet")

func newShared(f file, remote *postgres, o Options, may func(row) bool) *shared {
	return &shared{file: f, remote: remote, may: may, log: o.Log, retry: o.Retry, wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		since: time.Now(), problem: errNotYet.Error()}
}

func (s *shared) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *shared) give() { <-s.turn }

func (s *shared) isDirect() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.direct
}

// fell notes that the database is away.
func (s *shared) fell(err error) {
	s.mu.Lock()
	if s.direct {
		s.direct, s.since = false, time.Now()
	}
	said := s.said
	s.problem, s.said = err.Error(), true
	s.mu.Unlock()
	if !said {
		s.log.Warn("the shared database is away; writes wait in the journal", "error", err)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// put writes a room to the database, or else to the journal.
func (s *shared) put(ctx context.Context, x row) error { return s.write(ctx, x, false) }

func (s *shared) del(ctx context.Context, handle []byte, sid string) error {
	return s.write(ctx, row{handle: handle, sid: sid}, true)
}

func (s *shared) write(ctx context.Context, x row, gone bool) error {
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	if s.isDirect() {
		kept, err := s.tell(ctx, x, gone)
		switch {
		case err == nil:
			return s.keep(ctx, kept, gone)
		case refuses(err) || ctx.Err() != nil:
			return err
		}
		s.fell(err)
	}
	return s.file.later(ctx, x, gone)
}

// tell writes to the database. What it answers too late it may have done: to be told
// twice changes nothing.
func (s *shared) tell(ctx context.Context, x row, gone bool) (row, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	if gone {
		return x, s.remote.del(ctx, x.handle, x.sid)
	}
	return s.remote.put(ctx, x)
}

// keep has the file follow what the database has done. That a copy is old harms
// nobody; that one is left of what was erased does.
func (s *shared) keep(ctx context.Context, x row, gone bool) error {
	if gone {
		return s.file.del(ctx, x.handle, x.sid)
	}
	if err := s.file.put(ctx, x); err != nil {
		s.log.Warn("a room's record is in the shared database, but not in the copy here", "error", err)
	}
	return nil
}

func (s *shared) get(ctx context.Context, handle []byte) (row, bool, error) {
	if s.isDirect() {
		asked, cancel := context.WithTimeout(ctx, remoteWait)
		defer cancel()
		x, ok, err := s.remote.get(asked, handle)
		switch {
		case err == nil && ok && !s.may(x):
			return row{}, false, nil
		case err == nil && !ok:
			if x, ok, err = s.file.aside(ctx, handle); ok && !s.may(x) {
				return row{}, false, err
			}
			return x, ok, err
		case err == nil || ctx.Err() != nil:
			return x, ok, err
		}
		s.fell(err)
	}
	return s.file.get(ctx, handle)
}

func (s *shared) all(ctx context.Context) ([]row, error) {
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	defer s.give()
	if !s.isDirect() {
		return s.file.all(ctx)
	}
	// All rooms may take longer than one: but no longer than a node waits for a write.
	asked, cancel := context.WithTimeout(ctx, 2*remoteWait)
	defer cancel()
	theirs, err := s.remote.all(asked)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		s.fell(err)
		return s.file.all(ctx)
	}
	permitted := theirs[:0]
	for _, x := range theirs {
		if s.may(x) {
			permitted = append(permitted, x)
		}
	}
	if err := s.file.follow(ctx, permitted); err != nil {
		s.log.Warn("the copy of the shared database is not brought up to date", "error", err)
	}
	permitted, err = s.file.withAside(ctx, permitted)
	return slices.DeleteFunc(permitted, func(x row) bool { return !s.may(x) }), err
}

// lookEvery is how often a database that is there is asked whether it is: its absence
// is found by who writes, and told by this.
const lookEvery = 5

// run brings the journal to the database whenever that is there, until ctx ends.
func (s *shared) run(ctx context.Context) {
	tick := time.NewTicker(s.retry)
	defer tick.Stop()
	for round := 0; ; round++ {
		if !s.isDirect() {
			s.doReturn(ctx)
			s.doAskAgain(ctx)
		} else if round%lookEvery == 0 {
			s.doLook(ctx)
		}
		if round%askAgainEvery == 0 {
			s.doAskAgain(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.wake:
			select { // a database that has just gone is not asked at once again
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

func (s *shared) doLook(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	if err := s.remote.db.PingContext(asked); err != nil && ctx.Err() == nil {
		s.fell(err)
	}
}

// prepareWait bounds one attempt to bring tables up to date.
const prepareWait = 10 * time.Second

// doReturn looks whether the database is back, and tells it what has waited.
func (s *shared) doReturn(ctx context.Context) {
	if err := s.back(ctx); err != nil && ctx.Err() == nil {
		s.fell(err)
	}
}

func (s *shared) back(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, prepareWait)
	id, err := s.remote.prepare(asked)
	cancel()
	if err == nil {
		err = s.file.join(ctx, id)
	}
	if err == nil {
		err = s.replay(ctx)
	}
	return err
}

// replay tells the database what waits, oldest first. It ends when nothing does.
func (s *shared) replay(ctx context.Context) error {
	for {
		e, ok, err := s.file.next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			if caught, err := s.catchUp(ctx); caught || err != nil {
				return err
			}
			continue
		}
		kept, err := s.tell(ctx, e.row, e.gone)
		if err != nil && !refuses(err) {
			return err
		}
		if err != nil {
			s.log.Error("the shared database refuses what waited for it: it is kept aside here, and asked about again; domicile state has it under store", "room", e.sid, "error", err)
			if err := s.file.setAside(ctx, e, why(err), time.Now()); err != nil {
				return err
			}
		} else if err := s.file.told(ctx, e, kept); err != nil {
			return err
		}
		s.count(err == nil)
	}
}

func (s *shared) count(taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if taken {
		s.replayed++
	} else {
		s.refused++
	}
}

// catchUp goes back to writing straight to the database, if nothing waits any more.
func (s *shared) catchUp(ctx context.Context) (bool, error) {
	if err := s.take(ctx); err != nil {
		return false, err
	}
	defer s.give()
	if _, ok, err := s.file.next(ctx); ok || err != nil {
		return false, err
	}
	s.mu.Lock()
	s.direct, s.since, s.problem, s.said = true, time.Now(), "", false
	s.mu.Unlock()
	s.log.Info("the shared database is there, and has heard all that waited")
	return true, nil
}

// state is what an operator is told.
func (s *shared) state(ctx context.Context) (State, error) {
	entries, bytes, err := s.file.waiting(ctx)
	list, aside, errAside := s.file.asides(ctx)
	err = errors.Join(err, errAside)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Backend: "postgres", Away: !s.direct, Problem: s.problem, Waiting: entries, WaitingBytes: bytes, LimitBytes: s.file.limit,
		Replayed: s.replayed, Refused: s.refused, Aside: aside, Asides: list}
	if st.Away {
		since := s.since.UTC()
		st.Since = &since
	}
	if err != nil {
		err = fmt.Errorf("count the journal: %w", err)
	}
	return st, err
}
