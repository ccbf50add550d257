package vault

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

const childEnv = "DOMICILE_VAULT_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		writeForever(dir)
	}
	os.Exit(m.Run())
}

// disk is where the tests' vault is.
var disk = residencytest.Disk(residency.ClassRecording)

// keep is a permit to record a room there.
func keep(room string) residency.Permit {
	return residencytest.Keep(room, "", residency.ClassRecording)
}

func openVault(t *testing.T, dir string, o Options) *Vault {
	t.Helper()
	keys, err := OpenKeyStore(filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	o.Disk = disk
	v, err := Open(filepath.Join(dir, "recordings"), keys, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func start(t *testing.T, v *Vault) (*Recording, *TrackWriter) {
	t.Helper()
	r, err := v.Create(keep("canary-room"), Meta{Room: "canary-room", Policy: "eea-only", Node: "fra", Country: "DE"}, t0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.Track(TrackMeta{TrackID: "TR_a", Participant: "canary-identity", Name: "canary-name", Source: "camera"})
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func cluster(i int) []byte { return fmt.Appendf(nil, "canary-media cluster %d", i) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// record writes n clusters and finishes.
func record(t *testing.T, v *Vault, n int) ID {
	t.Helper()
	r, w := start(t, v)
	for i := range n {
		must(t, w.Write(cluster(i)))
	}
	must(t, w.Close())
	must(t, r.Finish(t0.Add(time.Minute)))
	return r.ID()
}

// crash writes n clusters and goes away like a dying process.
func crash(t *testing.T, v *Vault, n int) ID {
	t.Helper()
	r, w := start(t, v)
	for i := range n {
		must(t, w.Write(cluster(i)))
	}
	must(t, w.f.Close())
	must(t, r.lock.Close())
	return r.ID()
}

// readAll returns the number of good clusters, how the track ends, and the
// error that ended the pass. Clusters that are not what was written fail the test.
func readAll(t *testing.T, tr *TrackReader) (int, End, error) {
	t.Helper()
	c, err := tr.Open()
	if err != nil {
		return 0, End{}, err
	}
	defer c.Close()
	for n := 0; ; n++ {
		b, err := c.Next()
		if err == io.EOF {
			return n, c.End(), nil
		}
		if err != nil {
			return n, c.End(), err
		}
		if !bytes.Equal(b, cluster(n)) {
			t.Fatalf("cluster %d reads %q", n, b)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	id := record(t, openVault(t, dir, Options{}), 5)
	v := openVault(t, dir, Options{}) // as after a restart
	infos, err := v.List()
	must(t, err)
	if len(infos) != 1 {
		t.Fatalf("%d recordings, want 1", len(infos))
	}
	got := infos[0]
	if got.ID != id || got.Room != "canary-room" || got.State != StateFinished || got.Country != "DE" ||
		!got.Started.Equal(t0) || !got.Ended.Equal(t0.Add(time.Minute)) || got.Problem != nil {
		t.Errorf("info %+v", got)
	}
	if len(got.Tracks) != 1 || !got.Tracks[0].Finished || got.Tracks[0].Clusters != 5 || got.Size() == 0 {
		t.Errorf("tracks %+v", got.Tracks)
	}
	r, err := v.Read(id)
	must(t, err)
	if m := r.Tracks[0].Meta; m.Participant != "canary-identity" || m.Source != "camera" {
		t.Errorf("meta %+v", m)
	}
	n, end, err := readAll(t, r.Tracks[0])
	if n != 5 || !end.Finished || err != nil {
		t.Errorf("%d clusters, end %+v, error %v", n, end, err)
	}
}

// Neither media nor names lie on the disk in clear (R17).
func TestNothingInClear(t *testing.T) {
	dir := t.TempDir()
	v := openVault(t, dir, Options{})
	record(t, v, 3)
	crash(t, v, 3)
	files := 0
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte("canary")) {
			t.Errorf("%s holds clear bytes", d.Name())
		}
		fi, _ := d.Info()
		if fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", d.Name(), fi.Mode())
		}
		return err
	}))
	if files < 5 {
		t.Fatalf("only %d files looked at", files)
	}
}

func TestIDsFromOutside(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	for _, id := range []ID{"", "RE_", "../keys", "RE_../../etc", "RE_abcdefgh/..", "RE_abcdefgh\x00", "RE_abcdefg.", ".", "re_abcdefgh"} {
		if _, err := v.Read(id); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("Read(%q): %v, want a refusal of the id", id, err)
		}
	}
	if _, err := v.Read("RE_abcdefgh"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown id: %v", err)
	}
	r, err := v.Create(keep(""), Meta{}, t0)
	must(t, err)
	for _, id := range []TrackID{"", "..", "a/b", "../../x", "a.b", TrackID(strings.Repeat("x", 65)), "lock\x00"} {
		if _, err := r.Track(TrackMeta{TrackID: id}); err == nil {
			t.Errorf("track %q was accepted", id)
		}
	}
}

func TestMisuse(t *testing.T) {
	v := openVault(t, t.TempDir(), Options{})
	r, w := start(t, v)
	if _, err := r.Track(TrackMeta{TrackID: "TR_a"}); err == nil {
		t.Error("a track was added twice")
	}
	if err := r.Finish(t0); err == nil {
		t.Error("finished over an open track")
	}
	for _, b := range [][]byte{nil, make([]byte, maxBody+1)} {
		if err := w.Write(b); err == nil {
			t.Errorf("cluster of %d bytes was accepted", len(b))
		}
	}
	must(t, w.Write(cluster(0)))
	must(t, w.Close())
	must(t, w.Close())
	if err := w.Write(cluster(1)); err == nil {
		t.Error("wrote after Close")
	}
	must(t, r.Finish(t0))
	if err := r.Finish(t0); err == nil {
		t.Error("finished twice")
	}
	if _, err := r.Track(TrackMeta{TrackID: "TR_b"}); err == nil {
		t.Error("a track was added after Finish")
	}
}

func TestKeyStore(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenKeyStore(dir)
	must(t, err)
	b, err := OpenKeyStore(dir)
	must(t, err)
	if a.PublicKey() != b.PublicKey() {
		t.Error("the key changed between two openings")
	}
	path := filepath.Join(dir, identityFile)
	must(t, os.Chmod(path, 0o640))
	if _, err := OpenKeyStore(dir); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("readable key: %v", err)
	}
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, []byte("AGE-SECRET-KEY-1BROKEN\n"), 0o600))
	if _, err := OpenKeyStore(dir); err == nil || strings.Contains(err.Error(), "BROKEN") {
		t.Errorf("broken key: %v", err)
	}
}

func TestSecondRecipientCanOpen(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	second, err := OpenKeyStore(other)
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "keys"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "keys", recipientsFile), []byte(second.PublicKey()+"\n"), 0o600))
	id := record(t, openVault(t, dir, Options{}), 2)
	v, err := Open(filepath.Join(dir, "recordings"), second, Options{Disk: disk})
	must(t, err)
	r, err := v.Read(id)
	must(t, err)
	if n, end, err := readAll(t, r.Tracks[0]); n != 2 || !end.Finished || err != nil {
		t.Errorf("%d clusters, %+v, %v", n, end, err)
	}
	third, err := OpenKeyStore(t.TempDir())
	must(t, err)
	v, err = Open(filepath.Join(dir, "recordings"), third, Options{Disk: disk})
	must(t, err)
	if _, err := v.Read(id); err == nil {
		t.Error("a foreign key opened the recording")
	}
}

// writeForever is the child of TestKill.
func writeForever(dir string) {
	keys, err := OpenKeyStore(filepath.Join(dir, "keys"))
	check(err)
	v, err := Open(filepath.Join(dir, "recordings"), keys, Options{Disk: disk})
	check(err)
	r, err := v.Create(keep("room"), Meta{Room: "room"}, t0)
	check(err)
	w, err := r.Track(TrackMeta{TrackID: "TR_a"})
	check(err)
	for i := 0; ; i++ {
		check(w.Write(cluster(i)))
		fmt.Println(r.ID(), i)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// After kill -9 every cluster whose Write returned is there (G9).
func TestKill(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var id ID
	written := 0
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &id, &n); err != nil {
			break // the last line may be cut
		}
		if written = n + 1; written == 50 {
			// Another process that opens the vault leaves a live recording alone.
			info, err := openVault(t, dir, Options{}).Info(id)
			must(t, err)
			if info.State != StateRecording {
				t.Errorf("live recording is %s", info.State)
			}
			must(t, cmd.Process.Signal(syscall.SIGKILL))
		}
	}
	cmd.Wait()
	if written < 50 {
		t.Fatalf("child wrote %d clusters", written)
	}
	v := openVault(t, dir, Options{})
	r, err := v.Read(id)
	must(t, err)
	if r.Info.State != StateInterrupted || r.Info.Ended.IsZero() {
		t.Errorf("state %s, ended %v", r.Info.State, r.Info.Ended)
	}
	n, end, err := readAll(t, r.Tracks[0])
	must(t, err)
	if n < written || end.Finished {
		t.Errorf("read %d clusters of %d, finished %v", n, written, end.Finished)
	}
}

// Who only looks changes nothing: not what a node receives, and not what one has left.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	v := openVault(t, dir, Options{})
	dead, whole, gone := crash(t, v, 3), record(t, v, 2), record(t, v, 1)
	must(t, v.entomb(gone))
	live, w := start(t, v)
	before := listing(t, dir)
	ro := openVault(t, dir, Options{ReadOnly: true})
	for id, want := range map[ID]State{dead: StateInterrupted, whole: StateFinished, live.ID(): StateRecording} {
		if i, err := ro.Info(id); err != nil || i.State != want || i.Ended.IsZero() != (want == StateRecording) {
			t.Errorf("%s: %+v, %v", want, i, err)
		}
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the vault was\n%sand is\n%s", before, after)
	}
	must(t, w.Write(cluster(0))) // whose lock nobody has taken away
	must(t, w.Close())
	must(t, live.Finish(t0.Add(time.Minute)))
}

// listing is every file below a folder, with its size and time.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
		fmt.Fprintln(&b, path, fi.Size(), fi.ModTime())
		return err
	}))
	return b.String()
}
