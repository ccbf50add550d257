package vault

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// writeTemp writes a new file of mode 0600 in dir, flushed to the disk, and
// returns its path.
func writeTemp(dir string, b []byte) (path string, err error) { return writeTempOn(osLayer{}, dir, b) }

func writeTempOn(l layer, dir string, b []byte) (path string, err error) {
	path = filepath.Join(dir, ".new-"+rand.Text())
	f, err := l.create(path)
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		l.remove(path) //nolint:errcheck // the error that matters is the first
		return "", err
	}
	return path, nil
}

// replaceFile puts b in place of dir/name in one step, so that a reader or a
// crash sees the old content or the new.
func replaceFile(l layer, dir, name string, b []byte) error {
	tmp, err := writeTempOn(l, dir, b)
	if err != nil {
		return explain(err)
	}
	if err := l.rename(tmp, filepath.Join(dir, name)); err != nil {
		l.remove(tmp) //nolint:errcheck // the error that matters is the first
		return explain(err)
	}
	return l.syncDir(dir)
}

// syncDir makes new names in dir survive a power loss.
func syncDir(dir string) error { return osLayer{}.syncDir(dir) }

// freeSpace returns the bytes that may still be written below dir.
func freeSpace(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %q: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// explain marks the errors of a full disk or an exhausted quota as ErrDiskFull.
func explain(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// tryLock takes the lock that the writer of a recording holds while it lives.
// The kernel gives it back when the process dies, however it dies. A nil file
// without an error means that somebody else holds it.
func tryLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	held, err := flock(f)
	if err == nil && !held {
		return f, nil
	}
	f.Close()
	return nil, err
}

// lockFile is the file of a recording's folder that its writer holds.
const lockFile = "lock"

// flock takes the lock, unless somebody holds it.
func flock(f *os.File) (held bool, err error) {
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}
