package node

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// A backup of an origin is a tar archive of what its data directory must have for the
// node to come back: rooms.db as of one moment, the log of evidence as far as it was
// promised, policies, what else lies there, and with it, if asked for, the keys. Its last
// file, MANIFEST, holds the SHA-256 of each in the form of sha256sum: an archive without
// one is cut.
//
// Recordings, chats and exports are sealed files that hardly change. They are many,
// and copied by other tools.

// notBackedUp are the folders and files of a data directory that are left out, that
// have their turn, or that are made anew.
var notBackedUp = map[string]bool{"recordings": true, "chats": true, "exports": true, "acme": true, "keys": true, "webhooks": true,
	"evidence": true, "rooms.db": true, "rooms.db-wal": true, "rooms.db-shm": true, "admin.sock": true}

// BackupManifest is the last file of a backup.
const BackupManifest = "MANIFEST"

// storeKey is where the key of rooms.db is put in a backup, and made by the node.
const storeKey = "keys/store.key"

// backup is an archive that is being written.
type backup struct {
	tar      *tar.Writer
	now      time.Time
	manifest strings.Builder
}

// serveBackup is GET /backup on the admin socket. An answer that ends early lacks the
// manifest.
func (n *Node) serveBackup(w http.ResponseWriter, r *http.Request) {
	if n.files == nil {
		answer(w, nil, &Refusal{Code: CodeRefused, Message: fmt.Sprintf("node %s is no origin and keeps nothing", n.self().Name)})
		return
	}
	w.Header().Set("Content-Type", "application/x-tar")
	if err := n.writeBackup(r.Context(), w, r.FormValue("keys") != ""); err != nil {
		n.log.Error("a backup is not whole", "error", err)
		panic(http.ErrAbortHandler) // so that the client hears of it
	}
}

func (n *Node) writeBackup(ctx context.Context, w io.Writer, keys bool) error {
	b := &backup{tar: tar.NewWriter(w), now: n.now()}
	parts := []func() error{
		func() error { return n.backUpRooms(ctx, b) },
		func() error { return n.backUpEvidence(b) },
		func() error { return n.backUpRest(b) },
	}
	if keys {
		parts = append(parts, func() error { return n.backUpKeys(b) })
	}
	for _, part := range parts {
		if err := part(); err != nil {
			return err
		}
	}
	return b.close()
}

func (n *Node) backUpRooms(ctx context.Context, b *backup) error {
	dir, err := os.MkdirTemp(n.cfg.DataDir, backupDir)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "rooms.db")
	if err := n.files.Backup(ctx, copied); err != nil {
		return err
	}
	return b.file(copied, "rooms.db", -1)
}

// backupDir begins the name of the folder in which rooms.db is copied. One that a
// killed node has left is removed at the next start.
const backupDir = "backup-"

func (n *Node) clearBackups() error {
	left, err := filepath.Glob(filepath.Join(n.cfg.DataDir, backupDir+"*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// backUpEvidence takes the countersignatures first, so that the log has all that they
// are about, and certificates and policies last, which the log needs.
func (n *Node) backUpEvidence(b *backup) error {
	if n.testimony.log == nil {
		return nil
	}
	at := filepath.Join(n.cfg.DataDir, "evidence")
	for _, name := range []string{"countersignatures.json", "witness.json"} {
		if err := b.file(filepath.Join(at, name), path.Join("evidence", name), -1); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := b.file(filepath.Join(at, "log"), "evidence/log", n.testimony.log.Bytes()); err != nil {
		return err
	}
	return b.tree(n.cfg.DataDir, "evidence", func(name string) bool {
		switch name {
		case "evidence/countersignatures.json", "evidence/witness.json", "evidence/log": // have been taken
			return false
		case "evidence/hashes", "evidence/lock", "evidence/probe": // made anew
			return false
		}
		return true
	})
}

func (n *Node) backUpRest(b *backup) error {
	entries, err := os.ReadDir(n.cfg.DataDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if notBackedUp[e.Name()] || strings.HasPrefix(e.Name(), backupDir) {
			continue
		}
		if err := b.tree(n.cfg.DataDir, e.Name(), nil); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) backUpKeys(b *backup) error {
	if err := b.tree(n.cfg.DataDir, "keys", func(name string) bool { return name != storeKey }); err != nil {
		return err
	}
	return b.file(cmp.Or(n.cfg.Store.KeyFile, filepath.Join(n.cfg.DataDir, filepath.FromSlash(storeKey))), storeKey, -1)
}

// tree takes the files below a folder of the data directory.
func (b *backup) tree(dataDir, folder string, want func(name string) bool) error {
	err := filepath.WalkDir(filepath.Join(dataDir, folder), func(file string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dataDir, file)
		if err != nil {
			return err
		}
		if name = filepath.ToSlash(name); want != nil && !want(name) {
			return nil
		}
		err = b.file(file, name, -1)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was there a moment ago, and has been replaced or is not needed
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inMemory bounds a file that is read before its size is told: it may become another
// while it is copied.
const inMemory = 16 << 20

// file takes the first bytes of a file; all that there is now if size is negative.
func (b *backup) file(from, name string, size int64) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	if size >= 0 {
		return b.add(name, size, f)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > inMemory {
		return b.add(name, info.Size(), f)
	}
	data, err := io.ReadAll(io.LimitReader(f, inMemory))
	if err != nil {
		return err
	}
	return b.add(name, int64(len(data)), bytes.NewReader(data))
}

func (b *backup) add(name string, size int64, r io.Reader) error {
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: b.now}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(b.tar, sum), r, size); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	fmt.Fprintf(&b.manifest, "%x  %s\n", sum.Sum(nil), name)
	return nil
}

func (b *backup) close() error {
	text := b.manifest.String()
	if err := b.tar.WriteHeader(&tar.Header{Name: BackupManifest, Mode: 0o600, Size: int64(len(text)), ModTime: b.now}); err != nil {
		return err
	}
	if _, err := io.WriteString(b.tar, text); err != nil {
		return err
	}
	return b.tar.Close()
}
