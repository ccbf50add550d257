package vault

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/domicile/domicile/residency"
)

// A recording is copied to the vault of another node as it lies there: sealed tracks
// byte by byte, while they are still being written, too, and the document sealed anew
// to the keys of whoever holds the copy. The keys of the tracks travel in the
// document, as far as the sender can open them: else only the recipients of the first
// node could ever open the copy.
//
// The sender states what there is; the receiver answers how much of it it has. So a
// copy that was broken off goes on where it was, one that has all of it is told
// nothing, and a track that was sealed anew, because something was erased in it, is
// begun again. A copy is finished when its receiver has seen that every byte is there:
// before that its document says that it is being recorded, and it reads like one
// that was cut.

// Part is a track's file, as the vault that it is copied from has it.
type Part struct {
	Track TrackID `json:"track"`
	Size  int64   `json:"size"`
	Head  []byte  `json:"head"`          // SHA-256 of the header: another one is another file
	Sum   []byte  `json:"sum,omitempty"` // SHA-256 of all of it, once the recording is over
}

// Manifest is what a copy is to be like.
type Manifest struct {
	Document []byte `json:"document"` // JSON of the document with its private part
	Parts    []Part `json:"parts"`
}

// ErrErased says that the recording was erased, here or where a copy was to go.
var ErrErased = errors.New("recording was erased")

// Manifest states what a recording of this vault is, for one that is to hold a copy.
func (v *Vault) Manifest(id ID) (Manifest, Info, error) {
	d, err := v.load(id)
	if err != nil {
		return Manifest{}, Info{}, err
	}
	var m Manifest
	keys := map[TrackID][]byte{}
	for _, t := range d.Tracks {
		if t.Erased {
			continue
		}
		p, key, err := v.part(d, t.ID)
		if errors.Is(err, fs.ErrNotExist) {
			return Manifest{}, Info{}, fmt.Errorf("manifest of recording %q: %w", id, ErrAway)
		}
		if err != nil {
			return Manifest{}, Info{}, fmt.Errorf("manifest of recording %q: %w", id, err)
		}
		if key != nil {
			keys[t.ID] = key
		}
		m.Parts = append(m.Parts, p)
	}
	info := d.info()
	d.Private.Keys, d.Replicas = keys, nil
	m.Document, err = json.Marshal(d)
	return m, info, err
}

func (v *Vault) part(d *document, t TrackID) (p Part, key []byte, err error) {
	f, err := os.Open(trackPath(v.folder(d.ID), t))
	if err != nil {
		return Part{}, nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return Part{}, nil, err
	}
	p = Part{Track: t, Size: fi.Size()}
	head, wrapped, err := readHead(f)
	if err != nil {
		return p, nil, nil // cut inside its header: there is nothing to open
	}
	sum := sha256.Sum256(head)
	p.Head = sum[:]
	if key = d.Private.Keys[t]; key == nil {
		key, _ = v.keys.unwrap(wrapped) // nil: sealed for others alone
	}
	if d.State == StateRecording {
		return p, key, nil
	}
	p.Sum, err = v.sum(f, fi)
	return p, key, err
}

// fileSum is the SHA-256 of a file, as long as the file is what it was.
type fileSum struct {
	inode uint64
	size  int64
	at    time.Time // of the last change
	sum   []byte
}

// maxSums bounds what is remembered: of as many tracks, 200 bytes each.
const maxSums = 20_000

// sumAge is how long ago a file must have been changed for another change to show in
// its time, however coarsely the file system keeps that.
const sumAge = 2 * time.Second

// sum is the SHA-256 of a file. It is remembered: two nodes that agree on a recording
// ask again after each pause of their link, and a track of an hour takes seconds.
func (v *Vault) sum(f *os.File, fi fs.FileInfo) ([]byte, error) {
	is := fileSum{size: fi.Size(), at: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		is.inode = st.Ino
	}
	v.mu.Lock()
	was := v.sums[f.Name()]
	v.mu.Unlock()
	if was.sum != nil && was.inode == is.inode && was.size == is.size && was.at.Equal(is.at) {
		return was.sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, is.size)); err != nil {
		return nil, err
	}
	is.sum = h.Sum(nil)
	if time.Since(is.at) < sumAge {
		return is.sum, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.sums) >= maxSums {
		clear(v.sums)
	}
	v.sums[f.Name()] = is
	return is.sum, nil
}

// readHead reads a track's header.
func readHead(r io.Reader) (head, wrapped []byte, err error) {
	fixed := make([]byte, headerFixed)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return nil, nil, err
	}
	n, err := parseFixed(fixed)
	if err != nil {
		return nil, nil, err
	}
	wrapped = make([]byte, n)
	if _, err := io.ReadFull(r, wrapped); err != nil {
		return nil, nil, err
	}
	return append(fixed, wrapped...), wrapped, nil
}

// ReadTrack reads sealed bytes of a track's file, up to len(b); n is 0 at its end.
func (v *Vault) ReadTrack(id ID, t TrackID, offset int64, b []byte) (n int, err error) {
	if err := errors.Join(checkID(id), checkTrackID(t)); err != nil {
		return 0, err
	}
	f, err := os.Open(trackPath(v.folder(id), t))
	if err != nil {
		return 0, fmt.Errorf("read track %q of recording %q: %w", t, id, err)
	}
	defer f.Close()
	n, err = f.ReadAt(b, offset)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func checkID(id ID) error { _, err := ParseID(string(id)); return err }

// maxParts bounds what a manifest makes the receiver do: a meeting of a thousand,
// each with camera, microphone and screen.
const maxParts = 3000

// open checks a manifest that came from elsewhere.
func (m Manifest) open() (*document, error) {
	var d document
	if err := unmarshalStrict(m.Document, &d); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if err := checkID(d.ID); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if d.Version != version || d.Private == nil || len(m.Parts) > maxParts || len(d.Tracks) > maxParts {
		return nil, fmt.Errorf("manifest of recording %q: version %d with %d tracks", d.ID, d.Version, len(d.Tracks))
	}
	for _, t := range d.Tracks {
		if err := checkTrackID(t.ID); err != nil {
			return nil, err
		}
	}
	for _, p := range m.Parts {
		if d.track(p.Track) == nil || p.Size < 0 {
			return nil, fmt.Errorf("manifest of recording %q: part %q is no track of it", d.ID, p.Track)
		}
	}
	return &d, nil
}

// Meta names the room, the tenant and the policy of what is offered, for the gate.
func (m Manifest) Meta() (ID, Meta, error) {
	d, err := m.open()
	if err != nil {
		return "", Meta{}, err
	}
	return d.ID, d.info().Meta, nil
}

// Receive begins a copy, or goes on with it, by a permit to keep it here. It returns
// how many bytes of each part are here. Once that is all, and the parts have sums, the
// copy is finished, and whole is true.
func (v *Vault) Receive(p residency.Permit, m Manifest) (have map[TrackID]int64, whole bool, err error) {
	d, err := m.open()
	if err != nil {
		return nil, false, err
	}
	if err := v.admitCopy(p, d); err != nil {
		return nil, false, err
	}
	dir := v.folder(d.ID)
	unlock, err := v.lockCopy(d)
	if err != nil {
		return nil, false, fmt.Errorf("copy of recording %q: %w", d.ID, err)
	}
	defer unlock()
	if have, whole, err = v.receiveParts(dir, d, m.Parts); err != nil {
		return nil, false, fmt.Errorf("copy of recording %q: %w", d.ID, err)
	}
	d.Copy = true
	if !whole {
		d.cut(m.Parts, have)
	}
	if err := v.saveCopy(d); err != nil {
		return nil, false, fmt.Errorf("copy of recording %q: %w", d.ID, err)
	}
	return have, whole, nil
}

// cut has a copy read like a recording that was cut: one that is finished as a whole, one
// that goes on in the tracks that are not all here.
func (d *document) cut(parts []Part, have map[TrackID]int64) {
	goesOn := d.State == StateRecording
	d.State = StateRecording
	for i := range d.Tracks {
		t := &d.Tracks[i]
		lacks := func(p Part) bool { return p.Track == t.ID && have[p.Track] < p.Size }
		if !goesOn || slices.ContainsFunc(parts, lacks) {
			t.Finished = false
			delete(d.Private.Finals, t.ID)
		}
	}
}

// saveCopy writes the document of a copy if it says something new.
func (v *Vault) saveCopy(d *document) error {
	if own, err := v.load(d.ID); err == nil {
		d.Replicas = own.Replicas
		was, _ := json.Marshal(own)
		if is, err := json.Marshal(d); err == nil && string(was) == string(is) {
			return nil
		}
	}
	return errors.Join(d.save(v.folder(d.ID), v.keys), syncDir(v.dir))
}

func (v *Vault) admitCopy(p residency.Permit, d *document) error {
	if err := v.disk.Admit(p, d.Private.Room); err != nil {
		return fmt.Errorf("copy of recording %q: %w", d.ID, err)
	}
	if v.Erased(d.ID) {
		return fmt.Errorf("copy of recording %q: %w", d.ID, ErrErased)
	}
	return v.checkSpace(roomToStart)
}

// lockCopy makes the folder of a copy and keeps others from it. What this vault has
// recorded itself is no copy of anything.
func (v *Vault) lockCopy(d *document) (unlock func(), err error) {
	dir := v.folder(d.ID)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, explain(err)
	}
	lock, err := tryLock(dir)
	if err != nil {
		return nil, explain(err)
	}
	if lock == nil {
		return nil, errors.New("its folder is in use")
	}
	if v.Erased(d.ID) { // while the lock was waited for; the folder is ours, and empty
		return nil, errors.Join(ErrErased, lock.Close(), os.RemoveAll(dir))
	}
	switch own, err := v.load(d.ID); {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		lock.Close()
		return nil, err
	case !own.Copy || own.Private.Room != d.Private.Room || own.Node != d.Node:
		lock.Close()
		return nil, errors.New("another recording of that id is here")
	}
	return func() { lock.Close() }, nil
}

// receiveParts looks how much of each part is here, and takes away what is not of it.
func (v *Vault) receiveParts(dir string, d *document, parts []Part) (have map[TrackID]int64, whole bool, err error) {
	have, whole = map[TrackID]int64{}, d.State != StateRecording
	wanted := map[string]bool{}
	for _, p := range parts {
		wanted[filepath.Base(trackPath(dir, p.Track))] = true
		n, ok, err := v.receivePart(trackPath(dir, p.Track), p)
		if err != nil {
			return nil, false, err
		}
		have[p.Track], whole = n, whole && ok
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), trackSuffix) && !wanted[e.Name()] {
			if err := Shred(filepath.Join(dir, e.Name())); err != nil {
				return nil, false, err
			}
		}
	}
	return have, whole, nil
}

// receivePart returns how many bytes of a part are here, and whether they are all of it.
func (v *Vault) receivePart(path string, p Part) (n int64, whole bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) { // an empty one reads as one that was cut
		return 0, p.Size == 0, appendAt(path, 0, nil)
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	again := fi.Size() > p.Size
	head, _, cut := readHead(f) // not all of the header is here, yet or for ever
	if cut == nil {
		sum := sha256.Sum256(head)
		again = again || string(sum[:]) != string(p.Head)
	}
	switch {
	case again || fi.Size() != p.Size:
	case cut != nil:
		whole = p.Head == nil
	case p.Sum != nil:
		sum, err := v.sum(f, fi)
		if err != nil {
			return 0, false, err
		}
		whole = string(sum) == string(p.Sum)
		again = !whole
	}
	if again {
		return 0, false, os.Truncate(path, 0)
	}
	if whole {
		err = f.Sync() // of the file, whoever wrote it
	}
	return fi.Size(), whole, err
}

// Append adds sealed bytes to a track of a copy, by a permit to keep them here. They
// must begin where the copy ends. They survive a power loss once the copy is whole.
func (v *Vault) Append(p residency.Permit, id ID, t TrackID, offset int64, b []byte) error {
	if err := errors.Join(checkID(id), checkTrackID(t)); err != nil {
		return err
	}
	d, err := v.load(id)
	if err != nil {
		return err
	}
	if err := v.admitCopy(p, d); err != nil {
		return err
	}
	unlock, err := v.lockCopy(d)
	if err != nil {
		return fmt.Errorf("copy of recording %q: %w", id, err)
	}
	defer unlock()
	if !d.Copy || d.track(t) == nil {
		return fmt.Errorf("copy of recording %q: no track %q to be copied", id, t)
	}
	if err := v.checkSpace(len(b)); err != nil {
		return err
	}
	return appendAt(trackPath(v.folder(id), t), offset, b)
}

func appendAt(path string, offset int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return explain(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err == nil && fi.Size() != offset {
		err = fmt.Errorf("bytes at %d of a track that ends at %d", offset, fi.Size())
	}
	if err == nil {
		if _, err = f.WriteAt(b, offset); err != nil {
			err = errors.Join(explain(err), f.Truncate(offset))
		}
	}
	return err
}

// NoteReplica writes down that a node, or a bucket, has a whole copy of a recording
// that is over.
func (v *Vault) NoteReplica(id ID, at residency.NodeName) error {
	lock, err := tryLock(v.folder(id))
	if err == nil && lock == nil {
		err = ErrBusy
	}
	if err != nil {
		return fmt.Errorf("recording %q: note who has a copy: %w", id, err)
	}
	defer lock.Close()
	d, err := v.load(id)
	if err != nil {
		return err
	}
	for _, name := range d.Replicas {
		if name == at {
			return nil
		}
	}
	d.Replicas = append(d.Replicas, at)
	return d.save(v.folder(id), v.keys)
}

// IDs returns the ids of all recordings, in no order.
func (v *Vault) IDs() ([]ID, error) {
	ids, err := v.ids()
	if err != nil {
		return nil, fmt.Errorf("list recordings: %w", err)
	}
	return ids, nil
}

// Changed is something that is another whenever the document of a recording is.
func (v *Vault) Changed(id ID) string {
	fi, err := os.Stat(filepath.Join(v.folder(id), documentFile))
	if err != nil {
		return ""
	}
	return fi.ModTime().String() + fmt.Sprint(fi.Size())
}
