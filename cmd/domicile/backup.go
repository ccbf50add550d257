package main

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node"
)

type backupCmd struct {
	Config string `required:"" type:"path" help:"The configuration of an origin that runs." placeholder:"node.yaml"`
	To     string `required:"" type:"path" help:"The archive to write; a file of that name is not overwritten." placeholder:"FILE"`
	Keys   bool   `help:"Take the keys along. Who has them and the archive can read everything."`
}

// Run has the node write the archive, and reads it again before it says so.
func (c *backupCmd) Run(ctx context.Context) error {
	y, err := configs.LoadNode(c.Config)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(c.To); !errors.Is(err, fs.ErrNotExist) {
		return usage("--to %q: there is such a file already", c.To)
	}
	f, err := os.CreateTemp(filepath.Dir(c.To), ".backup-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err = fetchBackup(ctx, y.DataDir, c.Keys, f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	keyFile := cmp.Or(y.Store.KeyFile, filepath.Join(y.DataDir, "keys", "store.key"))
	found, err := checkBackup(ctx, f.Name(), keyFile)
	if err != nil {
		return fmt.Errorf("the backup does not read as it was written: %w", err)
	}
	if err := os.Rename(f.Name(), c.To); err != nil {
		return err
	}
	fmt.Printf("%s: %d files, %d bytes, %d rooms: read again, and whole\n", c.To, found.files, found.bytes, found.rooms)
	if !c.Keys {
		fmt.Printf("without the keys: keep a copy of %s and %s elsewhere, or nobody opens it\n", keyFile, filepath.Join(y.DataDir, "keys"))
	}
	return nil
}

// fetchBackup has the node write the archive to w. It takes as long as it takes.
func fetchBackup(ctx context.Context, dataDir string, keys bool, w io.Writer) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return node.DialAdmin(ctx, dataDir) }}}
	defer client.CloseIdleConnections()
	path := "http://node/backup"
	if keys {
		path += "?keys=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the node: %w (is it running, and are you its user? The directory of one that is stopped is copied as it is)", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return fmt.Errorf("ask the node: %s: %s", resp.Status, b)
	}
	if _, err = io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("ask the node: %w (its log says why)", err)
	}
	return nil
}

// backupFound is what was read again.
type backupFound struct {
	files, rooms int
	bytes        int64
}

// checkBackup reads an archive, compares it with its manifest, and opens its rooms.
func checkBackup(ctx context.Context, file, keyFile string) (found backupFound, err error) {
	f, err := os.Open(file)
	if err != nil {
		return found, err
	}
	defer f.Close()
	dir, err := os.MkdirTemp(filepath.Dir(file), ".backup-")
	if err != nil {
		return found, err
	}
	defer os.RemoveAll(dir)
	rooms := filepath.Join(dir, "rooms.db")
	var sums strings.Builder
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return found, fmt.Errorf("it is cut: %w", err)
		}
		if h.Name == node.BackupManifest {
			b, err := io.ReadAll(io.LimitReader(r, maxAnswer))
			if err == nil && string(b) != sums.String() {
				err = errors.New("its files are not those of its manifest")
			}
			if err != nil {
				return found, err
			}
			break
		}
		sum := sha256.New()
		if err := takeEntry(r, h.Name == "rooms.db", rooms, sum); err != nil {
			return found, err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sum.Sum(nil), h.Name)
		found.files, found.bytes = found.files+1, found.bytes+h.Size
	}
	found.rooms, err = store.Verify(ctx, rooms, keyFile)
	return found, err
}

// takeEntry sums up a file of the archive, and puts it on the disk if it is to be opened.
func takeEntry(r io.Reader, keep bool, to string, sum io.Writer) error {
	if !keep {
		_, err := io.Copy(sum, r)
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.MultiWriter(sum, f), r)
	return errors.Join(err, f.Close())
}
