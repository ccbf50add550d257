package vault

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// wrong are permits that no recording of the room "canary-room" may begin with.
func wrong() map[string]residency.Permit {
	return map[string]residency.Permit{
		"none":          {},
		"another room":  keep("room"),
		"another class": residencytest.Keep("canary-room", "", residency.ClassChat),
		"ended":         residencytest.KeepAt("canary-room", "", residency.ClassRecording, 7, residencytest.Noon.Add(1)),
		"another epoch": residencytest.KeepAt("canary-room", "", residency.ClassRecording, 6, residencytest.Noon.Add(time.Hour)),
	}
}

func TestNoRecordingWithoutPermit(t *testing.T) {
	dir := t.TempDir()
	at := residencytest.Noon
	v := openVault(t, dir, Options{})
	v.disk.Now = func() time.Time { return at }
	for name, p := range wrong() {
		if name == "ended" {
			at = at.Add(2)
		}
		if _, err := v.Create(p, Meta{Room: "canary-room"}, t0); !errors.Is(err, residency.ErrNotKept) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, err := Open(v.dir, v.keys, Options{}); err != nil {
		t.Fatal(err)
	} else if _, err := v.Create(keep("canary-room"), Meta{Room: "canary-room"}, t0); !errors.Is(err, residency.ErrNotKept) {
		t.Errorf("a vault of nobody: %v", err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "recordings")); err != nil || len(list) > 0 {
		t.Errorf("on the disk: %v, %v", list, err)
	}
}

// TestRecordingFollowsItsPermit changes the policies under a recording.
func TestRecordingFollowsItsPermit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var epoch atomic.Uint64
		epoch.Store(7)
		v := openVault(t, t.TempDir(), Options{})
		v.disk.Epoch = func() residency.Epoch { return residency.Epoch(epoch.Load()) }
		r, w := start(t, v)
		must(t, w.Write(cluster(0)))
		size := func() int64 {
			info, err := v.Info(r.ID())
			must(t, err)
			return info.Size()
		}
		before := size()

		epoch.Store(8)
		for name, p := range wrong() {
			if err := r.Renew(p); !errors.Is(err, residency.ErrNotKept) {
				t.Errorf("renewed by %s: %v", name, err)
			}
		}
		if _, err := r.Track(TrackMeta{TrackID: "TR_b"}); !errors.Is(err, residency.ErrNotKept) {
			t.Errorf("a track under the old permit: %v", err)
		}
		written := make(chan error)
		go func() { written <- w.Write(cluster(1)) }()
		time.Sleep(renewWait / 2)
		synctest.Wait()
		if size() != before {
			t.Error("written under the old permit")
		}
		must(t, r.Renew(residencytest.KeepAt("canary-room", "", residency.ClassRecording, 8, residencytest.Noon.Add(time.Hour))))
		must(t, <-written)

		epoch.Store(9)
		if err := w.Write(cluster(2)); !errors.Is(err, residency.ErrNotKept) {
			t.Errorf("no other permit has come: %v", err)
		}
		go func() { written <- w.Write(cluster(2)) }()
		synctest.Wait()
		r.Revoke()
		if err := <-written; !errors.Is(err, residency.ErrNotKept) {
			t.Errorf("revoked: %v", err)
		}
		must(t, r.Renew(residencytest.KeepAt("canary-room", "", residency.ClassRecording, 9, residencytest.Noon.Add(time.Hour))))
		if err := w.Write(cluster(2)); !errors.Is(err, residency.ErrNotKept) {
			t.Errorf("a permit after the end: %v", err)
		}
		must(t, w.Close())
		must(t, r.Finish(t0))
		if n, end := count(t, v, r.ID()); n != 2 || !end.Finished {
			t.Errorf("%d clusters, %+v: want those written by a permit, and the file complete", n, end)
		}
	})
}
