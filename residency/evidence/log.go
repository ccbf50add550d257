package evidence

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/domicile/domicile/residency"
)

var (
	// ErrInUse says that another process has the log open.
	ErrInUse = errors.New("the log is in use by another process")
	// ErrBusy says that more receipts wait for the disk than are kept waiting.
	ErrBusy = errors.New("the log's queue is full")
	// ErrClosed says that the log was closed.
	ErrClosed = errors.New("the log is closed")
	// ErrDamaged says that the log is not as it was written.
	ErrDamaged = errors.New("the evidence log is damaged")
	// ErrNoReceipts says that the log holds nothing of the room.
	ErrNoReceipts = errors.New("the log holds no receipt of this room")
)

// maxWaiting bounds what waits for the disk, in bytes: some 12,000 receipts,
// more than a busy mesh writes in a minute. What comes then is refused.
const maxWaiting = 8 << 20

// file is what a log's file must be able to do; a test has one that fails.
type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Close() error
}

// LogOptions are what a log needs to know.
type LogOptions struct {
	Node residency.NodeName // the origin

	// Identity returns the certificate and key of the moment; it signs heads.
	Identity func() (*x509.Certificate, crypto.Signer)
}

// Log is an append-only log of receipts in a directory of its own. It is safe
// for concurrent use; one process at a time has it open. It starts no goroutine.
type Log struct {
	// Static after OpenLog.
	dir  string
	opts LogOptions
	lock *os.File
	file file
	turn chan struct{} // one token: whoever has it writes

	probe *os.File // written over and over, to see whether the disk takes it

	// Owned by whoever has the token.
	tree *tree
	end  int64 // of what was promised, in bytes of the file
	id   string

	// Guarded by mu.
	mu       sync.Mutex
	waiting  []*batch
	bytes    int // in waiting
	head     Head
	signed   []byte // the newest head, nil before the first receipt
	rooms    map[Pseudonym][]place
	vouchers map[residency.NodeName]voucher // newest countersignature of each node
	recent   recent                         // the newest receipts
	size     int64                          // of what was promised, in bytes: end, for those who only ask
	failed   error                          // why the last append failed, nil if it did not
	broken   error                          // why nothing can be appended until the log is opened again
}

// batch is the receipts of one call of Append.
type batch struct {
	lines [][]byte
	rooms []Pseudonym
	now   time.Time
	first int64
	err   error
	done  bool // owned by whoever has the token
}

// OpenLog opens the log in dir, making it if there is none. It reads all of it:
// a tail that was promised to nobody is cut, anything else that is not as it was
// written, or not as other nodes countersigned it, is ErrDamaged.
func OpenLog(dir string, opts LogOptions) (*Log, error) {
	l := &Log{dir: dir, opts: opts, turn: make(chan struct{}, 1)}
	if err := l.open(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("open evidence log %s: %w", dir, err)
	}
	l.turn <- struct{}{}
	return l, nil
}

func (l *Log) open() (err error) {
	for _, d := range []string{l.dir, l.path(certificateDir), l.path(policyDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if l.lock, err = lockDir(l.dir); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path("log"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	l.file = f
	hashes, err := os.OpenFile(l.path("hashes"), os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	l.tree = &tree{f: hashes}
	if l.probe, err = os.OpenFile(l.path("probe"), os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
		return err
	}
	s, err := scanLog(f, l.tree)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := l.cutTail(f, s.end); err != nil {
		return err
	}
	l.head, l.signed, l.end, l.size, l.rooms, l.recent = s.head, s.signed, s.end, s.end, s.rooms, s.recent
	if l.id = s.head.Log; l.id == "" {
		l.id = newLogID()
	}
	if err := l.checkHead(); err != nil {
		return err
	}
	return l.loadVouchers()
}

// cutTail removes what was promised to nobody, for good, and sees to it that a
// file that is new is there after a power loss.
func (l *Log) cutTail(f *os.File, end int64) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() == end && end > 0 {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return errors.Join(f.Sync(), syncDir(l.dir))
}

// checkHead verifies the newest head: who changed receipts on the disk and made
// the sums right again has no key.
func (l *Log) checkHead() error {
	if l.signed == nil {
		return nil
	}
	cert, err := l.Certificate(l.head.Certificate)
	if err != nil {
		return fmt.Errorf("%w: the certificate under its newest head: %w", ErrDamaged, err)
	}
	if _, err := OpenHead(l.signed, cert); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

// Append puts signed receipts into the log and returns the number of the first.
// It returns when they are on the disk, under a signed head. Receipts of calls
// that come meanwhile share the next fsync. That a receipt is genuine is the
// caller's to see to, with Open. An error means that none of them is in the log.
func (l *Log) Append(now time.Time, signed ...[]byte) (first int64, err error) {
	b := &batch{now: now}
	size := 0
	for _, line := range signed {
		room, err := roomOf(line)
		if err != nil {
			return 0, fmt.Errorf("append to evidence log: %w", err)
		}
		if _, _, err := split(line); err != nil {
			return 0, fmt.Errorf("append to evidence log: %w", err)
		}
		b.lines, b.rooms = append(b.lines, line), append(b.rooms, room)
		size += len(line)
	}
	if len(b.lines) == 0 {
		return 0, errors.New("append to evidence log: nothing")
	}
	if err := l.enqueue(b, size); err != nil {
		return 0, fmt.Errorf("append to evidence log: %w", err)
	}
	<-l.turn
	if !b.done { // else somebody else's fsync had it
		l.commit()
	}
	l.turn <- struct{}{}
	if b.err != nil {
		return 0, fmt.Errorf("append to evidence log: %w", b.err)
	}
	return b.first, nil
}

func (l *Log) enqueue(b *batch, size int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.broken != nil:
		return l.broken
	case l.bytes+size > maxWaiting:
		l.failed = ErrBusy
		return ErrBusy
	}
	l.waiting, l.bytes = append(l.waiting, b), l.bytes+size
	return nil
}

// commit writes all that waits. The caller has the token.
func (l *Log) commit() {
	l.mu.Lock()
	batches, broken := l.waiting, l.broken
	l.waiting, l.bytes = nil, 0
	l.mu.Unlock()

	err := broken
	var places []place
	var head Head
	var signed []byte
	if err == nil {
		places, head, signed, err = l.write(batches)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	for _, b := range batches {
		b.done, b.err = true, err
	}
	if err != nil {
		return
	}
	l.head, l.signed, l.size = head, signed, l.end
	for _, b := range batches {
		b.first = places[0].index
		for i, room := range b.rooms {
			l.rooms[room] = append(l.rooms[room], places[i])
			l.recent.add(b.lines[i])
		}
		places = places[len(b.rooms):]
	}
}

// write puts batches and a head over them behind the end of the log.
func (l *Log) write(batches []*batch) (places []place, h Head, signed []byte, err error) {
	size := l.tree.size
	defer func() {
		if err != nil {
			err = errors.Join(err, l.undo(size))
		}
	}()
	var out []byte
	for _, b := range batches {
		for _, line := range b.lines {
			offset := l.end + int64(len(out))
			out = appendFrame(out, frameReceipt, line)
			places = append(places, place{l.tree.size, offset, int32(l.end + int64(len(out)) - offset)})
			if err := l.tree.add(line); err != nil {
				return nil, h, nil, err
			}
		}
	}
	h, signed, err = l.signHead(batches[len(batches)-1].now)
	if err != nil {
		return nil, h, nil, err
	}
	out = appendFrame(out, frameHead, signed)
	if err := l.tree.flush(); err != nil {
		return nil, h, nil, err
	}
	if _, err := l.file.WriteAt(out, l.end); err != nil {
		return nil, h, nil, err
	}
	if err := l.file.Sync(); err != nil {
		l.breaks(err) // whether it is on the disk nobody knows now
		return nil, h, nil, err
	}
	l.end += int64(len(out))
	return places, h, signed, nil
}

// undo makes the log what it was before a write that failed.
func (l *Log) undo(size int64) error {
	err := l.tree.cut(size)
	if err == nil {
		err = l.file.Truncate(l.end)
	}
	if err != nil {
		l.breaks(err)
	}
	return err
}

func (l *Log) breaks(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = fmt.Errorf("the log must be opened again: %w", err)
}

func (l *Log) signHead(now time.Time) (Head, []byte, error) {
	cert, key := l.opts.Identity()
	if cert == nil || key == nil {
		return Head{}, nil, errors.New("this node has no certificate to sign a head with")
	}
	if err := l.KeepCertificate(cert.Raw); err != nil {
		return Head{}, nil, err
	}
	root, err := tlog.TreeHash(l.tree.size, l.tree)
	if err != nil {
		return Head{}, nil, err
	}
	h := Head{Version: headVersion, Origin: l.opts.Node, Certificate: Fingerprint(cert.Raw), Log: l.id,
		Size: l.tree.size, Root: textOf(root), Time: Millis(now)}
	signed, err := h.sign(key)
	return h, signed, err
}

// Head returns the newest signed head, nil before the first receipt.
func (l *Log) Head() (Head, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head, l.signed
}

// Bytes is the size of the log's file.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Err says why evidence cannot be written, nil if the last attempt worked. It is
// what Request.NoEvidence is filled from.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return l.broken
	}
	return l.failed
}

// Has reports whether a receipt is among the newest of the log: who was not told
// that a receipt arrived sends it again, and it need not stand there twice. Of what
// is older it knows nothing; a receipt that does stand there twice counts once.
func (l *Log) Has(signed []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.recent.has(signed)
}

// Probe finds out whether there is room for a batch of receipts before there is one
// to write, so that a full disk is noticed at once and not with the next receipt.
func (l *Log) Probe() error {
	l.mu.Lock()
	broken := l.broken
	l.mu.Unlock()
	if broken != nil {
		return broken
	}
	return probe(l.probe)
}

// Announce makes what another node is shown: the newest head, and the proof that
// it continues the log of from receipts, 0 if the node was shown nothing of it.
func (l *Log) Announce(from int64) (Announcement, error) {
	h, signed := l.Head()
	if signed == nil || from < 0 || from > h.Size {
		return Announcement{}, fmt.Errorf("announce head: no proof from %d to %d receipts", from, h.Size)
	}
	a := Announcement{Head: string(signed), From: from, Proof: []Hash{}}
	if from == 0 {
		return a, nil
	}
	proof, err := l.prove(h.Size, from)
	a.Proof = proof
	return a, err
}

// prove returns the proof that the log of size receipts continues that of old.
func (l *Log) prove(size, old int64) ([]Hash, error) {
	proof, err := tlog.ProveTree(size, old, l.promised())
	if err != nil {
		return nil, fmt.Errorf("prove that the log continues: %w", err)
	}
	return textsOf(proof), nil
}

// promised reads the hashes of what is on the disk; the tree's own reader
// belongs to whoever writes.
func (l *Log) promised() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, n := range indexes {
			if _, err := l.tree.f.ReadAt(out[i][:], n*tlog.HashSize); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// Close waits for what is being written and gives the log back.
func (l *Log) Close() error {
	<-l.turn
	l.mu.Lock()
	closed := errors.Is(l.broken, ErrClosed)
	l.broken = ErrClosed
	l.mu.Unlock()
	l.turn <- struct{}{}
	if closed {
		return nil
	}
	return l.closeFiles()
}

func (l *Log) closeFiles() error {
	var errs []error
	if l.tree != nil {
		errs = append(errs, l.tree.f.Close())
	}
	if l.file != nil {
		errs = append(errs, l.file.Close())
	}
	if l.probe != nil {
		errs = append(errs, l.probe.Close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
	}
	return errors.Join(errs...)
}
