package orders

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"time"

	"github.com/domicile/domicile/residency/retention"
)

var t0 = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

// TestBook keeps orders over restarts, a crash in the middle of a line included, and a
// hold that was lifted stays so.
func TestBook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders")
	open := func() *Book {
		b, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open()
	hold := retention.New(retention.Hold, retention.Subject{Room: "board"}, "12345678", make([]byte, 16), t0)
	gone := retention.New(retention.Erasure, retention.Subject{Room: "town"}, "12345678", make([]byte, 16), t0)
	for _, o := range []retention.Order{hold, gone, hold} {
		if _, err := b.Add(o, t0); err != nil {
			t.Fatal(err)
		}
	}
	lifted := hold
	lifted.LiftedMS = t0.Add(time.Hour).UnixMilli()
	if news, err := b.Add(lifted, t0); !news || err != nil {
		t.Fatal(news, err)
	}
	if _, err := b.Add(retention.Order{ID: "HO_12345679"}, t0); err == nil {
		t.Error("an order about everything is kept")
	}
	b.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"id":"HO_cut off`) //nolint:errcheck // the file is the test's
	f.Close()
	b = open()
	if news, err := b.Add(hold, t0.Add(2*time.Hour)); news || err != nil {
		t.Errorf("an old message: %v, %v", news, err)
	}
	if o, ok := b.Get(hold.ID); !ok || o.InForce() {
		t.Errorf("the lifted hold is %+v", o)
	}
	if o, _ := b.Get(gone.ID); o.BeforeMS == 0 || o.Sent().BeforeMS != 0 {
		t.Errorf("the erasure is %+v", o)
	}
	if list, next := b.Since(0, 2); len(list) != 2 || next != 2 || len(b.All()) != 2 {
		t.Errorf("told are %+v, %d", list, next)
	}
	b.Close()
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("a damaged file is opened")
	}
}

// TestUnreadIsNotCut: a disk that fails in the middle of the book has not ended there.
func TestUnreadIsNotCut(t *testing.T) {
	failed := errors.New("input/output error")
	b := &Book{orders: map[string]retention.Order{}}
	line, err := json.Marshal(retention.New(retention.Hold, retention.Subject{Room: "board"}, "12345678", make([]byte, 16), t0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.read(io.MultiReader(bytes.NewReader(append(line, '\n')), iotest.ErrReader(failed))); !errors.Is(err, failed) {
		t.Errorf("read %d orders, %v", len(b.orders), err)
	}
}
