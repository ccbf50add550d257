package transport

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// slowFrames is what frames should find, read at leisure.
func slowFrames(b []byte) (all [][]byte, bad bool) {
	for len(b) >= 2 {
		n := int(binary.BigEndian.Uint16(b))
		switch {
		case n > maxDatagram:
			return all, true
		case len(b) < 2+n:
			return all, false
		case n > 0:
			all = append(all, b[2:2+n])
		}
		b = b[2+n:]
	}
	return all, false
}

// FuzzFrames gives the same stream in pieces of any sizes: what comes out does not
// depend on them.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x05media\x00\x00\x00\x01x"), []byte{1, 2, 3})
	f.Add([]byte("\x00\x05med"), []byte{255})
	f.Add([]byte("\x00\x01a\xff\xffgarbage"), []byte{4, 1})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte{16})
	f.Add(append([]byte{0x07, 0xff}, make([]byte, 2*maxDatagram)...), []byte{100, 200, 1})
	f.Fuzz(func(t *testing.T, b, pieces []byte) {
		want, wantBad := slowFrames(b)
		fr := frames{buf: make([]byte, frameBuffer)}
		var got [][]byte
		for i, rest := 0, b; len(rest) > 0 && !fr.bad; i++ {
			size := len(rest)
			if len(pieces) > 0 {
				size = 1 + int(pieces[i%len(pieces)])*17
			}
			room := fr.room()
			if len(room) == 0 {
				t.Fatal("no room for a frame")
			}
			n := copy(room, rest[:min(size, len(rest))])
			rest = rest[n:]
			fr.filled(n)
			fr.all(func(d []byte) bool {
				got = append(got, bytes.Clone(d))
				clear(d) // they are changed in place, and nothing else with them
				return true
			})
			fr.compact()
		}
		if len(got) != len(want) || fr.bad != wantBad {
			t.Fatalf("%d frames, bad %v; want %d, %v", len(got), fr.bad, len(want), wantBad)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d is %x, want %x", i, got[i], want[i])
			}
		}
	})
}
