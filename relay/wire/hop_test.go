package wire_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/domicile/domicile/relay/wire"
)

func TestFeedbackComesBack(t *testing.T) {
	f := wire.Feedback{Base: 1 << 40, At: []int64{wire.Missed, 70_000, 70_003, wire.Missed, 69_000}, Asked: []uint64{1 << 40, 1<<40 + 16, 1<<40 + 17, 1<<40 + 500}}
	b, asked := wire.AppendFeedback(nil, &f)
	var got wire.Feedback
	if err := got.Parse(b); err != nil || asked != len(f.Asked) {
		t.Fatalf("%v, %d asked", err, asked)
	}
	if got.Base != f.Base || !slices.Equal(got.At, f.At) || !slices.Equal(got.Asked, f.Asked) {
		t.Errorf("got %+v, want %+v", got, f)
	}
	long := wire.Feedback{At: make([]int64, wire.MaxReported+50)}
	for i := range uint64(100) {
		long.Asked = append(long.Asked, 40*i)
	}
	b, asked = wire.AppendFeedback(nil, &long)
	if err := got.Parse(b); err != nil || len(got.At) != wire.MaxReported || len(got.Asked) != wire.MaxAsked || asked != wire.MaxAsked {
		t.Errorf("%v; %d arrivals, %d and %d asked", err, len(got.At), len(got.Asked), asked)
	}
	if len(b)+wire.HopSize+wire.HopTag > 1200 {
		t.Errorf("%d bytes do not fit every path", len(b))
	}
}

// FuzzHop reads whatever comes in a hop datagram, as if it had been opened.
func FuzzHop(f *testing.F) {
	head := make([]byte, wire.RecordOverhead)
	wire.PutRecord(head, 3, 1, wire.MinPacket)
	record := append(head, make([]byte, wire.MinPacket)...)
	f.Add(append([]byte{wire.HopMedia}, record...))
	repair := make([]byte, wire.RepairSize)
	wire.PutRepair(repair, 77)
	f.Add(append(repair, record...))
	fb, _ := wire.AppendFeedback(nil, &wire.Feedback{Base: 9, At: []int64{5, wire.Missed, 7}, Asked: []uint64{10}})
	f.Add(fb)
	hop := make([]byte, 64)
	wire.PutHop(hop, wire.HopHead{Phase: 1, ID: 2, Number: 3})
	f.Add(hop)
	f.Add(wire.AppendCarriage(nil, wire.Carriage{ID: 1, Port: 2})[wire.EnvelopeSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := wire.ParseHop(b); err == nil {
			again := bytes.Clone(b)
			wire.PutHop(again, h)
			if !bytes.Equal(again, b) || h.Number > wire.MaxNumber {
				t.Fatalf("%+v came back as % x", h, again)
			}
		}
		if c, err := wire.ParseCarriage(b); err == nil && !bytes.Equal(wire.AppendCarriage(nil, c)[wire.EnvelopeSize:], b) {
			t.Fatalf("%+v", c)
		}
		var fb wire.Feedback
		if fb.Parse(b) == nil && (len(fb.At) > wire.MaxReported || len(fb.Asked) > 17*wire.MaxAsked) {
			t.Fatalf("%d arrivals, %d asked", len(fb.At), len(fb.Asked))
		}
		_, records, err := wire.ParseRepair(b)
		for err == nil && len(records) > 0 {
			before := len(records)
			var r wire.Record
			if r, records, err = wire.NextMedia(records); err == nil && (len(records) >= before || r.Alias == 0 || r.Layer > wire.MaxLayer) {
				t.Fatalf("%+v", r)
			}
		}
	})
}
