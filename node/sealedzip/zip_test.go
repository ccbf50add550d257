package sealedzip

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const password = "correct horse battery"

var files = map[string]string{
	"chat.csv":             strings.Repeat("at,name,text\r\n2026-03-01,Zoë,canary\r\n", 500),
	"recordings/film.webm": strings.Repeat("canary film", 9_999),
	"empty.txt":            "",
}

func archive(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "room.zip")
	f, err := os.Create(path)
	must(t, err)
	w, err := New(f, password)
	must(t, err)
	for name, content := range files {
		e, err := w.Create(name, time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), !strings.HasPrefix(name, "recordings/"))
		must(t, err)
		for part := range strings.SplitAfterSeq(content, "a") { // pieces of any length
			_, err := io.WriteString(e, part)
			must(t, err)
		}
	}
	must(t, errors.Join(w.Close(), f.Close()))
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: scripts/deps installs it", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

func unpacked(t *testing.T, dir string) {
	t.Helper()
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, want %d (%v)", name, len(got), len(want), err)
		}
	}
}

// TestUnzip has Info-ZIP test and unpack an archive without a password.
func TestUnzip(t *testing.T) {
	path, dir := archive(t, ""), t.TempDir()
	if out, err := run(t, "unzip", "-t", path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := run(t, "unzip", "-q", path, "-d", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	unpacked(t, dir)
}

// TestPassword has 7-Zip test and unpack a sealed one, with the password and without.
func TestPassword(t *testing.T) {
	path, dir := archive(t, password), t.TempDir()
	if out, err := run(t, "7zz", "t", "-p"+password, path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := run(t, "7zz", "x", "-y", "-o"+dir, "-p"+password, path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	unpacked(t, dir)
	if out, err := run(t, "7zz", "t", "-pwrong password", path); err == nil {
		t.Errorf("opened with another password:\n%s", out)
	}
	out, err := run(t, "7zz", "l", "-slt", "-p"+password, path)
	if err != nil || strings.Count(out, "AES-256") != len(files) || strings.Contains(out, "ZipCrypto") {
		t.Errorf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil || bytes.Contains(b, []byte("canary")) {
		t.Errorf("in clear (%v)", err)
	}
	b[bytes.Index(b, []byte("film.webm"))+60] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
	if out, err := run(t, "7zz", "t", "-p"+password, path); err == nil {
		t.Errorf("a changed archive passes:\n%s", out)
	}
}

func TestRefuses(t *testing.T) {
	if _, err := New(io.Discard, "short"); err == nil {
		t.Error("a short password is taken")
	}
	w, err := New(io.Discard, "")
	must(t, err)
	for _, name := range []string{"", ".", "../x", "/x", "a/../b", "a//b", "a/"} {
		if _, err := w.Create(name, time.Time{}, true); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}
