package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// adminSocket is the name of the operator's socket in a node's data directory.
// Only the user that runs the node can open it; attendees cannot reach it at
// all (A19).
const adminSocket = "admin.sock"

// socketPath names a directory's socket by way of the open directory, because
// the path of a Unix socket holds no more than 107 bytes, and a data directory
// may lie deeper. The path is good while the directory is open.
func socketPath(dir *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), adminSocket)
}

// DialAdmin connects to the running node whose data directory this is.
func DialAdmin(ctx context.Context, dataDir string) (net.Conn, error) {
	dir, err := os.Open(dataDir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socketPath(dir))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(dataDir, adminSocket), errors.Unwrap(err))
	}
	return conn, nil
}

// adminListener is the socket with the directory that holds its path open.
type adminListener struct {
	net.Listener
	dir *os.File
}

// Close removes the socket.
func (l adminListener) Close() error { return errors.Join(l.Listener.Close(), l.dir.Close()) }

// listenAdmin makes the socket anew; one of an earlier process is replaced.
func listenAdmin(dataDir string) (net.Listener, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.Open(dataDir)
	if err != nil {
		return nil, err
	}
	path := socketPath(dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, dir.Close())
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	l := adminListener{ln, dir}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
