package wire_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/domicile/domicile/relay/wire"
)

func payload(t *testing.T, b []byte, want wire.Type) []byte {
	t.Helper()
	typ, n, err := wire.ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	if typ != want || n != len(b)-wire.EnvelopeSize {
		t.Fatalf("envelope says %s of %d bytes, want %s of %d", typ, n, want, len(b)-wire.EnvelopeSize)
	}
	return b[wire.EnvelopeSize:]
}

func TestEnvelopesComeBack(t *testing.T) {
	hello, err := wire.ParseHello(payload(t, wire.AppendHello(nil, wire.Hello{Version: 7}), wire.TypeHello))
	if err != nil || hello.Version != 7 {
		t.Errorf("hello: %+v, %v", hello, err)
	}
	for _, m := range []wire.Message{
		{},
		{Kind: 65535, Class: "media", Room: "standup", Body: []byte("hi")},
		{Class: strings.Repeat("c", wire.MaxClass), Room: strings.Repeat("r", wire.MaxRoom), Body: make([]byte, wire.MaxMessage)},
	} {
		if err := m.Check(); err != nil {
			t.Fatal(err)
		}
		got, err := wire.ParseMessage(payload(t, wire.AppendMessage(nil, wire.TypeRequest, m), wire.TypeRequest))
		if err != nil || got.Kind != m.Kind || got.Class != m.Class || got.Room != m.Room || !bytes.Equal(got.Body, m.Body) {
			t.Errorf("message of room %q came back changed, %v", m.Room, err)
		}
	}
	rep := wire.Report{Alias: 1 << 31, Layer: 3, Sender: wire.SenderReport{NTP: 1 << 63, RTP: 2, Packets: 3, Octets: 4}}
	if got, err := wire.ParseReport(payload(t, wire.AppendReport(nil, rep), wire.TypeReport)); err != nil || got != rep {
		t.Errorf("report: %+v, %v", got, err)
	}
	for _, r := range []wire.Response{{Body: []byte{}}, {Body: make([]byte, wire.MaxMessage)}, {Failed: true, Body: []byte("no")}} {
		got, err := wire.ParseResponse(payload(t, wire.AppendResponse(nil, r), wire.TypeResponse))
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("response of %d bytes: %v", len(r.Body), err)
		}
	}
	long := wire.AppendResponse(nil, wire.Response{Failed: true, Body: make([]byte, 10_000)})
	if got, err := wire.ParseResponse(payload(t, long, wire.TypeResponse)); err != nil || len(got.Body) != wire.MaxError {
		t.Errorf("long error: %d bytes, %v", len(got.Body), err)
	}
}

func TestMediaComesBack(t *testing.T) {
	b := make([]byte, wire.FrameSize)
	want := wire.Frame{Alias: 5, Layer: 2, Number: 99}
	wire.PutFrame(b, want)
	if got, err := wire.ParseFrame(b); err != nil || got != want {
		t.Errorf("frame header: %+v, %v", got, err)
	}
	var records []byte
	for n := wire.MinPacket; n <= wire.MaxPacket; n += 509 {
		at := len(records)
		records = append(records, make([]byte, wire.PacketOverhead+n)...)
		wire.PutPacket(records[at:], n, n%2 == 0)
	}
	for n := wire.MinPacket; n <= wire.MaxPacket; n += 509 {
		p, last, rest, err := wire.NextPacket(records)
		if err != nil || len(p) != n || last != (n%2 == 0) {
			t.Fatalf("record of %d bytes: %d bytes, last %v, %v", n, len(p), last, err)
		}
		records = rest
	}
	d := make([]byte, wire.DatagramSize)
	wire.PutDatagram(d, 77)
	d = wire.AppendHeartbeat(d, wire.Pong, 1<<40)
	head := make([]byte, wire.RecordOverhead)
	wire.PutRecord(head, 3, 1, 20)
	d = append(append(d, head...), make([]byte, 20)...)
	seq, rest, err := wire.ParseDatagram(d)
	if err != nil || seq != 77 {
		t.Fatalf("datagram: %d, %v", seq, err)
	}
	pong, rest, err := wire.NextRecord(rest)
	if err != nil || pong.Alias != 0 || pong.Layer != wire.Pong || pong.Token() != 1<<40 {
		t.Errorf("heartbeat: %+v, %v", pong, err)
	}
	media, rest, err := wire.NextRecord(rest)
	if err != nil || media.Alias != 3 || media.Layer != 1 || len(media.Body) != 20 || len(rest) != 0 {
		t.Errorf("record: %+v, %v", media, err)
	}
}

func TestMessageThatDoesNotFit(t *testing.T) {
	for want, m := range map[string]wire.Message{
		"class of 33 bytes":     {Class: strings.Repeat("c", wire.MaxClass+1)},
		"room name of 1025":     {Room: strings.Repeat("r", wire.MaxRoom+1)},
		"body of 1048577 bytes": {Body: make([]byte, wire.MaxMessage+1)},
	} {
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"envelope cut":     {second(wire.ParseEnvelope([]byte{1, 0, 0})), "ends too early"},
		"envelope type 0":  {second(wire.ParseEnvelope(make([]byte, 5))), "type 0 is unknown"},
		"hello too long":   {second(wire.ParseEnvelope([]byte{1, 0, 0, 0, 7})), "HELLO of 7 bytes, at most 6"},
		"message too long": {second(wire.ParseEnvelope([]byte{2, 0xff, 0xff, 0xff, 0xff})), "MESSAGE of 4294967295 bytes"},
		"hello cut":        {first(wire.ParseHello(make([]byte, 5))), "5 bytes, want 6"},
		"hello magic":      {first(wire.ParseHello([]byte("HTTP/1"))), `magic "HTTP"`},
		"message cut":      {first(wire.ParseMessage([]byte{0, 1, 0, 0})), "ends too early"},
		"message class":    {first(wire.ParseMessage(append(make([]byte, 10), 33, 0, 0))), "class of 33 bytes"},
		"message room":     {first(wire.ParseMessage(append(make([]byte, 10), 0, 4, 1))), "room name of 1025 bytes"},
		"message room cut": {first(wire.ParseMessage(append(make([]byte, 10), 0, 0, 2, 'a'))), "ends too early"},
		"report length":    {first(wire.ParseReport(make([]byte, 24))), "24 bytes, want 25"},
		"report alias":     {first(wire.ParseReport(make([]byte, 25))), "alias 0"},
		"response empty":   {first(wire.ParseResponse(nil)), "ends too early"},
		"response status":  {first(wire.ParseResponse([]byte{8: 0, 0: 2})), "status 2"},
		"response error":   {first(wire.ParseResponse(append([]byte{1}, make([]byte, 8+513)...))), "error of 513 bytes"},
		"response account": {first(wire.ParseResponse([]byte{1, 0, 0, 0, 0, 0, 0, 0, 1})), "an error under account 1"},
		"account cut":      {first(wire.ParseAccount(make([]byte, 18))), "ends too early"},
		"account 0":        {first(wire.ParseAccount(make([]byte, 19))), "number 0"},
		"account too long": {first(wire.ParseAccount(append([]byte{7: 1}, make([]byte, 12)...))), "1 bytes too many"},
		"track length":     {first(wire.ParseTrack(make([]byte, 11))), "11 bytes, want 12"},
		"track alias":      {first(wire.ParseTrack(make([]byte, 12))), "alias 0"},
		"tally length":     {first(wire.ParseTally(make([]byte, 24))), "24 bytes, want 25"},
		"tally final":      {first(wire.ParseTally(append(make([]byte, 24), 2))), "final 2"},
		"frame cut":        {first(wire.ParseFrame(make([]byte, 8))), "ends too early"},
		"frame layer":      {first(wire.ParseFrame([]byte{0, 0, 0, 1, 4, 0, 0, 0, 0})), "layer 4"},
		"datagram cut":     {second(wire.ParseDatagram(make([]byte, 3))), "ends too early"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, c.err, c.want)
		}
	}
}

func first[A any](_ A, err error) error          { return err }
func second[A, B any](_ A, _ B, err error) error { return err }
