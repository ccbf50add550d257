package sfu

import (
	"bytes"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// keeper is a sink that keeps what it is offered.
type keeper struct{ raw [][]byte }

func (k *keeper) Wants() LayerSet            { return 1 }
func (k *keeper) Report(Layer, SenderReport) {}
func (k *keeper) Offer(burst []Packet, _ Out) {
	for _, p := range burst {
		k.raw = append(k.raw, bytes.Clone(p.Raw))
	}
}

// tapped feeds packets through a Tap and returns them as they come out.
func tapped(t *testing.T, from, to Extensions, packets ...[]byte) [][]byte {
	t.Helper()
	codec := Codec{MimeType: "video/VP8", ClockRate: 90000}
	a := NewUpTrack(UpTrackConfig{Kind: Video, Codec: codec, Extensions: from})
	b := NewUpTrack(UpTrackConfig{Kind: Video, Codec: codec, Extensions: to, Relayed: true})
	var k keeper
	b.AddSink(&k)
	tap := NewTap(a, b)
	var in []Inbound
	for _, p := range packets {
		in = append(in, Inbound{Raw: p, Arrival: time.Unix(1, 0)})
	}
	a.Ingest(0, in, &Scratch{})
	tap.Close()
	a.Ingest(0, in, &Scratch{})
	return k.raw
}

func withExtensions(t *testing.T, seq uint16, elements map[uint8][]byte) []byte {
	t.Helper()
	p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, SSRC: 7}, Payload: []byte{0x10, 1, 2, 3}}
	if elements[200] != nil {
		p.Extension, p.ExtensionProfile = true, twoByte
	}
	for id := uint8(1); id < 255; id++ {
		if data := elements[id]; data != nil {
			if err := p.SetExtension(id, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTapHandsPacketsOn(t *testing.T) {
	same := withExtensions(t, 1, map[uint8][]byte{3: {9}, 5: {1, 2, 3}})
	ids := Extensions{VideoOrientation: 3}
	if got := tapped(t, ids, ids, same); len(got) != 1 || !bytes.Equal(got[0], same) {
		t.Errorf("%x came out as %x", same, got)
	}
}

func TestTapRenumbersExtensions(t *testing.T) {
	from := Extensions{VideoOrientation: 3, AbsCaptureTime: 4, PlayoutDelay: 6}
	to := Extensions{VideoOrientation: 13, AbsCaptureTime: 3}
	for name, elements := range map[string]map[uint8][]byte{
		"one-byte form": {3: {1}, 4: {1, 2, 3, 4, 5, 6, 7, 8}, 5: {9}, 6: {1, 2, 3}},
		"two-byte form": {3: {1}, 4: {1, 2, 3, 4, 5, 6, 7, 8}, 5: {9}, 6: {1, 2, 3}, 200: bytes.Repeat([]byte{1}, 40)},
	} {
		in := withExtensions(t, 1, elements)
		kept := bytes.Clone(in)
		got := tapped(t, from, to, in)
		if len(got) != 1 || len(got[0]) != len(in) {
			t.Fatalf("%s: %x", name, got)
		}
		if !bytes.Equal(in, kept) {
			t.Errorf("%s: the packet that others get was changed", name)
		}
		var p rtp.Packet
		if err := p.Unmarshal(got[0]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.GetExtension(13), []byte{1}) || !bytes.Equal(p.GetExtension(3), []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
			t.Errorf("%s: %x, %x", name, p.GetExtension(13), p.GetExtension(3))
		}
		for _, id := range []uint8{4, 5, 6, 200} {
			if p.GetExtension(id) != nil {
				t.Errorf("%s: element %d is still there", name, id)
			}
		}
		if !bytes.Equal(p.Payload, []byte{0x10, 1, 2, 3}) {
			t.Errorf("%s: payload %x", name, p.Payload)
		}
	}
	// An id that the one-byte form cannot say is left out.
	got := tapped(t, Extensions{VideoOrientation: 3}, Extensions{VideoOrientation: 30}, withExtensions(t, 1, map[uint8][]byte{3: {1}}))
	var p rtp.Packet
	if err := p.Unmarshal(got[0]); err != nil || len(p.GetExtensionIDs()) > 0 {
		t.Errorf("%v %v", err, p.GetExtensionIDs())
	}
}

func TestTapAllocatesNothing(t *testing.T) {
	codec := Codec{MimeType: "video/VP8", ClockRate: 90000}
	a := NewUpTrack(UpTrackConfig{Kind: Video, Codec: codec, Extensions: Extensions{VideoOrientation: 3}})
	b := NewUpTrack(UpTrackConfig{Kind: Video, Codec: codec, Extensions: Extensions{VideoOrientation: 4}, Relayed: true})
	b.AddSink(&quiet{})
	defer NewTap(a, b).Close()
	raw := withExtensions(t, 0, map[uint8][]byte{3: {1}})
	in, out, seq := []Inbound{{Raw: raw, Arrival: time.Unix(1, 0)}}, &Scratch{}, uint16(0)
	hand := func() {
		seq++
		raw[2], raw[3] = byte(seq>>8), byte(seq)
		a.Ingest(0, in, out)
	}
	for range 2 * videoCache { // the caches fill once
		hand()
	}
	if n := testing.AllocsPerRun(1000, hand); n > 0 {
		t.Errorf("%v allocations for a packet", n)
	}
}

// quiet is a sink that keeps nothing.
type quiet struct{}

func (*quiet) Wants() LayerSet            { return 1 }
func (*quiet) Report(Layer, SenderReport) {}
func (*quiet) Offer([]Packet, Out)        {}
