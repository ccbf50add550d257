package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAdminSocketLiesDeep makes the socket where its path is longer than the
// 107 bytes that the kernel takes.
func TestAdminSocketLiesDeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	for range 2 { // the second replaces what the first left behind
		ln, err := listenAdmin(dir)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := DialAdmin(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if info, err := os.Stat(filepath.Join(dir, adminSocket)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v: want mode 0600", info, err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := DialAdmin(t.Context(), dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, adminSocket)) {
		t.Errorf("error %v does not name the socket", err)
	}
}
