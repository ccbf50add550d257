package vault

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// subject is one track file to be tampered with.
type subject struct {
	v     *Vault
	track *TrackReader
	path  string
	whole []byte
	ends  []int64 // where each record ends; the first is the meta record
}

func newSubject(t *testing.T, v *Vault, id ID) *subject {
	t.Helper()
	r, err := v.Read(id)
	must(t, err)
	s := &subject{v: v, track: r.Tracks[0], path: r.Tracks[0].path}
	s.whole, err = os.ReadFile(s.path)
	must(t, err)
	c, err := s.track.Open()
	must(t, err)
	defer c.Close()
	for {
		s.ends = append(s.ends, c.End().Offset)
		if _, err := c.Next(); err != nil {
			break
		}
	}
	if last := c.End().Offset; last != s.ends[len(s.ends)-1] {
		s.ends = append(s.ends, last)
	}
	return s
}

func (s *subject) set(t *testing.T, b []byte) {
	t.Helper()
	// A new file each time: ext4 flushes one that is truncated and written again.
	must(t, os.RemoveAll(s.path))
	must(t, os.WriteFile(s.path, b, 0o600))
}

func TestEveryByteIsProtected(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	for name, id := range map[string]ID{"finished": record(t, v, 3), "unfinished": crash(t, v, 3)} {
		s := newSubject(t, v, id)
		for i := range s.whole {
			b := bytes.Clone(s.whole)
			b[i] ^= 1 << (i % 8)
			s.set(t, b)
			n, end, err := readAll(t, s.track)
			// A longer key in the header makes an unfinished file look cut inside
			// its header: that gives no media either.
			cutInHeader := name == "unfinished" && n == 0 && end.Offset == 0
			if err == nil && !cutInHeader {
				t.Errorf("%s: bit changed in byte %d of %d went unnoticed", name, i, len(b))
			}
			if err != nil && !errors.Is(err, ErrTampered) {
				t.Fatalf("%s: byte %d: %v", name, i, err)
			}
		}
	}
}

var tamperings = flag.Int("tamperings", 3_000, "how many random changes TestRandomTampering makes")

// Random tamperings of a finished track are all detected; make random-cases makes 100,000.
func TestRandomTampering(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	s := newSubject(t, v, record(t, v, 8))
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range *tamperings {
		b := s.mutate(rnd)
		if bytes.Equal(b, s.whole) {
			continue
		}
		s.set(t, b)
		if n, _, err := readAll(t, s.track); !errors.Is(err, ErrTampered) {
			t.Fatalf("case %d: %d clusters, error %v", i, n, err)
		}
	}
	s.set(t, s.whole)
	if n, end, err := readAll(t, s.track); n != 8 || !end.Finished || err != nil {
		t.Fatalf("the untouched file: %d clusters, %+v, %v", n, end, err)
	}
}

func (s *subject) mutate(rnd *rand.Rand) []byte {
	b := bytes.Clone(s.whole)
	record := func() (from, to int64) {
		i := 1 + rnd.IntN(len(s.ends)-1)
		return s.ends[i-1], s.ends[i]
	}
	switch rnd.IntN(7) {
	case 0: // noise
		for range 1 + rnd.IntN(4) {
			b[rnd.IntN(len(b))] = byte(rnd.Uint32())
		}
	case 1: // cut the end
		b = b[:rnd.IntN(len(b))]
	case 2: // leave a record out
		from, to := record()
		b = slices.Delete(b, int(from), int(to))
	case 3: // repeat a record elsewhere
		from, to := record()
		at := s.ends[rnd.IntN(len(s.ends))]
		b = slices.Insert(b, int(at), bytes.Clone(b[from:to])...)
	case 4: // exchange two records
		f1, t1 := record()
		f2, t2 := record()
		if f1 > f2 {
			f1, t1, f2, t2 = f2, t2, f1, t1
		}
		if f1 != f2 {
			b = slices.Concat(s.whole[:f1], s.whole[f2:t2], s.whole[t1:f2], s.whole[f1:t1], s.whole[t2:])
		}
	case 5: // cut out of the middle
		from := rnd.IntN(len(b))
		b = slices.Delete(b, from, from+rnd.IntN(len(b)-from))
	case 6: // insert
		junk := make([]byte, 1+rnd.IntN(64))
		b = slices.Insert(b, rnd.IntN(len(b)+1), junk...)
	}
	return b
}

// A file that was cut anywhere is readable up to its last whole cluster, and is
// known to be cut.
func TestCutAtEveryLength(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	s := newSubject(t, v, crash(t, v, 4))
	for n := range len(s.whole) + 1 {
		s.set(t, s.whole[:n])
		want := 0
		for _, end := range s.ends[1:] {
			if end <= int64(n) {
				want++
			}
		}
		got, end, err := readAll(t, s.track)
		if err != nil || got != want || end.Finished || end.Offset > int64(n) {
			t.Fatalf("cut at %d of %d: %d clusters, want %d; %+v; %v", n, len(s.whole), got, want, end, err)
		}
		if _, err := v.Read(s.track.rec); err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestCutOfFinishedIsDetected(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	s := newSubject(t, v, record(t, v, 4))
	for n := range len(s.whole) {
		s.set(t, s.whole[:n])
		if _, _, err := readAll(t, s.track); !errors.Is(err, ErrTampered) {
			t.Fatalf("cut at %d of %d: %v", n, len(s.whole), err)
		}
	}
	must(t, os.Remove(s.path))
	if _, err := v.Read(s.track.rec); err == nil {
		t.Error("a missing track went unnoticed")
	}
}

func TestMovedFileIsDetected(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	a, b := newSubject(t, v, crash(t, v, 2)), newSubject(t, v, crash(t, v, 2))
	a.set(t, b.whole)
	if _, _, err := readAll(t, a.track); !errors.Is(err, ErrTampered) {
		t.Errorf("a track of another recording was read: %v", err)
	}
}

func TestChangedDocumentIsDetected(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	id, other := record(t, v, 2), record(t, v, 2)
	path := filepath.Join(v.folder(id), documentFile)
	whole, err := os.ReadFile(path)
	must(t, err)
	foreign, err := os.ReadFile(filepath.Join(v.folder(other), documentFile))
	must(t, err)
	cases := map[string][]byte{
		"country":  bytes.Replace(whole, []byte(`"DE"`), []byte(`"US"`), 1),
		"state":    bytes.Replace(whole, []byte(`"finished"`), []byte(`"recording"`), 1),
		"clusters": bytes.Replace(whole, []byte(`"clusters": 2`), []byte(`"clusters": 1`), 1),
		"unknown":  bytes.Replace(whole, []byte(`"policy"`), []byte(`"extra": 1, "policy"`), 1),
		"cut":      whole[:len(whole)/2],
		"empty":    {},
		"foreign":  foreign,
	}
	for name, b := range cases {
		if bytes.Equal(b, whole) {
			t.Fatalf("case %q changes nothing", name)
		}
		must(t, os.WriteFile(path, b, 0o600))
		if _, err := v.Read(id); err == nil {
			t.Errorf("%s: change went unnoticed", name)
		}
		infos, err := v.List()
		must(t, err)
		if len(infos) != 2 {
			t.Errorf("%s: %d recordings listed, want 2", name, len(infos))
		}
		if _, err := Open(v.dir, v.keys, Options{}); err != nil {
			t.Errorf("%s: the vault does not open: %v", name, err)
		}
	}
}

// Boxes depend on those before them, not only on their number: with one key
// and two histories, what follows in the one does not open in the other.
func TestBoxesAreChained(t *testing.T) {
	key := make([]byte, keySize)
	begin := func() *chain {
		c, err := newChain(key, []byte("header"), "RE_abcdefgh", "TR_a")
		must(t, err)
		return c
	}
	a, b := begin(), begin()
	a.seal(nil, kindCluster, []byte("one history"))
	first := b.seal(nil, kindCluster, []byte("another one"))
	foreign := a.seal(nil, kindCluster, []byte("next"))
	r := begin()
	if _, _, err := r.openHead(first[:headSealed]); err != nil {
		t.Fatal(err)
	}
	if _, err := r.open(first[headSealed:]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.openHead(foreign[:headSealed]); err == nil {
		t.Error("a box of another history was opened")
	}
}
