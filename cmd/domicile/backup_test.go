package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node"
)

// TestBackupAndRestore backs up a node that runs, loses its directory, restores it as
// docs/operating.md says, and starts it again.
func TestBackupAndRestore(t *testing.T) {
	u := newUpgradable(t)
	dir := filepath.Join(filepath.Dir(u.node.Config), "data")
	archive := filepath.Join(t.TempDir(), "fra.tar")
	command := func(args ...string) (string, error) {
		cmd := exec.Command(u.program, args...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(u.program)+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Run("running", func(t *testing.T) {
		u.start(t, exec.Command(u.program, "run", "--config", u.node.Config))
		u.meet(t)
		if out, err := command("backup", "--config", u.node.Config, "--to", archive, "--keys"); err != nil || !strings.Contains(out, "1 rooms: read again, and whole") {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := command("backup", "--config", u.node.Config, "--to", archive); err == nil || !strings.Contains(out, "there is such a file already") {
			t.Errorf("a second backup of that name: %v: %s", err, out)
		}
		out, err := command("backup", "--config", u.node.Config, "--to", archive+".2")
		if err != nil || !strings.Contains(out, "without the keys") {
			t.Errorf("without keys: %v: %s", err, out)
		}
	})
	if out, err := command("backup", "--config", u.node.Config, "--to", archive+".3"); err == nil || !strings.Contains(out, "is it running") {
		t.Errorf("of a node that is stopped: %v: %s", err, out)
	}
	if info, err := os.Stat(archive); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the archive: %v, %v", info, err)
	}
	if b, err := exec.Command("tar", "-tf", archive+".2").Output(); err != nil || strings.Contains(string(b), "keys/") || !strings.Contains(string(b), "evidence/log") {
		t.Errorf("the archive without keys holds %s, %v", b, err)
	}

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	restore := exec.Command("sh", "-c", `mkdir -m 700 "$1" && tar -xf "$2" -C "$1" && cd "$1" && sha256sum --quiet -c MANIFEST && rm MANIFEST`, "sh", dir, archive)
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	if n, err := store.Verify(t.Context(), filepath.Join(dir, "rooms.db"), filepath.Join(dir, "keys", "store.key")); n != 1 || err != nil {
		t.Errorf("%d rooms are restored, %v", n, err)
	}
	u.lines = make(chan string, 1000)
	u.start(t, exec.Command(u.program, "run", "--config", u.node.Config))
	u.meet(t)
	u.signal(t, syscall.Signal(0)) // it runs
}

// TestDamagedBackupIsNoticed changes an archive, and cuts it.
func TestDamagedBackupIsNoticed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"rooms.db": "not a database", node.BackupManifest: "0000  rooms.db\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for want, files := range map[string][]string{"not those of its manifest": {"rooms.db", node.BackupManifest}, "it is cut": {"rooms.db"}} {
		archive := filepath.Join(dir, "b.tar")
		if out, err := exec.Command("tar", append([]string{"-cf", archive, "-C", dir}, files...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := checkBackup(t.Context(), archive, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", files, err, want)
		}
	}
}
