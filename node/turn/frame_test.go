package turn

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/pion/stun/v3"
)

func TestReadFrame(t *testing.T) {
	const head = "\x00\x03\x00\x00\x21\x12\xa4\x42abcdefghijkl"
	tests := []struct {
		name, stream string
		want         []string
		err          string
	}{
		{"STUN", head, []string{head}, "EOF"},
		{"ChannelData without padding", "\x40\x00\x00\x04data", []string{"\x40\x00\x00\x04data"}, "EOF"},
		{"ChannelData with padding", "\x40\x00\x00\x01x\x00\x00\x00" + head, []string{"\x40\x00\x00\x01x", head}, "EOF"},
		{"empty ChannelData", "\x7f\xff\x00\x00" + head, []string{"\x7f\xff\x00\x00", head}, "EOF"},
		{"cut header", "\x00\x03", nil, "EOF"},
		{"cut body", head[:19], nil, "unexpected EOF"},
		{"cut padding", "\x40\x00\x00\x01x\x00", nil, "EOF"},
		{"no cookie", strings.Replace(head, "\x21", "\x20", 1), nil, "without the magic cookie"},
		{"length not a multiple of four", "\x00\x03\x00\x02", nil, "not a multiple of four"},
		{"longer than any datagram", "\x00\x03\xff\xfc", nil, "longer than"},
		{"longest ChannelData", "\x40\x00\xff\xff", nil, "longer than"},
		{"HTTP", "\x80ET / ", nil, "neither STUN nor ChannelData"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, buf := bufio.NewReader(strings.NewReader(tt.stream)), make([]byte, 1600)
			for _, want := range tt.want {
				n, err := readFrame(r, buf)
				if err != nil || string(buf[:n]) != want {
					t.Fatalf("frame % x, %v; want % x", buf[:n], err, want)
				}
			}
			if _, err := readFrame(r, buf); err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestInspectRefusesMalformedAttributes(t *testing.T) {
	head := "\x00\x03\x00\x08\x21\x12\xa4\x42abcdefghijkl"
	for _, attrs := range []string{"\x00\x19", "\x00\x19\x00\x08\x11\x00\x00\x00", "\x00\x19\xff\xff\x11\x00\x00\x00"} {
		if v, err := inspect([]byte(head+attrs), peersOf("192.0.2.1:5000")); err == nil || v == pass {
			t.Errorf("% x: verdict %d, %v", attrs, v, err)
		}
	}
}

func peersOf(addrs ...string) *peerTable {
	var peers []Peer
	for _, a := range addrs {
		peers = append(peers, Peer{Advertised: netip.MustParseAddrPort(a)})
	}
	t, err := newPeerTable(peers)
	if err != nil {
		panic(err)
	}
	return t
}

// FuzzStream reads hostile streams: frames keep to their bounds, and what
// inspect passes holds nothing that this relay refuses, as pion's own parser
// sees it.
func FuzzStream(f *testing.F) {
	for _, m := range []stun.Setter{
		udpTransport,
		attribute{stun.AttrRequestedTransport, []byte{6, 0, 0, 0}},
		attribute{stun.AttrEvenPort, []byte{0x80}},
		rawPeerAttr(netip.MustParseAddrPort("192.0.2.1:5000")),
		rawPeerAttr(netip.MustParseAddrPort("[::ffff:192.0.2.1]:5000")),
	} {
		for _, method := range []stun.Method{stun.MethodAllocate, stun.MethodCreatePermission, stun.MethodChannelBind} {
			f.Add(stun.MustBuild(stun.TransactionID, stun.NewType(method, stun.ClassRequest), m).Raw)
		}
	}
	f.Add([]byte("\x40\x00\x00\x01x\x00\x00\x00\x40\x00\x00\x00"))
	own := netip.MustParseAddrPort("192.0.2.1:5000")
	peers := peersOf(own.String())
	f.Fuzz(func(t *testing.T, stream []byte) {
		r, buf := bufio.NewReader(bytes.NewReader(stream)), make([]byte, 1600)
		for {
			n, err := readFrame(r, buf)
			if err != nil {
				return
			}
			if n < channelHeader || n > maxFrame {
				t.Fatalf("frame of %d bytes", n)
			}
			if buf[0] >= 0x40 {
				continue
			}
			v, err := inspect(buf[:n], peers)
			if err != nil && v == pass {
				t.Fatalf("passes with error %v", err)
			}
			if v == pass {
				mustBeHarmless(t, buf[:n], own)
			}
			if v > 0 {
				mustBeError(t, buf[:n], v)
			}
		}
	})
}

func mustBeHarmless(t *testing.T, raw []byte, own netip.AddrPort) {
	m := &stun.Message{Raw: raw}
	if m.Decode() != nil || m.Type.Class != stun.ClassRequest {
		return
	}
	switch m.Type.Method {
	case stun.MethodAllocate:
		if m.Contains(stun.AttrEvenPort) || m.Contains(stun.AttrReservationToken) {
			t.Fatalf("passes a port of one's choice: % x", raw)
		}
		if v, err := m.Get(stun.AttrRequestedTransport); err == nil && (len(v) == 0 || v[0] != transportUDP) {
			t.Fatalf("passes transport % x", v)
		}
	case stun.MethodCreatePermission, stun.MethodChannelBind:
		m.ForEach(stun.AttrXORPeerAddress, func(m *stun.Message) error {
			var a stun.XORMappedAddress
			if a.GetFromAs(m, stun.AttrXORPeerAddress) != nil {
				return nil
			}
			if ip, _ := netip.AddrFromSlice(a.IP); ip != own.Addr() {
				t.Fatalf("passes peer %s", ip)
			}
			if m.Type.Method == stun.MethodChannelBind && a.Port != int(own.Port()) {
				t.Fatalf("binds a channel to port %d", a.Port)
			}
			return nil
		})
	case stun.MethodBinding, stun.MethodRefresh:
	default:
		t.Fatalf("passes method %s", m.Type.Method)
	}
}

func mustBeError(t *testing.T, request []byte, v verdict) {
	answer := appendError(nil, request, v)
	m := &stun.Message{Raw: answer}
	if err := m.Decode(); err != nil {
		t.Fatalf("answer % x: %v", answer, err)
	}
	var code stun.ErrorCodeAttribute
	if err := code.GetFrom(m); err != nil || int(code.Code) != int(v) {
		t.Fatalf("answer with code %d, %v; want %d", code.Code, err, v)
	}
	if m.Type.Class != stun.ClassErrorResponse || !bytes.Equal(m.TransactionID[:], request[8:20]) {
		t.Fatalf("answer %s does not fit its request", m)
	}
}

func BenchmarkReadChannelData(b *testing.B) {
	frame := append(binary.BigEndian.AppendUint16([]byte{0x40, 0}, 1200), make([]byte, 1200)...)
	src := &repeat{frame: frame}
	r, buf := bufio.NewReader(src), make([]byte, 1600)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readFrame(r, buf); err != nil {
			b.Fatal(err)
		}
	}
}

type repeat struct {
	frame []byte
	at    int
}

func (r *repeat) Read(b []byte) (int, error) {
	n := copy(b, r.frame[r.at:])
	r.at = (r.at + n) % len(r.frame)
	return n, nil
}

var _ io.Reader = (*repeat)(nil)
