// Package vault keeps recordings sealed on the disk of one node.
//
// A recording is a folder with one document and one sealed file a track (see
// format.go). Media goes in as opaque clusters and is unreadable on the disk from
// the first byte; names of rooms and people are sealed too. The vault knows
// nothing of codecs, rooms or policies: whether a node may store a recording is
// the gate's decision, and without its permit, in force, nothing is written. It
// starts no goroutine and takes the time from its callers.
package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
)

var (
	// ErrTampered says that sealed bytes were changed, moved or cut out.
	ErrTampered = errors.New("recording was changed after it was sealed")
	// ErrDiskFull says that there is no room for more; what is written stays valid.
	ErrDiskFull = errors.New("disk full")
	// ErrLocked says that a track is sealed to keys that this vault has not.
	ErrLocked = errors.New("sealed to the keys of its tenant, which this node has not")
	// ErrNotFound says that the vault has no such recording.
	ErrNotFound = errors.New("no such recording")
)

// Options tune a vault.
type Options struct {
	// Disk is shown the permits to write. Default: one that takes nothing, for
	// whoever only reads.
	Disk residency.Disk

	// MinFree is how many bytes of the file system recordings leave free.
	// A cluster that would go below is refused with ErrDiskFull while there
	// is still room to finish the tracks properly, and for the other users
	// of the disk. Default 0: write until the file system refuses.
	MinFree int64

	// Remote is the object store to which recordings go that are over, nil if they stay
	// in the folder. Shelf is shown the permits for it. KeepLocal leaves them here, too.
	Remote    Remote
	Shelf     residency.Disk
	KeepLocal bool

	// ReadOnly is for whoever looks at the vault of a node that may be running: nothing
	// is made, marked or erased, so that no file becomes another user's.
	ReadOnly bool

	// Log receives the recordings found interrupted. Default: none.
	Log *slog.Logger
}

// roomToStart is what must be free above the reserve before something new is
// begun: there is no use in a track that ends with its first picture.
const roomToStart = 64 << 10

// Vault is a directory of recordings. It is safe for concurrent use, also by several
// processes on one directory.
type Vault struct {
	// Static after Open.
	dir     string
	keys    *KeyStore
	disk    residency.Disk
	minFree int64
	log     *slog.Logger
	layer   layer

	readOnly bool

	remote    Remote // nil: none
	shelf     residency.Disk
	keepLocal bool

	// Guarded by mu.
	mu       sync.Mutex
	live     map[ID]*Recording // that this process writes
	shipping map[ID]bool       // that are on their way to the object store
	sums     map[string]fileSum
	metas    map[ID]knownMetas
}

// Open opens the vault in dir, making the directory if needed, and marks the
// recordings whose writer died as interrupted.
func Open(dir string, keys *KeyStore, opts Options) (*Vault, error) {
	if keys == nil {
		return nil, errors.New("open vault: no key store")
	}
	if !opts.ReadOnly {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open vault: %w", err)
		}
	}
	v := &Vault{dir: dir, keys: keys, disk: opts.Disk, minFree: opts.MinFree, log: opts.Log, layer: osLayer{}, remote: opts.Remote, shelf: opts.Shelf, keepLocal: opts.KeepLocal, live: map[ID]*Recording{},
		shipping: map[ID]bool{}, sums: map[string]fileSum{}, metas: map[ID]knownMetas{}, readOnly: opts.ReadOnly}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	ids, err := v.ids()
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	if opts.ReadOnly {
		return v, nil
	}
	for _, id := range ids {
		if err := v.finishErasing(id); err != nil && !errors.Is(err, ErrBusy) {
			v.log.Error("what was begun to be erased is still there", "recording", id, "error", err)
		}
		switch marked, err := v.markInterrupted(id); {
		case err != nil:
			v.log.Warn("recording cannot be opened", "recording", id, "error", err)
		case marked:
			v.log.Info("recording was interrupted; what was written is kept", "recording", id)
		}
	}
	return v, nil
}

// Create starts a recording by a permit to keep the vault's class of that room
// here; after residency.ErrNotKept nothing has been written. The recording goes on
// for as long as it has a permit in force (see Recording.Renew).
func (v *Vault) Create(p residency.Permit, m Meta, now time.Time) (*Recording, error) {
	license, err := newLicense(v.disk, p, m.Room)
	if err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	if err := v.checkSpace(roomToStart); err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	id := newID()
	r := &Recording{
		v: v, id: id, dir: v.folder(id), license: license,
		doc: document{
			Version: version, ID: id, Policy: m.Policy, Node: m.Node, Country: m.Country,
			Started: now.UTC(), State: StateRecording, After: m.After, Tracks: []TrackInfo{},
			Private: &private{Room: m.Room, Tenant: p.Tenant(), Finals: map[TrackID][]byte{}, Metas: map[TrackID]TrackMeta{}},
		},
		open: map[TrackID]bool{},
	}
	if err := r.create(); err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.live[id] = r
	return r, nil
}

// writing returns the recording of an id that this process writes, nil if it is over.
func (v *Vault) writing(id ID) *Recording {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.live[id]
}

func (v *Vault) written(id ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.live, id)
}

// List returns every recording, oldest first. One that cannot be opened is
// listed with its Problem and does not hide the others.
func (v *Vault) List() ([]Info, error) {
	ids, err := v.ids()
	if err != nil {
		return nil, fmt.Errorf("list recordings: %w", err)
	}
	infos := make([]Info, 0, len(ids))
	for _, id := range ids {
		info, err := v.Info(id)
		if errors.Is(err, ErrNotFound) {
			continue // being created, or its creator died before it held anything
		}
		if err != nil {
			info = Info{ID: id, Problem: err}
		}
		infos = append(infos, info)
	}
	slices.SortStableFunc(infos, func(a, b Info) int { return a.Started.Compare(b.Started) })
	return infos, nil
}

// Info describes one recording. Its sizes are those of the moment.
func (v *Vault) Info(id ID) (Info, error) {
	d, err := v.load(id)
	if err != nil {
		return Info{}, err
	}
	info := d.info()
	for i := range info.Tracks {
		t := &info.Tracks[i]
		if fi, err := os.Stat(trackPath(v.folder(id), t.ID)); err == nil {
			t.Size = fi.Size()
			if at := fi.ModTime().UTC(); at.After(info.Written) {
				info.Written = at
			}
		}
	}
	return info, nil
}

func (v *Vault) folder(id ID) string { return filepath.Join(v.dir, string(id)) }

func trackPath(dir string, t TrackID) string { return filepath.Join(dir, string(t)+trackSuffix) }

// trackSuffix ends the name of a track's file.
const trackSuffix = ".dtr"

// ids returns the ids of the folders in the vault; whatever else lies there is
// none of its business.
func (v *Vault) ids() ([]ID, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, err
	}
	var ids []ID
	for _, e := range entries {
		if id, err := ParseID(e.Name()); err == nil && e.IsDir() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (v *Vault) load(id ID) (*document, error) {
	if _, err := ParseID(string(id)); err != nil {
		return nil, err
	}
	d, err := loadDocument(v.folder(id), id, v.keys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	if err != nil {
		return nil, fmt.Errorf("recording %q: %w", id, err)
	}
	if v.readOnly && d.State == StateRecording && !d.Copy {
		err = v.showInterrupted(d)
	}
	return d, err
}

// showInterrupted describes a recording whose writer is gone as the node will mark it.
func (v *Vault) showInterrupted(d *document) error {
	lock, err := os.Open(filepath.Join(v.folder(d.ID), lockFile))
	if err != nil {
		return err
	}
	defer lock.Close()
	if held, err := flock(lock); held || err != nil {
		return err
	}
	return d.interrupt(v.folder(d.ID))
}

// Interrupt says of a copy that grows that it is interrupted, because the node that
// records is gone. If that comes back, the copy goes on.
func (v *Vault) Interrupt(id ID) (bool, error) {
	if _, err := ParseID(string(id)); err != nil {
		return false, err
	}
	if v.writing(id) != nil {
		return false, nil
	}
	return v.markInterrupted(id)
}

// markInterrupted ends a recording whose writer is gone.
func (v *Vault) markInterrupted(id ID) (bool, error) {
	d, err := v.load(id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil || d.State != StateRecording {
		return false, err
	}
	lock, err := tryLock(v.folder(id))
	if err != nil || lock == nil {
		return false, err // nil lock: its writer lives
	}
	defer lock.Close()
	if d, err = v.load(id); err != nil || d.State != StateRecording {
		return false, err // it finished meanwhile
	}
	if err := d.interrupt(v.folder(id)); err != nil {
		return false, err
	}
	return true, d.save(v.folder(id), v.keys)
}

// interrupt ends a document at what lies in its folder.
func (d *document) interrupt(dir string) error {
	d.State = StateInterrupted
	d.Ended = d.Started
	for i := range d.Tracks {
		if d.Tracks[i].Erased {
			continue
		}
		fi, err := os.Stat(trackPath(dir, d.Tracks[i].ID))
		if err != nil {
			return err
		}
		d.Tracks[i].Size = fi.Size()
		if t := fi.ModTime().UTC(); t.After(d.Ended) {
			d.Ended = t // the last byte that was written is the best witness
		}
	}
	return nil
}

// checkSpace refuses n more bytes when they would go below the reserve.
func (v *Vault) checkSpace(n int) error { return CheckSpace(v.dir, n, v.minFree) }

// CheckSpace refuses n more bytes in a folder with ErrDiskFull when its file system would
// then have less than a reserve.
func CheckSpace(dir string, n int, reserve int64) error {
	if reserve <= 0 {
		return nil
	}
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	if free-int64(n) < reserve {
		return fmt.Errorf("%w: %s free under %s, at least %s must stay free", ErrDiskFull, mib(free), filepath.Base(dir), mib(reserve))
	}
	return nil
}

func mib(n int64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + " MiB"
}
