package wire_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// testdata/version2.txt has what the release before wrote, one frame of each kind, in
// its own words: it was made by that release's encoders. As long as version 2 is spoken
// these bytes are read, and written, as they stand there.
const previous = "testdata/version2.txt"

var writePrevious = flag.Bool("previous", false, "write "+previous+"; only ever from the tree of that release")

// frames are the values behind the bytes.
func frames() []struct {
	name  string
	bytes []byte
} {
	rtp := []byte{0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3}
	datagram := make([]byte, wire.DatagramSize)
	wire.PutDatagram(datagram, 7)
	record := make([]byte, wire.RecordOverhead)
	wire.PutRecord(record, 5, 2, len(rtp))
	frame := make([]byte, wire.FrameSize)
	wire.PutFrame(frame, wire.Frame{Alias: 5, Layer: 2, Number: 99})
	packet := make([]byte, wire.PacketOverhead)
	wire.PutPacket(packet, len(rtp), true)
	return []struct {
		name  string
		bytes []byte
	}{
		{"hello", wire.AppendHello(nil, wire.Hello{Version: 2})},
		{"message", wire.AppendMessage(nil, wire.TypeMessage, wire.Message{Kind: 0x12, Account: 9, Class: "signalling", Room: "town", Body: []byte("{}")})},
		{"request", wire.AppendMessage(nil, wire.TypeRequest, wire.Message{Kind: 2, Account: 10, Class: "chat", Room: "town", Body: []byte("who")})},
		{"response", wire.AppendResponse(nil, wire.Response{Account: 11, Body: []byte("me")})},
		{"failure", wire.AppendResponse(nil, wire.Response{Failed: true, Body: []byte("no")})},
		{"report", wire.AppendReport(nil, wire.Report{Alias: 5, Layer: 1, Sender: wire.SenderReport{NTP: 1 << 63, RTP: 2, Packets: 3, Octets: 4}})},
		{"account", wire.AppendAccount(nil, wire.Account{Number: 9, Epoch: 4, Class: "media", Room: "town"})},
		{"track", wire.AppendTrack(nil, wire.Track{Alias: 5, Account: 9})},
		{"tally", wire.AppendTally(nil, wire.Tally{Account: 9, Packets: 100, Bytes: 1 << 33, Final: true})},
		{"identity", wire.AppendIdentity(nil, []byte("proof"))},
		{"offer", wire.AppendOffer(nil, wire.Offer{Policy: []byte("epoch: 2"), Signature: []byte("signed")})},
		{"doubts", wire.AppendDoubts(nil, []wire.Doubt{{Of: "nyc", Country: "US", SeenIn: "DE", RTT: 2 * time.Millisecond}})},
		{"stated", wire.AppendStated(nil, wire.Stated{Force: wire.Policy{Epoch: 4, Digest: [32]byte{1}}, Has: wire.Policy{Epoch: 5, Digest: [32]byte{2}}})},
		{"datagram", append(append(datagram, record...), rtp...)},
		{"ping", wire.AppendHeartbeat(nil, wire.Ping, 77)},
		{"pong", wire.AppendHeartbeat(nil, wire.Pong, 77)},
		{"frame", append(append(frame, packet...), rtp...)},
	}
}

func TestPreviousVersion(t *testing.T) {
	if *writePrevious {
		var out strings.Builder
		for _, f := range frames() {
			fmt.Fprintf(&out, "%s %s\n", f.name, hex.EncodeToString(f.bytes))
		}
		if err := os.WriteFile(previous, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(previous)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{}
	for line := range strings.Lines(string(file)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		kept[name] = text
	}
	for _, f := range frames() {
		if got := hex.EncodeToString(f.bytes); got != kept[f.name] {
			t.Errorf("%s is written as\n%s, the release before wrote\n%s", f.name, got, kept[f.name])
		}
		delete(kept, f.name)
	}
	for name := range kept {
		t.Errorf("%s: what the release before wrote is not looked at", name)
	}
}

// TestPreviousVersionIsRead reads what the release before wrote.
func TestPreviousVersionIsRead(t *testing.T) {
	file, err := os.ReadFile(previous)
	if err != nil {
		t.Fatal(err)
	}
	says := map[string]string{
		"hello": "{2}", "message": "{18 9 signalling town [123 125]}", "request": "{2 10 chat town [119 104 111]}", "response": "{false 11 [109 101]}", "failure": "{true 0 [110 111]}",
		"report": "{5 1 {9223372036854775808 2 3 4}}", "account": "{9 4 media town}", "track": "{5 9}", "tally": "{9 100 8589934592 true}",
		"offer": "{[101 112 111 99 104 58 32 50] [115 105 103 110 101 100]}", "datagram": "7 {5 2 [128 96 0 1 0 0 0 2 0 0 0 3]}", "frame": "{5 2 99} [128 96 0 1 0 0 0 2 0 0 0 3] true",
		"doubts": "[{nyc US DE 2ms}]", "stated": fmt.Sprint(wire.Stated{Force: wire.Policy{Epoch: 4, Digest: [32]byte{1}}, Has: wire.Policy{Epoch: 5, Digest: [32]byte{2}}}),
	}
	for line := range strings.Lines(string(file)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if want := says[name]; want != "" && read(t, name, b) != want {
			t.Errorf("%s reads %s, want %s", name, read(t, name, b), want)
		}
	}
}

func read(t *testing.T, name string, b []byte) string {
	t.Helper()
	var v any
	var err error
	switch name {
	case "datagram":
		seq, records, err := wire.ParseDatagram(b)
		if err != nil {
			t.Fatal(err)
		}
		r, rest, err := wire.NextRecord(records)
		if err != nil || len(rest) > 0 {
			t.Fatal(err, rest)
		}
		return fmt.Sprint(seq, r)
	case "frame":
		f, err := wire.ParseFrame(b)
		if err != nil {
			t.Fatal(err)
		}
		packet, last, rest, err := wire.NextPacket(b[wire.FrameSize:])
		if err != nil || len(rest) > 0 {
			t.Fatal(err, rest)
		}
		return fmt.Sprint(f, packet, last)
	}
	if _, n, err := wire.ParseEnvelope(b); err != nil || n != len(b)-wire.EnvelopeSize {
		t.Fatal(name, n, err)
	}
	switch b = b[wire.EnvelopeSize:]; name {
	case "hello":
		v, err = wire.ParseHello(b)
	case "message", "request":
		v, err = wire.ParseMessage(b)
	case "response", "failure":
		v, err = wire.ParseResponse(b)
	case "report":
		v, err = wire.ParseReport(b)
	case "account":
		v, err = wire.ParseAccount(b)
	case "track":
		v, err = wire.ParseTrack(b)
	case "tally":
		v, err = wire.ParseTally(b)
	case "doubts":
		v, err = wire.ParseDoubts(b)
	case "stated":
		v, err = wire.ParseStated(b)
	case "offer":
		v, err = wire.ParseOffer(b)
	}
	if err != nil {
		t.Fatal(name, err)
	}
	return fmt.Sprint(v)
}

// TestAgree is the table of versions.
func TestAgree(t *testing.T) {
	for _, c := range []struct {
		ours, theirs, want uint16
		ok                 bool
	}{{3, 3, 3, true}, {3, 2, 2, true}, {2, 3, 2, true}, {3, 77, 3, true}, {3, 1, 1, false}, {3, 0, 0, false}} {
		if got, ok := wire.Agree(c.ours, c.theirs); got != c.want || ok != c.ok {
			t.Errorf("%d and %d: %d %t, want %d %t", c.ours, c.theirs, got, ok, c.want, c.ok)
		}
	}
}
