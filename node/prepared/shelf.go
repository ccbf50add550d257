// Package prepared keeps exports until somebody fetches them: it has them made one
// after the other, sealed from the first byte, gives links that end, and forgets them
// when they do.
//
// What goes into an export, who may ask for one, and whether the node may keep it, are
// not decided here: a permit to keep the class export of the room is asked for again
// and again while one is made, and without it nothing is written.
//
//	exports/links.key            the key that links are signed with
//	exports/EX_…/body.age        the file, as it is written
//	exports/EX_…/about.age       About, and what was written over: there once the file is complete
package prepared

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// ID names an export ("EX_…"). It is also the name of its folder.
type ID string

var idPattern = regexp.MustCompile(`^EX_[0-9A-Z]{20}$`)

func newID() ID { return ID("EX_" + rand.Text()[:20]) }

// State says how far an export is.
type State string

// The states of an export.
const (
	Waiting State = "waiting" // others are made before
	Running State = "running"
	Done    State = "done"
	Failed  State = "failed" // also when it was cancelled; Problem says why
)

const (
	// Keep is how long a file can be fetched where nobody says otherwise.
	Keep = 30 * 24 * time.Hour
	// maxWaiting bounds the jobs that wait; each is a closure and a few names.
	maxWaiting = 32
	// maxFailed bounds the failures that are remembered, for who asks what became of a job.
	maxFailed = 100
	// sweepEvery is how long a file may lie after its last day; links end to the second.
	sweepEvery = time.Minute
)

var (
	// ErrNotFound says that there is no such export, or no longer.
	ErrNotFound = errors.New("no such export")
	// ErrBusy says that too many exports wait.
	ErrBusy = errors.New("too many exports wait to be made")
	// ErrCancelled says that somebody did not want it any more.
	ErrCancelled = errors.New("cancelled")
)

// About describes an export. All of it is sealed.
type About struct {
	ID        ID        `json:"id"`
	Room      string    `json:"room"` // "" of one about a whole tenant
	SID       string    `json:"sid,omitempty"`
	Tenant    string    `json:"tenant,omitempty"`
	Policy    string    `json:"policy"`
	Kind      string    `json:"kind"`                // what is in it, in a word
	Recording string    `json:"recording,omitempty"` // of which it is
	Name      string    `json:"name"`                // of the file
	Type      string    `json:"type"`                // MIME
	Size      int64     `json:"size"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"` // the last moment at which it can be fetched
	Notes     []string  `json:"notes,omitempty"`
	Over      []patch   `json:"over,omitempty"` // what was written over what had been written
	// Rooms are those of which there is something in it, beside Room, each with each of
	// the policies under which it was kept.
	Rooms []Part `json:"rooms,omitempty"`
}

// Part is a room of which something is in an export.
type Part struct {
	Room   string `json:"room"`
	Tenant string `json:"tenant,omitempty"`
	Policy string `json:"policy"`
}

// patch is written over the body from a byte on.
type patch struct {
	At   int64  `json:"at"`
	Data []byte `json:"data"`
}

// Status is an export at this moment.
type Status struct {
	About
	State       State
	Done, Total int64 // of what is read for it; Total 0: not known yet
	Problem     string
}

// Making writes an export.
type Making func(ctx context.Context, w *Writer, progress func(done, total int64)) (notes []string, err error)

// Options are what a shelf needs.
type Options struct {
	Disk residency.Disk
	Keys *vault.KeyStore
	Now  func() time.Time
	// Held says that a room's data must not be removed now. May be nil.
	Held func(About) bool
	// HeldAny says that something must not be removed now, whatever it is of. May be nil.
	HeldAny func() bool
	// MinFree is how many bytes of the file system exports leave free, for recordings
	// and for whatever else a node writes.
	MinFree int64
	Log     *slog.Logger
}

// Shelf is a folder of exports, and the jobs that make them. It is safe for concurrent
// use. Jobs are made while Run runs.
type Shelf struct {
	// Static after construction.
	dir   string
	opts  Options
	links []byte
	wake  chan struct{}

	// Guarded by mu.
	mu     sync.Mutex
	kept   map[ID]About
	broken map[ID]bool // that are on the disk and cannot be opened
	jobs   []*job      // waiting and running, then failed ones, in the order in which they came
	closed bool
}

type job struct {
	Status // guarded by the shelf's mu
	make   Making
	permit func() (residency.Permit, error)
	cancel context.CancelCauseFunc // of the running one
}

// Open opens the shelf in dir, making the folder if needed. What was being made when
// the node died is removed.
func Open(dir string, opts Options) (*Shelf, error) {
	s := &Shelf{dir: dir, opts: opts, wake: make(chan struct{}, 1), kept: map[ID]About{}, broken: map[ID]bool{}}
	if s.opts.Log == nil {
		s.opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open exports: %w", err)
	}
	var err error
	if s.links, err = linkKey(filepath.Join(dir, "links.key")); err != nil {
		return nil, fmt.Errorf("open exports: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open exports: %w", err)
	}
	for _, e := range entries {
		id := ID(e.Name())
		if !idPattern.MatchString(e.Name()) {
			continue
		}
		about, err := s.load(id)
		switch {
		case errors.Is(err, os.ErrNotExist):
			err = s.remove(id)
		case err == nil:
			s.kept[id] = about
		}
		if err != nil {
			s.opts.Log.Warn("an export cannot be opened", "export", id, "error", err)
			s.broken[id] = true
		}
	}
	return s, nil
}

// Begin has an export made by permits to keep it, each good for the next piece. The
// caller fills in what About is of; the shelf gives it its id and times.
func (s *Shelf) Begin(a About, keep time.Duration, permit func() (residency.Permit, error), make Making) (Status, error) {
	p, err := permit()
	if err == nil {
		err = s.opts.Disk.Admit(p, a.Room)
	}
	if err != nil {
		return Status{}, fmt.Errorf("begin export: %w", err)
	}
	a.ID, a.Created = newID(), s.opts.Now().UTC().Truncate(time.Second)
	a.Expires = a.Created.Add(keep)
	j := &job{Status: Status{About: a, State: Waiting}, make: make, permit: permit}
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := 0
	for _, j := range s.jobs {
		if j.State != Failed {
			waiting++
		}
	}
	if waiting >= maxWaiting || s.closed {
		return Status{}, ErrBusy
	}
	s.jobs = append(s.jobs, j)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return j.Status, nil
}

// Run makes exports and removes old ones until ctx ends.
func (s *Shelf) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	s.Sweep()
	for {
		select {
		case <-s.wake:
			for j := s.next(); j != nil && ctx.Err() == nil; j = s.next() {
				s.run(ctx, j)
			}
		case <-tick.C:
			s.Sweep()
		case <-ctx.Done():
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
			return nil
		}
	}
}

// Sweep removes what has expired and is not held.
func (s *Shelf) Sweep() {
	now := s.opts.Now()
	_, err := s.erase(func(a About) bool {
		return now.After(a.Expires) && (s.opts.Held == nil || !s.opts.Held(a))
	})
	if err != nil {
		s.opts.Log.Error("removing old exports", "error", err)
	}
	s.SweepBroken()
}

// SweepBroken removes what cannot be opened: nobody can fetch it, it may have something of
// anybody, and it can be made again. It returns what is still there, because of a hold or
// of the disk.
func (s *Shelf) SweepBroken() (left []ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.broken {
		about, err := s.load(id)
		switch {
		case err == nil: // the disk has only hesitated
			s.kept[id] = about
		case s.opts.HeldAny != nil && s.opts.HeldAny():
			left = append(left, id)
			continue
		default:
			if err := s.remove(id); err != nil {
				s.opts.Log.Error("removing an export that cannot be opened", "export", id, "error", err)
				left = append(left, id)
				continue
			}
			s.opts.Log.Info("an export that cannot be opened was removed", "export", id)
		}
		delete(s.broken, id)
	}
	slices.Sort(left)
	return left
}

// next is the job that has waited longest.
func (s *Shelf) next() *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.jobs, func(j *job) bool { return j.State == Waiting })
	if at < 0 {
		return nil
	}
	return s.jobs[at]
}

func (s *Shelf) run(ctx context.Context, j *job) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mu.Lock()
	if j.State != Waiting {
		s.mu.Unlock()
		return
	}
	j.State, j.cancel = Running, cancel
	about := j.About
	s.mu.Unlock()
	about, err := s.produce(ctx, about, j)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // it was erased while it was being finished
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		j.State, j.Problem = Failed, err.Error()
		s.forgetFailures()
		if err := s.remove(j.ID); err != nil {
			s.opts.Log.Error("removing an export that failed", "export", j.ID, "error", err)
		}
		return
	}
	s.kept[about.ID] = about
	s.jobs = slices.DeleteFunc(s.jobs, func(other *job) bool { return other == j })
}

// forgetFailures keeps the newest. The caller holds mu.
func (s *Shelf) forgetFailures() {
	failed := 0
	for _, j := range slices.Backward(s.jobs) {
		if j.State == Failed {
			failed++
		}
	}
	s.jobs = slices.DeleteFunc(s.jobs, func(j *job) bool {
		if j.State == Failed && failed > maxFailed {
			failed--
			return true
		}
		return false
	})
}

// produce writes the files of an export; the one that completes it last.
func (s *Shelf) produce(ctx context.Context, about About, j *job) (About, error) {
	w, err := s.newWriter(ctx, about, j.permit)
	if err != nil {
		return about, err
	}
	about.Notes, err = j.make(ctx, w, func(done, total int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		j.Done, j.Total = done, total
	})
	if err = errors.Join(err, w.close()); err != nil {
		return about, err
	}
	about.Size, about.Over, about.Rooms = w.size, w.over, w.parts
	return about, s.save(about)
}

// List returns the exports that match, newest first.
func (s *Shelf) List(match func(About) bool) (list []Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	for _, j := range s.jobs {
		if match(j.About) {
			list = append(list, j.Status)
		}
	}
	for _, a := range s.kept {
		if match(a) && !now.After(a.Expires) {
			list = append(list, Status{About: a, State: Done})
		}
	}
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Find returns one export.
func (s *Shelf) Find(id ID) (Status, error) {
	if list := s.List(func(a About) bool { return a.ID == id }); len(list) > 0 {
		return list[0], nil
	}
	return Status{}, ErrNotFound
}

// Erase cancels and removes the exports that match, and says how many there were. It
// may be called again when it fails.
func (s *Shelf) Erase(match func(About) bool) (int, error) {
	s.mu.Lock()
	n := 0
	for _, j := range s.jobs {
		if j.State == Failed || !match(j.About) {
			continue
		}
		n++
		if j.State == Waiting {
			j.State, j.Problem = Failed, ErrCancelled.Error()
		} else {
			j.cancel(ErrCancelled)
		}
	}
	// A failure tells of a room, too.
	s.jobs = slices.DeleteFunc(s.jobs, func(j *job) bool { return j.State == Failed && match(j.About) })
	s.mu.Unlock()
	m, err := s.erase(match)
	return n + m, err
}

// Cancel ends the making of an export, or removes it.
func (s *Shelf) Cancel(id ID) error {
	n, err := s.Erase(func(a About) bool { return a.ID == id })
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

func (s *Shelf) erase(match func(About) bool) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, a := range s.kept {
		if !match(a) {
			continue
		}
		if e := s.remove(id); e != nil {
			err = errors.Join(err, e)
			continue
		}
		delete(s.kept, id)
		n++
	}
	return n, err
}

// remove takes an export away, its key first.
func (s *Shelf) remove(id ID) error {
	dir := filepath.Join(s.dir, string(id))
	err := errors.Join(vault.Shred(filepath.Join(dir, "body.age")), vault.Shred(filepath.Join(dir, "about.age")), os.RemoveAll(dir))
	if err != nil {
		return fmt.Errorf("remove export %q: %w", id, err)
	}
	return nil
}

func (s *Shelf) load(id ID) (a About, err error) {
	f, err := os.Open(filepath.Join(s.dir, string(id), "about.age"))
	if err != nil {
		return a, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return a, err
	}
	r, size, err := s.opts.Keys.Open(f, fi.Size())
	if err != nil {
		return a, err
	}
	if err := json.NewDecoder(io.NewSectionReader(r, 0, size)).Decode(&a); err != nil {
		return a, err
	}
	if a.ID != id {
		return a, fmt.Errorf("it is of export %q", a.ID)
	}
	return a, nil
}
