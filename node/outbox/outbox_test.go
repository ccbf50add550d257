package outbox

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/residencytest"
)

var (
	certificate = []byte("a certificate")
	disk        = residencytest.Disk(residency.ClassMetadata)
	permit      = residencytest.Keep("town", "", residency.ClassMetadata)
)

func der(fp evidence.Hash) []byte {
	if fp == evidence.Fingerprint(certificate) {
		return certificate
	}
	return nil
}

func item(n int, durable bool) Item {
	i := Item{Room: "town", Policy: "eea-only", Line: fmt.Sprintf("receipt %d", n), Certificates: []evidence.Hash{evidence.Fingerprint(certificate)}, Since: int64(n), durable: durable}
	if durable {
		i.Permit = permit
	}
	return i
}

func open(t testing.TB, path string) *Box {
	t.Helper()
	b, err := Open(path, disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func lines(b *Box) (out []string) {
	for _, i := range b.Waiting() {
		out = append(out, i.Line)
	}
	return out
}

// killed is where the process of TestKilled puts receipts until it is killed.
const killed = "DOMICILE_TEST_OUTBOX"

func TestMain(m *testing.M) {
	if path := os.Getenv(killed); path != "" {
		b, err := Open(path, disk)
		for n := 0; err == nil; n++ {
			if err = b.Put([]Item{item(n, n%2 == 0)}, der); err == nil {
				fmt.Println(n)
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestKilled kills a process that puts receipts in, at any moment: those that it was
// told are in the box are there afterwards, if they might lie on the disk.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killed+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told := 0
	for s := bufio.NewScanner(out); s.Scan(); told++ {
		if told == 40 {
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the process was not killed")
	}
	b := open(t, path)
	got := lines(b)
	if told <= 40 || len(got) < (told+1)/2 || b.Dropped()[Damaged] != 0 {
		t.Fatalf("%d receipts after the process was told of %d; dropped %v", len(got), told, b.Dropped())
	}
	for i, l := range got {
		if l != fmt.Sprintf("receipt %d", 2*i) {
			t.Fatalf("receipt %d is %q: what may not lie on the disk is there, or the order is lost", i, l)
		}
	}
	if ders := b.Certificates(b.Waiting()); len(ders) != 1 || string(ders[0]) != string(certificate) {
		t.Errorf("certificates %q", ders)
	}
}

// TestAsAList puts in and takes out at random and starts anew now and then: a plain
// list says what has to be there.
func TestAsAList(t *testing.T) {
	for seed := range uint64(50) {
		chance, path := rand.New(rand.NewPCG(seed, 0)), filepath.Join(t.TempDir(), "outbox")
		b, err := Open(path, disk)
		if err != nil {
			t.Fatal(err)
		}
		var want []Item
		for n := range 60 {
			switch chance.IntN(5) {
			case 0, 1:
				i := item(n, chance.IntN(3) > 0)
				want = append(want, i)
				if err := b.Put([]Item{i}, der); err != nil {
					t.Fatal(err)
				}
			case 2:
				k := chance.IntN(len(want) + 1)
				if err := b.Done(want[:k]); err != nil {
					t.Fatal(err)
				}
				want = want[k:]
			case 3:
				if chance.IntN(4) > 0 {
					continue
				}
				b.mu.Lock()
				err := b.rewrite()
				b.mu.Unlock()
				if err != nil {
					t.Fatal(err)
				}
			default: // a box that nobody closed, as after a crash, has all that is on the disk
				if err := b.file.Close(); err != nil {
					t.Fatal(err)
				}
				if b, err = Open(path, disk); err != nil {
					t.Fatal(err)
				}
				want = slices.DeleteFunc(want, func(i Item) bool { return !i.durable })
				// What was done while something else waited is sent again.
				got := b.Waiting()
				again := got[:len(got)-min(len(got), len(want))]
				if err := b.Done(again); err != nil {
					t.Fatal(err)
				}
			}
			if got := b.Waiting(); !slices.EqualFunc(got, want, func(a, b Item) bool { return a.Line == b.Line && a.durable == b.durable }) {
				t.Fatalf("seed %d, step %d: %v, want %v", seed, n, got, want)
			}
		}
		b.Close()
	}
}

func TestBounded(t *testing.T) {
	b := open(t, "")
	all := make([]Item, Max+5)
	for i := range all {
		all[i] = item(i, true)
	}
	if err := b.Put(all, der); !errors.Is(err, ErrFull) || b.Len() != Max || b.Dropped()[Full] != 5 {
		t.Errorf("%v, %d wait, dropped %v", err, b.Len(), b.Dropped())
	}
	if err := b.Drop(all[:3], Invalid); err != nil || b.Len() != Max-3 || b.Dropped()[Invalid] != 3 {
		t.Errorf("%v, %d wait, dropped %v", err, b.Len(), b.Dropped())
	}
}

// TestFileStaysSmall sends receipt after receipt while one waits on and on.
func TestFileStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox")
	b := open(t, path)
	stuck := item(0, true)
	if err := b.Put([]Item{stuck}, der); err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 30; n++ {
		var some []Item
		for k := range 100 {
			i := item(n*1000+k, true)
			i.Line += strings.Repeat("x", 3000)
			some = append(some, i)
		}
		if err := b.Put(some, der); err != nil {
			t.Fatal(err)
		}
		if err := b.Done(some); err != nil {
			t.Fatal(err)
		}
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() > rewriteAt+400_000 {
		t.Errorf("the file has %d bytes, %v", fi.Size(), err)
	}
	if got := lines(open(t, path)); len(got) == 0 || got[0] != stuck.Line {
		t.Errorf("what waits is lost: %d receipts", len(got))
	}
	if err := b.Done([]Item{stuck}); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != 0 {
		t.Errorf("nothing waits, and the file has %d bytes, %v", fi.Size(), err)
	}
}

// TestCutAndDamaged cuts the file anywhere, and changes a byte anywhere: what is whole
// is read, the rest is counted or was never promised.
func TestCutAndDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox")
	b := open(t, path)
	if err := b.Put([]Item{item(1, true), item(2, true)}, der); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		for what, text := range map[string][]byte{"cut": whole[:i], "changed": slices.Concat(whole[:i], []byte{whole[i] ^ 0x20}, whole[i+1:])} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			c := open(t, path)
			if got := lines(c); what == "changed" && len(got)+int(c.Dropped()[Damaged]) < 1 || len(got) > 2 {
				t.Fatalf("%s at byte %d: %q, dropped %v", what, i, got, c.Dropped())
			}
			if err := c.Put([]Item{item(3, true)}, der); err != nil {
				t.Fatal(err)
			}
			again := lines(open(t, path))
			if len(again) == 0 || again[len(again)-1] != "receipt 3" {
				t.Fatalf("%s at byte %d: what came later is lost: %q", what, i, again)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(appendLine(nil, line{Certificate: certificate}))
	f.Add(appendLine(nil, line{Item: &Item{Room: "town", Policy: "p", Line: "x"}}))
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("\n\n1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "outbox")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Open(path, disk)
		if err != nil {
			return
		}
		defer b.Close()
		if err := b.Put([]Item{item(1, true)}, der); err != nil {
			t.Fatal(err)
		}
		if got := lines(b); got[len(got)-1] != "receipt 1" {
			t.Fatalf("got %q", got)
		}
	})
}
