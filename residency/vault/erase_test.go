package vault

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// held opens a file, so that its bytes can be looked at when its name is gone, as
// somebody who has the raw disk could.
func held(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// keyless fails unless the beginning of a file, where its key was, is overwritten.
func keyless(t *testing.T, f *os.File) {
	t.Helper()
	b := make([]byte, 512)
	n, err := f.ReadAt(b, 0)
	if n < headerFixed || !bytes.Equal(b[:n], make([]byte, n)) {
		t.Errorf("the key of a file that was erased is still there: %q, %v", b[:n], err)
	}
}

func TestErase(t *testing.T) {
	dir := t.TempDir()
	v := openVault(t, dir, Options{})
	id, other := record(t, v, 3), record(t, v, 2)
	media, doc := held(t, trackPath(v.folder(id), "TR_a")), held(t, filepath.Join(v.folder(id), documentFile))
	for range 2 { // what was erased is erased again without harm
		must(t, v.Erase(id))
		keyless(t, media)
		keyless(t, doc)
	}
	if _, err := v.Info(id); !errors.Is(err, ErrNotFound) || !v.Erased(id) || v.Erased(other) {
		t.Errorf("after the erasure: %v", err)
	}
	if infos, err := v.List(); err != nil || len(infos) != 1 || infos[0].ID != other || infos[0].Problem != nil {
		t.Errorf("left are %+v, %v", infos, err)
	}
	if err := v.Erase("../keys"); err == nil {
		t.Error("an id from outside leaves the vault")
	}
}

func TestEraseWhileItIsWritten(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	r, w := start(t, v)
	must(t, w.Write(cluster(0)))
	if err := v.Erase(r.ID()); !errors.Is(err, ErrBusy) {
		t.Errorf("a recording that is written: %v", err)
	}
	if err := v.EraseTrack(r.ID(), "TR_a"); !errors.Is(err, ErrBusy) {
		t.Errorf("a track that is written: %v", err)
	}
	b, err := r.Track(TrackMeta{TrackID: "TR_b", Participant: "other"})
	must(t, err)
	must(t, b.Write(cluster(1)))
	media := held(t, trackPath(v.folder(r.ID()), "TR_a"))
	must(t, w.Close())
	must(t, v.EraseTrack(r.ID(), "TR_a"))
	must(t, v.EraseTrack(r.ID(), "TR_a"))
	keyless(t, media)
	must(t, b.Write(cluster(2)))
	must(t, b.Close())
	must(t, r.Finish(t0.Add(time.Second)))
	rd, err := v.Read(r.ID())
	must(t, err)
	if len(rd.Tracks) != 1 || rd.Tracks[0].Meta.Participant != "other" || rd.Info.State != StateFinished || rd.Info.Tracks[0] != (TrackInfo{ID: "TR_a", Erased: true}) {
		t.Errorf("left is %+v", rd.Info)
	}
	must(t, v.EraseTrack(r.ID(), "TR_b"))
	if rd, err = v.Read(r.ID()); err != nil || len(rd.Tracks) != 0 {
		t.Errorf("left is %+v, %v", rd, err)
	}
}

func TestRewrite(t *testing.T) {
	dir := t.TempDir()
	v := openVault(t, dir, Options{})
	id := record(t, v, 4)
	media := held(t, trackPath(v.folder(id), "TR_a"))
	out, left, err := v.Rewrite(id, "TR_a", func(b []byte) bool { return !bytes.Equal(b, cluster(1)) })
	if err != nil || out != 1 || left != 3 {
		t.Fatalf("%d out, %d left, %v", out, left, err)
	}
	keyless(t, media)
	for _, v := range []*Vault{v, openVault(t, dir, Options{})} {
		r, err := v.Read(id)
		must(t, err)
		c, err := r.Tracks[0].Open()
		must(t, err)
		var got []byte
		for {
			b, err := c.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(t, err)
			got = append(got, b[len(b)-1])
		}
		c.Close()
		if string(got) != "023" || !c.End().Finished || r.Info.State != StateFinished || r.Tracks[0].Meta.Participant != "canary-identity" {
			t.Errorf("left are %q, %+v", got, r.Info)
		}
	}
	if out, left, err := v.Rewrite(id, "TR_a", func([]byte) bool { return true }); out != 0 || err != nil {
		t.Errorf("nothing to leave out: %d, %d, %v", out, left, err)
	}
}

// TestErasureGoesOn opens vaults whose process died while it erased.
func TestErasureGoesOn(t *testing.T) {
	dir := t.TempDir()
	v := openVault(t, dir, Options{})
	whole, part, half := record(t, v, 2), record(t, v, 2), record(t, v, 2)
	must(t, v.entomb(whole))
	must(t, v.alone(part, func(d *document) error {
		*d.track("TR_a") = TrackInfo{ID: "TR_a", Erased: true}
		return d.save(v.folder(part), v.keys)
	}))
	must(t, os.WriteFile(filepath.Join(v.folder(half), ".new-1"), []byte("sealed"), 0o600))
	v = openVault(t, dir, Options{})
	for _, gone := range []string{v.folder(whole), trackPath(v.folder(part), "TR_a"), filepath.Join(v.folder(half), ".new-1")} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
	if _, err := v.Read(half); err != nil {
		t.Error(err)
	}
}

// TestKeysOfCopies: a copy has the keys of its tracks in its document, and no document
// before it keeps one when the track is erased.
func TestKeysOfCopies(t *testing.T) {
	from, to := openVault(t, t.TempDir(), Options{}), openVault(t, t.TempDir(), Options{})
	id := record(t, from, 3)
	if !carry(t, from, to, id, 1<<20, rand.New(rand.NewPCG(1, 2))) {
		t.Fatal("the copy is not whole")
	}
	before := held(t, filepath.Join(to.folder(id), documentFile))
	must(t, to.EraseTrack(id, "TR_a"))
	keyless(t, before)
	if _, err := to.Read(id); err != nil {
		t.Error(err)
	}
}

// TestMetasAreRemembered until the document of a recording changes.
func TestMetasAreRemembered(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	id := record(t, v, 3)
	metas, err := v.Metas(id)
	if err != nil || metas["TR_a"].Participant != "canary-identity" {
		t.Fatalf("%+v, %v", metas, err)
	}
	track := trackPath(v.folder(id), "TR_a")
	must(t, os.Rename(track, track+".away"))
	if again, err := v.Metas(id); err != nil || len(again) != 1 {
		t.Errorf("what is known is read again: %v", err)
	}
	must(t, os.Rename(track+".away", track))
	must(t, v.EraseTrack(id, "TR_a"))
	if metas, err = v.Metas(id); err != nil || len(metas) != 0 {
		t.Errorf("an erased track has %+v, %v", metas, err)
	}
	live, w := start(t, v)
	if metas, err = v.Metas(live.ID()); err != nil || len(metas) != 1 {
		t.Errorf("%+v, %v", metas, err)
	}
	must(t, w.Close())
	_, err = live.Track(TrackMeta{TrackID: "TR_b"})
	must(t, err)
	if metas, err = v.Metas(live.ID()); err != nil || len(metas) != 2 {
		t.Errorf("%+v, %v", metas, err)
	}
}
