package membership

import (
	"bytes"
	"testing"

	"github.com/hashicorp/memberlist"
)

func FuzzDecodeState(f *testing.F) {
	f.Add(encodeState(nil))
	f.Add(encodeState([][]byte{[]byte("one"), []byte("two")}))
	f.Add([]byte{stateVersion, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ders, err := decodeState(b)
		if err != nil {
			return
		}
		for _, der := range ders {
			if len(der) == 0 || len(der) > maxCertificate {
				t.Fatalf("a certificate of %d bytes", len(der))
			}
		}
		if again := encodeState(ders); !bytes.Equal(again, b) {
			t.Fatalf("read %x, wrote %x", b, again)
		}
	})
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(encodeWant(want{from: "nyc"}))
	f.Add(encodeCert([]byte("certificate")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, der, err := decodeMessage(b)
		switch {
		case err != nil && (w != nil || der != nil):
			t.Fatal("an error and a message")
		case err == nil && w != nil && !bytes.Equal(encodeWant(*w), b):
			t.Fatalf("read %x, wrote %x", b, encodeWant(*w))
		case err == nil && w == nil && !bytes.Equal(encodeCert(der), b):
			t.Fatalf("read %x, wrote %x", b, encodeCert(der))
		}
	})
}

func FuzzUnpad(f *testing.F) {
	f.Add(pad([]byte("claim"), 0))
	f.Add([]byte{})
	f.Add([]byte{3, 0, 0})
	f.Add([]byte{1, 1, 'c'})
	f.Add([]byte{255, 'c'})
	f.Fuzz(func(t *testing.T, b []byte) {
		claim, err := unpad(b)
		if err != nil {
			return
		}
		if n := len(b) - len(claim); len(claim) == 0 || n < 1 || n > 1+maxPadding || bytes.ContainsFunc(b[1:n], func(r rune) bool { return r != 0 }) {
			t.Fatalf("of %x the claim is %x", b, claim)
		}
	})
}

// Metadata has another length than the last, at any size of a claim that fits.
func TestPaddingDiffers(t *testing.T) {
	for size := 1; size < memberlist.MetaMaxSize; size++ {
		claim, last := bytes.Repeat([]byte{7}, size), 0
		for range 8 {
			meta := pad(claim, last)
			if len(meta) > memberlist.MetaMaxSize || (len(meta) == last && size < memberlist.MetaMaxSize-1) {
				t.Fatalf("a claim of %d bytes after %d: %d", size, last, len(meta))
			}
			if got, err := unpad(meta); err != nil || !bytes.Equal(got, claim) {
				t.Fatalf("%x: %x, %v", meta, got, err)
			}
			last = len(meta)
		}
	}
}
