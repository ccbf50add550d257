package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"
)

// replaceFile puts b in place of dir/name in one step, so that a reader or a
// crash sees the old content or the new.
func replaceFile(dir, name string, b []byte) error {
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(dir)
}

// syncDir makes new names in dir survive a power loss.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// probeSize is what has to be free for the log to count as writable: the receipts of
// some seconds, 1,000 of 1 kB.
const probeSize = 1 << 20

// probe asks for room, and writes over the same few bytes: a disk that takes no write
// at all says so then, and one that does is not worn out.
func probe(f *os.File) error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(f.Name()), &s); err != nil {
		return err
	}
	if free := s.Bavail * uint64(s.Bsize); free < probeSize {
		return fmt.Errorf("%d bytes are free: %w", free, syscall.ENOSPC)
	}
	_, err := f.WriteAt([]byte("this file says whether the disk takes anything\n"), 0)
	return err
}

// recent holds the hashes of the newest receipts, in two generations of which the
// older is forgotten when the newer is full.
type recent struct{ newer, older map[tlog.Hash]struct{} }

// maxRecent is three times what one node has waiting at most: 1 MiB.
const maxRecent = 1 << 15

func (r *recent) add(line []byte) { r.addHash(tlog.RecordHash(line)) }

func (r *recent) addHash(h tlog.Hash) {
	if r.newer == nil || len(r.newer) >= maxRecent {
		r.newer, r.older = map[tlog.Hash]struct{}{}, r.newer
	}
	r.newer[h] = struct{}{}
}

func (r *recent) has(line []byte) bool {
	h := tlog.RecordHash(line)
	_, newer := r.newer[h]
	_, older := r.older[h]
	return newer || older
}

// lockDir takes the lock that whoever writes a log holds while it lives. The
// kernel gives it back when the process dies, however it dies.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}

// tree is the hashes of a log as tlog numbers them, in a file that can be made
// anew from the receipts and so needs no fsync.
type tree struct {
	f     *os.File
	size  int64       // receipts
	base  int64       // hashes in the file
	fresh []tlog.Hash // and those that are not yet
}

// maxFresh bounds what a scan keeps before it writes, in hashes: 2 MiB.
const maxFresh = 1 << 16

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		if n >= t.base+int64(len(t.fresh)) {
			return nil, fmt.Errorf("hash %d: there are %d", n, t.base+int64(len(t.fresh)))
		}
		if n >= t.base {
			out[i] = t.fresh[n-t.base]
		} else if _, err := t.f.ReadAt(out[i][:], n*tlog.HashSize); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (t *tree) add(line []byte) error { return t.addHash(tlog.RecordHash(line)) }

func (t *tree) addHash(h tlog.Hash) error {
	hashes, err := tlog.StoredHashesForRecordHash(t.size, h, t)
	if err != nil {
		return err
	}
	t.fresh = append(t.fresh, hashes...)
	t.size++
	if len(t.fresh) >= maxFresh {
		return t.flush()
	}
	return nil
}

func (t *tree) flush() error {
	b := make([]byte, 0, len(t.fresh)*tlog.HashSize)
	for _, h := range t.fresh {
		b = append(b, h[:]...)
	}
	if _, err := t.f.WriteAt(b, t.base*tlog.HashSize); err != nil {
		return err
	}
	t.base += int64(len(t.fresh))
	t.fresh = t.fresh[:0]
	return nil
}

// cut forgets all receipts from size on. What is left in the file behind them
// is written over by the next.
func (t *tree) cut(size int64) error {
	if err := t.flush(); err != nil {
		return err
	}
	t.size, t.base = size, tlog.StoredHashCount(size)
	return nil
}

// scan is what a log's file holds up to its last head.
type scan struct {
	tree   *tree
	head   Head
	signed []byte
	end    int64 // behind the last head
	rooms  map[Pseudonym][]place
	recent recent
}

// place is where a receipt stands.
type place struct {
	index  int64 // in the tree
	offset int64 // of its frame in the file
	size   int32 // of its frame
}

// scanLog reads a log from its start. What stands behind the last head was
// promised to nobody and is left out; anything else that is not as it was
// written is an error.
func scanLog(f *os.File, t *tree) (*scan, error) {
	s := &scan{tree: t, rooms: map[Pseudonym][]place{}}
	r := bufio.NewReaderSize(f, 1<<20)
	var batch []place // since the last head
	var names []Pseudonym
	for offset := int64(0); ; {
		b, err := r.Peek(frameBefore + MaxStatement + frameAfter)
		if err != nil && err != io.EOF {
			return nil, err
		}
		if len(b) == 0 {
			break
		}
		kind, line, size, err := readFrame(b)
		if err != nil {
			if later, scanErr := headFrom(f, offset); later || scanErr != nil {
				return nil, errors.Join(fmt.Errorf("at byte %d: %w, and there are heads behind it", offset, err), scanErr)
			}
			break
		}
		if kind == frameHead {
			if err := s.accept(line); err != nil {
				return nil, fmt.Errorf("at byte %d: %w", offset, err)
			}
			s.end = offset + int64(size)
			for i, p := range batch {
				s.rooms[names[i]] = append(s.rooms[names[i]], p)
			}
			batch, names = batch[:0], names[:0]
		} else {
			room, err := roomOf(line)
			if err != nil {
				return nil, fmt.Errorf("at byte %d: %w", offset, err)
			}
			batch, names = append(batch, place{t.size, offset, int32(size)}), append(names, room)
			h := tlog.RecordHash(line)
			if err := t.addHash(h); err != nil {
				return nil, err
			}
			s.recent.addHash(h)
		}
		offset += int64(size)
		if _, err := r.Discard(size); err != nil {
			return nil, err
		}
	}
	return s, t.cut(s.head.Size)
}

// accept compares a head with what stands before it.
func (s *scan) accept(line []byte) error {
	h, err := PeekHead(line)
	if err != nil {
		return err
	}
	if h.Size != s.tree.size || s.head.Log != "" && h.Log != s.head.Log {
		return fmt.Errorf("a head over %d receipts of log %s stands behind %d of log %s", h.Size, h.Log, s.tree.size, s.head.Log)
	}
	root, err := tlog.TreeHash(h.Size, s.tree)
	if err != nil {
		return err
	}
	if textOf(root) != h.Root {
		return fmt.Errorf("the %d receipts before this head are not those it was signed for", h.Size)
	}
	s.head, s.signed = h, append([]byte(nil), line...)
	return nil
}

// headFrom looks for a head anywhere behind a damaged frame.
func headFrom(f *os.File, offset int64) (bool, error) {
	const step = 1 << 20
	buf := make([]byte, step+frameBefore+MaxStatement+frameAfter)
	for offset++; ; offset += step {
		n, err := f.ReadAt(buf, offset)
		if err != nil && err != io.EOF {
			return false, err
		}
		if holdsHead(buf[:n]) {
			return true, nil
		}
		if n < len(buf) {
			return false, nil
		}
	}
}
