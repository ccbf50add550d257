package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// childEnv makes the test binary a child that writes rooms to the file it names.
const childEnv = "STORE_TEST_CHILD"

// writeUntilKilled stores rooms without end and prints the number of each once
// it is stored.
func writeUntilKilled(path string) {
	s, err := Open(context.Background(), path, Options{Disk: disk})
	for i := 0; err == nil; i++ {
		if err = put(context.Background(), s, sample(i)); err == nil {
			_, err = fmt.Println(i)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// child starts such a process and waits for its first n rooms.
func child(t *testing.T, path string, n int) (cmd *exec.Cmd, out *bufio.Reader) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	out = bufio.NewReader(pipe)
	for range n {
		_, err := out.ReadString('\n')
		must(t, err)
	}
	return cmd, out
}

// kill ends the child as kill -9 does and returns how many more rooms it had reported.
func kill(t *testing.T, cmd *exec.Cmd, out *bufio.Reader) int {
	t.Helper()
	must(t, cmd.Process.Kill())
	rest, err := io.ReadAll(out)
	must(t, err)
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	return bytes.Count(rest, []byte("\n"))
}

func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	want := 0
	for round := range 3 {
		cmd, out := child(t, path, 20*(round+1))
		want = max(want, 20*(round+1)+kill(t, cmd, out))
		s := open(t, path)
		for i := range want {
			if r, ok, err := s.Room(t.Context(), sample(i).Name); err != nil || !ok || r != sample(i) {
				t.Fatalf("round %d: room %d of %d that were reported stored: %+v, %v, %v", round, i, want, r, ok, err)
			}
		}
		closeStore(t, s)
	}
}

func TestSecondProcessIsLockedOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	cmd, out := child(t, path, 1)
	_, err := Open(t.Context(), path, Options{Disk: disk})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "stop the node") {
		t.Errorf("Open beside a running process: %v, want ErrLocked with a hint", err)
	}
	kill(t, cmd, out)
	closeStore(t, open(t, path))
}

func TestSecondOpenInOneProcessIsLockedOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	s := open(t, path)
	if _, err := Open(t.Context(), path, Options{Disk: disk}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	must(t, put(t.Context(), s, sample(1))) // the first goes on
	closeStore(t, s)
}

// damagedFiles makes a data directory for each kind of damage.
func damagedFiles(t *testing.T) map[string]string {
	t.Helper()
	whole := filepath.Join(t.TempDir(), "rooms.db")
	s := open(t, whole)
	for i := range 500 {
		must(t, put(t.Context(), s, sample(i)))
	}
	closeStore(t, s)
	data, err := os.ReadFile(whole)
	must(t, err)

	// A killed writer leaves a journal; its file is then damaged too.
	killed := filepath.Join(t.TempDir(), "rooms.db")
	must(t, os.WriteFile(killed, data, 0o600))
	must(t, os.CopyFS(filepath.Join(filepath.Dir(killed), "keys"), os.DirFS(filepath.Join(filepath.Dir(whole), "keys"))))
	must(t, os.Chmod(filepath.Join(filepath.Dir(killed), "keys", "store.key"), 0o600))
	cmd, out := child(t, killed, 5)
	kill(t, cmd, out)
	wal, err := os.ReadFile(killed + "-wal")
	must(t, err)
	if len(wal) == 0 {
		t.Fatal("the killed process left no journal")
	}

	middle := bytes.Clone(data)
	for i := len(middle) / 2; i < len(middle); i++ {
		middle[i] ^= 0x5a
	}
	files := map[string]string{}
	add := func(name string, data, wal []byte) {
		path := filepath.Join(t.TempDir(), "rooms.db")
		must(t, os.WriteFile(path, data, 0o600))
		if wal != nil {
			must(t, os.WriteFile(path+"-wal", wal, 0o600))
		}
		files[name] = path
	}
	add("text", []byte(strings.Repeat("this is no database\n", 400)), nil)
	add("one byte", []byte("S"), nil)
	add("a header's beginning", data[:60], nil)
	add("empty, with a journal", nil, wal)
	add("cut in a page", data[:len(data)-1000], nil)
	add("cut in half", data[:len(data)/2], nil)
	add("bits turned", middle, nil)
	add("bits turned, with a journal", middle, wal)
	return files
}

func TestDamagedFileIsLeftAlone(t *testing.T) {
	for name, path := range damagedFiles(t) {
		t.Run(name, func(t *testing.T) {
			before := contents(t, path)
			s, err := Open(t.Context(), path, Options{Disk: disk})
			if err == nil {
				closeStore(t, s)
			}
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "restore it from a backup") || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v, want ErrCorrupt with the path and a hint", err)
			}
			if !maps.Equal(before, contents(t, path)) {
				t.Error("Open changed the damaged files")
			}
		})
	}
}

// contents reads the database and its journal.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range []string{path, path + "-wal"} {
		data, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		files[name] = string(data)
	}
	return files
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "rooms.db")
	must(t, os.WriteFile(path, nil, 0o644))
	s := open(t, path)
	defer closeStore(t, s)
	must(t, put(t.Context(), s, sample(1)))
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		info, err := e.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
}

func TestDeletedRoomLeavesNoTrace(t *testing.T) {
	const canary = "canary-5d41402abc4b2a76"
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "rooms.db"))
	defer closeStore(t, s)
	r := sample(1)
	r.SID = canary     // which is in clear
	for i := range 5 { // several versions of the page go to the journal
		r.Metadata = fmt.Sprint(i)
		must(t, put(t.Context(), s, r))
	}
	if !found(t, dir, canary) {
		t.Fatal("the canary was never on disk, so this test proves nothing")
	}
	must(t, s.DeleteRoom(t.Context(), r.Name, ""))
	if found(t, dir, canary) {
		t.Error("the erased room is still on disk")
	}
}

func found(t *testing.T, dir, canary string) (hit bool) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		hit = hit || bytes.Contains(data, []byte(canary))
		return err
	}))
	return hit
}

func TestNewerFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rooms.db")
	s := open(t, path)
	_, err := s.file.db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)`)
	must(t, err)
	closeStore(t, s)
	if _, err := Open(t.Context(), path, Options{Disk: disk}); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("Open of a file of version 99: %v", err)
	}
}

func TestOddPaths(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, "a b?mode=memory#c%41&_pragma=x.db")
	s := open(t, odd)
	must(t, put(t.Context(), s, sample(1)))
	closeStore(t, s)
	if info, err := os.Stat(odd); err != nil || info.Size() == 0 {
		t.Errorf("the file is not where it was asked for: %v, %v", info, err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing", "rooms.db")} {
		if _, err := Open(t.Context(), path, Options{Disk: disk}); err == nil {
			t.Errorf("Open(%q) succeeded", path)
		}
	}
}
