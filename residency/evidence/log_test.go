package evidence

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func openLog(t testing.TB, dir string, by holder) *Log {
	t.Helper()
	l, err := OpenLog(dir, optionsOf(by))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func optionsOf(by holder) LogOptions {
	return LogOptions{Node: by.name, Identity: func() (*x509.Certificate, crypto.Signer) { return by.cert, by.key }}
}

// receipts writes n receipts of a chain.
func receipts(t testing.TB, c *Chain, by, peer holder, n int) (lines [][]byte) {
	for range n {
		lines = append(lines, write(t, c, sent(peer, 1000), by))
	}
	return lines
}

func add(t testing.TB, l *Log, lines ...[]byte) int64 {
	t.Helper()
	first, err := l.Append(noon, lines...)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func TestLogKeepsItsPromise(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	if _, signed := l.Head(); signed != nil {
		t.Error("an empty log has a head")
	}
	lines := receipts(t, NewChain(room(t, "RM_a"), "waw", noon), waw, fra, 5)
	if first := add(t, l, lines[:2]...); first != 0 {
		t.Errorf("the first receipt has number %d", first)
	}
	if first := add(t, l, lines[2:]...); first != 2 {
		t.Errorf("the third receipt has number %d", first)
	}
	h, signed := l.Head()
	if _, err := OpenHead(signed, fra.cert); err != nil || h.Size != 5 {
		t.Errorf("head over %d receipts: %v", h.Size, err)
	}
	if _, err := OpenLog(dir, optionsOf(fra)); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	l.Close()
	again := openLog(t, dir, fra)
	if h2, _ := again.Head(); h2 != h {
		t.Errorf("after opening again the head is %+v, was %+v", h2, h)
	}
	if first := add(t, again, receipts(t, NewChain(room(t, "RM_b"), "waw", noon), waw, fra, 1)...); first != 5 {
		t.Errorf("the next receipt has number %d", first)
	}
}

// A log that a crash or a thief cut anywhere is what it was at some head, never
// anything else.
func TestLogCutAnywhere(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	heads := map[int64]Head{0: {}}
	c := NewChain(room(t, "RM_a"), "waw", noon)
	for range 3 {
		add(t, l, receipts(t, c, waw, fra, 2)...)
		h, _ := l.Head()
		heads[h.Size] = h
	}
	l.Close()
	whole, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(whole); n += 67 {
		if err := os.WriteFile(filepath.Join(dir, "log"), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		cut, err := OpenLog(dir, optionsOf(fra))
		if err != nil {
			t.Fatalf("cut to %d bytes of %d: %v", n, len(whole), err)
		}
		h, _ := cut.Head()
		if want, ok := heads[h.Size]; !ok || h != want {
			t.Fatalf("cut to %d bytes of %d: head over %d receipts, which was never promised", n, len(whole), h.Size)
		}
		if fi, _ := os.Stat(filepath.Join(dir, "log")); h.Size == 0 && fi.Size() != 0 {
			t.Fatalf("cut to %d bytes: %d are left of a batch that was promised to nobody", n, fi.Size())
		}
		cut.Close()
	}
}

func TestLogDamagedInTheMiddleIsRefused(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	c := NewChain(room(t, "RM_a"), "waw", noon)
	add(t, l, receipts(t, c, waw, fra, 3)...)
	middle := l.end
	add(t, l, receipts(t, c, waw, fra, 1)...)
	l.Close()
	whole, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for i := int64(0); i < middle; i += 31 {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		if err := os.WriteFile(filepath.Join(dir, "log"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := OpenLog(dir, optionsOf(fra)); !errors.Is(err, ErrDamaged) {
			l.Close()
			t.Fatalf("byte %d changed: opened with %v", i, err)
		}
	}
}

// Who makes the sums right again after a change has no key for the head.
func TestLogForgedOnTheDiskIsRefused(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	forger := newHolder(t, newCA(t), "fra", "DE")
	dir, other := t.TempDir(), t.TempDir()
	c := NewChain(room(t, "RM_a"), "waw", noon)
	l := openLog(t, dir, fra)
	add(t, l, receipts(t, c, waw, fra, 3)...)
	l.Close()
	f := openLog(t, other, forger)
	add(t, f, receipts(t, c, waw, fra, 2)...)
	f.Close()
	b, err := os.ReadFile(filepath.Join(other, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(dir, optionsOf(fra)); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened with %v", err)
	}
}

// The tail that another node countersigned cannot be lost in silence.
func TestLogShorterThanCountersignedIsRefused(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	c := NewChain(room(t, "RM_a"), "waw", noon)
	add(t, l, receipts(t, c, waw, fra, 3)...)
	end := l.end
	add(t, l, receipts(t, c, waw, fra, 1)...)
	h, _ := l.Head()
	signed, err := Countersign(h, "waw", 1, waw.cert, waw.key, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Countersigned(signed, waw.cert); err != nil {
		t.Fatal(err)
	}
	l.Close()
	openLog(t, dir, fra).Close() // whole, it opens
	if err := os.Truncate(filepath.Join(dir, "log"), end); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(dir, optionsOf(fra)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "tail is lost") {
		t.Errorf("opened with %v", err)
	}
}

// failing is a disk that fails when told.
type failing struct {
	file
	write, sync error
}

func (f *failing) WriteAt(b []byte, off int64) (int, error) {
	if f.write != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], off)
		return n, f.write
	}
	return f.file.WriteAt(b, off)
}

func (f *failing) Sync() error {
	if f.sync != nil {
		return f.sync
	}
	return f.file.Sync()
}

func TestLogSaysWhenItCannotWrite(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	disk := &failing{file: l.file}
	l.file = disk
	c := NewChain(room(t, "RM_a"), "waw", noon)
	lines := receipts(t, c, waw, fra, 4)
	add(t, l, lines[0])

	disk.write = syscall.ENOSPC
	if _, err := l.Append(noon, lines[1]); !errors.Is(err, syscall.ENOSPC) || l.Err() == nil {
		t.Errorf("full disk: %v, then %v", err, l.Err())
	}
	disk.write = nil
	if first := add(t, l, lines[1]); first != 1 || l.Err() != nil {
		t.Errorf("with room again: number %d, %v", first, l.Err())
	}
	disk.sync = io.ErrUnexpectedEOF
	if _, err := l.Append(noon, lines[2]); err == nil {
		t.Error("nothing said of an fsync that failed")
	}
	disk.sync = nil
	if _, err := l.Append(noon, lines[3]); err == nil || l.Err() == nil {
		t.Error("appended after an fsync that failed: nobody knows what is on the disk")
	}
	l.Close()
	again := openLog(t, dir, fra)
	if h, _ := again.Head(); h.Size != 2 {
		t.Errorf("%d receipts, want the 2 that were promised", h.Size)
	}
	if _, err := l.Append(noon, lines[3]); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestLogRefusesWhatIsNoReceipt(t *testing.T) {
	l := openLog(t, t.TempDir(), newHolder(t, newCA(t), "fra", "DE"))
	for _, line := range []string{"", "x", `{"version":1,"room":"`, `{"version":1,"room":"` + strings.Repeat("0", 32) + `"} 00`, strings.Repeat("x", MaxStatement+1)} {
		if _, err := l.Append(noon, []byte(line)); err == nil {
			t.Errorf("appended %.50q", line)
		}
	}
}

func TestLogAppendsOfManySharedAndAllThere(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	l := openLog(t, t.TempDir(), fra)
	var all sync.WaitGroup
	numbers := make(chan int64, 100)
	for i := range 10 {
		lines := receipts(t, NewChain(room(t, fmt.Sprint("RM_", i)), "waw", noon), waw, fra, 10)
		all.Go(func() {
			for _, line := range lines {
				n, err := l.Append(noon, line)
				if err != nil {
					t.Error(err)
				}
				numbers <- n
			}
		})
	}
	all.Wait()
	close(numbers)
	seen := map[int64]bool{}
	for n := range numbers {
		seen[n] = true
	}
	if h, _ := l.Head(); len(seen) != 100 || h.Size != 100 {
		t.Errorf("%d numbers, %d receipts, want 100", len(seen), h.Size)
	}
}

func TestProofOfManyLeaves(t *testing.T) {
	for size := int64(1); size <= 40; size++ {
		tr := memoryTree(t, size)
		root, err := tlog.TreeHash(size, tr)
		if err != nil {
			t.Fatal(err)
		}
		for pattern := int64(1); pattern < 1<<min(size, 9); pattern++ {
			var leaves []int64
			var hashes []tlog.Hash
			for i := range size {
				if pattern>>(i%9)&1 == 1 {
					leaves = append(leaves, i)
					hashes = append(hashes, tlog.RecordHash(fmt.Append(nil, i)))
				}
			}
			proof, err := proveLeaves(size, leaves, tr)
			if err != nil {
				t.Fatal(err)
			}
			plain, _ := hashesOf(proof)
			got, err := rootOf(size, leaves, hashes, plain)
			if err != nil || got != root {
				t.Fatalf("leaves %v of %d: root %v (%v)", leaves, size, got, err)
			}
			hashes[0][0] ^= 1
			if got, _ := rootOf(size, leaves, hashes, plain); got == root {
				t.Fatalf("leaves %v of %d: a changed leaf has the same root", leaves, size)
			}
			if _, err := rootOf(size, leaves, hashes, append(plain, root)); err == nil {
				t.Fatal("a proof that is too long passes")
			}
		}
	}
}

// memoryTree is a tree whose receipts are numbers.
func memoryTree(t *testing.T, size int64) *tree {
	tr := &tree{}
	for i := range size {
		if err := tr.add(fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func TestWitnessFindsWhatDoesNotContinue(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	c := NewChain(room(t, "RM_a"), "waw", noon)
	lines := receipts(t, c, waw, fra, 8)
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	w := NewWitness()
	show := func(from *Log, want string) {
		t.Helper()
		_, size := w.Newest("fra")
		h, _ := from.Head()
		a, err := from.Announce(min(size, h.Size))
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Observe(a, "fra", fra.cert)
		var complaint *Complaint
		switch {
		case want == "" && err != nil:
			t.Errorf("complains: %v", err)
		case want != "" && (!errors.As(err, &complaint) || complaint.Kind != want):
			t.Errorf("says %v, want %s", err, want)
		}
		// Restarts forget nothing.
		b, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		w = NewWitness()
		if err := json.Unmarshal(b, w); err != nil {
			t.Fatal(err)
		}
	}
	add(t, l, lines[:3]...)
	show(l, "")
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "x"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	fork := openLog(t, filepath.Join(copied, "x"), fra) // the same log, to be continued differently
	add(t, l, lines[3:6]...)
	show(l, "")
	show(l, "") // again, nothing new

	if _, err := fork.Append(noon.Add(time.Hour), lines[5]); err != nil {
		t.Fatal(err)
	}
	show(fork, Rewritten) // shorter, and signed later
	add(t, fork, lines[4], lines[3])
	show(fork, SplitView) // as long, and different
	add(t, fork, lines[6:8]...)
	show(fork, Rewritten) // longer, and different
	add(t, l, lines[6:8]...)
	show(l, "") // the true one goes on
	fresh := openLog(t, t.TempDir(), fra)
	add(t, fresh, lines[0])
	show(fresh, NewLog)
	show(fresh, "")
	if s := w.Heads["fra"]; s.Logs != 2 {
		t.Errorf("%d logs seen, want 2", s.Logs)
	}
	signed, err := w.Countersign("fra", "waw", waw.cert, waw.key, noon)
	if err != nil {
		t.Fatal(err)
	}
	if err := fresh.Countersigned(signed, waw.cert); err != nil {
		t.Error(err)
	}
	if err := l.Countersigned(signed, waw.cert); err == nil {
		t.Error("a countersignature of another log is kept")
	}
}

var openReceipts = flag.Int("log.receipts", 20_000, "receipts of the log that BenchmarkOpenLog opens")

// BenchmarkOpenLog opens a log as a node does at its start: how long that takes, how
// much memory it holds afterwards and how much at most. Nothing looks at the signatures
// of receipts then, so these have none.
func BenchmarkOpenLog(b *testing.B) {
	by := newHolder(b, newCA(b), "fra", "DE")
	dir := b.TempDir()
	l := openLog(b, dir, by)
	batch, signature := [][]byte{}, " "+strings.Repeat("a", signatureDigits)
	for i := range *openReceipts {
		r := sent(by, 1000)
		r.Version, r.Room, r.Node, r.Certificate, r.Run, r.Seq = 1, Pseudonym(fmt.Sprintf("%032x", i%1000)), "waw", r.PeerCertificate, Millis(noon), uint64(i+2)
		r.Previous = r.PeerCertificate
		body, err := encode(r)
		if err != nil {
			b.Fatal(err)
		}
		if batch = append(batch, append(body, signature...)); len(batch) == 4000 || i == *openReceipts-1 {
			add(b, l, batch...)
			batch = batch[:0]
		}
	}
	size := l.Bytes()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	held := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	before := held()
	var open *Log
	for b.Loop() {
		var err error
		if open, err = OpenLog(dir, optionsOf(by)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(held()-before, "MB-held")
		if err := open.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(size)/1e6, "MB-on-disk")
	runtime.KeepAlive(open)
}

// TestWitnessOutlivesItsProcess puts on the disk what a witness was shown: started anew
// it finds a log that does not continue that. A file that cannot be read is an error,
// for a witness that forgets is what a liar hopes for.
func TestWitnessOutlivesItsProcess(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	one, two := openLog(t, t.TempDir(), fra), openLog(t, t.TempDir(), fra)
	lines := receipts(t, NewChain(room(t, "RM_a"), "waw", noon), waw, fra, 3)
	add(t, one, lines[0], lines[1])
	add(t, two, lines[2])
	two.id = one.id // a second view of one log
	add(t, two, lines[0])
	dir := t.TempDir()
	w, err := LoadWitness(dir)
	if err != nil {
		t.Fatal(err)
	}
	observe := func(w *Witness, l *Log, from int64) error {
		a, err := l.Announce(from)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Observe(a, "fra", fra.cert)
		return err
	}
	if err := errors.Join(observe(w, one, 0), w.Save(dir)); err != nil {
		t.Fatal(err)
	}
	if w, err = LoadWitness(dir); err != nil {
		t.Fatal(err)
	}
	var c *Complaint
	if err := observe(w, two, 2); !errors.As(err, &c) || c.Kind != SplitView {
		t.Errorf("the other view: %v", err)
	}
	add(t, one, lines[2])
	if err := observe(w, one, 2); err != nil {
		t.Errorf("the log that goes on: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, witnessFile), []byte(`{"heads":{"fra":{"head":"x","logs":1}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadWitness(dir); err == nil {
		t.Error("a damaged file counts as none")
	}
}

// TestLogKnowsWhatItHas is asked for receipts that it has and has not, also after it was
// opened again, and however many came since.
func TestLogKnowsWhatItHas(t *testing.T) {
	ca := newCA(t)
	fra, waw := newHolder(t, ca, "fra", "DE"), newHolder(t, ca, "waw", "PL")
	dir := t.TempDir()
	l := openLog(t, dir, fra)
	lines := receipts(t, NewChain(room(t, "RM_a"), "waw", noon), waw, fra, 3)
	add(t, l, lines[:2]...)
	for _, when := range []string{"at once", "opened again"} {
		if !l.Has(lines[0]) || !l.Has(lines[1]) || l.Has(lines[2]) {
			t.Errorf("%s: %v %v %v", when, l.Has(lines[0]), l.Has(lines[1]), l.Has(lines[2]))
		}
		l.Close()
		l = openLog(t, dir, fra)
	}
	var r recent
	r.add(lines[0])
	for i := range 2 * maxRecent {
		r.add(fmt.Append(nil, i))
	}
	if len(r.newer)+len(r.older) > 2*maxRecent || r.has(lines[0]) || !r.has(fmt.Append(nil, maxRecent+1)) {
		t.Errorf("of many, %d and %d are known", len(r.newer), len(r.older))
	}
}
