package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
)

// Remote is an object store to which a vault brings what is finished: the folder is
// then where recordings wait for it. A recording is written to the folder always, so
// that a store that is away costs nothing but space.
type Remote interface {
	Name() string // in the list of who has a copy
	Put(ctx context.Context, name string, r io.Reader, size int64) error
	Get(ctx context.Context, name string) (io.ReadCloser, error) // fs.ErrNotExist
	List(ctx context.Context, below string) (map[string]int64, error)
	Remove(ctx context.Context, name string) error
}

// ErrAway says that a track lies in the object store alone.
var ErrAway = errors.New("it lies in the object store")

// remoteWithin bounds what an erasure waits for the object store; one that is away is
// told later (see SettleRemote).
const remoteWithin = 10 * time.Second

func remoteName(id ID, file string) string { return string(id) + "/" + file }

// Ship brings a recording that is over to the object store, by a permit to keep it
// there, and takes away what is not of it any more. Then, unless the vault keeps what
// it brings away, the tracks here go; its document stays, for lists.
func (v *Vault) Ship(ctx context.Context, p residency.Permit, id ID) error {
	v.setShipping(id, true)
	err := v.ship(ctx, p, id)
	v.setShipping(id, false)
	if v.Erased(id) { // meanwhile: what was on its way then is taken back
		err = errors.Join(ErrErased, v.settleSoon(id))
	}
	if err != nil {
		return fmt.Errorf("bring recording %q to the object store: %w", id, err)
	}
	return nil
}

func (v *Vault) setShipping(id ID, on bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if on {
		v.shipping[id] = true
	} else {
		delete(v.shipping, id)
	}
}

func (v *Vault) isShipping(id ID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shipping[id]
}

func (v *Vault) ship(ctx context.Context, p residency.Permit, id ID) error {
	d, err := v.load(id)
	if err != nil {
		return err
	}
	may := func() error {
		if v.Erased(id) {
			return ErrErased
		}
		return v.shelf.Admit(p, d.Private.Room)
	}
	if err := may(); err != nil {
		return err
	}
	if d.State == StateRecording || d.Copy {
		return fmt.Errorf("it is %s, copy %v", d.State, d.Copy)
	}
	there, err := v.remote.List(ctx, string(id)+"/")
	if err != nil {
		return err
	}
	for _, t := range d.Tracks {
		name := remoteName(id, string(t.ID)+trackSuffix)
		if t.Erased {
			continue
		}
		if err := v.shipFile(ctx, name, trackPath(v.folder(id), t.ID), there, may); err != nil {
			return err
		}
		delete(there, name)
	}
	// The document last: who finds it finds everything.
	name := remoteName(id, documentFile)
	if err := v.shipFile(ctx, name, filepath.Join(v.folder(id), documentFile), nil, may); err != nil {
		return err
	}
	delete(there, name)
	for name := range there {
		if err := v.remote.Remove(ctx, name); err != nil {
			return err
		}
	}
	if err := v.NoteReplica(id, residency.NodeName(v.remote.Name())); err != nil || v.keepLocal {
		return err
	}
	return v.alone(id, v.evict)
}

// shipFile puts a file there; one that has been brought there before may be gone here,
// and is not brought again. Every piece of it goes by a permit that is in force then.
func (v *Vault) shipFile(ctx context.Context, name, path string, there map[string]int64, may func() error) error {
	f, err := os.Open(path)
	size, has := there[name]
	if has && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if has && size == fi.Size() {
		return nil
	}
	return v.remote.Put(ctx, name, permittedReader{f, may}, fi.Size())
}

// permittedReader reads for as long as what it reads may go where it goes.
type permittedReader struct {
	io.Reader
	may func() error
}

// Read is io.Reader's.
func (r permittedReader) Read(b []byte) (int, error) {
	if err := r.may(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// evict removes tracks that lie in the object store.
func (v *Vault) evict(d *document) error {
	if !slices.Contains(d.Replicas, residency.NodeName(v.remote.Name())) {
		return nil
	}
	for _, t := range d.Tracks {
		if err := os.Remove(trackPath(v.folder(d.ID), t.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(v.folder(d.ID))
}

// openTrack opens a track's file, here or in the object store.
func (v *Vault) openTrack(id ID, t TrackID) (io.ReadCloser, error) {
	f, err := os.Open(trackPath(v.folder(id), t))
	if err == nil || v.remote == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	return v.remote.Get(context.Background(), remoteName(id, string(t)+trackSuffix))
}

// owedDir holds, in the folder of what was erased, a file for each recording that the
// object store has still to lose.
const owedDir = "owed"

// owe notes that the object store has to lose a recording.
func (v *Vault) owe(id ID) error {
	if v.remote == nil {
		return nil
	}
	dir := filepath.Join(v.dir, erasedDir, owedDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return explain(err)
	}
	owed := filepath.Join(dir, string(id))
	return explain(errors.Join(os.WriteFile(owed, nil, 0o600), syncDir(dir)))
}

// settleSoon has the object store lose a recording, now or as soon as it is there.
func (v *Vault) settleSoon(id ID) error {
	if v.remote == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), remoteWithin)
	defer cancel()
	return v.settle(ctx, id)
}

func (v *Vault) settle(ctx context.Context, id ID) error {
	there, err := v.remote.List(ctx, string(id)+"/")
	if err != nil {
		return err
	}
	for name := range there {
		// Its beginning first, where the key is: what a store keeps of older versions
		// is for its owner to bound.
		err = errors.Join(v.remote.Put(ctx, name, bytes.NewReader(nil), 0), v.remote.Remove(ctx, name), err)
	}
	if err != nil || v.isShipping(id) { // then more may come; ship sees to it when it ends
		return err
	}
	if err := os.Remove(filepath.Join(v.dir, erasedDir, owedDir, string(id))); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// SettleRemote has the object store lose what was erased while it was away. It returns
// how many recordings it has still to lose.
func (v *Vault) SettleRemote(ctx context.Context) (left int, err error) {
	if v.remote == nil {
		return 0, nil
	}
	entries, err := os.ReadDir(filepath.Join(v.dir, erasedDir, owedDir))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	left = len(entries)
	for _, e := range entries {
		if id, bad := ParseID(e.Name()); bad == nil && err == nil && strings.HasPrefix(e.Name(), "RE_") {
			if err = v.settle(ctx, id); err == nil {
				left--
			}
		}
	}
	return left, err
}
