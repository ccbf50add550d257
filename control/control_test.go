package control

import (
	"errors"
	"strings"
	"testing"
)

// TestValidRoomName is A18 for names.
func TestValidRoomName(t *testing.T) {
	for _, name := range []string{"a", "stand up", "Besprechung Ä", "会議", "a.b", "...", "room#1?x=%2e", strings.Repeat("r", 128)} {
		if err := ValidRoomName(name); err != nil {
			t.Errorf("%q refused: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "../etc/passwd", "a/b", `a\b`, "a\x00b", "a\nb", "a\x7fb", "\u202Egnp.exe", "a\u200bb", "\xff\xfe", strings.Repeat("r", 129), strings.Repeat("é", 65)} {
		if err := ValidRoomName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v, want ErrInvalid", name, err)
		}
	}
}

func TestValidAttributes(t *testing.T) {
	if err := ValidAttributes(map[string]string{"k": strings.Repeat("v", MaxAttributeBytes-1)}); err != nil {
		t.Error(err)
	}
	if err := ValidAttributes(map[string]string{"k": strings.Repeat("v", MaxAttributeBytes)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one byte too many: %v", err)
	}
}
