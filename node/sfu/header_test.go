package sfu

import (
	"errors"
	"testing"
)

func TestParseHeaderRefusesWhatCannotBe(t *testing.T) {
	plain := rawRTP(1, 2, 3, []byte{9, 9})
	with := func(edit func([]byte)) []byte {
		b := append([]byte(nil), plain...)
		edit(b)
		return b
	}
	for name, test := range map[string]struct {
		raw  []byte
		want error
	}{
		"nothing":                   {nil, errShort},
		"cut header":                {plain[:11], errShort},
		"too long":                  {make([]byte, maxRTP+1), errLong},
		"version 1":                 {with(func(b []byte) { b[0] = 0x40 }), errVersion},
		"RTCP":                      {with(func(b []byte) { b[1] = 200 }), errRTCP},
		"15 CSRCs in 14 bytes":      {with(func(b []byte) { b[0] |= 15 }), errShort},
		"extension without a head":  {with(func(b []byte) { b[0] |= 0x10 }), errExtension},
		"extension of 65535 words":  {append(with(func(b []byte) { b[0] |= 0x10 }), 0xff, 0xff, 0xff, 0xff), errExtension},
		"padding 0":                 {with(func(b []byte) { b[0] |= 0x20; b[13] = 0 }), errPadding},
		"padding 255 in 2 bytes":    {with(func(b []byte) { b[0] |= 0x20; b[13] = 255 }), errPadding},
		"padding reaches to header": {with(func(b []byte) { b[0] |= 0x20; b[13] = 3 }), errPadding},
		"padding without a payload": {with(func(b []byte) { b[0] |= 0x20 })[:12], errPadding},
		"padding only":              {with(func(b []byte) { b[0] |= 0x20; b[13] = 2 }), nil},
		"plain":                     {plain, nil},
	} {
		if _, err := parseHeader(test.raw); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestParseHeaderFindsThePayload(t *testing.T) {
	raw := withExtension(rawRTP(1, 2, 3, []byte{1, 2, 3, 4, 2}))
	raw[0] |= 0x20
	h, err := parseHeader(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(raw[h.start:h.end]); got != "\x01\x02\x03" {
		t.Errorf("payload is % x, want 01 02 03", got)
	}
}

func TestKeyframes(t *testing.T) {
	for _, test := range []struct {
		name    string
		mime    string
		payload []byte
		want    bool
	}{
		{"VP8 key", "video/VP8", []byte{0x10, 0x00}, true},
		{"VP8 key, extended", "video/vp8", vp8Payload(1, 2, true, 0), true},
		{"VP8 delta", "video/VP8", vp8Payload(1, 2, false, 0), false},
		{"VP8 middle of a key", "video/VP8", []byte{0x00, 0x00}, false},
		{"VP8 second partition", "video/VP8", []byte{0x11, 0x00}, false},
		{"VP8 cut descriptor", "video/VP8", []byte{0x90, 0x80}, false},
		{"VP8 cut picture id", "video/VP8", []byte{0x90, 0x80, 0x80}, false},
		{"VP8 descriptor alone", "video/VP8", []byte{0x90, 0x80, 0x01}, false},
		{"VP9 key", "video/VP9", []byte{0x08}, true},
		{"VP9 key, layer 0", "video/VP9", []byte{0xa8, 0x81, 0x02, 0x00, 0x00}, true},
		{"VP9 upper layer", "video/VP9", []byte{0xa8, 0x01, 0x02}, false},
		{"VP9 delta", "video/VP9", []byte{0x48}, false},
		{"VP9 not a beginning", "video/VP9", []byte{0x80, 0x01}, false},
		{"VP9 cut", "video/VP9", []byte{0xa8}, false},
		{"H264 SPS", "video/H264", []byte{0x67}, true},
		{"H264 STAP-A with SPS", "video/H264", []byte{24, 0, 1, 0x09, 0, 1, 0x67}, true},
		{"H264 STAP-A of huge unit", "video/H264", []byte{24, 0xff, 0xff, 0x09}, false},
		{"H264 FU-A of SPS", "video/H264", []byte{28, 0x87}, true},
		{"H264 FU-A cut", "video/H264", []byte{28}, false},
		{"H264 slice", "video/H264", []byte{0x41}, false},
		{"AV1 new sequence", "video/AV1", []byte{0x18}, true},
		{"AV1 continued", "video/AV1", []byte{0x98}, false},
		{"AV1 delta", "video/AV1", []byte{0x10}, false},
		{"opus", "audio/opus", []byte{1}, true},
		{"nothing", "audio/opus", nil, false},
	} {
		f := formatOf(Codec{MimeType: test.mime})
		if got := f.describe(test.payload, nil, nil, false).keyframe; got != test.want {
			t.Errorf("%s: keyframe is %v, want %v", test.name, got, test.want)
		}
	}
}

// A packet is understood by the structure that it refers to, as long as no more than
// three came since; then it is of nobody knows which layer, and who comes late with that
// is not sent.
func TestOvertakenByStructures(t *testing.T) {
	keyframe := func(offset uint8) []byte {
		var w bitWriter
		w.bit(true)
		w.bit(true)
		w.write(uint32(offset), 6)
		w.write(1, 16)
		w.write(0b10000, 5)
		w.structure(offset)
		return w.bytes()
	}
	late := []byte{0xc0 | 2*3 + 1, 0, 1} // of the first structure: s2 t1
	var dd dependencies
	for i := range uint8(6) {
		if _, ok := dd.parse(keyframe(9 * i)); !ok {
			t.Fatalf("structure %d is not understood", i)
		}
		f, ok := dd.parse(late)
		if want := i <= 3; ok != want || ok && (f.spatial != 2 || f.temporal != 1) {
			t.Errorf("after %d more: s%d t%d, %v", i, f.spatial, f.temporal, ok)
		}
		if d := formatAV1.describe([]byte{0x10}, late, &dd, true); d.adrift == ok {
			t.Errorf("after %d more: adrift is %v", i, d.adrift)
		}
	}
}
