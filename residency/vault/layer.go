package vault

import (
	"errors"
	"os"
	"syscall"
)

// layer is what a recording is written through: the file system, or a test's. What it
// is asked for, and in which order, decides what is left after a power loss:
//
//   - A document is written beside the one that is there, flushed, and put in its
//     place; then the directory is flushed. Either one is left, whole.
//   - A track's header and first record are flushed before the document names the
//     track, and the directory with the document: a track that is named can be opened.
//   - Clusters are handed to the kernel one by one, which is enough for a process that
//     dies, and flushed by Sync, which the recorder calls each half second: so much is
//     lost with the power, and whatever of a cluster has reached the disk before then
//     is a torn end, which a reader stops at.
//   - A track's final record is flushed before the document repeats its tag: a track
//     that the document calls finished is.
type layer interface {
	mkdir(path string) error
	create(path string) (layerFile, error) // for writing; an error if it is there
	rename(from, to string) error
	remove(path string) error
	syncDir(path string) error
}

// layerFile is a file that only grows.
type layerFile interface {
	Write(b []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Datasync() error // what was written, with the size, and no more
	Close() error
}

// osLayer is the file system.
type osLayer struct{}

type osFile struct{ *os.File }

func (f osFile) Datasync() error { return syscall.Fdatasync(int(f.Fd())) }

func (osLayer) mkdir(path string) error      { return os.Mkdir(path, 0o700) }
func (osLayer) rename(from, to string) error { return os.Rename(from, to) }
func (osLayer) remove(path string) error     { return os.Remove(path) }

func (osLayer) create(path string) (layerFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osLayer) syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
