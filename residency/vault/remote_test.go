package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

// shop is an object store in memory, which may be away.
type shop struct {
	objects map[string][]byte
	away    bool

	began, ended func() // of a Put, if not nil
}

var errAway = errors.New("connection refused")

func (s *shop) Name() string { return "s3:shop" }

func (s *shop) Put(_ context.Context, name string, r io.Reader, size int64) error {
	if s.began != nil {
		s.began()
	}
	b, err := io.ReadAll(r)
	if s.ended != nil {
		s.ended()
	}
	if s.away {
		return errAway
	}
	if err != nil {
		return err
	}
	if int64(len(b)) != size {
		return errors.New("short")
	}
	s.objects[name] = b
	return nil
}

func (s *shop) Get(_ context.Context, name string) (io.ReadCloser, error) {
	b, ok := s.objects[name]
	switch {
	case s.away:
		return nil, errAway
	case !ok:
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *shop) List(_ context.Context, below string) (map[string]int64, error) {
	found := map[string]int64{}
	for name, b := range s.objects {
		if strings.HasPrefix(name, below) {
			found[name] = int64(len(b))
		}
	}
	if s.away {
		return nil, errAway
	}
	return found, nil
}

func (s *shop) Remove(_ context.Context, name string) error {
	if s.away {
		return errAway
	}
	delete(s.objects, name)
	return nil
}

// shopPlace is where it is, as the configuration says.
var shopPlace = residency.Place{What: "object store", Country: "DE"}

func shopVault(t *testing.T, dir string, remote Remote, keepLocal bool) *Vault {
	t.Helper()
	shelf := disk
	shelf.Place = shopPlace
	return openVault(t, dir, Options{Remote: remote, Shelf: shelf, KeepLocal: keepLocal})
}

func keepThere(room string) residency.Permit {
	return residencytest.KeepIn(shopPlace, room, "", residency.ClassRecording)
}

// What is finished goes to the object store and is read from there; while it is away it
// waits in the folder. What is erased goes there, too, as soon as it is back, also over
// a restart.
func TestObjectStore(t *testing.T) {
	dir := t.TempDir()
	s := &shop{objects: map[string][]byte{}, away: true}
	v := shopVault(t, dir, s, false)
	id, other := record(t, v, 4), record(t, v, 2)
	if err := v.Ship(t.Context(), keepThere("canary-room"), id); !errors.Is(err, errAway) {
		t.Fatalf("while it is away: %v", err)
	}
	if err := v.Ship(t.Context(), keep("canary-room"), id); !errors.Is(err, residency.ErrNotKept) {
		t.Errorf("by a permit for this node's disk alone: %v", err)
	}
	read := func(v *Vault, want int) {
		t.Helper()
		r, err := v.Read(id)
		must(t, err)
		if n, end, err := readAll(t, r.Tracks[0]); n != want || !end.Finished || err != nil {
			t.Errorf("%d clusters, %+v, %v", n, end, err)
		}
	}
	read(v, 4)
	s.away = false
	for _, i := range []ID{id, other} {
		must(t, v.Ship(t.Context(), keepThere("canary-room"), i))
		must(t, v.Ship(t.Context(), keepThere("canary-room"), i)) // again: there is nothing to do
	}
	if _, err := os.Stat(trackPath(v.folder(id), "TR_a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the track is still here: %v", err)
	}
	read(v, 4)
	info, err := v.Info(id)
	must(t, err)
	if len(info.Replicas) != 1 || info.Replicas[0] != "s3:shop" || info.Size() == 0 || len(s.objects) != 4 {
		t.Errorf("%+v, %d objects", info, len(s.objects))
	}
	for name, b := range s.objects {
		if bytes.Contains(b, []byte("canary")) {
			t.Errorf("object %s holds something in clear", name)
		}
	}
	if _, _, err := v.Manifest(id); !errors.Is(err, ErrAway) {
		t.Errorf("a copy would be begun of what is not here: %v", err)
	}
	s.objects[remoteName(id, "TR_a.dtr")][600] ^= 1
	if r, err := v.Read(id); err == nil {
		if _, _, err = readAll(t, r.Tracks[0]); !errors.Is(err, ErrTampered) {
			t.Errorf("what was changed there is read: %v", err)
		}
	}

	must(t, v.EraseTrack(other, "TR_a"))
	must(t, v.Ship(t.Context(), keepThere("canary-room"), other))
	if _, there := s.objects[remoteName(other, "TR_a.dtr")]; there {
		t.Error("a track that was erased is still there")
	}
	s.away = true
	if err := v.Erase(id); !errors.Is(err, errAway) {
		t.Errorf("erased while it is away: %v", err)
	}
	v = shopVault(t, dir, s, false)
	if left, err := v.SettleRemote(t.Context()); left != 1 || !errors.Is(err, errAway) {
		t.Errorf("%d left, %v", left, err)
	}
	s.away = false
	if left, err := v.SettleRemote(t.Context()); left != 0 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	for name := range maps.Keys(s.objects) {
		if strings.HasPrefix(name, string(id)) {
			t.Errorf("%s is still there", name)
		}
	}
}

// What is erased while it is on its way to the object store does not stay there.
func TestErasedOnTheWay(t *testing.T) {
	s := &shop{objects: map[string][]byte{}}
	v := shopVault(t, t.TempDir(), s, true)
	id := record(t, v, 4)
	s.ended = func() {
		s.ended = nil
		must(t, v.Erase(id))
	}
	if err := v.Ship(t.Context(), keepThere("canary-room"), id); !errors.Is(err, ErrErased) {
		t.Errorf("it was brought there: %v", err)
	}
	if left, err := v.SettleRemote(t.Context()); len(s.objects) != 0 || left != 0 || err != nil {
		t.Errorf("%d objects are there, %d left, %v", len(s.objects), left, err)
	}
}

// What the object store has to lose is known before anything here is gone.
func TestErasureThatFailsIsOwed(t *testing.T) {
	s := &shop{objects: map[string][]byte{}}
	v := shopVault(t, t.TempDir(), s, true)
	id := record(t, v, 4)
	must(t, v.Ship(t.Context(), keepThere("canary-room"), id))
	must(t, os.Mkdir(filepath.Join(v.folder(id), "no file"), 0o700))
	if err := v.Erase(id); err == nil {
		t.Fatal("what is no file was erased")
	}
	if left, err := v.SettleRemote(t.Context()); len(s.objects) != 0 || left != 0 || err != nil {
		t.Errorf("%d objects are there, %d left, %v", len(s.objects), left, err)
	}
}

// What is on its way to the object store when the permit ends does not get there.
func TestPermitEndsOnTheWay(t *testing.T) {
	s, epoch := &shop{objects: map[string][]byte{}}, disk.Epoch()
	dir, shelf := t.TempDir(), disk
	shelf.Place, shelf.Epoch = shopPlace, func() residency.Epoch { return epoch }
	v := openVault(t, dir, Options{Remote: s, Shelf: shelf, KeepLocal: true})
	id := record(t, v, 4)
	s.began = func() { epoch++ }
	if err := v.Ship(t.Context(), keepThere("canary-room"), id); !errors.Is(err, residency.ErrNotKept) || len(s.objects) != 0 {
		t.Errorf("%d objects are there, %v", len(s.objects), err)
	}
}

// A vault that keeps what it brings away has both.
func TestObjectStoreIsACopy(t *testing.T) {
	s := &shop{objects: map[string][]byte{}}
	v := shopVault(t, t.TempDir(), s, true)
	id := record(t, v, 3)
	must(t, v.Ship(t.Context(), keepThere("canary-room"), id))
	b, err := os.ReadFile(filepath.Join(v.folder(id), "TR_a.dtr"))
	must(t, err)
	if !bytes.Equal(b, s.objects[remoteName(id, "TR_a.dtr")]) {
		t.Error("they differ")
	}
}
