package seal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/domicile/domicile/relay/seal"
	"github.com/domicile/domicile/relay/wire"
)

// export makes secrets of a direction.
func export(direction string) seal.Export {
	return func(phase uint32) ([]byte, error) {
		h := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(direction), phase))
		return h[:seal.SecretSize], nil
	}
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func pair(t testing.TB, from, to string) (*seal.Sealer, *seal.Opener) {
	t.Helper()
	s, err := seal.NewSealer(export(from), 7, noon)
	if err != nil {
		t.Fatal(err)
	}
	o, err := seal.NewOpener(export(to))
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func sealed(t testing.TB, s *seal.Sealer, text string, now time.Time) []byte {
	t.Helper()
	b := append(make([]byte, wire.HopSize, wire.HopSize+len(text)+wire.HopTag), text...)
	b, err := s.Seal(b, now)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(o *seal.Opener, b []byte, now time.Time) (string, error) {
	b = bytes.Clone(b)
	h, err := wire.ParseHop(b)
	if err != nil {
		return "", err
	}
	plain, err := o.Open(h, b, now)
	return string(plain), err
}

func TestWhatIsSealedOpensOnce(t *testing.T) {
	s, o := pair(t, "a", "a")
	b := sealed(t, s, "hello", noon)
	if bytes.Contains(b, []byte("hello")) {
		t.Error("it is not sealed")
	}
	if got, err := open(o, b, noon); err != nil || got != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := open(o, b, noon); !errors.Is(err, seal.ErrRepeated) {
		t.Errorf("the second time: %v", err)
	}
}

// Every bit counts, every cut is seen, and what the other direction or another link
// sealed is nobody's.
func TestForgedDatagramsAreRefused(t *testing.T) {
	s, o := pair(t, "a", "a")
	b := sealed(t, s, "hello", noon)
	for bit := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[bit/8] ^= 1 << (bit % 8)
		if got, err := open(o, bad, noon); err == nil {
			t.Fatalf("bit %d: %q is taken", bit, got)
		}
	}
	for n := range b {
		if got, err := open(o, b[:n], noon); err == nil {
			t.Fatalf("cut to %d: %q is taken", n, got)
		}
	}
	_, reflected := pair(t, "a", "b")
	if _, err := open(reflected, b, noon); !errors.Is(err, seal.ErrForged) {
		t.Errorf("sent back to who sealed it: %v", err)
	}
	if got, err := open(o, b, noon); err != nil || got != "hello" {
		t.Errorf("the true one, after all that: %q, %v", got, err)
	}
}

// Keys change, what was under way by the old one still opens, and it is forgotten
// after a while. No number is used twice.
func TestKeysChange(t *testing.T) {
	s, o := pair(t, "a", "a")
	old, late := sealed(t, s, "old", noon), sealed(t, s, "late", noon)
	if err := s.Renew(noon); err != nil {
		t.Fatal(err)
	}
	if got, err := open(o, sealed(t, s, "new", noon), noon); err != nil || got != "new" || o.Phase() != 1 {
		t.Fatalf("%q, %v, phase %d", got, err, o.Phase())
	}
	if got, err := open(o, old, noon.Add(time.Second)); err != nil || got != "old" {
		t.Errorf("under way: %q, %v", got, err)
	}
	if _, err := open(o, late, noon.Add(time.Minute)); !errors.Is(err, seal.ErrForged) {
		t.Errorf("a minute later: %v", err)
	}
	now, number := noon, s.Next()
	for phase := range uint32(300) { // beyond the 8 bits on the wire
		now = now.Add(2 * time.Hour)
		b := sealed(t, s, "hour", now)
		if h, _ := wire.ParseHop(b); h.Number != number {
			t.Fatalf("number %d, want %d", h.Number, number)
		}
		number++
		if _, err := open(o, b, now); err != nil || o.Phase() != 2+phase || s.Phase() != o.Phase() {
			t.Fatalf("phase %d: %v; the other end is at %d", s.Phase(), err, o.Phase())
		}
	}
}

// A forged phase moves nobody to another key.
func TestForgedPhaseMovesNothing(t *testing.T) {
	s, o := pair(t, "a", "a")
	for phase := range 256 {
		b := sealed(t, s, "x", noon)
		b[1] = byte(phase)
		if _, err := open(o, b, noon); (err == nil) != (phase == 0) {
			t.Fatalf("phase %d: %v", phase, err)
		}
	}
	if o.Phase() != 0 {
		t.Errorf("phase %d", o.Phase())
	}
}

// The window says the same as a list of all that came.
func TestWindowAgainstAList(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var w seal.Window
		seen, top := map[uint64]bool{}, uint64(0)
		at := rng.Uint64N(1 << 20)
		for range 20_000 {
			switch rng.IntN(20) {
			case 0:
				at += rng.Uint64N(20_000)
			default:
				at += rng.Uint64N(3)
			}
			n := at - min(at, rng.Uint64N(10_000)*rng.Uint64N(2))
			want := !seen[n] && (n >= top || top-n <= 8192)
			if got := w.May(n); got != want {
				t.Fatalf("%d of %d: %v, want %v", n, top, got, want)
			}
			if want {
				w.Take(n)
				seen[n], top = true, max(top, n+1)
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	s, o := pair(t, "a", "a")
	b := make([]byte, wire.HopSize+1200, wire.HopSize+1200+wire.HopTag)
	if n := testing.AllocsPerRun(1000, func() {
		sealed, err := s.Seal(b, noon)
		if err != nil {
			t.Fatal(err)
		}
		h, err := wire.ParseHop(sealed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Open(h, sealed, noon); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	s, o := pair(b, "a", "a")
	p := make([]byte, wire.HopSize+1200, wire.HopSize+1200+wire.HopTag)
	b.ReportAllocs()
	for b.Loop() {
		sealed, _ := s.Seal(p, noon)
		h, _ := wire.ParseHop(sealed)
		if _, err := o.Open(h, sealed, noon); err != nil {
			b.Fatal(err)
		}
	}
}
