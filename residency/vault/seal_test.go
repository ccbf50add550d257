package vault

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// TestSealedFileIsReadFromTheMiddle reads ranges, and one that somebody changed.
func TestSealedFileIsReadFromTheMiddle(t *testing.T) {
	keys, err := OpenKeyStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("canary in a file that is sealed. "), 10_000)
	var sealed bytes.Buffer
	w, err := keys.Seal(&sealed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed.Bytes(), []byte("canary")) {
		t.Error("it is not sealed")
	}
	r, size, err := keys.Open(bytes.NewReader(sealed.Bytes()), int64(sealed.Len()))
	if err != nil || size != int64(len(plain)) {
		t.Fatalf("%d bytes, %v", size, err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		from := rnd.IntN(len(plain))
		got := make([]byte, rnd.IntN(len(plain)-from+1))
		if _, err := r.ReadAt(got, int64(from)); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(got, plain[from:from+len(got)]) {
			t.Fatalf("%d bytes from %d differ", len(got), from)
		}
	}
	b := sealed.Bytes()
	b[len(b)-100] ^= 1
	if r, _, err = keys.Open(bytes.NewReader(b), int64(len(b))); err == nil {
		_, err = io.ReadAll(io.NewSectionReader(r, 0, size))
	}
	if err == nil {
		t.Error("a changed file is read")
	}
}
