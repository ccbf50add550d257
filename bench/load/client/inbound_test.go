package client

import (
	"encoding/binary"
	"testing"
	"time"
)

func packet(seq uint16, ssrc uint32, pt byte) []byte {
	b := make([]byte, 40)
	b[0], b[1] = 0x80, pt
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return b
}

func TestInboundCountsAndReports(t *testing.T) {
	in := &Inbound{sample: 16, streams: map[uint32]*stream{}}
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
	if in.Packets() != 900 {
		t.Errorf("%d packets counted, want 900", in.Packets())
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
