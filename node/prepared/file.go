package prepared

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

const (
	// admitEvery is how many bytes are written by one permit, far less than a second's.
	admitEvery = 1 << 20
	// What is written over is the head of a film: its size, its length, where its index is.
	maxPatches    = 16
	maxPatchBytes = 4 << 10
)

// Writer takes the content of an export, in order.
type Writer struct {
	ctx    context.Context // of the job
	room   string
	space  func() error
	disk   residency.Disk
	permit func() (residency.Permit, error)
	f      *os.File
	sealed io.WriteCloser
	due    int // bytes until a permit is asked for
	size   int64
	over   []patch
	parts  []Part
}

// Of notes that something of a room is written.
func (w *Writer) Of(p Part) {
	if !slices.Contains(w.parts, p) {
		w.parts = append(w.parts, p)
	}
}

func (s *Shelf) newWriter(ctx context.Context, a About, permit func() (residency.Permit, error)) (*Writer, error) {
	dir := filepath.Join(s.dir, string(a.ID))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "body.age"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{ctx: ctx, room: a.Room, space: func() error { return vault.CheckSpace(s.dir, admitEvery, s.opts.MinFree) }, disk: s.opts.Disk, permit: permit, f: f}
	if w.sealed, err = s.opts.Keys.Seal(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return w, nil
}

// Write seals more of the file, if it may still be kept here, there is room, and
// somebody still wants it.
func (w *Writer) Write(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	if w.due -= len(b); w.due < 0 {
		p, err := w.permit()
		if err == nil {
			err = w.admit(p)
		}
		if err != nil {
			return 0, err
		}
	}
	n, err := w.sealed.Write(b)
	w.size += int64(n)
	return n, err
}

// admit lets the next piece be written, by a permit to keep it here.
func (w *Writer) admit(p residency.Permit) error {
	w.due = admitEvery
	return errors.Join(w.disk.Admit(p, w.room), w.space())
}

// WriteAt writes over a few bytes that have been written. They lie in About.
func (w *Writer) WriteAt(b []byte, at int64) (int, error) {
	if len(w.over) >= maxPatches || len(b) > maxPatchBytes || at < 0 || at+int64(len(b)) > w.size {
		return 0, fmt.Errorf("write %d bytes over byte %d of %d: not in an export", len(b), at, w.size)
	}
	w.over = append(w.over, patch{At: at, Data: append([]byte(nil), b...)})
	return len(b), nil
}

func (w *Writer) close() error {
	return errors.Join(w.sealed.Close(), w.f.Sync(), w.f.Close())
}

// save completes an export.
func (s *Shelf) save(a About) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.dir, string(a.ID))
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	w, err := s.opts.Keys.Seal(f)
	if err == nil {
		_, err = w.Write(b)
		err = errors.Join(err, w.Close())
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, "about.age"))
}

// File is the content of an export, read from anywhere. Close it.
type File struct {
	*io.SectionReader
	f *os.File
}

// Close ends the reading.
func (f *File) Close() error { return f.f.Close() }

// Read opens the content of an export that is done.
func (s *Shelf) Read(id ID) (About, *File, error) {
	s.mu.Lock()
	a, ok := s.kept[id]
	s.mu.Unlock()
	if !ok {
		return About{}, nil, ErrNotFound
	}
	f, err := os.Open(filepath.Join(s.dir, string(id), "body.age"))
	if err != nil {
		return About{}, nil, fmt.Errorf("read export %q: %w", id, err)
	}
	r, err := s.content(f, a)
	if err != nil {
		return About{}, nil, errors.Join(fmt.Errorf("read export %q: %w", id, err), f.Close())
	}
	return a, &File{io.NewSectionReader(r, 0, a.Size), f}, nil
}

func (s *Shelf) content(f *os.File, a About) (io.ReaderAt, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, size, err := s.opts.Keys.Open(f, fi.Size())
	if err != nil {
		return nil, err
	}
	if size != a.Size {
		return nil, fmt.Errorf("it has %d bytes, had %d", size, a.Size)
	}
	return patched{r, a.Over}, nil
}

// patched reads what was written over instead of what lies below.
type patched struct {
	io.ReaderAt
	over []patch
}

// ReadAt is io.ReaderAt's.
func (p patched) ReadAt(b []byte, at int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, at)
	for _, o := range p.over {
		from, to := max(o.At, at), min(o.At+int64(len(o.Data)), at+int64(n))
		if from < to {
			copy(b[from-at:to-at], o.Data[from-o.At:])
		}
	}
	return n, err
}

// Scratch has something written sealed that is to be read at once, by permits like an
// export; done takes it away. A node that dies meanwhile leaves what Open removes.
func (s *Shelf) Scratch(ctx context.Context, room string, permit func() (residency.Permit, error), write func(*Writer) error) (_ *File, done func(), err error) {
	a := About{ID: newID(), Room: room}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove(a.ID))
		}
	}()
	w, err := s.newWriter(ctx, a, permit)
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(write(w), w.close()); err != nil {
		return nil, nil, err
	}
	a.Size, a.Over = w.size, w.over
	f, err := os.Open(filepath.Join(s.dir, string(a.ID), "body.age"))
	if err != nil {
		return nil, nil, err
	}
	r, err := s.content(f, a)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return &File{io.NewSectionReader(r, 0, a.Size), f}, func() {
		if err := errors.Join(f.Close(), s.remove(a.ID)); err != nil {
			s.opts.Log.Error("removing what an archive was made from", "error", err)
		}
	}, nil
}

// Size is how many bytes have been written.
func (w *Writer) Size() int64 { return w.size }
