package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// What is erased is first noted as such, so that a process that dies meanwhile goes
// on with it when the vault is opened again. Then the key of each file is overwritten
// where it lies, which is nowhere but in the file's own header, and of a copy in its
// document: what a disk keeps of
// blocks that nobody owns any more cannot be opened by whoever has the vault's key.
// Then the files go. A permit is not needed to erase.

// ErrBusy says that a recording or track is being written, by this process or another.
var ErrBusy = errors.New("it is being written")

// Erase erases a recording. One that is not there any more is no error; from then on
// Erased says so, whether it was there or not.
func (v *Vault) Erase(id ID) error {
	if _, err := ParseID(string(id)); err != nil {
		return err
	}
	if err := v.erase(id); err != nil {
		return fmt.Errorf("erase recording %q: %w", id, err)
	}
	return nil
}

func (v *Vault) erase(id ID) error {
	if v.writing(id) != nil {
		return ErrBusy
	}
	dir := v.folder(id)
	lock, err := tryLock(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.Join(v.entomb(id), v.owe(id), v.settleSoon(id))
	case err != nil:
		return err
	case lock == nil:
		return ErrBusy
	}
	defer lock.Close()
	// What the object store has to lose is noted while there is still a folder by which
	// a process that dies is reminded (see finishErasing).
	if err := errors.Join(v.entomb(id), v.owe(id)); err != nil {
		return err
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := Shred(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(dir), syncDir(v.dir), v.settleSoon(id))
}

// Stored is how many bytes the files of a recording have, also of one that cannot be
// opened.
func (v *Vault) Stored(id ID) (n int64) {
	if _, err := ParseID(string(id)); err != nil {
		return 0
	}
	files, _ := os.ReadDir(v.folder(id)) //nolint:errcheck // what cannot be listed counts for nothing
	for _, f := range files {
		if fi, err := f.Info(); err == nil {
			n += fi.Size()
		}
	}
	return n
}

// EraseTrack erases one track of a recording, also of one that is being written, once
// the track is closed. The recording's document goes on naming it as erased.
func (v *Vault) EraseTrack(id ID, t TrackID) error {
	if _, err := ParseID(string(id)); err != nil {
		return err
	}
	if err := v.eraseTrack(id, t); err != nil {
		return fmt.Errorf("erase track %q of recording %q: %w", t, id, err)
	}
	return nil
}

func (v *Vault) eraseTrack(id ID, t TrackID) error {
	if r := v.writing(id); r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.open[t] {
			return ErrBusy
		}
		return v.dropTrack(&r.doc, t)
	}
	return v.alone(id, func(d *document) error { return v.dropTrack(d, t) })
}

// alone changes the document of a recording that nobody writes; one that is gone is
// left so.
func (v *Vault) alone(id ID, change func(*document) error) error {
	lock, err := tryLock(v.folder(id))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case lock == nil:
		return ErrBusy
	}
	defer lock.Close()
	d, err := v.load(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return change(d)
}

func (v *Vault) dropTrack(d *document, t TrackID) error {
	info := d.track(t)
	if info == nil {
		return nil
	}
	dir := v.folder(d.ID)
	if !info.Erased {
		*info = TrackInfo{ID: t, Erased: true}
		delete(d.Private.Finals, t)
		delete(d.Private.Keys, t)
		delete(d.Private.Metas, t)
		if err := d.save(dir, v.keys); err != nil {
			return err
		}
	}
	return errors.Join(Shred(trackPath(dir, t)), syncDir(dir))
}

// Rewrite leaves clusters out of a finished track: what is left is sealed anew under
// another key. It returns how many clusters it left out and how many are left.
func (v *Vault) Rewrite(id ID, t TrackID, keep func(cluster []byte) bool) (out, left int, err error) {
	if _, err := ParseID(string(id)); err != nil {
		return 0, 0, err
	}
	if v.writing(id) != nil {
		err = ErrBusy
	} else {
		err = v.alone(id, func(d *document) error { out, left, err = v.rewrite(d, t, keep); return err })
	}
	if err != nil {
		return 0, 0, fmt.Errorf("rewrite track %q of recording %q: %w", t, id, err)
	}
	return out, left, nil
}

func (v *Vault) rewrite(d *document, t TrackID, keep func([]byte) bool) (out, left int, err error) {
	info := d.track(t)
	if info == nil || info.Erased {
		return 0, 0, nil
	}
	r, err := v.Read(d.ID)
	if err != nil {
		return 0, 0, err
	}
	i := slices.IndexFunc(r.Tracks, func(x *TrackReader) bool { return x.Info.ID == t })
	tmp, next, out, err := v.sieve(d, r.Tracks[i], keep)
	if err != nil || out == 0 {
		return 0, next.info.Clusters, errors.Join(err, remove(tmp))
	}
	// From here to the end the document knows no final record, so that either file
	// goes with it.
	info.Finished = false
	delete(d.Private.Finals, t)
	delete(d.Private.Keys, t) // of a copy; a node that rewrites a track has a key of its own for what it writes
	if err := d.save(v.folder(d.ID), v.keys); err != nil {
		return 0, 0, errors.Join(err, remove(tmp))
	}
	if err := replaceTrack(v.folder(d.ID), tmp, t); err != nil {
		return 0, 0, err
	}
	*info = next.info
	d.Private.Finals[t] = next.final
	return out, next.info.Clusters, d.save(v.folder(d.ID), v.keys)
}

// sieved is a track that was sealed anew.
type sieved struct {
	info  TrackInfo
	final []byte
}

// sieve writes the clusters that stay into a file beside the track's.
func (v *Vault) sieve(d *document, t *TrackReader, keep func([]byte) bool) (path string, s sieved, out int, err error) {
	key, header, err := newHeader(v.keys, d.Private.Tenant)
	if err != nil {
		return "", s, 0, err
	}
	c, err := newChain(key, header, d.ID, t.Info.ID)
	if err != nil {
		return "", s, 0, err
	}
	meta, err := encodeMeta(t.Meta)
	if err != nil {
		return "", s, 0, err
	}
	from, err := t.Open()
	if err != nil {
		return "", s, 0, err
	}
	defer from.Close()
	s.info = TrackInfo{ID: t.Info.ID}
	b := c.seal(header, kindMeta, meta)
	for {
		body, err := from.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", s, 0, err
		}
		if !keep(body) {
			out++
			continue
		}
		s.info.Clusters++
		b = c.seal(b, kindCluster, body)
	}
	b = c.seal(b, kindFinal, binary.BigEndian.AppendUint64(nil, uint64(s.info.Clusters)))
	s.info.Size, s.info.Finished, s.final = int64(len(b)), true, slices.Clone(c.link)
	if out == 0 {
		return "", s, 0, nil
	}
	path, err = writeTemp(v.folder(d.ID), b)
	return path, s, out, explain(err)
}

// replaceTrack puts a file in place of a track's, and then destroys the key of the one
// that was there.
func replaceTrack(dir, tmp string, t TrackID) error {
	old, err := os.OpenFile(trackPath(dir, t), os.O_WRONLY, 0)
	if err != nil {
		return errors.Join(err, remove(tmp))
	}
	defer old.Close()
	if err := os.Rename(tmp, trackPath(dir, t)); err != nil {
		return errors.Join(explain(err), remove(tmp))
	}
	return errors.Join(syncDir(dir), blank(old))
}

func remove(tmp string) error {
	if tmp == "" {
		return nil
	}
	return os.Remove(tmp)
}

// shredded is how much of a file is overwritten before it goes: more than the header
// with the wrapped key, whoever the recipients are, and all of a document.
const shredded = 1 << 20

// blank overwrites the beginning of a file.
func blank(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, min(fi.Size(), shredded)), 0); err != nil {
		return explain(err)
	}
	return f.Sync()
}

// blankAfter overwrites the beginning of a file once another has taken its place.
func blankAfter(path string, replace func() error) error {
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return replace()
	}
	if err != nil {
		return err
	}
	defer old.Close()
	if err := replace(); err != nil {
		return err
	}
	return blank(old)
}

// Shred overwrites the beginning of a file and removes it; one that is gone is left so.
func Shred(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = errors.Join(blank(f), f.Close())
	return errors.Join(err, os.Remove(path)) // on a disk that takes no byte any more it still goes
}

// finishErasing goes on with what a process that died has begun to erase.
func (v *Vault) finishErasing(id ID) error {
	if v.Erased(id) {
		return v.Erase(id)
	}
	begun, err := filepath.Glob(filepath.Join(v.folder(id), ".new-*"))
	if err != nil {
		return err
	}
	d, err := v.load(id)
	if err != nil {
		return nil //nolint:nilerr // List tells of it
	}
	var todo []TrackID
	for _, t := range d.Tracks {
		if _, err := os.Stat(trackPath(v.folder(id), t.ID)); t.Erased && err == nil {
			todo = append(todo, t.ID)
		}
	}
	if len(todo)+len(begun) == 0 {
		return nil
	}
	return v.alone(id, func(d *document) error {
		for _, tmp := range begun {
			err = errors.Join(err, Shred(tmp))
		}
		for _, t := range todo {
			err = errors.Join(err, v.dropTrack(d, t))
		}
		return err
	})
}
