package slips

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

func open(t *testing.T, dir string) *Box {
	t.Helper()
	keys, err := vault.OpenKeyStore(filepath.Join(dir, "keys"))
	must(t, err)
	b, err := Open(filepath.Join(dir, "slips"), Options{Keys: keys, Disk: residencytest.Disk(residency.ClassMetadata), Flush: true})
	must(t, err)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestSlipsComeBack writes, changes and removes, and opens the folder anew: what was
// put last is there and sealed, what was removed or half written is not.
func TestSlipsComeBack(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	permit := residencytest.Keep("town", "acme", residency.ClassMetadata)
	one := Slip{ID: "EG_one1", Room: "town", SID: "RM_1", Tenant: "acme", Policy: "eea-only", People: []string{"canary-anna"}, AtMS: 17, Body: []byte("canary")}
	two, three := one, one
	two.ID, three.ID = "EG_two2", "EG_three3"
	for _, s := range []Slip{one, two, three} {
		must(t, b.Put(permit, s))
	}
	two.Body = []byte("changed")
	must(t, b.Put(permit, two))
	must(t, b.Remove(three.ID))
	must(t, b.Remove(three.ID))
	must(t, os.WriteFile(filepath.Join(b.dir, unborn+"7"), []byte("half"), 0o600))

	b = open(t, dir)
	got, err := b.All()
	must(t, err)
	if !reflect.DeepEqual(got, []Slip{one, two}) {
		t.Errorf("got %+v", got)
	}
	files, err := os.ReadDir(b.dir)
	must(t, err)
	for _, f := range files {
		raw, err := os.ReadFile(filepath.Join(b.dir, f.Name()))
		must(t, err)
		if bytes.Contains(raw, []byte("canary")) || strings.HasPrefix(f.Name(), unborn) {
			t.Errorf("%s is there, or can be read by anybody", f.Name())
		}
	}
	must(t, os.WriteFile(b.path(one.ID), []byte("age-encryption.org/v1\nnot any more"), 0o600))
	if got, err := b.All(); err == nil || len(got) != 1 {
		t.Errorf("with one that is damaged: %+v, %v", got, err)
	}
	must(t, b.Remove(one.ID))
}

func TestSlipsNeedPermits(t *testing.T) {
	b := open(t, t.TempDir())
	for name, put := range map[string]func() error{
		"none": func() error { return b.Put(residency.Permit{}, Slip{ID: "EG_one1", Room: "town"}) },
		"another room": func() error {
			return b.Put(residencytest.Keep("city", "", residency.ClassMetadata), Slip{ID: "EG_one1", Room: "town"})
		},
		"another class": func() error {
			return b.Put(residencytest.Keep("town", "", residency.ClassRecording), Slip{ID: "EG_one1", Room: "town"})
		},
		"no id": func() error {
			return b.Put(residencytest.Keep("town", "", residency.ClassMetadata), Slip{ID: "../EG_one1", Room: "town"})
		},
		"too much": func() error {
			return b.Put(residencytest.Keep("town", "", residency.ClassMetadata), Slip{ID: "EG_one1", Room: "town", Body: make([]byte, maxSlip)})
		},
	} {
		if put() == nil {
			t.Errorf("%s: kept", name)
		}
	}
	if files, err := os.ReadDir(b.dir); err != nil || len(files) > 0 {
		t.Errorf("files %v, %v", files, err)
	}
	if b.Remove("../x") == nil {
		t.Error("a path was removed")
	}
}
