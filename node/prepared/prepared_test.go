package prepared

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

var began = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// world is a shelf with a clock that a test moves.
type world struct {
	*Shelf
	t    *testing.T
	dir  string
	now  time.Time
	held bool // also what cannot be opened
	keys *vault.KeyStore
}

func newWorld(t *testing.T) *world {
	t.Helper()
	keys, err := vault.OpenKeyStore(t.TempDir())
	must(t, err)
	w := &world{t: t, dir: t.TempDir(), now: began, keys: keys}
	w.open()
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.Shelf, err = Open(w.dir, Options{Disk: residencytest.Disk(residency.ClassExport), Keys: w.keys,
		Now: func() time.Time { return w.now }, Held: func(About) bool { return w.held }, HeldAny: func() bool { return w.held }})
	must(w.t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func permit(room string) func() (residency.Permit, error) {
	return func() (residency.Permit, error) { return residencytest.Keep(room, "", residency.ClassExport), nil }
}

func says(s string) Making {
	return func(_ context.Context, w *Writer, tell func(done, total int64)) ([]string, error) {
		_, err := io.WriteString(w, s)
		tell(1, 1)
		return []string{"a note"}, err
	}
}

// made has an export made and waits for its end.
func (w *world) made(room string, m Making) Status {
	w.t.Helper()
	s, err := w.Begin(About{Room: room, Kind: "chat", Name: "chat.txt"}, Keep, permit(room), m)
	must(w.t, err)
	for j := w.next(); j != nil; j = w.next() {
		w.run(w.t.Context(), j)
	}
	s, err = w.Find(s.ID)
	must(w.t, err)
	return s
}

// TestKeptThirtyDays fetches by a link on days 29, 30 and 31, also after a restart.
func TestKeptThirtyDays(t *testing.T) {
	w := newWorld(t)
	s := w.made("room", says("canary of the room"))
	if s.State != Done || s.Size != 18 || len(s.Notes) != 1 {
		t.Fatalf("%+v", s)
	}
	until, sig := strconv.FormatInt(s.Expires.Unix(), 10), w.Sign(s.ID, s.Expires)
	for _, c := range []struct {
		day  time.Duration
		want error
		left bool
	}{{0, nil, true}, {29, nil, true}, {30, nil, true}, {31, ErrExpired, false}} {
		w.now = began.Add(c.day * 24 * time.Hour)
		w.open()
		w.Sweep()
		if err := w.Check(s.ID, until, sig); !errors.Is(err, c.want) {
			t.Errorf("day %d: %v", c.day, err)
		}
		_, f, err := w.Read(s.ID)
		if (err == nil) != c.left {
			t.Fatalf("day %d: %v", c.day, err)
		}
		if err == nil {
			b, err := io.ReadAll(f)
			if must(t, errors.Join(err, f.Close())); string(b) != "canary of the room" {
				t.Errorf("day %d: %q", c.day, b)
			}
		}
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "EX_*")); err != nil || len(left) != 0 {
		t.Errorf("on the disk: %v, %v", left, err)
	}
	for _, bad := range [][2]string{{until, sig[:10]}, {until + "0", sig}, {"x", sig}, {until, w.Sign("EX_AAAAAAAAAAAAAAAAAAAA", s.Expires)}, {"", ""}} {
		if err := w.Check(s.ID, bad[0], bad[1]); !errors.Is(err, ErrForged) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestHeldIsNotRemoved lets a hold win over the last day; the link ends all the same.
func TestHeldIsNotRemoved(t *testing.T) {
	w := newWorld(t)
	s := w.made("room", says("x"))
	w.now, w.held = began.Add(Keep+time.Second), true
	w.Sweep()
	if _, f, err := w.Read(s.ID); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	if err := w.Check(s.ID, strconv.FormatInt(s.Expires.Unix(), 10), w.Sign(s.ID, s.Expires)); !errors.Is(err, ErrExpired) {
		t.Error(err)
	}
}

// TestBrokenIsRemoved damages an export: it stays while there is a hold, and goes then;
// one that can be opened again is kept.
func TestBrokenIsRemoved(t *testing.T) {
	w := newWorld(t)
	lost, back := w.made("room", says("x")), w.made("room", says("y"))
	about := func(s Status) string { return filepath.Join(w.dir, string(s.ID), "about.age") }
	whole, err := os.ReadFile(about(back))
	must(t, err)
	must(t, errors.Join(os.WriteFile(about(lost), []byte("damaged"), 0o600), os.WriteFile(about(back), whole[:len(whole)-1], 0o600)))
	w.held = true
	w.open()
	w.Sweep()
	if left := w.SweepBroken(); len(left) != 2 {
		t.Errorf("under a hold there is left %v", left)
	}
	must(t, os.WriteFile(about(back), whole, 0o600))
	w.held = false
	w.Sweep()
	on, err := filepath.Glob(filepath.Join(w.dir, "EX_*"))
	if must(t, err); len(on) != 1 || filepath.Base(on[0]) != string(back.ID) || len(w.SweepBroken()) != 0 {
		t.Errorf("on the disk: %v", on)
	}
	if s, err := w.Find(back.ID); err != nil || s.State != Done {
		t.Errorf("one that can be opened again: %+v, %v", s, err)
	}
}

// TestNothingInClear looks for a canary on the disk while an export is made, after
// it is done and after it failed.
func TestNothingInClear(t *testing.T) {
	w := newWorld(t)
	look := func(when string) {
		must(t, filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte("canary")) {
				t.Errorf("%s: in clear in %s", when, path)
			}
			return err
		}))
	}
	w.made("canary-room", func(_ context.Context, x *Writer, _ func(int64, int64)) ([]string, error) {
		_, err := io.WriteString(x, strings.Repeat("canary in the content ", 20_000))
		look("while it is made")
		return nil, err
	})
	look("when it is done")
	s := w.made("canary-room", func(_ context.Context, x *Writer, _ func(int64, int64)) ([]string, error) {
		_, err := io.WriteString(x, strings.Repeat("canary in the content ", 20_000))
		return nil, errors.Join(err, errors.New("no more"))
	})
	look("when it has failed")
	if left, _ := filepath.Glob(filepath.Join(w.dir, string(s.ID))); s.State != Failed || s.Problem != "no more" || len(left) != 0 {
		t.Errorf("%+v, on the disk %v", s, left)
	}
}

// TestWrittenOver reads ranges across what was written over.
func TestWrittenOver(t *testing.T) {
	w := newWorld(t)
	s := w.made("room", func(_ context.Context, x *Writer, _ func(int64, int64)) ([]string, error) {
		io.WriteString(x, strings.Repeat("0123456789", 20_000)) //nolint:errcheck // the shelf says it
		_, err := x.WriteAt([]byte("abcd"), 8)
		_, past := x.WriteAt([]byte("abcd"), 199_998)
		if past == nil {
			t.Error("it writes behind the end")
		}
		return nil, err
	})
	_, f, err := w.Read(s.ID)
	must(t, err)
	defer f.Close()
	want := []byte(strings.Repeat("0123456789", 20_000))
	copy(want[8:], "abcd")
	for from := range int64(16) {
		for n := range int64(8) {
			got := make([]byte, n)
			if _, err := f.ReadAt(got, from); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want[from:from+n]) {
				t.Fatalf("%d from %d: %q, want %q", n, from, got, want[from:from+n])
			}
		}
	}
}

// TestNotPermitted begins without a permit, and loses it in the middle.
func TestNotPermitted(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Begin(About{Room: "room"}, Keep, permit("other"), says("x")); !errors.Is(err, residency.ErrNotKept) {
		t.Error(err)
	}
	asked := 1
	s, err := w.Begin(About{Room: "room"}, Keep, func() (residency.Permit, error) {
		if asked++; asked > 3 {
			return residency.Permit{}, nil
		}
		return permit("room")()
	}, func(_ context.Context, x *Writer, _ func(int64, int64)) ([]string, error) {
		for range 8 {
			if _, err := x.Write(make([]byte, admitEvery/2)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	must(t, err)
	for j := w.next(); j != nil; j = w.next() {
		w.run(t.Context(), j)
	}
	if s, err = w.Find(s.ID); err != nil || s.State != Failed || !strings.Contains(s.Problem, "may not be kept") {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestReserve: exports leave the disk to recordings.
func TestReserve(t *testing.T) {
	w := newWorld(t)
	w.opts.MinFree = 1 << 62
	s := w.made("room", says("x"))
	if s.State != Failed || !strings.Contains(s.Problem, "disk full") {
		t.Errorf("%+v", s)
	}
}

// TestWriterEnds: what nobody wants any more is written no further, whoever writes it.
func TestWriterEnds(t *testing.T) {
	w := newWorld(t)
	n := 0
	s := w.made("room", func(_ context.Context, x *Writer, _ func(int64, int64)) ([]string, error) {
		for ; n < 10; n++ {
			if _, err := io.WriteString(x, "more"); err != nil {
				return nil, err
			}
			if n == 3 {
				_, err := w.Erase(func(a About) bool { return a.Room == "room" })
				must(t, err)
			}
		}
		return nil, nil
	})
	if n != 4 || s.State != Failed || s.Problem != "cancelled" {
		t.Errorf("%d pieces, %+v", n, s)
	}
}

// TestJobsOneByOne cancels a running job and a waiting one, and fills the queue.
func TestJobsOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		waits := func(ctx context.Context, x *Writer, tell func(int64, int64)) ([]string, error) {
			tell(3, 10)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		var all []Status
		for range maxWaiting {
			s, err := w.Begin(About{Room: "room"}, Keep, permit("room"), waits)
			must(t, err)
			all = append(all, s)
		}
		if _, err := w.Begin(About{Room: "room"}, Keep, permit("room"), waits); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		synctest.Wait()
		if s, err := w.Find(all[0].ID); err != nil || s.State != Running || s.Done != 3 || s.Total != 10 {
			t.Errorf("%+v, %v", s, err)
		}
		must(t, w.Cancel(all[1].ID))
		must(t, w.Cancel(all[0].ID))
		synctest.Wait()
		if s, err := w.Find(all[2].ID); err != nil || s.State != Running {
			t.Errorf("%+v, %v", s, err)
		}
		if s, err := w.Find(all[0].ID); err != nil || s.State != Failed || s.Problem != "cancelled" {
			t.Errorf("%+v, %v", s, err)
		}
		if n, err := w.Erase(func(a About) bool { return a.Room == "room" }); err != nil || n != maxWaiting-2 {
			t.Errorf("%d, %v", n, err)
		}
		stop()
		must(t, <-ended)
		if left, _ := filepath.Glob(filepath.Join(w.dir, "EX_*")); len(left) != 0 {
			t.Errorf("on the disk: %v", left)
		}
	})
}
