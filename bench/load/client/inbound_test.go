package client

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
)

func packet(seq uint16, ssrc uint32, pt byte) []byte {
	b := make([]byte, 40)
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

func TestInboundCountsAndReports(t *testing.T) {
	in := newInbound(16)
	at := time.Unix(1000, 0)
	passed := 0
	for i := range 1000 {
		seq := uint16(65000 + i) // wraps
		if i%10 == 5 {
			continue // lost
		}
		if in.arrive(packet(seq, 7, 96), at.Add(time.Duration(i)*time.Millisecond)) {
			passed++
			if got, ok := in.arrivedAt(7, seq); !ok || !got.Equal(at.Add(time.Duration(i)*time.Millisecond)) {
				t.Fatalf("packet %d arrived at %v, %v", seq, got, ok)
			}
		}
	}
	if n, repairs := in.Packets(), in.Repairs(); n != 900 || repairs != 0 {
		t.Errorf("%d packets and %d repairs counted, want 900 and none", n, repairs)
	}
	if passed < 70 || passed > 110 {
		t.Errorf("%d packets are decrypted, want 32 and a sixteenth of the others", passed)
	}
	r := in.reports()
	if len(r) != 1 || r[0].SSRC != 7 || r[0].TotalLost != 100 || r[0].FractionLost != 25 {
		t.Errorf("reports %+v, want 100 lost, a tenth", r)
	}
	if r := in.reports(); r[0].FractionLost != 0 {
		t.Errorf("nothing was lost since, reported %+v", r)
	}
	if _, ok := in.arrivedAt(8, 1); ok {
		t.Error("a packet of an unknown stream has arrived")
	}
	audio, video := in.First()
	if !audio.IsZero() || !video.Equal(at) {
		t.Errorf("first audio %v, first video %v", audio, video)
	}
}

func TestOnlyRTPIsCounted(t *testing.T) {
	for name, b := range map[string][]byte{
		"STUN":       append([]byte{0, 1}, make([]byte, 30)...),
		"DTLS":       append([]byte{22, 254}, make([]byte, 30)...),
		"RTCP":       append([]byte{0x80, 200}, make([]byte, 30)...),
		"cut packet": packet(1, 2, 96)[:11],
		"nothing":    nil,
	} {
		if isRTP(b) {
			t.Errorf("%s is taken for RTP", name)
		}
	}
	if !isRTP(packet(1, 2, 96)) || !isRTP(packet(1, 2, 0x80|111)) {
		t.Error("RTP is not recognised")
	}
}

const agreed = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 109\r\na=rtpmap:109 opus/48000/2\r\na=extmap:4 " + sdp.SDESMidURI + "\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=extmap:3 " + sdp.TransportCCURI + "\r\n"

func TestInboundLearnsFromTheAnswer(t *testing.T) {
	in := newInbound(16)
	if err := in.learn(agreed); err != nil {
		t.Fatal(err)
	}
	at := in.since
	for i := range 20 {
		p := rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SSRC: 5, SequenceNumber: uint16(i)}, Payload: make([]byte, 30)}
		if i%4 == 3 {
			p.PayloadType, p.SSRC = 97, 6
		}
		ext, _ := rtp.TransportCCExtension{TransportSequence: uint16(1000 + i)}.Marshal()
		p.SetExtension(3, ext)
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if i != 10 { // lost
			in.arrive(b, at.Add(time.Duration(i)*time.Millisecond))
		}
	}
	in.arrive(packet(1, 8, 109), at.Add(time.Hour))
	if n, repairs := in.Packets(), in.Repairs(); n != 15 || repairs != 5 {
		t.Errorf("%d packets and %d repairs, want 15 and 5", n, repairs)
	}
	if n := in.Missing(); n != 5 { // the lost one, and four numbers that repairs have here
		t.Errorf("%d missing, want 5", n)
	}
	if audio, video := in.First(); !audio.Equal(at.Add(time.Hour)) || !video.Equal(at) {
		t.Errorf("first audio %v, first video %v", audio, video)
	}
	pkts := in.feedback()
	if len(pkts) != 1 {
		t.Fatalf("%d feedback packets, want 1", len(pkts))
	}
	cc := pkts[0].(*rtcp.TransportLayerCC)
	if cc.BaseSequenceNumber != 1000 || cc.PacketStatusCount != 20 || len(cc.RecvDeltas) != 19 {
		t.Errorf("feedback from %d on of %d packets, %d arrived; want 1000, 20, 19", cc.BaseSequenceNumber, cc.PacketStatusCount, len(cc.RecvDeltas))
	}
	if again := in.feedback(); len(again) != 0 {
		t.Errorf("nothing came since, told %v", again)
	}
	if err := in.learn("v=0\r\nm="); err == nil {
		t.Error("a cut description was read")
	}
}
