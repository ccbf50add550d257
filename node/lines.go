package node

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// A lineLog keeps what is written down of rooms line by line, sealed like a recording:
// one file for each room and stretch of time, one sealed record for each line.

const (
	lineRest = 10 * time.Minute // a file to which nothing was added for so long is complete
	// lineAge is after how long a file is complete whatever is added: retention counts
	// from its end, and some rooms never rest.
	lineAge     = 24 * time.Hour
	maxLineFile = 64 << 20 // bytes of JSON in one answer
)

type lineLog struct {
	// Static after open.
	vault *vault.Vault // nil unless the node is an origin
	track vault.TrackID
	class residency.Class // also where nothing is open

	mu    sync.Mutex // held while a file is written
	files map[lineKey]*lineFile
}

// lineKey is what a file is about: lines of each track have a retention of their own.
type lineKey struct {
	sid   string
	track vault.TrackID
}

type lineFile struct {
	rec  *vault.Recording
	w    *vault.TrackWriter
	last time.Time
}

// open opens the vault of the log's class in a folder of the data directory.
func (l *lineLog) open(n *Node, folder string, keys *vault.KeyStore) (err error) {
	l.track, l.files = vault.TrackID(folder), map[lineKey]*lineFile{}
	l.vault, err = vault.Open(filepath.Join(n.cfg.DataDir, folder), keys, vault.Options{Disk: n.disk(l.class), MinFree: n.cfg.MinFree, Log: n.log})
	return err
}

// append adds lines to a file by a permit to keep them. When it returns nil they are on
// the disk.
func (l *lineLog) append(p residency.Permit, key lineKey, meta vault.Meta, lines [][]byte, now time.Time) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[key]
	if f != nil && now.Sub(f.rec.Started()) >= lineAge {
		delete(l.files, key)
		if f, err = nil, f.finish(now); err != nil {
			return err
		}
	}
	if f == nil {
		if f, err = l.create(p, key, meta, now); err != nil {
			return err
		}
	}
	if err := f.rec.Renew(p); err != nil {
		return err
	}
	f.last = now
	for _, line := range lines {
		err = errors.Join(err, f.w.Write(line))
	}
	if err = errors.Join(err, f.w.Sync()); err != nil {
		delete(l.files, key) // the next line begins a new file
		return errors.Join(err, f.finish(now))
	}
	return nil
}

func (l *lineLog) create(p residency.Permit, key lineKey, meta vault.Meta, now time.Time) (*lineFile, error) {
	rec, err := l.vault.Create(p, meta, now)
	if err != nil {
		return nil, err
	}
	w, err := rec.Track(vault.TrackMeta{TrackID: key.track, Kind: "text", MimeType: "application/json", Name: key.sid})
	if err != nil {
		return nil, errors.Join(err, rec.Finish(now))
	}
	f := &lineFile{rec: rec, w: w}
	l.files[key] = f
	return f, nil
}

func (f *lineFile) finish(now time.Time) error { return errors.Join(f.w.Close(), f.rec.Finish(now)) }

// rest completes the files to which nothing was added since a moment; the zero time is
// the end of all.
func (l *lineLog) rest(since time.Time, n *Node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, f := range l.files {
		if since.IsZero() || f.last.Before(since) {
			delete(l.files, key)
			if err := f.finish(n.now()); err != nil {
				n.log.Error("completing a file of lines", "room", key.sid, "error", err)
			}
		}
	}
}

// complete completes one file, if it is being written.
func (l *lineLog) complete(id vault.ID, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, f := range l.files {
		if f.rec.ID() == id {
			delete(l.files, key)
			return f.finish(now)
		}
	}
	return nil
}

// each reads what is kept of a room, file by file: of this very room, not of an earlier
// one of its name, which may have been somebody else's.
func (l *lineLog) each(rec room.Record, take func([]byte) error) error {
	if l.vault == nil {
		return nil
	}
	infos, err := l.vault.List()
	if err != nil {
		return err
	}
	for _, info := range infos {
		if info.Room != rec.Name || info.Problem != nil {
			continue
		}
		r, err := l.vault.Read(info.ID)
		if errors.Is(err, vault.ErrNotFound) {
			continue // erased meanwhile
		}
		if err != nil {
			return err
		}
		for _, t := range r.Tracks {
			if t.Meta.Name != rec.SID {
				continue
			}
			if err := eachLine(t, take); err != nil {
				return err
			}
		}
	}
	return nil
}

func eachLine(t *vault.TrackReader, take func([]byte) error) error {
	c, err := t.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		b, err := c.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := take(b); err != nil {
			return err
		}
	}
}

// lines returns all of a room.
func (l *lineLog) lines(rec room.Record) (lines [][]byte, err error) {
	size := 0
	err = l.each(rec, func(b []byte) error {
		if size += len(b); size > maxLineFile {
			return fmt.Errorf("more than %d bytes of lines: too much for one answer", maxLineFile)
		}
		lines = append(lines, append([]byte(nil), b...))
		return nil
	})
	return lines, err
}

// keepLines writes lines of a room on this origin, if the gate lets their class be kept here.
func (n *Node) keepLines(l *lineLog, rec room.Record, lines ...[]byte) error {
	self := n.self()
	q := keeping(rec, l.class)
	q.NoEvidence = n.noEvidenceOf(rec.Name)
	permit, v := n.keep(q)
	switch {
	case !v.Allow:
		return refused(v)
	case l.vault == nil:
		return &Refusal{Code: CodeRefused, Rule: residency.RuleStoreRole, Message: fmt.Sprintf("node %s has no vault", self.Name)}
	}
	meta := vault.Meta{Room: rec.Name, Policy: rec.Policy, Node: self.Name, Country: self.Country}
	if err := l.append(permit, lineKey{rec.SID, l.track}, meta, lines, n.now()); err != nil {
		return fmt.Errorf("keep %s: %w", l.track, err)
	}
	for _, line := range lines {
		n.noteStored(rec, l.class, false, len(line))
	}
	return nil
}
