package wire_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

func TestDoubts(t *testing.T) {
	want := []wire.Doubt{{Of: "fra", Country: "DE", RTT: 4 * time.Millisecond}, {Of: strings.Repeat("n", 63), Country: "US", SeenIn: "CA"}}
	b := wire.AppendDoubts(nil, want)[wire.EnvelopeSize:]
	got, err := wire.ParseDoubts(b)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	for n := range b {
		if _, err := wire.ParseDoubts(b[:n]); err == nil {
			t.Errorf("cut after %d bytes it is read", n)
		}
	}
	for name, bad := range map[string][]byte{
		"a byte too much":  append(bytes.Clone(b), 0),
		"too many":         {0xff, 0xff},
		"no name":          {0, 1, 0, 'D', 'E', 0, 0, 0, 0, 0, 1},
		"no country":       {0, 1, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 1},
		"a name too long":  append(append([]byte{0, 1, 64}, bytes.Repeat([]byte{'a'}, 64)...), 'D', 'E', 0, 0, 0, 0, 0, 1),
		"half a country":   {0, 1, 1, 'a', 'D', 'E', 'U', 0, 0, 0, 0, 1},
		"small letters":    {0, 1, 1, 'a', 'd', 'e', 0, 0, 0, 0, 0, 1},
		"nothing at all":   nil,
		"a count and none": {0, 1},
	} {
		if got, err := wire.ParseDoubts(bad); err == nil {
			t.Errorf("%s: read as %v", name, got)
		}
	}
	if many := wire.AppendDoubts(nil, make([]wire.Doubt, 0)); len(many) != wire.EnvelopeSize+2 {
		t.Errorf("nothing to say takes %d bytes", len(many))
	}
}
