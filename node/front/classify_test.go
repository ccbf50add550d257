package front

import (
	"slices"
	"testing"
)

func TestClassify(t *testing.T) {
	const cookie = magicCookie
	tests := []struct {
		name  string
		bytes string
		want  kind
		more  bool
	}{
		{"nothing yet", "", kindUnknown, true},
		{"TLS record", "\x16", kindTLS, false},
		{"TLS record, more of it", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", kindTLS, false},
		{"GET", "G", kindHTTP, false},
		{"last letter", "Z", kindHTTP, false},
		{"before the letters", "@", kindUnknown, false},
		{"after the letters", "[", kindUnknown, false},
		{"lower case", "get /", kindUnknown, false},
		{"ChannelData first", "\x40\x00\x00\x08", kindUnknown, false},
		{"SSH", "SSH-2.0-", kindHTTP, false}, // a letter: answered with 400, which is harmless
		{"Allocate, one byte", "\x00", kindUnknown, true},
		{"Allocate, four bytes", "\x00\x03\x00\x08", kindUnknown, true},
		{"Allocate, half the cookie", "\x00\x03\x00\x08\x21\x12", kindUnknown, true},
		{"Allocate", "\x00\x03\x00\x08" + cookie, kindTURN, false},
		{"Binding, framed, its length first", "\x00\x54\x00\x01\x00\x40" + cookie, kindICE, false},
		{"framed, cookie not complete", "\x00\x54\x00\x01\x00\x40\x21\x12", kindUnknown, true},
		{"both cookies open", "\x00\x54\x00\x01\x21\x12", kindUnknown, true},
		{"both cookies fit: the first decides", "\x00\x03\x21\x12" + cookie + "\xA4\x42", kindTURN, false},
		{"below four without a cookie", "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09", kindUnknown, false},
		{"cookie wrong in its last byte", "\x00\x03\x00\x08\x21\x12\xA4\x43\x00\x00", kindUnknown, false},
		{"type 4", "\x04\x03\x00\x08" + cookie, kindUnknown, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, more := classify([]byte(tt.bytes))
			if k != tt.want || more != tt.more {
				t.Fatalf("classify(% x) = %v, more %v; want %v, more %v", tt.bytes, k, more, tt.want, tt.more)
			}
		})
	}
}

// FuzzClassify holds the answer for a whole prefix against the answers for its
// parts: a decision never changes when more bytes arrive, and peekMax bytes
// always suffice.
func FuzzClassify(f *testing.F) {
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte("\x00\x03\x00\x08" + magicCookie))
	f.Add([]byte("\x00\x54\x00\x01\x00\x40" + magicCookie))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b[:min(len(b), peekMax)])
		settled, decided := kindUnknown, false
		for n := range len(b) + 1 {
			k, more := classify(b[:n])
			switch {
			case more && decided:
				t.Fatalf("% x: undecided again after %d bytes", b, n)
			case more && n == peekMax:
				t.Fatalf("% x: wants more than %d bytes", b, peekMax)
			case more && k != kindUnknown:
				t.Fatalf("% x: names %v and wants more", b, k)
			case !more && decided && k != settled:
				t.Fatalf("% x: %v after %d bytes, was %v", b, k, n, settled)
			case !more:
				settled, decided = k, true
			}
		}
	})
}
