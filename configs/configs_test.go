package configs

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the expected errors of testdata/bad anew")

// TestBadFiles pairs every bad file with the exact error it gives.
func TestBadFiles(t *testing.T) {
	for kind, load := range map[string]func(string) error{
		"node":    func(path string) error { _, err := LoadNode(path); return err },
		"routing": func(path string) error { _, err := LoadRouting(path); return err },
		"policy":  func(path string) error { _, err := LoadPolicy(path); return err },
	} {
		files, err := filepath.Glob(filepath.Join("testdata", "bad", kind, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no bad %s files: %v", kind, err)
		}
		for _, file := range files {
			t.Run(kind+"/"+strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
				testBadFile(t, file, load(file))
			})
		}
	}
}

func testBadFile(t *testing.T, file string, err error) {
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got error %v, want Faults", err)
	}
	got := err.Error() + "\n"
	golden := strings.TrimSuffix(file, ".yaml") + ".err"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
