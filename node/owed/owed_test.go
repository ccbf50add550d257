package owed

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// shore is an origin as far as it matters here: things on its disk, and receipts in its
// log, each with the number of its note. It is killed at its n-th step.
type shore struct {
	t    *testing.T
	path string
	keys *vault.KeyStore

	here     map[string]bool
	receipts []string
	left     int // steps until it is killed
}

type killed struct{}

// step is something that a kill may come before or after, but not within.
func (s *shore) step(do func()) {
	if s.left == 0 {
		panic(killed{})
	}
	s.left--
	do()
}

// erases does what a sweep does, and says what of it was lost.
func (s *shore) erases(due []Thing) {
	book, err := Open(s.path, s.keys)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range book.Notes() { // after a restart
		if !n.Gone {
			book.Settle(n.Number, slices.DeleteFunc(slices.Clone(n.Things), func(x Thing) bool { return s.here[x.ID] }))
		}
	}
	s.pays(book)
	due = slices.DeleteFunc(slices.Clone(due), func(x Thing) bool { return !s.here[x.ID] })
	if len(due) == 0 {
		return
	}
	var n Note
	s.step(func() {
		if n, err = book.Begin(t0, due); err != nil {
			s.t.Fatal(err)
		}
	})
	for _, x := range due {
		s.step(func() { delete(s.here, x.ID) })
	}
	book.Settle(n.Number, due)
	s.pays(book)
}

func (s *shore) pays(book *Book) {
	for _, n := range book.Notes() {
		number := fmt.Sprintf("%d ", n.Number)
		if n.Gone && (!n.Found || !slices.ContainsFunc(s.receipts, func(r string) bool { return strings.HasPrefix(r, number) })) {
			s.step(func() {
				for _, x := range n.Things { // all, or none
					s.receipts = append(s.receipts, number+x.ID)
				}
			})
		}
		s.step(func() {
			if err := book.Done(n.Number); err != nil {
				s.t.Fatal(err)
			}
		})
	}
}

// TestNoReceiptIsLost kills an origin at every step of an erasure, and at every step of
// what it does after the restart: what is gone has one receipt, and nothing is owed.
func TestNoReceiptIsLost(t *testing.T) {
	keys, err := vault.OpenKeyStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	due := []Thing{{Kind: residency.KeptRecording, ID: "a", Room: "canaryroom"}, {Kind: residency.KeptRecording, ID: "b"}, {Kind: residency.KeptChat, ID: "c"}}
	dir, kills := t.TempDir(), 0
	for first := range 7 {
		for second := range 7 {
			s := &shore{t: t, path: filepath.Join(dir, fmt.Sprint(first, "-", second)), keys: keys, here: map[string]bool{"a": true, "b": true, "c": true, "other": true}}
			for _, steps := range []int{first, second, 100} {
				func() {
					defer func() {
						if x := recover(); x != nil {
							if _, is := x.(killed); !is {
								panic(x)
							}
							kills++
						}
					}()
					s.left = steps
					s.erases(due)
				}()
			}
			var got []string
			for _, r := range s.receipts {
				got = append(got, r[len(r)-1:])
			}
			if slices.Sort(got); fmt.Sprint(got) != "[a b c]" || !maps.Equal(s.here, map[string]bool{"other": true}) {
				t.Errorf("killed after %d steps and %d more: receipts %q, here is %v", first, second, s.receipts, s.here)
			}
			if _, err := os.Stat(s.path); !os.IsNotExist(err) {
				t.Errorf("killed after %d steps and %d more: something is owed still: %v", first, second, err)
			}
		}
	}
	if kills < 40 {
		t.Errorf("%d kills: the test tries too little", kills)
	}
}

// TestNotes keeps notes sealed over a restart, with numbers that grow, and says so when
// they cannot be read.
func TestNotes(t *testing.T) {
	keys, err := vault.OpenKeyStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "owed")
	b, err := Open(path, keys)
	if err != nil {
		t.Fatal(err)
	}
	one, err := b.Begin(t0, []Thing{{ID: "a", Room: "canaryroom"}})
	two, err2 := b.Begin(t0.Add(-time.Hour), []Thing{{ID: "b"}})
	if err != nil || err2 != nil || two.Number <= one.Number {
		t.Errorf("%v, %v, %v, %v", one, two, err, err2)
	}
	if raw, err := os.ReadFile(path); err != nil || strings.Contains(string(raw), "canaryroom") {
		t.Errorf("the room's name is in clear, or: %v", err)
	}
	if b, err = Open(path, keys); err != nil || len(b.Notes()) != 2 || !b.Notes()[0].Found || b.Notes()[0].Things[0].Room != "canaryroom" {
		t.Errorf("%+v, %v", b.Notes(), err)
	}
	if three, err := b.Begin(t0, nil); err != nil || three.Number <= two.Number {
		t.Errorf("%v, %v", three, err)
	}
	if err := os.WriteFile(path, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err = Open(path, keys); err == nil || len(b.Notes()) != 0 {
		t.Errorf("%+v, %v", b.Notes(), err)
	}
	if _, err := b.Begin(t0, []Thing{{ID: "a"}}); err != nil {
		t.Error(err)
	}
}
