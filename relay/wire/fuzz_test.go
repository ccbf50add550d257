package wire_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/domicile/domicile/relay/wire"
)

// FuzzEnvelope reads whatever comes as the control stream's reader does. What is
// accepted must come back the same when it is framed again.
func FuzzEnvelope(f *testing.F) {
	f.Add(wire.AppendHello(nil, wire.Hello{Version: wire.Version}))
	f.Add(wire.AppendMessage(nil, wire.TypeMessage, wire.Message{Kind: 1, Class: "chat", Room: "r", Body: []byte("hi")}))
	f.Add(wire.AppendReport(nil, wire.Report{Alias: 1}))
	f.Add(wire.AppendDoubts(nil, []wire.Doubt{{Of: "fra", Country: "DE", SeenIn: "US", RTT: 4 * time.Millisecond}, {Of: "waw", Country: "PL"}}))
	f.Add(wire.AppendResponse(nil, wire.Response{Failed: true, Body: []byte("no")}))
	f.Add(wire.AppendStated(nil, wire.Stated{Force: wire.Policy{Epoch: 1}, Has: wire.Policy{Epoch: 2}}))
	f.Add(wire.AppendOffer(nil, wire.Offer{Policy: []byte("epoch: 1"), Signature: []byte("s")}))
	f.Add(wire.AppendAccount(nil, wire.Account{Number: 1, Epoch: 2, Class: "media", Room: "r"}))
	f.Add(wire.AppendTrack(nil, wire.Track{Alias: 1, Account: 1}))
	f.Add(wire.AppendCarriage(nil, wire.Carriage{ID: 1, Port: 7901}))
	f.Add(wire.AppendTally(nil, wire.Tally{Account: 1, Packets: 2, Bytes: 300, Final: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		typ, n, err := wire.ParseEnvelope(b)
		if err != nil || len(b) < wire.EnvelopeSize+n {
			return
		}
		b = b[:wire.EnvelopeSize+n]
		payload := b[wire.EnvelopeSize:]
		var again []byte
		switch typ {
		case wire.TypeHello:
			h, err := wire.ParseHello(payload)
			if err != nil {
				return
			}
			again = wire.AppendHello(nil, h)
		case wire.TypeMessage, wire.TypeRequest:
			m, err := wire.ParseMessage(payload)
			if err != nil {
				return
			}
			if err := m.Check(); err != nil {
				t.Fatalf("accepted a message that is not allowed: %v", err)
			}
			again = wire.AppendMessage(nil, typ, m)
		case wire.TypeReport:
			r, err := wire.ParseReport(payload)
			if err != nil {
				return
			}
			again = wire.AppendReport(nil, r)
		case wire.TypeStated:
			s, err := wire.ParseStated(payload)
			if err != nil {
				return
			}
			again = wire.AppendStated(nil, s)
		case wire.TypeOffer:
			o, err := wire.ParseOffer(payload)
			if err != nil {
				return
			}
			again = wire.AppendOffer(nil, o)
		case wire.TypeIdentity:
			again = wire.AppendIdentity(nil, payload) // not looked into here
		case wire.TypeDoubts:
			list, err := wire.ParseDoubts(payload)
			if err != nil {
				return
			}
			again = wire.AppendDoubts(nil, list)
		case wire.TypeResponse:
			r, err := wire.ParseResponse(payload)
			if err != nil {
				return
			}
			again = wire.AppendResponse(nil, r)
		case wire.TypeAccount:
			a, err := wire.ParseAccount(payload)
			if err != nil {
				return
			}
			again = wire.AppendAccount(nil, a)
		case wire.TypeTrack:
			a, err := wire.ParseTrack(payload)
			if err != nil {
				return
			}
			again = wire.AppendTrack(nil, a)
		case wire.TypeTally:
			a, err := wire.ParseTally(payload)
			if err != nil {
				return
			}
			again = wire.AppendTally(nil, a)
		case wire.TypeCarriage:
			c, err := wire.ParseCarriage(payload)
			if err != nil {
				return
			}
			again = wire.AppendCarriage(nil, c)
		default:
			t.Fatalf("type %s has no parser", typ)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%s: % x came back as % x", typ, b, again)
		}
	})
}

// FuzzFrame reads whatever comes as a media stream, in two pieces.
func FuzzFrame(f *testing.F) {
	frame := make([]byte, wire.FrameSize+wire.PacketOverhead+wire.MinPacket)
	wire.PutFrame(frame, wire.Frame{Alias: 1, Layer: 1, Number: 1})
	wire.PutPacket(frame[wire.FrameSize:], wire.MinPacket, true)
	f.Add(frame, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, split uint16) {
		head, err := wire.ParseFrame(b)
		if err != nil {
			return
		}
		if head.Alias == 0 || head.Layer > wire.MaxLayer {
			t.Fatalf("accepted %+v", head)
		}
		b = b[wire.FrameSize:]
		at := min(int(split), len(b))
		whole := packets(t, b, nil)
		var rest []byte
		parts := packets(t, b[:at], &rest)
		if rest != nil {
			parts += packets(t, append(bytes.Clone(rest), b[at:]...), nil)
			if parts != whole {
				t.Fatalf("%d packets in one piece, %d in two", whole, parts)
			}
		}
	})
}

// packets counts the whole packets in b; left gets what is behind them, nil
// after an error.
func packets(t *testing.T, b []byte, left *[]byte) (n int) {
	for {
		p, _, rest, err := wire.NextPacket(b)
		if err != nil {
			return n
		}
		if p == nil {
			if left != nil {
				*left = append([]byte{}, rest...)
			}
			return n
		}
		if len(p) < wire.MinPacket || len(p) > wire.MaxPacket {
			t.Fatalf("accepted a packet of %d bytes", len(p))
		}
		n, b = n+1, rest
	}
}

// FuzzDatagram reads whatever comes as a datagram.
func FuzzDatagram(f *testing.F) {
	d := wire.AppendHeartbeat(make([]byte, wire.DatagramSize), wire.Ping, 1)
	head := make([]byte, wire.RecordOverhead)
	wire.PutRecord(head, 3, 1, wire.MinPacket)
	f.Add(append(append(d, head...), make([]byte, wire.MinPacket)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, rest, err := wire.ParseDatagram(b)
		for err == nil && len(rest) > 0 {
			before := len(rest)
			var r wire.Record
			if r, rest, err = wire.NextRecord(rest); err != nil {
				return
			}
			if len(rest) >= before {
				t.Fatal("no progress")
			}
			if r.Alias == 0 {
				r.Token()
			} else if len(r.Body) < wire.MinPacket || len(r.Body) > wire.MaxPacket || r.Layer > wire.MaxLayer {
				t.Fatalf("accepted alias %d, layer %d, %d bytes", r.Alias, r.Layer, len(r.Body))
			}
		}
	})
}
