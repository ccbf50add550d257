// Package slips keeps small documents of rooms on an origin's disk, each sealed in a
// file of its own, for what must outlive the process and is a page at most.
//
// A slip is written by a permit to keep its class of its room, never without, and as a
// whole: a process that dies leaves the one before or the new one. What it says and when
// it has to go is for whoever writes it. The package starts no goroutine, reads no clock
// and remembers nothing.
package slips

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// Slip is one document.
type Slip struct {
	ID     string   `json:"id"` // and the name of its file
	Room   string   `json:"room"`
	SID    string   `json:"sid"`
	Tenant string   `json:"tenant,omitempty"`
	Policy string   `json:"policy"`
	People []string `json:"people,omitempty"` // identities that it names
	AtMS   int64    `json:"at_ms"`            // when it began, ms since 1970, UTC
	Body   []byte   `json:"body"`
}

// maxSlip bounds a file: what does not fit is no slip.
const maxSlip = 256 << 10

var idPattern = regexp.MustCompile(`^[A-Z]{2}_[0-9A-Za-z]{4,64}$`)

// Options are what a box is made of.
type Options struct {
	Keys *vault.KeyStore
	Disk residency.Disk // is shown the permits
	// Flush has a slip survive a power loss, too, once Put returns.
	Flush bool
}

// Box is a folder of slips. It is safe for concurrent use of different slips.
type Box struct {
	dir  string
	opts Options
}

const (
	suffix = ".age"
	unborn = ".new-" // files that are being written
)

// Open opens a folder, making it if needed, and removes what a process that died had
// not finished.
func Open(dir string, opts Options) (*Box, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open slips: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, unborn+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		return nil, fmt.Errorf("open slips: %w", err)
	}
	return &Box{dir, opts}, nil
}

// Put writes a slip in place of the one of its id, if there is one.
func (b *Box) Put(p residency.Permit, s Slip) error {
	if err := b.put(p, s); err != nil {
		return fmt.Errorf("keep slip %.64q: %w", s.ID, err)
	}
	return nil
}

func (b *Box) put(p residency.Permit, s Slip) error {
	if !idPattern.MatchString(s.ID) {
		return errors.New("not an id")
	}
	if err := b.opts.Disk.Admit(p, s.Room); err != nil {
		return err
	}
	sealed, err := b.seal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(b.dir, unborn+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(sealed)
	if b.opts.Flush {
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), b.path(s.ID))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return b.flushed()
}

func (b *Box) seal(s Slip) ([]byte, error) {
	plain, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := b.opts.Keys.Seal(&sealed)
	if err != nil {
		return nil, err
	}
	if _, err = w.Write(plain); err == nil {
		err = w.Close()
	}
	if err == nil && sealed.Len() > maxSlip {
		err = fmt.Errorf("%d bytes, at most %d fit", sealed.Len(), maxSlip)
	}
	return sealed.Bytes(), err
}

// flushed makes names survive a power loss.
func (b *Box) flushed() error {
	if !b.opts.Flush {
		return nil
	}
	d, err := os.Open(b.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Remove takes a slip away, its key first. One that is not there is no error.
func (b *Box) Remove(id string) error {
	if !idPattern.MatchString(id) {
		return fmt.Errorf("remove slip %.64q: not an id", id)
	}
	f, err := os.OpenFile(b.path(id), os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = b.blank(f)
	}
	if err = errors.Join(err, os.Remove(b.path(id))); err != nil {
		return fmt.Errorf("remove slip %q: %w", id, err)
	}
	return b.flushed()
}

// blank overwrites a file: all of it is sealed by a key in its head.
func (b *Box) blank(f *os.File) error {
	fi, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, min(fi.Size(), maxSlip)), 0)
	}
	if b.opts.Flush {
		err = errors.Join(err, f.Sync())
	}
	return errors.Join(err, f.Close())
}

// All reads every slip. One that cannot be read is part of the error and hides no other.
func (b *Box) All() (list []Slip, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("read slips: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !idPattern.MatchString(id) {
			continue
		}
		s, failed := b.read(id)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("read slip %q: %w", id, failed))
			continue
		}
		list = append(list, s)
	}
	return list, err
}

func (b *Box) read(id string) (s Slip, err error) {
	f, err := os.Open(b.path(id))
	if err != nil {
		return s, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return s, err
	}
	r, size, err := b.opts.Keys.Open(f, fi.Size())
	if err != nil {
		return s, err
	}
	if size > maxSlip {
		return s, fmt.Errorf("%d bytes, at most %d are read", size, maxSlip)
	}
	plain := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), plain); err != nil {
		return s, err
	}
	if err := json.Unmarshal(plain, &s); err != nil {
		return s, err
	}
	if s.ID != id {
		return s, errors.New("it is another one's")
	}
	return s, nil
}

func (b *Box) path(id string) string { return filepath.Join(b.dir, id+suffix) }
