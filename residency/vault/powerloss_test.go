package vault

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// journal is a file layer that notes what it is asked for, so that a test can say what
// is on the disk if the power fails in between. A fault makes one of its operations
// fail, and with stay all that come after it.
type journal struct {
	osLayer
	ops   []journalOp
	fault func(n int, o journalOp) error
}

type journalOp struct {
	what string // mkdir, create, write, truncate, sync, rename, remove, syncdir, promise
	path string
	to   string // of rename
	body []byte
	size int64          // of truncate
	has  map[string]int // of promise: clusters of each track that survive from here on
}

func (j *journal) note(o journalOp) error {
	if j.fault != nil {
		if err := j.fault(len(j.ops), o); err != nil {
			j.ops = append(j.ops, journalOp{what: "failed"})
			return err
		}
	}
	j.ops = append(j.ops, o)
	return nil
}

func (j *journal) mkdir(p string) error {
	return errors.Join(j.note(journalOp{what: "mkdir", path: p}), j.osLayer.mkdir(p))
}

func (j *journal) create(p string) (layerFile, error) {
	if err := j.note(journalOp{what: "create", path: p}); err != nil {
		return nil, err
	}
	f, err := j.osLayer.create(p)
	return journalFile{f, p, j}, err
}

func (j *journal) rename(from, to string) error {
	if err := j.note(journalOp{what: "rename", path: from, to: to}); err != nil {
		return err
	}
	return j.osLayer.rename(from, to)
}

func (j *journal) remove(p string) error {
	return errors.Join(j.note(journalOp{what: "remove", path: p}), j.osLayer.remove(p))
}

func (j *journal) syncDir(p string) error { return j.note(journalOp{what: "syncdir", path: p}) }

type journalFile struct {
	layerFile
	path string
	j    *journal
}

// Write writes half of what a fault interrupts, as a disk that becomes full does.
func (f journalFile) Write(b []byte) (int, error) {
	if err := f.j.note(journalOp{what: "write", path: f.path, body: bytes.Clone(b)}); err != nil {
		n, _ := f.layerFile.Write(b[:len(b)/2])
		return n, err
	}
	return f.layerFile.Write(b)
}

func (f journalFile) Truncate(n int64) error {
	if err := f.j.note(journalOp{what: "truncate", path: f.path, size: n}); err != nil {
		return err
	}
	return f.layerFile.Truncate(n)
}

func (f journalFile) Sync() error     { return f.j.note(journalOp{what: "sync", path: f.path}) }
func (f journalFile) Datasync() error { return f.Sync() }

// memoryDir is a folder that no disk is behind, where there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "vault")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// play makes a recording of two tracks, one of which ends early, as far as the layer
// lets it, and promises what Sync and Close have promised.
func play(v *Vault, j *journal) {
	has := map[string]int{}
	promise := func(track string, n int, err error) {
		if err == nil {
			has[track] = n
			j.ops = append(j.ops, journalOp{what: "promise", has: maps.Clone(has)})
		}
	}
	r, err := v.Create(keep("canary-room"), Meta{Room: "canary-room", Policy: "eea-only", Node: "fra", Country: "DE"}, t0)
	if err != nil {
		return
	}
	promise("", 0, nil) // the recording itself
	a, errA := r.Track(TrackMeta{TrackID: "TR_a"})
	for i := range 3 {
		if errA == nil && a.Write(cluster(i)) == nil && i == 1 {
			promise("TR_a", 2, a.Sync())
		}
	}
	b, errB := r.Track(TrackMeta{TrackID: "TR_b"})
	for i := range 4 {
		if errB == nil && b.Write(cluster(i)) == nil && i == 2 {
			promise("TR_b", 3, b.Sync())
		}
	}
	if errA == nil {
		promise("TR_a", 3, a.Close())
	}
	if errB == nil {
		promise("TR_b", 4, b.Close())
	}
	r.Finish(t0.Add(time.Minute)) //nolint:errcheck // whatever comes of it is looked at on the disk
}

// disk is what is on a disk: files and folders by path below the vault's.
type diskState struct {
	files map[string][]byte
	dirs  map[string]bool
}

// after is a disk on which the power failed after some operations. What was flushed is
// there. Of what was not, each file has as much as chance gives it, to any byte, and
// each folder so many of the changes of its names, in their order.
func after(ops []journalOp, rnd *rand.Rand) diskState {
	type inode struct {
		durable, all []byte
	}
	type change struct {
		o  journalOp
		in *inode
	}
	byPath := map[string]*inode{}
	names := map[string][]change{} // of a folder, not flushed yet
	s := diskState{map[string][]byte{}, map[string]bool{}}
	content := map[string]*inode{}
	apply := func(c change) {
		switch c.o.what {
		case "mkdir":
			s.dirs[c.o.path] = true
		case "create":
			content[c.o.path] = c.in
		case "rename":
			delete(content, c.o.path)
			content[c.o.to] = c.in
		case "remove":
			delete(content, c.o.path)
		}
	}
	for _, o := range ops {
		dir := filepath.Dir(o.path)
		switch o.what {
		case "mkdir":
			names[dir] = append(names[dir], change{o, nil})
		case "create":
			byPath[o.path] = &inode{}
			names[dir] = append(names[dir], change{o, byPath[o.path]})
		case "rename":
			byPath[o.to] = byPath[o.path]
			names[dir] = append(names[dir], change{o, byPath[o.to]})
		case "remove":
			names[dir] = append(names[dir], change{o, nil})
		case "write":
			byPath[o.path].all = append(byPath[o.path].all, o.body...)
		case "truncate":
			byPath[o.path].all = byPath[o.path].all[:o.size]
		case "sync":
			byPath[o.path].durable = bytes.Clone(byPath[o.path].all)
		case "syncdir":
			for _, c := range names[o.path] {
				apply(c)
			}
			delete(names, o.path)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(names)) {
		for _, c := range names[dir][:rnd.IntN(len(names[dir])+1)] {
			apply(c)
		}
	}
	for path, in := range content {
		if n := len(in.durable); len(in.all) >= n {
			s.files[path] = in.all[:n+rnd.IntN(len(in.all)-n+1)]
		} else {
			s.files[path] = in.durable
		}
	}
	return s
}

// put writes a disk below another folder.
func (s diskState) put(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.RemoveAll(to))
	must(t, os.MkdirAll(to, 0o700))
	for d := range s.dirs {
		must(t, os.MkdirAll(strings.Replace(d, from, to, 1), 0o700))
	}
	for f, b := range s.files {
		if s.dirs[filepath.Dir(f)] {
			must(t, os.WriteFile(strings.Replace(f, from, to, 1), b, 0o600))
		}
	}
}

// sound opens what is left and reads it: nothing is damaged, and what was promised is there.
func sound(t *testing.T, what, dir string, keys *KeyStore, has map[string]int) {
	t.Helper()
	v, err := Open(dir, keys, Options{Disk: disk})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	infos, err := v.List()
	must(t, err)
	if len(infos) == 0 && has != nil {
		t.Fatalf("%s: the recording is gone", what)
	}
	found := map[string]int{}
	for _, i := range infos {
		if i.Problem != nil || i.State == StateRecording {
			t.Fatalf("%s: %+v", what, i)
		}
		r, err := v.Read(i.ID)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, tr := range r.Tracks {
			n, end, err := readAll(t, tr)
			if err != nil || end.Finished != tr.Info.Finished && tr.Info.Finished {
				t.Fatalf("%s: track %s: %d clusters, %+v of %+v: %v", what, tr.Info.ID, n, end, tr.Info, err)
			}
			found[string(tr.Info.ID)] = n
		}
	}
	for track, n := range has {
		if found[track] < n {
			t.Fatalf("%s: %d clusters of track %s are left, and %d were flushed", what, found[track], track, n)
		}
	}
}

func promised(ops []journalOp) (has map[string]int) {
	for _, o := range ops {
		if o.what == "promise" {
			has = o.has
		}
	}
	return has
}

// played is a vault in which a recording has lived, with all that was done for it.
func played(t *testing.T) (*Vault, *journal) {
	t.Helper()
	dir := memoryDir(t)
	keys, err := OpenKeyStore(filepath.Join(dir, "keys"))
	must(t, err)
	v, err := Open(filepath.Join(dir, "a"), keys, Options{Disk: disk})
	must(t, err)
	j := &journal{}
	v.layer = j
	play(v, j)
	return v, j
}

// TestPowerLoss fails the power after each operation of a recording's life, with all
// kinds of what was not flushed lost, in part or not at all: what is left opens, and
// holds what had been flushed (G9).
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	v, j := played(t)
	dir, keys := filepath.Dir(v.dir), v.keys
	if n := len(promised(j.ops)); n != 3 || len(j.ops) < 40 {
		t.Fatalf("%d operations, %d promises", len(j.ops), n)
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for n := range len(j.ops) + 1 {
		for round := range 3 {
			after(j.ops[:n], rnd).put(t, v.dir, filepath.Join(dir, "b"))
			sound(t, fmt.Sprintf("after %d operations, case %d", n, round), filepath.Join(dir, "b"), keys, promised(j.ops[:n]))
		}
	}
}

// TestPowerLossIsNoticed leaves a flush out: then something that was promised is lost.
func TestPowerLossIsNoticed(t *testing.T) {
	t.Parallel()
	_, j := played(t)
	for _, kind := range []string{"sync", "syncdir"} {
		ops := slices.DeleteFunc(slices.Clone(j.ops), func(o journalOp) bool { return o.what == kind })
		lost := 0
		rnd := rand.New(rand.NewPCG(7, 8))
		for range 50 {
			s := after(ops, rnd)
			whole := 0
			for f, b := range s.files {
				if real, err := os.ReadFile(f); err == nil && bytes.Equal(real, b) {
					whole++
				}
			}
			if whole < 3 { // the document and two tracks
				lost++
			}
		}
		if lost == 0 {
			t.Errorf("without %s nothing is ever lost: the test proves nothing", kind)
		}
	}
}

// TestDiskFaults fails each operation in turn, once or for good, as a disk does that is
// full, read-only or broken: nothing that was written is damaged.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	dir := memoryDir(t)
	keys, err := OpenKeyStore(filepath.Join(dir, "keys"))
	must(t, err)
	count := func(fault func(int, journalOp) error, name string) int {
		v, err := Open(filepath.Join(dir, name), keys, Options{Disk: disk})
		must(t, err)
		j := &journal{fault: fault}
		v.layer = j
		play(v, j)
		for _, r := range v.live { // as if the process had ended
			r.lock.Close()
		}
		has := promised(j.ops)
		sound(t, name, v.dir, keys, has)
		must(t, os.RemoveAll(v.dir))
		return len(j.ops)
	}
	all := count(nil, "whole")
	for at := range all {
		count(func(n int, _ journalOp) error {
			if n == at {
				return syscall.EIO
			}
			return nil
		}, fmt.Sprintf("broken once at %d", at))
		count(func(n int, o journalOp) error {
			if n >= at && o.what == "write" {
				return syscall.ENOSPC
			}
			return nil
		}, fmt.Sprintf("full from %d on", at))
		count(func(n int, _ journalOp) error {
			if n >= at {
				return syscall.EROFS
			}
			return nil
		}, fmt.Sprintf("read-only from %d on", at))
	}
}
