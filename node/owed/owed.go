// Package owed keeps what an origin is about to erase until the receipts of that are
// written, so that none is lost with a node that is killed in between.
//
// What goes is noted first, sealed, then it is erased, then its receipts are written,
// then the note goes. After a restart whoever has the notes looks which of the things are
// gone: of these receipts are owed, the others were not erased. A note has a number that
// its receipts bear, so that receipts which were written already are known. The package
// erases nothing, writes no receipt and reads no clock.
package owed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// Thing is what is about to go.
type Thing struct {
	Kind  residency.Kept `json:"kind"`
	ID    string         `json:"id"`
	Part  string         `json:"part,omitempty"`
	Lines bool           `json:"lines,omitempty"` // some lines of it go, the rest stays
	Rule  string         `json:"rule"`
	Bytes int64          `json:"bytes,omitempty"` // as far as is known before

	Room      string             `json:"room,omitempty"`
	Tenant    string             `json:"tenant,omitempty"`
	Policy    string             `json:"policy,omitempty"`
	Pseudonym evidence.Pseudonym `json:"pseudonym,omitempty"` // of the room in receipts; empty: there will be none
}

// Note is what goes together. Its number is a time in ms since 1970, UTC, and grows from
// note to note.
type Note struct {
	Number int64   `json:"number"`
	Things []Thing `json:"things"`
	Gone   bool    `json:"gone,omitempty"` // they are, and receipts are owed
	Found  bool    `json:"-"`              // on the disk, after a restart: its receipts may be written
}

// Keys seal the file and open it.
type Keys interface {
	Seal(io.Writer) (io.WriteCloser, error)
	Open(r io.ReaderAt, sealed int64) (io.ReaderAt, int64, error)
}

// MaxNotes bounds the notes: each is one for which no receipt could be written.
const MaxNotes = 1000

// ErrFull says that receipts of too many erasures wait for the log.
var ErrFull = errors.New("receipts of too many erasures are owed")

// Book is the notes of an origin. It is safe for concurrent use.
type Book struct {
	path string
	keys Keys

	mu    sync.Mutex
	notes []Note
	last  int64
}

// Open reads the book at path. One that cannot be read is an error, and empty: what it
// owed is lost.
func Open(path string, keys Keys) (*Book, error) {
	b := &Book{path: path, keys: keys}
	if err := b.read(); err != nil {
		b.notes = nil
		return b, fmt.Errorf("open receipts owed: %w", err)
	}
	for _, n := range b.notes {
		b.last = max(b.last, n.Number)
	}
	return b, nil
}

func (b *Book) read() error {
	sealed, err := os.ReadFile(b.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r, size, err := b.keys.Open(bytes.NewReader(sealed), int64(len(sealed)))
	if err != nil {
		return err
	}
	err = json.NewDecoder(io.NewSectionReader(r, 0, size)).Decode(&b.notes)
	for i := range b.notes {
		b.notes[i].Found = true
	}
	return err
}

// Begin notes what is about to go. When it returns nil the note is on the disk; after an
// error it is in memory alone, and after ErrFull nowhere.
func (b *Book) Begin(now time.Time, things []Thing) (Note, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := Note{Number: max(now.UnixMilli(), b.last+1), Things: things}
	b.last = n.Number
	if len(b.notes) >= MaxNotes {
		return n, ErrFull
	}
	notes := append(slices.Clone(b.notes), n)
	if err := b.write(notes); err != nil {
		b.notes = notes
		return n, fmt.Errorf("note what goes: %w", err)
	}
	return n, nil
}

// Settle says what of a note's things is gone: receipts of these are owed. Without any the
// note goes. The disk learns of it with the next change: after a restart it is found
// out anew.
func (b *Book) Settle(number int64, gone []Thing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes = slices.Clone(b.notes)
	for i := range b.notes {
		if b.notes[i].Number == number {
			b.notes[i].Things, b.notes[i].Gone = gone, true
		}
	}
}

// Done forgets notes whose receipts are written.
func (b *Book) Done(numbers ...int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(b.notes), func(n Note) bool { return slices.Contains(numbers, n.Number) })
	if len(left) == len(b.notes) {
		return nil
	}
	b.notes = left // or it would be paid twice
	if err := b.write(left); err != nil {
		return fmt.Errorf("forget what went: %w", err)
	}
	return nil
}

// Notes returns the notes, oldest first.
func (b *Book) Notes() []Note {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.notes)
}

// write puts the file in place as a whole, or removes it if nothing is owed. The caller
// has mu.
func (b *Book) write(notes []Note) error {
	tmp := b.path + ".new"
	err := b.seal(tmp, notes)
	if err == nil {
		err = os.Rename(tmp, b.path)
	}
	if err == nil && len(notes) == 0 {
		err = os.Remove(b.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(b.path))
	}
	if err == nil {
		b.notes = notes
	}
	return err
}

func (b *Book) seal(path string, notes []Note) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w, err := b.keys.Seal(f)
	if err == nil {
		err = errors.Join(json.NewEncoder(w).Encode(notes), w.Close(), f.Sync())
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
