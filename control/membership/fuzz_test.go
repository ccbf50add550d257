package membership

import (
	"bytes"
	"testing"
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
