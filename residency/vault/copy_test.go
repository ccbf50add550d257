package vault

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// carry brings up to limit bytes of a recording to another vault, in pieces of odd
// sizes, and reports whether the copy is whole.
func carry(t *testing.T, from, to *Vault, id ID, limit int64, rnd *rand.Rand) bool {
	t.Helper()
	m, info, err := from.Manifest(id)
	must(t, err)
	p := keep(info.Room)
	have, whole, err := to.Receive(p, m)
	must(t, err)
	for _, part := range m.Parts {
		for at := have[part.Track]; at < part.Size && limit > 0; {
			b := make([]byte, min(1+rnd.Int64N(300), part.Size-at, limit))
			n, err := from.ReadTrack(id, part.Track, at, b)
			must(t, err)
			must(t, to.Append(p, id, part.Track, at, b[:n]))
			at, limit = at+int64(n), limit-int64(n)
		}
	}
	if !whole {
		_, whole, err = to.Receive(p, m)
		must(t, err)
	}
	return whole
}

// A copy can be broken off anywhere: until it is whole it reads like a recording that
// was cut, with the keys of who holds it, and then like the recording.
func TestCopyIsBrokenOff(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	from := openVault(t, t.TempDir(), Options{})
	id := record(t, from, 9)
	to := openVault(t, t.TempDir(), Options{})
	for rounds, last := 0, 0; ; rounds++ {
		whole := carry(t, from, to, id, 1+rnd.Int64N(120), rnd)
		r, err := to.Read(id)
		must(t, err)
		n, end, err := readAll(t, r.Tracks[0])
		must(t, err)
		if n < last || end.Finished != whole || !r.Info.Copy || (r.Info.State == StateFinished) != whole {
			t.Fatalf("round %d: %d clusters after %d, %+v, %+v", rounds, n, last, end, r.Info)
		}
		if last = n; whole {
			if n != 9 || rounds < 5 || r.Tracks[0].Meta.Participant != "canary-identity" {
				t.Errorf("after %d rounds the copy has %d clusters", rounds, n)
			}
			break
		}
		if rnd.IntN(3) == 0 {
			to = openVault(t, filepath.Dir(to.dir), Options{}) // it is restarted
		}
	}
	must(t, from.NoteReplica(id, "par"))
	if info, err := from.Info(id); err != nil || len(info.Replicas) != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}

// A track that has ended while the recording goes on reads like one that was cut until
// all of it is here: its origin may be lost before that.
func TestCopyOfAnEndedTrackIsBrokenOff(t *testing.T) {
	from, to := openVault(t, t.TempDir(), Options{}), openVault(t, t.TempDir(), Options{})
	r, w := start(t, from)
	for i := range 9 {
		must(t, w.Write(cluster(i)))
	}
	must(t, w.Close())
	rnd := rand.New(rand.NewPCG(5, 6))
	carry(t, from, to, r.ID(), 200, rnd)
	if marked, err := to.Interrupt(r.ID()); !marked || err != nil {
		t.Fatal(marked, err)
	}
	got, err := to.Read(r.ID())
	must(t, err)
	if n, end, err := readAll(t, got.Tracks[0]); err != nil || end.Finished || n == 9 {
		t.Errorf("%d clusters, %+v, %v; want fewer than 9 of a track that was cut", n, end, err)
	}
	carry(t, from, to, r.ID(), 1<<20, rnd) // its origin is back
	got, err = to.Read(r.ID())
	must(t, err)
	if n, end, err := readAll(t, got.Tracks[0]); err != nil || !end.Finished || n != 9 {
		t.Errorf("%d clusters, %+v, %v; want all 9 of a finished track", n, end, err)
	}
}

// What is changed in a copy before it is whole is found, and brought again.
func TestCopyIsChecked(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	from, to := openVault(t, t.TempDir(), Options{}), openVault(t, t.TempDir(), Options{})
	id := record(t, from, 5)
	m, _, err := from.Manifest(id)
	must(t, err)
	carry(t, from, to, id, m.Parts[0].Size-1, rnd)
	path := trackPath(to.folder(id), "TR_a")
	b, err := os.ReadFile(path)
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
	if carry(t, from, to, id, 1<<20, rnd) {
		t.Fatal("a copy with a changed byte counts as whole")
	}
	if !carry(t, from, to, id, 1<<20, rnd) {
		t.Fatal("it is not brought again")
	}
	whole, err := os.ReadFile(trackPath(from.folder(id), "TR_a"))
	must(t, err)
	if b, err = os.ReadFile(path); err != nil || !bytes.Equal(b, whole) {
		t.Errorf("the copy differs: %v", err)
	}
}

// A copy is of nobody else's recording, has no track twice, and does not come back.
func TestCopyIsRefused(t *testing.T) {
	from, to := openVault(t, t.TempDir(), Options{}), openVault(t, t.TempDir(), Options{})
	id := record(t, from, 2)
	m, _, err := from.Manifest(id)
	must(t, err)
	if _, _, err := from.Receive(keep("canary-room"), m); err == nil {
		t.Error("a recording is overwritten by its copy")
	}
	if _, _, err := to.Receive(keep("another room"), m); err == nil {
		t.Error("a copy was taken by another room's permit")
	}
	for name, b := range map[string][]byte{
		"id":     bytes.Replace(m.Document, []byte(id), []byte("../../etc"), 1),
		"track":  bytes.Replace(m.Document, []byte(`"TR_a"`), []byte(`"../x"`), 1),
		"cut":    m.Document[:20],
		"no key": bytes.Replace(m.Document, []byte(`"private"`), []byte(`"privat"`), 1),
	} {
		if _, _, err := to.Receive(keep("canary-room"), Manifest{b, m.Parts}); err == nil {
			t.Errorf("%s: a manifest that is none was taken", name)
		}
	}
	if err := to.Append(keep("canary-room"), id, "TR_a", 0, []byte("x")); !errors.Is(err, ErrNotFound) {
		t.Errorf("bytes of a copy that was not begun: %v", err)
	}
	_, _, err = to.Receive(keep("canary-room"), m)
	must(t, err)
	if err := to.Append(keep("canary-room"), id, "TR_a", 7, []byte("x")); err == nil {
		t.Error("a copy with a hole")
	}
	must(t, to.entomb(id))
	if _, _, err := to.Receive(keep("canary-room"), m); !errors.Is(err, ErrErased) {
		t.Errorf("what was erased comes back: %v", err)
	}
}

// What was erased while a piece of it was on its way is not begun again, in no folder.
func TestCopyOfErased(t *testing.T) {
	from, to := openVault(t, t.TempDir(), Options{}), openVault(t, t.TempDir(), Options{})
	id := record(t, from, 3)
	m, _, err := from.Manifest(id)
	must(t, err)
	d, err := m.open()
	must(t, err)
	must(t, to.admitCopy(keep("canary-room"), d))
	must(t, to.Erase(id)) // between the question and the lock
	if _, err := to.lockCopy(d); !errors.Is(err, ErrErased) {
		t.Errorf("a copy of what was erased: %v", err)
	}
	if _, err := os.Stat(to.folder(id)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder is there: %v", err)
	}
}

// A sum is remembered for as long as the file is the same, and not of one that has just
// been written.
func TestSumIsRemembered(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	path := filepath.Join(t.TempDir(), "track")
	sum := func() []byte {
		f, err := os.Open(path)
		must(t, err)
		defer f.Close()
		fi, err := f.Stat()
		must(t, err)
		b, err := v.sum(f, fi)
		must(t, err)
		return b
	}
	must(t, os.WriteFile(path, []byte("sealed"), 0o600))
	if sum(); len(v.sums) != 0 {
		t.Error("the sum of a new file is remembered")
	}
	old := time.Now().Add(-time.Minute)
	must(t, os.Chtimes(path, old, old))
	first := sum()
	if again := sum(); len(v.sums) != 1 || &again[0] != &first[0] {
		t.Error("the sum is made again")
	}
	must(t, os.WriteFile(path, []byte("SEALED"), 0o600))
	if bytes.Equal(sum(), first) {
		t.Error("the sum of another file is remembered")
	}
}
