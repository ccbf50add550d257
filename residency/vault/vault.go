// Package vault keeps recordings sealed on the disk of one node.
//
// A recording is a folder with one document and one sealed file a track (see
// format.go). Media goes in as opaque clusters and is unreadable on the disk from
// the first byte; names of rooms and people are sealed too. The vault knows
// nothing of codecs, rooms or policies: whether a node may store a recording is
// asked of residency.Gate before Create. It starts no goroutine and takes the
// time from its callers.
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
	"time"
)

var (
	// ErrTampered says that sealed bytes were changed, moved or cut out.
	ErrTampered = errors.New("recording was changed after it was sealed")
	// ErrDiskFull says that there is no room for more; what is written stays valid.
	ErrDiskFull = errors.New("disk full")
	// ErrNotFound says that the vault has no such recording.
	ErrNotFound = errors.New("no such recording")
)

// Options tune a vault.
type Options struct {
	// MinFree is how many bytes of the file system recordings leave free.
	// A cluster that would go below is refused with ErrDiskFull while there
	// is still room to finish the tracks properly, and for the other users
	// of the disk. Default 0: write until the file system refuses.
	MinFree int64

	// Log receives the recordings found interrupted. Default: none.
	Log *slog.Logger
}

// roomToStart is what must be free above the reserve before something new is
// begun: there is no use in a track that ends with its first picture.
const roomToStart = 64 << 10

// Vault is a directory of recordings. It is immutable and safe for concurrent
// use, also by several processes on one directory.
type Vault struct {
	dir     string
	keys    *KeyStore
	minFree int64
	log     *slog.Logger
}

// Open opens the vault in dir, making the directory if needed, and marks the
// recordings whose writer died as interrupted.
func Open(dir string, keys *KeyStore, opts Options) (*Vault, error) {
	if keys == nil {
		return nil, errors.New("open vault: no key store")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	v := &Vault{dir: dir, keys: keys, minFree: opts.MinFree, log: opts.Log}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	ids, err := v.ids()
	if err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	for _, id := range ids {
		switch marked, err := v.markInterrupted(id); {
		case err != nil:
			v.log.Warn("recording cannot be opened", "recording", id, "error", err)
		case marked:
			v.log.Info("recording was interrupted; what was written is kept", "recording", id)
		}
	}
	return v, nil
}

// Create starts a recording.
func (v *Vault) Create(m Meta, now time.Time) (*Recording, error) {
	if err := v.checkSpace(roomToStart); err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	id := newID()
	r := &Recording{
		v: v, id: id, dir: v.folder(id),
		doc: document{
			Version: version, ID: id, Policy: m.Policy, Node: m.Node, Country: m.Country,
			Started: now.UTC(), State: StateRecording, Tracks: []TrackInfo{},
			Private: &private{Room: m.Room, Finals: map[TrackID][]byte{}},
		},
		open: map[TrackID]bool{},
	}
	if err := r.create(); err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	return r, nil
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
		}
	}
	return info, nil
}

func (v *Vault) folder(id ID) string { return filepath.Join(v.dir, string(id)) }

func trackPath(dir string, t TrackID) string { return filepath.Join(dir, string(t)+".dtr") }

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
	return d, nil
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
	d.State = StateInterrupted
	d.Ended = d.Started
	for i := range d.Tracks {
		fi, err := os.Stat(trackPath(v.folder(id), d.Tracks[i].ID))
		if err != nil {
			return false, err
		}
		d.Tracks[i].Size = fi.Size()
		if t := fi.ModTime().UTC(); t.After(d.Ended) {
			d.Ended = t // the last byte that was written is the best witness
		}
	}
	return true, d.save(v.folder(id), v.keys)
}

// checkSpace refuses n more bytes when they would go below the reserve.
func (v *Vault) checkSpace(n int) error {
	if v.minFree <= 0 {
		return nil
	}
	free, err := freeSpace(v.dir)
	if err != nil {
		return err
	}
	if free-int64(n) < v.minFree {
		return fmt.Errorf("%w: %s free under the recordings, at least %s must stay free", ErrDiskFull, mib(free), mib(v.minFree))
	}
	return nil
}

func mib(n int64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/(1<<20)), ".0") + " MiB"
}
