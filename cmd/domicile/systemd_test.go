package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// verifyUnit copies the units, with this test as the program, and has systemd read them.
func verifyUnit(t *testing.T, change func(string) string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	units, err := filepath.Glob("../../configs/systemd/domicile*")
	if err != nil || len(units) != 3 {
		t.Fatalf("units %q, %v", units, err)
	}
	args := []string{"verify", "--man=no"}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.Base(unit))
		text := change(strings.ReplaceAll(string(b), "/usr/bin/domicile", self))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, to)
	}
	out, err := exec.Command("systemd-analyze", args...).CombinedOutput()
	return string(out), err
}

// TestUnits are what systemd takes them for. Its program comes with make deps.
func TestUnits(t *testing.T) {
	if out, err := verifyUnit(t, func(s string) string { return s }); err != nil || strings.Contains(out, "domicile") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUnitsControl(t *testing.T) {
	for _, c := range []struct{ from, to string }{
		{"ListenStream=443", "ListenStreams=443"},
		{"Type=notify", "Type=tells"},
		{"RestartSec=2", "RestartSec=soon"},
	} {
		out, err := verifyUnit(t, func(s string) string { return strings.ReplaceAll(s, c.from, c.to) })
		if err == nil && !strings.Contains(out, "domicile") {
			t.Errorf("%s passes", c.to)
		}
	}
}
