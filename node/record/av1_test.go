package record

import (
	"bytes"
	"slices"
	"testing"

	"github.com/pion/rtp/codecs/av1/obu"
)

// sequenceOf returns the payload of the sequence header in a film's first picture.
func sequenceOf(t *testing.T) []byte {
	t.Helper()
	for u := range obus(film(t, codecAV1)[0].data) {
		if u.header.Type == obu.OBUSequenceHeader {
			return u.payload
		}
	}
	t.Fatal("the film begins without a sequence header")
	return nil
}

// TestLayersOfAV1 has two spatial layers in packets of their own: both are stored, as
// OBUs with sizes, behind a temporal delimiter.
func TestLayersOfAV1(t *testing.T) {
	const (
		sequence = byte(obu.OBUSequenceHeader) << 3
		frame    = byte(obu.OBUFrame)<<3 | 4 // with an extension
		upper    = 1 << 3                    // spatial layer 1
	)
	header := sequenceOf(t)
	begins := slices.Concat([]byte{0x28, byte(len(header) + 1), sequence}, header, []byte{frame, 0, 0x10, 'a'}) // two OBUs, N
	halves := [][]byte{{0x50, frame, upper, 0x10, 'b'}, {0x90, 'c'}}                                            // one OBU: Y, then Z
	var a av1Units
	a.begin()
	if !a.starts(begins, false) || a.starts(halves[0], false) || !a.starts(halves[0], true) || a.starts(halves[1], true) {
		t.Error("what begins a temporal unit is not told from what does not")
	}
	var f []byte
	for _, payload := range append([][]byte{begins}, halves...) {
		var err error
		f, err = a.add(f, payload)
		must(t, err)
	}
	got, key := a.finish(f)
	want := slices.Concat([]byte{0x12, 0, sequence | 2, byte(len(header))}, header, []byte{frame | 2, 0, 2, 0x10, 'a'}, []byte{frame | 2, upper, 3, 0x10, 'b', 'c'})
	if !key || !bytes.Equal(got, want) {
		t.Errorf("keyframe %v\ngot  %x\nwant %x", key, got, want)
	}
	if config, w, h, err := av1Config(got); err != nil || w != 320 || h != 240 || config[0] != 0x81 || !bytes.HasSuffix(config, header) {
		t.Errorf("%x, %dx%d, %v", config, w, h, err)
	}

	a.begin()
	f, err := a.add(nil, begins)
	must(t, err)
	if f, err = a.add(f, halves[0]); err != nil {
		t.Fatal(err)
	}
	if got, _ := a.finish(f); got != nil {
		t.Errorf("a unit whose last packet is missing is stored as %x", got)
	}
	if got, key := a.finish(nil); len(got) != 0 || key {
		t.Error("nothing is a picture")
	}
}

// TestEndlessAV1 goes on with an OBU for ever: it is bounded.
func TestEndlessAV1(t *testing.T) {
	var a av1Units
	a.begin()
	part := append([]byte{0x50}, bytes.Repeat([]byte{byte(obu.OBUFrame) << 3}, 60_000)...)
	for n := 0; ; n += len(part) {
		if _, err := a.add(nil, part); err != nil {
			break
		}
		if n > maxFrame {
			t.Fatalf("%d bytes taken", n)
		}
		part[0] = 0xd0 // goes on, and on
	}
}

func TestSequenceHeadersOfAV1(t *testing.T) {
	header := sequenceOf(t)
	of := func(b []byte) []byte {
		return append([]byte{byte(obu.OBUSequenceHeader)<<3 | 2, byte(len(b))}, b...)
	}
	for n := range header[:8] {
		if _, w, h, err := av1Config(of(header[:n])); err == nil {
			t.Errorf("cut at %d: %dx%d", n, w, h)
		}
	}
	for _, f := range [][]byte{nil, {0x0a}, {0x0a, 5, 0}, {0x8a, 0}, {0x32, 0}} {
		if _, _, _, err := av1Config(f); err == nil {
			t.Errorf("%x has a configuration", f)
		}
	}
}
