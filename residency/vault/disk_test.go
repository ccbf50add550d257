package vault

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tinyDisk mounts a file system of so many bytes.
func tinyDisk(t *testing.T, bytes string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+bytes+",mode=700"); err != nil {
		t.Fatalf("mount a tmpfs of %s bytes: %v (this test fills a real disk and needs CAP_SYS_ADMIN: run it as root)", bytes, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill writes clusters of 1000 bytes until one is refused.
func fill(t *testing.T, w *TrackWriter) (n int, err error) {
	t.Helper()
	body := bytes.Repeat([]byte{7}, 1000)
	for ; err == nil; n++ {
		if n > 10_000 {
			t.Fatal("the disk never fills")
		}
		err = w.Write(body)
	}
	return n - 1, err
}

func count(t *testing.T, v *Vault, id ID) (int, End) {
	t.Helper()
	r, err := v.Read(id)
	must(t, err)
	c, err := r.Tracks[0].Open()
	must(t, err)
	defer c.Close()
	for n := 0; ; n++ {
		if _, err := c.Next(); err == io.EOF {
			return n, c.End()
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// G10: the reserve lets a recording end properly.
func TestReserveKeepsRecordingWhole(t *testing.T) {
	keys, err := OpenKeyStore(t.TempDir())
	must(t, err)
	v, err := Open(filepath.Join(tinyDisk(t, "1m"), "recordings"), keys, Options{Disk: disk, MinFree: 256 << 10})
	must(t, err)
	r, w := start(t, v)
	n, err := fill(t, w)
	if !errors.Is(err, ErrDiskFull) || !strings.Contains(err.Error(), "must stay free") {
		t.Fatalf("error %v", err)
	}
	if n < 500 {
		t.Errorf("refused after %d kB of about 700", n)
	}
	if _, err := r.Track(TrackMeta{TrackID: "TR_b"}); !errors.Is(err, ErrDiskFull) {
		t.Errorf("new track: %v", err)
	}
	if _, err := v.Create(keep(""), Meta{}, t0); !errors.Is(err, ErrDiskFull) {
		t.Errorf("new recording: %v", err)
	}
	must(t, w.Close())
	must(t, r.Finish(t0))
	if got, end := count(t, v, r.ID()); got != n || !end.Finished {
		t.Errorf("read %d clusters of %d, %+v", got, n, end)
	}
}

// Without a reserve the file system refuses; what was written stays valid.
func TestDiskFull(t *testing.T) {
	keys, err := OpenKeyStore(t.TempDir())
	must(t, err)
	v, err := Open(filepath.Join(tinyDisk(t, "256k"), "recordings"), keys, Options{Disk: disk})
	must(t, err)
	r, w := start(t, v)
	n, err := fill(t, w)
	if !errors.Is(err, ErrDiskFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v", err)
	}
	if err := w.Write([]byte{1}); !errors.Is(err, ErrDiskFull) {
		t.Errorf("a write after the failure: %v", err)
	}
	if err := w.Close(); !errors.Is(err, ErrDiskFull) {
		t.Errorf("close: %v", err)
	}
	if err := r.Finish(t0); err != nil && !errors.Is(err, ErrDiskFull) {
		t.Errorf("finish: %v", err)
	}
	v, err = Open(v.dir, keys, Options{Disk: disk})
	must(t, err)
	got, end := count(t, v, r.ID())
	if got != n || end.Finished {
		t.Errorf("read %d clusters of %d, %+v", got, n, end)
	}
	fi, err := os.Stat(trackPath(r.dir, "TR_a"))
	must(t, err)
	if fi.Size() != end.Offset {
		t.Errorf("file has %d bytes, %d of them valid: half a record was left", fi.Size(), end.Offset)
	}
}
